"""How many images and objects a data set has of each class: what a detector can learn of it."""

from dataclasses import dataclass

import numpy as np

from detectron_gn.mrcnn.data.annotations.ragged import IntArray
from detectron_gn.mrcnn.data.coco import CocoDataset
from detectron_gn.mrcnn.wording import in_one_line, printable

_HEADINGS = ("class", "images", "objects")


@dataclass(frozen=True)
class ClassCount:
    """A class, the images that show it and its objects, crowds not counted."""

    name: str
    images: int
    objects: int


def class_counts(dataset: CocoDataset, rows: IntArray) -> tuple[ClassCount, ...]:
    """The counts of each class, in the order of the categories.

    Args:
        rows: `[N]`, the annotations that count.
    """
    columns = dataset.instances.columns
    of_rows, image_ids = columns.category_ids[rows], columns.image_ids[rows]
    found = ((name, of_rows == number) for name, number in zip(dataset.classes[1:], dataset.category_ids, strict=True))
    return tuple(ClassCount(name, len(np.unique(image_ids[is_of])), int(is_of.sum())) for name, is_of in found)


def class_table(counts: tuple[ClassCount, ...], most: int) -> list[str]:
    """The lines of a table.

    Args:
        most: so many classes; the last line then counts the others.
    """
    cells = [(printable(in_one_line(each.name)), f"{each.images:,}", f"{each.objects:,}") for each in counts[:most]]
    if not cells:
        return []
    name, images, objects = (max(map(len, column)) for column in zip(_HEADINGS, *cells, strict=True))
    lines = [f"{row[0]:{name}}  {row[1]:>{images}}  {row[2]:>{objects}}" for row in (_HEADINGS, *cells)]
    return lines + ([f"... and {len(counts) - most} more classes"] if len(counts) > most else [])
