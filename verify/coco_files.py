"""COCO's annotation and results files, checked before pycocotools sees them."""

import contextlib
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pycocotools.coco import COCO

import mrcnn.data.coco
from mrcnn.data.run_lengths import MOST_PIXELS, runs_cover
from mrcnn.errors import InputError

IouType: TypeAlias = Literal["bbox", "segm"]
ResultRow: TypeAlias = Mapping[str, Any]

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
    keys, ids that repeat, annotations of unknown images or categories, and annotation ids below 1:
    pycocotools takes id 0 for "no match", and would count the detection of that object as false.
    """
    document = mrcnn.data.coco.read_annotations(path)
    images = _ids(document["images"], f"{path}: image")
    categories = _ids(document["categories"], f"{path}: category")
    _ids(document["annotations"], f"{path}: annotation")
    for annotation in document["annotations"]:
        place = f"{path}: annotation {annotation['id']}"
        if not isinstance(annotation["id"], int) or annotation["id"] < 1:
            raise InputError(f"{place}: ids must be whole numbers from 1 on for pycocotools")
        for key in ("image_id", "category_id", "area", "bbox", "iscrowd"):
            if key not in annotation:
                raise InputError(f"{place} has no '{key}', which COCO's evaluation needs")
        numbers = annotation["bbox"] if isinstance(annotation["bbox"], list) else []
        if len(numbers) != 4 or not all(map(_is_number, [*numbers, annotation["area"]])):
            raise InputError(f"{place}: 'bbox' must be four finite numbers and 'area' one")
        if not _is_known(annotation["image_id"], images):
            raise InputError(f"{place}: its image {annotation['image_id']!r} is not in the file")
        if not _is_known(annotation["category_id"], categories):
            raise InputError(f"{place}: its category {annotation['category_id']!r} is not in the file")
    coco = COCO()
    coco.dataset = document
    with quiet():
        coco.createIndex()
    return coco


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
    if not _is_number(row["score"]):
        return f"has the score {row['score']!r}, which is not a finite number"
    return _box_fault(row[key]) if key == "bbox" else _mask_fault(row[key])


def _box_fault(box: Any) -> str | None:
    if not isinstance(box, Sequence) or len(box) != 4 or not all(map(_is_number, box)):
        return f"has the bbox {box!r}, which is not four finite numbers (x, y, width, height)"
    if box[2] < 0 or box[3] < 0:
        return f"has the bbox {box!r}, whose width or height is negative"
    return None


def _mask_fault(rle: Any) -> str | None:
    if not isinstance(rle, Mapping) or not isinstance(rle.get("counts"), str | bytes):
        return "has a segmentation other than compressed run lengths ({'size': [h, w], 'counts': text})"
    size = rle.get("size")
    if not isinstance(size, Sequence) or len(size) != 2 or any(type(n) is not int or n < 1 for n in size):
        return f"has a segmentation of size {size!r}, which is not [height, width]"
    if size[0] * size[1] > MOST_PIXELS:
        return f"has a segmentation of {size[0]}x{size[1]} pixels, more than pycocotools can count"
    counts = rle["counts"]
    if not runs_cover(counts if isinstance(counts, bytes) else counts.encode("utf-8"), size[0] * size[1]):
        return f"has run lengths that are damaged or do not make up {size[0]}x{size[1]} pixels"
    return None


def _foreign(row: ResultRow, iou_type: IouType, annotations: COCO) -> str | None:
    if not _is_known(row["image_id"], annotations.imgs):
        return f"is of image {row['image_id']!r}, which the annotations do not have: is it another data set?"
    if not _is_known(row["category_id"], annotations.cats):
        return (
            f"is of category {row['category_id']!r}, which the annotations do not have: "
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
        if not isinstance(entry.get("id"), int | str):
            raise InputError(f"{what} number {number} has no 'id'")
        if entry["id"] in seen:
            raise InputError(f"{what} {entry['id']} stands in the file twice: ids must differ")
        seen.add(entry["id"])
    return seen


def _is_known(identity: Any, known: Mapping[Any, Any] | set[Any]) -> bool:
    return isinstance(identity, int | str) and identity in known


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _kind(value: Any) -> str:
    return {dict: "JSON object", list: "list", str: "text", bool: "truth value"}.get(type(value), "number")
