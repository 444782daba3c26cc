"""The one reader of annotation files in COCO's format: for training `read_dataset`, for evaluation `read_annotations`.

Answers to Detectron datasets/json_dataset.py:JsonDataset.
"""

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO

from detectron_gn.mrcnn.data.categories import BACKGROUND
from detectron_gn.mrcnn.data.image_files import ImageFolder
from detectron_gn.mrcnn.data.json_values import is_id, is_known, is_number, told
from detectron_gn.mrcnn.errors import InputError

Annotation = Mapping[str, Any]
# An object's outline in pixels: polygons of (x, y, x, y, ...) float64, or a run-length encoded mask as COCO writes it.
Polygons = tuple[npt.NDArray[np.float64], ...]
Segm = Polygons | Mapping[str, Any]

# pycocotools keeps the ids of annotations as float64, which counts no further.
_LARGEST_ID = 2**53

_IMAGE_KEYS = ("id", "file_name", "height", "width")
_ID_KEYS = ("id", "image_id", "category_id")
_ANNOTATION_KEYS = ("image_id", "category_id", "bbox", "area", "segmentation")


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
    """

    annotation_file: Path
    image_dir: Path
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    images: tuple[CocoImage, ...]

    @property
    def class_of_category(self) -> dict[int, int]:
        """Category id of the file to class number, from 1."""
        return {category_id: index for index, category_id in enumerate(self.category_ids, 1)}

    @cached_property
    def _folder(self) -> ImageFolder:
        return ImageFolder(self.image_dir, (image.file_name for image in self.images))

    def image_path(self, image: CocoImage) -> Path:
        """The image's file, or where it should be; InputError where several files may be it."""
        found = self._folder.find(image.id, image.file_name)
        return found or self._folder.expected(image.id, image.file_name)


def read_annotation_file(path: str | Path) -> dict[str, Any]:
    """The JSON of a COCO annotation file, with `images`, `annotations` and `categories` known to be lists of objects.

    Raises InputError that names the file and what is wrong with it.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): give a COCO annotation file") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}): give a COCO annotation file") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a JSON {type(content).__name__}: a COCO annotation file holds an object")
    for key in ("images", "annotations", "categories"):
        if key not in content:
            raise InputError(f"{path} has no {key!r}: a COCO annotation file with ground truth has it")
        records = content[key]
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise InputError(f"{path}: {key!r} must be a list of objects")
    return content


def read_dataset(annotation_file: str | Path, image_dir: str | Path) -> CocoDataset:
    """Read a COCO annotation file for images that lie in `image_dir`.

    Raises InputError for what cannot be trained on at all: records without the keys that are needed, a category or an
    image that is used and not declared. `mrcnn.data.check` lists everything that is merely odd.
    """
    annotation_file, image_dir = Path(annotation_file), Path(image_dir)
    if not image_dir.is_dir():
        raise InputError(f"{image_dir}: no such image folder")
    content = read_annotation_file(annotation_file)
    _require_keys(annotation_file, "images", content["images"], _IMAGE_KEYS)
    _require_keys(annotation_file, "annotations", content["annotations"], _ANNOTATION_KEYS)
    _require_keys(annotation_file, "categories", content["categories"], ("id", "name"))
    category_ids = tuple(category["id"] for category in content["categories"])
    declared = set(category_ids)
    if len({type(image["id"]) for image in content["images"]}) > 1:
        raise InputError(f"{annotation_file}: some ids of 'images' are numbers and some are texts: give one kind")
    # A repeated image id or annotation keeps the last record, as the dictionaries of pycocotools do.
    records = {image["id"]: image for image in content["images"]}
    annotations: dict[int, list[Annotation]] = {image_id: [] for image_id in records}
    for annotation in content["annotations"]:
        if annotation["category_id"] not in declared:
            raise InputError(
                f"{annotation_file}: annotation {annotation.get('id')} has category_id {annotation['category_id']}, "
                "which 'categories' does not list"
            )
        if annotation["image_id"] not in annotations:
            raise InputError(
                f"{annotation_file}: annotation {annotation.get('id')} has image_id {annotation['image_id']}, "
                "which 'images' does not list"
            )
        annotations[annotation["image_id"]].append(annotation)
    images = (
        CocoImage(
            image_id,
            records[image_id]["file_name"],
            records[image_id]["height"],
            records[image_id]["width"],
            tuple(annotations[image_id]),
        )
        for image_id in sorted(records)
    )
    names = (str(category["name"]) for category in content["categories"])
    return CocoDataset(annotation_file, image_dir, (BACKGROUND, *names), category_ids, tuple(images))


def read_annotations(path: Path) -> COCO:
    """Read an annotation file in COCO's instances format, indexed by pycocotools.

    Raises InputError for what would make pycocotools fail or, worse, score something else: missing lists and
    keys, ids that repeat or are of two kinds, annotations of unknown images or categories, and annotation ids below 1:
    pycocotools takes id 0 for "no match", and would count the detection of that object as false. Masks are left to
    `encode_masks`, since boxes are scored without them.
    """
    document = read_annotation_file(path)
    images = _ids(document["images"], f"{path}: image")
    categories = _ids(document["categories"], f"{path}: category")
    for category in document["categories"]:
        if not is_id(category.get("name", "")):
            raise InputError(f"{path}: category {category['id']}: its name {told(category['name'])} is no text")
    _ids(document["annotations"], f"{path}: annotation")
    for image in document["images"]:
        for side in ("height", "width"):
            if image.get(side) is not None and (type(image[side]) is not int or image[side] < 1):
                raise InputError(
                    f"{path}: image {image['id']}: '{side}' is {told(image[side])}: "
                    "give it in pixels, a whole number from 1 on"
                )
    for annotation in document["annotations"]:
        place = f"{path}: annotation {annotation['id']}"
        if not isinstance(annotation["id"], int) or not 1 <= annotation["id"] <= _LARGEST_ID:
            raise InputError(f"{place}: ids must be whole numbers from 1 to {_LARGEST_ID} for pycocotools")
        for key in ("image_id", "category_id", "area", "bbox", "iscrowd"):
            if key not in annotation:
                raise InputError(f"{place} has no '{key}', which COCO's evaluation needs")
        numbers = annotation["bbox"] if isinstance(annotation["bbox"], list) else []
        if len(numbers) != 4 or not all(map(is_number, [*numbers, annotation["area"]])):
            raise InputError(f"{place}: 'bbox' must be four finite numbers and 'area' one")
        if annotation["iscrowd"] not in (0, 1):
            raise InputError(f"{place}: 'iscrowd' is {told(annotation['iscrowd'])}: give 0, or 1 for a crowd")
        if not is_known(annotation["image_id"], images):
            raise InputError(f"{place}: its image {told(annotation['image_id'])} is not in the file")
        if not is_known(annotation["category_id"], categories):
            raise InputError(f"{place}: its category {told(annotation['category_id'])} is not in the file")
    coco = COCO()
    coco.dataset = document
    # pycocotools keeps no name of the file; sentences about it need one.
    coco.source = str(path)
    with quiet():
        coco.createIndex()
    return coco


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what pycocotools prints to itself."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def read_segm(segmentation: object) -> Segm:
    """A COCO `segmentation`; polygons of fewer than three points are left out.

    Raises InputError for what is neither a list of polygons nor a run-length encoding.
    """
    if isinstance(segmentation, dict) and {"counts", "size"} <= segmentation.keys():
        return segmentation
    if isinstance(segmentation, list) and all(isinstance(polygon, list) for polygon in segmentation):
        try:
            return tuple(np.asarray(polygon, dtype=np.float64) for polygon in segmentation if len(polygon) >= 6)
        except (TypeError, ValueError, OverflowError):
            raise InputError("segmentation holds what is no number") from None
    raise InputError("segmentation is neither a list of polygons nor a run-length encoding with counts and size")


def _require_keys(path: Path, kind: str, records: Sequence[Mapping[str, Any]], keys: tuple[str, ...]) -> None:
    for number, record in enumerate(records):
        for key in keys:
            if key not in record:
                raise InputError(f"{path}: {kind}[{number}] has no {key!r}")
            value = record[key]
            if key in _ID_KEYS and type(value) not in (int, str):
                raise InputError(f"{path}: {key!r} of {kind}[{number}] is {value!r}, no whole number and no text")
            if key == "file_name" and not isinstance(value, str):
                raise InputError(f"{path}: 'file_name' of {kind}[{number}] is {value!r}, no text")


def _ids(entries: list[dict[str, Any]], what: str) -> set[Any]:
    seen: set[Any] = set()
    for number, entry in enumerate(entries):
        if "id" not in entry:
            raise InputError(f"{what} number {number} has no 'id'")
        if not is_id(entry["id"]):
            raise InputError(
                f"{what} number {number} has the id {told(entry['id'])}, which is neither a whole number nor a text"
            )
        if entry["id"] in seen:
            raise InputError(f"{what} {told(entry['id'])} stands in the file twice: ids must differ")
        if type(entry["id"]) is not type(entries[0]["id"]):
            raise InputError(
                f"{what} number {number} has the id {told(entry['id'])} and the first one "
                f"{told(entries[0]['id'])}: give numbers or texts, pycocotools cannot sort both"
            )
        seen.add(entry["id"])
    return seen
