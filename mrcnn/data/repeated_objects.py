"""Objects that an annotation file lists twice under two ids, as copying by hand and joining of files leave them."""

from collections.abc import Iterator

import numpy as np

from detectron_gn.mrcnn.data.annotations.ragged import IntArray
from detectron_gn.mrcnn.data.coco import CocoDataset


def repeated_objects(dataset: CocoDataset, rows: IntArray) -> Iterator[tuple[int, int]]:
    """Pairs of annotations, by their rows, of one image, class and box; the first of the file comes first.

    Crowds are none of them, nor what has the same id, which is refused.

    Args:
        rows: `[N]`, the annotations among which they are looked for.
    """
    columns = dataset.instances.columns
    rows = np.sort(rows[~columns.is_crowd[rows]])
    keys = [*columns.boxes[rows].T, columns.category_ids[rows], columns.image_ids[rows]]
    # Stable, so that those that are alike stay in the order of the file.
    order = np.lexsort(keys)
    is_alike = np.ones(max(0, len(rows) - 1), np.bool_)
    for key in keys:
        is_alike &= np.diff(key[order]) == 0
    first = rows[order[0]] if len(rows) else 0
    for place, alike in enumerate(is_alike.tolist(), 1):
        row = rows[order[place]]
        if not alike:
            first = row
        elif columns.ids[row] != columns.ids[first]:
            yield int(first), int(row)
