"""The data set that an annotation file describes: for training `read_dataset`, for evaluation `read_annotations`.

Both are built from what the one reader, `mrcnn.data.annotations.reader`, made of the file. Answers to Detectron
datasets/json_dataset.py:JsonDataset.
"""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO

from detectron_gn.mrcnn.data.annotations.findings import Fault, refuse_faults
from detectron_gn.mrcnn.data.annotations.outlines import Outline, polygons
from detectron_gn.mrcnn.data.annotations.reader import Instances, read_instances
from detectron_gn.mrcnn.data.categories import BACKGROUND
from detectron_gn.mrcnn.data.image_files import ImageFolder
from detectron_gn.mrcnn.errors import InputError

# A record of the file as the one reader understood it.
Annotation = Mapping[str, Any]
# An object's outline in pixels: polygons of (x, y, x, y, ...) float64, or a run-length encoded mask as COCO writes it.
Polygons = tuple[npt.NDArray[np.float64], ...]
Segm = Polygons | Mapping[str, Any]


@dataclass(frozen=True)
class CocoImage:
    """An image of the data set: its record, and its annotations in the order of the file."""

    id: int
    file_name: str
    height: int
    width: int
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True)
class CocoDataset:
    """Images sorted by id, and the classes in the order of the file's `categories`.

    `classes[0]` is the background; class `i` has the data set's own id `category_ids[i - 1]`
    (Detectron datasets/json_dataset.py: json_category_id_to_contiguous_id).

    `images` and their annotations are those without fault; `faults` has the others. `remarks` says what was mended.
    `image_count` and `annotation_count` are those of the file; `categories` are its records of classes 1, 2, ...
    """

    annotation_file: Path
    image_dir: Path
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    images: tuple[CocoImage, ...]
    faults: tuple[Fault, ...]
    remarks: tuple[str, ...]
    image_count: int
    annotation_count: int
    categories: tuple[Annotation, ...]

    def refuse_faults(self) -> None:
        """Raise InputError where a record of the file cannot be used."""
        refuse_faults(self.annotation_file, self.faults)

    @property
    def class_of_category(self) -> dict[int, int]:
        """Category id of the file to class number, from 1."""
        return {category_id: index for index, category_id in enumerate(self.category_ids, 1)}

    @cached_property
    def _folder(self) -> ImageFolder:
        return ImageFolder(self.image_dir, (image.file_name for image in self.images))

    def image_path(self, image: CocoImage) -> Path:
        """The image's file; InputError where there is none, or where several files may be it."""
        found = self._folder.find(image.id, image.file_name)
        if found is None:
            expected = self._folder.expected(image.id, image.file_name)
            if not image.file_name:
                raise InputError(
                    f"image {image.id} has no 'file_name' in {self.annotation_file}, and {expected}, as COCO would "
                    "name it, is no file"
                )
            raise InputError(f"{expected}: no such image file, but {self.annotation_file} lists it")
        return found


def read_dataset(annotation_file: str | Path, image_dir: str | Path) -> CocoDataset:
    """Read a COCO annotation file for images that lie in `image_dir`.

    Raises InputError for what is no annotation file or no folder. What is wrong with single records is in `faults`,
    which `CocoDataset.refuse_faults` raises.
    """
    image_dir = Path(image_dir)
    if not image_dir.is_dir():
        raise InputError(f"{image_dir}: no such image folder")
    read = read_instances(annotation_file)
    annotations: dict[int, list[Annotation]] = {image["id"]: [] for image in read.images}
    for annotation in read.annotations:
        annotations[annotation["image_id"]].append(annotation)
    images = (
        CocoImage(image["id"], image["file_name"], image["height"], image["width"], tuple(annotations[image["id"]]))
        for image in sorted(read.images, key=lambda image: int(image["id"]))
    )
    return CocoDataset(
        read.path,
        image_dir,
        (BACKGROUND, *(category["name"] for category in read.categories)),
        tuple(category["id"] for category in read.categories),
        tuple(images),
        read.faults,
        read.remarks,
        read.image_count,
        read.annotation_count,
        read.categories,
    )


class CocoIndex(COCO):  # type: ignore[misc]
    """The annotations of a file as pycocotools indexes them.

    Attributes:
        source: the file's name, for sentences about it.
        remarks: what was mended in it, a sentence for each kind.
    """

    def __init__(self, read: Instances) -> None:
        super().__init__()
        self.source, self.remarks = str(read.path), read.remarks
        self.dataset = {
            "images": list(read.images),
            "categories": list(read.categories),
            "annotations": _numbered_for_pycocotools(read.annotations),
        }
        with quiet():
            self.createIndex()


def read_annotations(path: Path) -> CocoIndex:
    """Read an annotation file in COCO's instances format, indexed by pycocotools, for evaluation.

    Raises InputError for what is no annotation file or has records that cannot be used.
    """
    read = read_instances(path)
    refuse_faults(read.path, read.faults)
    return CocoIndex(read)


def _numbered_for_pycocotools(annotations: Sequence[Annotation]) -> list[dict[str, Any]]:
    """The annotations with ids from 1 on: pycocotools takes an object with the id 0 for one that nothing matches.

    Ids tell nothing but one object from another, so other ones change no AP.
    """
    if all(annotation["id"] > 0 for annotation in annotations):
        return [dict(annotation) for annotation in annotations]
    return [{**annotation, "id": number} for number, annotation in enumerate(annotations, 1)]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what pycocotools prints to itself."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def read_segm(outline: Outline) -> Segm:
    """An outline that was read, as training takes it; polygons of fewer than three points are left out."""
    if isinstance(outline, Mapping):
        return outline
    return tuple(np.asarray(polygon, dtype=np.float64) for polygon in polygons(outline))
