"""COCO's annotation and results files, checked before pycocotools sees them."""

import contextlib
import io
import json
import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pycocotools.coco import COCO

from detectron_gn.mrcnn.data import coco as coco_module
from detectron_gn.mrcnn.data.annotation_errors import annotation_fault
from detectron_gn.mrcnn.data.run_lengths import MOST_PIXELS, runs_cover
from detectron_gn.mrcnn.errors import InputError

IouType: TypeAlias = Literal["bbox", "segm"]
ResultRow: TypeAlias = Mapping[str, Any]

# pycocotools keeps the ids of annotations as float64, which counts no further.
_LARGEST_ID = 2**53

# The key that holds the shape of a results row, by IoU type.
SHAPE_KEY: dict[IouType, str] = {"bbox": "bbox", "segm": "segmentation"}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what pycocotools prints to itself."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def read_annotations(path: Path) -> COCO:
    """Read an annotation file in COCO's instances format, indexed by pycocotools.

    Raises InputError for what would make pycocotools fail or, worse, score something else: missing lists and
    keys, ids that repeat or are of two kinds, annotations of unknown images or categories, and annotation ids below 1:
    pycocotools takes id 0 for "no match", and would count the detection of that object as false. Masks are left to
    `encode_masks`, since boxes are scored without them.
    """
    document = coco_module.read_annotations(path)
    images = _ids(document["images"], f"{path}: image")
    categories = _ids(document["categories"], f"{path}: category")
    for category in document["categories"]:
        if not _is_id(category.get("name", "")):
            raise InputError(f"{path}: category {category['id']}: its name {_told(category['name'])} is no text")
    _ids(document["annotations"], f"{path}: annotation")
    for image in document["images"]:
        for side in ("height", "width"):
            if image.get(side) is not None and (type(image[side]) is not int or image[side] < 1):
                raise InputError(
                    f"{path}: image {image['id']}: '{side}' is {_told(image[side])}: "
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
        if len(numbers) != 4 or not all(map(_is_number, [*numbers, annotation["area"]])):
            raise InputError(f"{place}: 'bbox' must be four finite numbers and 'area' one")
        if annotation["iscrowd"] not in (0, 1):
            raise InputError(f"{place}: 'iscrowd' is {_told(annotation['iscrowd'])}: give 0, or 1 for a crowd")
        if not _is_known(annotation["image_id"], images):
            raise InputError(f"{place}: its image {_told(annotation['image_id'])} is not in the file")
        if not _is_known(annotation["category_id"], categories):
            raise InputError(f"{place}: its category {_told(annotation['category_id'])} is not in the file")
    coco = COCO()
    coco.dataset = document
    # pycocotools keeps no name of the file; sentences about it need one.
    coco.source = str(path)
    with quiet():
        coco.createIndex()
    return coco


def encode_masks(annotations: COCO) -> None:
    """Turn the annotations' outlines into run lengths in place, as pycocotools would when it scores masks.

    Raises InputError for the first image without a size or annotation without an outline that pycocotools can read.
    What is run lengths already stays as it is, so that a second call costs nothing to speak of.
    """
    source = getattr(annotations, "source", "the annotations")
    for annotation in annotations.dataset["annotations"]:
        place = f"{source}: annotation {annotation['id']}"
        segmentation = annotation.get("segmentation")
        if segmentation is None:
            raise InputError(f"{place} has no 'segmentation', which mask AP needs")
        if isinstance(segmentation, Mapping) and isinstance(segmentation.get("counts"), bytes):
            continue
        image = annotations.imgs[annotation["image_id"]]
        height, width = image.get("height"), image.get("width")
        if height is None or width is None:
            raise InputError(f"{source}: image {image['id']} has no 'height' or no 'width', which mask AP needs")
        if height * width > MOST_PIXELS:
            raise InputError(f"{source}: image {image['id']} has more pixels than pycocotools can count: give its size")
        fault = annotation_fault(annotation, height, width)
        if fault is not None:
            raise InputError(f"{place}: {fault}")
        try:
            rle = annotations.annToRLE(annotation)
        except Exception as error:  # pycocotools raises what the malformed polygon happens to run into
            raise InputError(
                f"{place}: its segmentation is not a polygon or run lengths that pycocotools reads "
                f"({type(error).__name__}: {error})"
            ) from None
        counts = rle["counts"]
        annotation["segmentation"] = {**rle, "counts": counts.encode("ascii") if isinstance(counts, str) else counts}


def read_results(path: Path) -> list[ResultRow]:
    """Read a COCO results file: a list that is not empty. `check_results` looks into its rows."""
    try:
        rows = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(rows, list):
        raise InputError(f"{path} is not a results file: it holds a {_kind(rows)}, not a list of detections")
    if not rows:
        raise InputError(f"{path} holds no detections")
    return rows


def results_iou_type(rows: Sequence[ResultRow], source: str) -> IouType:
    """Whether the rows hold masks or boxes alone, as the first row tells."""
    first = rows[0] if rows else {}
    if isinstance(first, Mapping):
        if "segmentation" in first:
            return "segm"
        if "bbox" in first:
            return "bbox"
    raise InputError(f"{source}: row 0 has neither 'bbox' nor 'segmentation'")


def check_results(
    rows: Sequence[ResultRow], iou_type: IouType, source: str, annotations: COCO | None = None
) -> None:
    """Raise InputError for the first row that is not a COCO result of this type.

    Args:
        source: what the sentence calls the rows: the file's name.
        annotations: where given, image ids, category ids and mask sizes must be its own.
    """
    key = SHAPE_KEY[iou_type]
    for number, row in enumerate(rows):
        fault = _row_fault(row, key)
        if fault is None and annotations is not None:
            fault = _foreign(row, iou_type, annotations)
        if fault is not None:
            raise InputError(f"{source}: row {number} {fault}")


def _row_fault(row: ResultRow, key: str) -> str | None:
    if not isinstance(row, Mapping):
        return f"is a {_kind(row)}, not a detection"
    for needed in ("image_id", "category_id", "score", key):
        if needed not in row:
            return f"has no '{needed}'"
    for name in ("image_id", "category_id"):
        if not _is_id(row[name]):
            return f"has the {name} {_told(row[name])}, which is neither a whole number nor a text"
    if not _is_number(row["score"]):
        return f"has the score {_told(row['score'])}, which is not a finite number"
    return _box_fault(row[key]) if key == "bbox" else _mask_fault(row[key])


def _box_fault(box: Any) -> str | None:
    if not isinstance(box, Sequence) or len(box) != 4 or not all(map(_is_number, box)):
        return f"has the bbox {_told(box)}, which is not four finite numbers (x, y, width, height)"
    if box[2] < 0 or box[3] < 0:
        return f"has the bbox {_told(box)}, whose width or height is negative"
    return None


def _mask_fault(rle: Any) -> str | None:
    if not isinstance(rle, Mapping) or not isinstance(rle.get("counts"), str | bytes):
        return "has a segmentation other than compressed run lengths ({'size': [h, w], 'counts': text})"
    size = rle.get("size")
    if not isinstance(size, Sequence) or len(size) != 2 or any(type(n) is not int or n < 1 for n in size):
        return f"has a segmentation of size {_told(size)}, which is not [height, width]"
    if size[0] * size[1] > MOST_PIXELS:
        return f"has a segmentation of {size[0]}x{size[1]} pixels, more than pycocotools can count"
    counts = rle["counts"]
    # What is no text, such as half of a surrogate pair, is no run length either.
    counts = counts if isinstance(counts, bytes) else counts.encode("utf-8", "surrogatepass")
    if not runs_cover(counts, size[0] * size[1]):
        return f"has run lengths that are damaged or do not make up {size[0]}x{size[1]} pixels"
    return None


def _foreign(row: ResultRow, iou_type: IouType, annotations: COCO) -> str | None:
    if not _is_known(row["image_id"], annotations.imgs):
        return f"is of image {_told(row['image_id'])}, which the annotations do not have: is it another data set?"
    if not _is_known(row["category_id"], annotations.cats):
        return (
            f"is of category {_told(row['category_id'])}, which the annotations do not have: "
            "results carry the data set's category ids, not class numbers"
        )
    if iou_type == "segm":
        image = annotations.imgs[row["image_id"]]
        size = [image.get("height"), image.get("width")]
        if list(row["segmentation"]["size"]) != size:
            return f"has a mask of size {row['segmentation']['size']}, but image {row['image_id']} has {size}"
    return None


def _ids(entries: list[dict[str, Any]], what: str) -> set[Any]:
    seen: set[Any] = set()
    for number, entry in enumerate(entries):
        if "id" not in entry:
            raise InputError(f"{what} number {number} has no 'id'")
        if not _is_id(entry["id"]):
            raise InputError(
                f"{what} number {number} has the id {_told(entry['id'])}, which is neither a whole number nor a text"
            )
        if entry["id"] in seen:
            raise InputError(f"{what} {_told(entry['id'])} stands in the file twice: ids must differ")
        if type(entry["id"]) is not type(entries[0]["id"]):
            raise InputError(
                f"{what} number {number} has the id {_told(entry['id'])} and the first one "
                f"{_told(entries[0]['id'])}: give numbers or texts, pycocotools cannot sort both"
            )
        seen.add(entry["id"])
    return seen


def _is_known(identity: Any, known: Mapping[Any, Any] | set[Any]) -> bool:
    return _is_id(identity) and identity in known


def _is_id(value: Any) -> bool:
    """Whether a value of JSON may be an id."""
    return type(value) is int or _is_text(value)


def _is_text(value: Any) -> bool:
    """Whether a value of JSON is text that can be written to a file: half of a surrogate pair cannot."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _is_number(value: Any) -> bool:
    """Whether a value of JSON is a number that float64 holds."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def _told(value: Any) -> str:
    """A value in a sentence, cut short where it is long."""
    return reprlib.repr(value)


def _kind(value: Any) -> str:
    return {dict: "JSON object", list: "list", str: "text", bool: "truth value"}.get(type(value), "number")
