"""The data set that an annotation file describes: for training `read_dataset`, for evaluation `read_annotations`.

Both are built from what the one reader, `mrcnn.data.annotations.reader`, made of the file. Answers to Detectron
datasets/json_dataset.py:JsonDataset.
"""

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO

from detectron_gn.mrcnn.data.annotations.columns import AnnotationRecords
from detectron_gn.mrcnn.data.annotations.findings import Fault, annotation_subject, refuse_faults
from detectron_gn.mrcnn.data.annotations.images import ImageColumns
from detectron_gn.mrcnn.data.annotations.keypoints import keypoint_faults
from detectron_gn.mrcnn.data.annotations.ragged import IntArray, Ragged, starts_of
from detectron_gn.mrcnn.data.annotations.reader import Instances, read_instances
from detectron_gn.mrcnn.data.categories import BACKGROUND
from detectron_gn.mrcnn.data.image_files import ImageFolder
from detectron_gn.mrcnn.data.on_demand import OnDemand
from detectron_gn.mrcnn.errors import InputError

# A record of the file as the one reader understood it.
Annotation = Mapping[str, Any]
# An object's outline in pixels: polygons of (x, y, x, y, ...) float64, or a run-length encoded mask as COCO writes it.
Polygons = tuple[npt.NDArray[np.float64], ...]
Segm = Polygons | Mapping[str, Any]


class NoImageFile(InputError):
    """No file of an image is in the folder of images."""


@dataclass(frozen=True)
class CocoImage:
    """An image of the data set: its record, and its annotations in the order of the file, made when they are asked for.

    `place` is the one among the images of the data set.
    """

    place: int
    id: int
    file_name: str
    height: int
    width: int
    _records: AnnotationRecords
    _rows: IntArray

    @cached_property
    def annotations(self) -> tuple[Annotation, ...]:
        """Its annotations as records."""
        return tuple(self._records[row] for row in self._rows.tolist())


class CocoImages(OnDemand[CocoImage]):
    """The images of a data set, each made when it is asked for."""

    def __init__(self, images: ImageColumns, records: AnnotationRecords, rows: Ragged) -> None:
        self._images, self._records, self._rows = images, records, rows

    def __len__(self) -> int:
        return len(self._images)

    def make(self, place: int) -> CocoImage:
        """The image at a place."""
        images = self._images
        number, height, width = (int(column[place]) for column in (images.ids, images.heights, images.widths))
        return CocoImage(
            place, number, images.file_name(place), height, width, self._records, self._rows[place]
        )


@dataclass(frozen=True)
class CocoDataset:
    """Images sorted by id, and the classes in the order of the file's `categories`.

    `classes[0]` is the background; class `i` has the data set's own id `category_ids[i - 1]`
    (Detectron datasets/json_dataset.py: json_category_id_to_contiguous_id).

    Attributes:
        image_dir: where the images lie.
        classes: their names.
        instances: the annotation file as it was read.
    """

    image_dir: Path
    classes: tuple[str, ...]
    instances: Instances

    @property
    def annotation_file(self) -> Path:
        """The file that describes the data set."""
        return self.instances.path

    @property
    def categories(self) -> tuple[Annotation, ...]:
        """The file's records of classes 1, 2, ..."""
        return self.instances.categories

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The ids of classes 1, 2, ..."""
        return tuple(category["id"] for category in self.categories)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Of the records that cannot be used."""
        return self.instances.faults

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was mended, a sentence for each kind."""
        return self.instances.remarks

    @cached_property
    def rows(self) -> Ragged:
        """`[I]`, the numbers of the annotations of each image, in the order of the file."""
        images, columns = self.instances.images, self.instances.columns
        places = images.places(columns.image_ids)
        return Ragged(
            np.argsort(places, kind="stable"), starts_of(np.bincount(places, minlength=len(images)))
        )

    @cached_property
    def images(self) -> CocoImages:
        """The images without fault, with those of their annotations."""
        return CocoImages(self.instances.images, self.instances.annotations, self.rows)

    def refuse_faults(self) -> None:
        """Raise InputError where a record of the file cannot be used."""
        refuse_faults(self.annotation_file, self.faults)

    def keypoint_faults(self, count: int) -> tuple[Fault, ...]:
        """`keypoint_faults` of its records for a model of `count` keypoints; looked for once, however often asked."""
        if count not in self._keypoint_faults:
            named = (
                (annotation_subject(annotation, image.file_name), annotation)
                for image in self.images
                for annotation in image.annotations
            )
            self._keypoint_faults[count] = tuple(keypoint_faults(self.categories, named, count))
        return self._keypoint_faults[count]

    @cached_property
    def _keypoint_faults(self) -> dict[int, tuple[Fault, ...]]:
        return {}

    def image_names(self) -> list[str]:
        """The files of all images, relative to `image_dir`.

        Raises InputError where an image has none, or where several files may be it.
        """
        find = self.image_finder()
        return [find(place) for place in range(len(self.images))]

    def image_finder(self) -> Callable[[int], str]:
        """What finds the file of an image by its place; it raises InputError where `image_names` does."""
        images = self.instances.images
        names = list(map(images.file_name, range(len(images))))
        return partial(self._image_name, ImageFolder(self.image_dir, names), names)

    def _image_name(self, folder: ImageFolder, names: Sequence[str], place: int) -> str:
        image_id, file_name = int(self.instances.images.ids[place]), names[place]
        found = folder.find_name(image_id, file_name)
        if found is None:
            expected = folder.expected(image_id, file_name)
            if not file_name:
                raise NoImageFile(
                    f"image {image_id} has no 'file_name' in {self.annotation_file}, and {expected}, as COCO would "
                    "name it, is no file"
                )
            raise NoImageFile(f"{expected}: no such image file, but {self.annotation_file} lists it")
        return found


def read_dataset(annotation_file: str | Path, image_dir: str | Path) -> CocoDataset:
    """Read a COCO annotation file for images that lie in `image_dir`.

    Raises InputError for what is no annotation file or no folder. What is wrong with single records is in
    `instances.faults`, which `CocoDataset.refuse_faults` raises.
    """
    check_image_dir(image_dir)
    return dataset_of(read_instances(annotation_file), image_dir)


def check_image_dir(image_dir: str | Path) -> None:
    """Raise InputError where there is no such folder."""
    if not Path(image_dir).is_dir():
        raise InputError(f"{image_dir}: no such image folder")


def dataset_of(instances: Instances, image_dir: str | Path) -> CocoDataset:
    """The data set of an annotation file that was read, with images in the folder `image_dir`."""
    image_dir = Path(image_dir)
    return CocoDataset(image_dir, (BACKGROUND, *(category["name"] for category in instances.categories)), instances)


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
            "images": read.images.records(),
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
