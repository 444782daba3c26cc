"""COCO's results files, checked before pycocotools sees them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from pycocotools.coco import COCO

from detectron_gn.mrcnn.data.annotations.conventions import BoxConventions
from detectron_gn.mrcnn.data.json_file import read_json, stream_json_list
from detectron_gn.mrcnn.data.json_values import is_id, is_known, is_number, kind, told
from detectron_gn.mrcnn.data.run_lengths import runs_cover
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.limits import MOST_MASK_PIXELS
from detectron_gn.mrcnn.ops.keypoints import KEYPOINT_NAMES

IouType: TypeAlias = Literal["bbox", "segm", "keypoints"]
ResultRow: TypeAlias = Mapping[str, Any]

# The key that holds the shape of a results row, by IoU type.
SHAPE_KEY: dict[IouType, str] = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}

# Rows that are looked at together for what their boxes are.
_WATCHED = 1 << 16


def read_results(path: Path, *, may_be_empty: bool = False) -> list[ResultRow]:
    """Read a COCO results file: a list, of nothing only where that `may_be_empty`. `check_results` looks into its rows.

    A file of nothing has an AP, but there is nothing in it to compare.
    """
    rows = read_json(path, "a COCO results file")
    if not isinstance(rows, list):
        raise InputError(f"{path} is not a results file: it holds a {kind(rows)}, not a list of detections")
    if not rows and not may_be_empty:
        raise InputError(f"{path} holds no detections, so that there is nothing to compare")
    return rows


def stream_results(path: Path) -> Iterator[ResultRow]:
    """The rows of a COCO results file, which may be empty, one after another, in memory that does not grow with it."""
    yield from stream_json_list(path, "a COCO results file", lambda: read_results(path, may_be_empty=True))


def results_iou_type(rows: Sequence[ResultRow], source: str) -> IouType:
    """Whether the rows hold keypoints, masks or boxes alone, as the first row tells."""
    first = rows[0] if rows else {}
    if isinstance(first, Mapping):
        if "keypoints" in first:
            return "keypoints"
        if "segmentation" in first:
            return "segm"
        if "bbox" in first:
            return "bbox"
    raise InputError(f"{source}: row 0 has neither 'bbox' nor 'segmentation' nor 'keypoints'")


def check_results(
    rows: Sequence[ResultRow], iou_type: IouType, source: str, annotations: COCO | None = None
) -> None:
    """Raise InputError for the first row that is not a COCO result of this type.

    Args:
        source: what the sentence calls the rows: the file's name.
        annotations: where given, image ids, category ids and mask sizes must be its own.
    """
    for _ in checked_results(rows, iou_type, source, annotations):
        pass


def checked_results(
    rows: Iterable[ResultRow], iou_type: IouType, source: str, annotations: COCO | None = None
) -> Iterator[ResultRow]:
    """The rows, each of which `check_results` lets pass when it is its turn."""
    key = SHAPE_KEY[iou_type]
    for number, row in enumerate(rows):
        fault = _row_fault(row, key)
        if fault is None and annotations is not None:
            fault = _foreign(row, iou_type, annotations)
        if fault is not None:
            raise InputError(f"{source}: row {number} {fault}")
        yield row


def box_remarks(rows: Sequence[ResultRow], annotations: COCO) -> Iterator[str]:
    """What speaks against the boxes of checked rows being COCO's x, y, width, height in pixels, by its whole and count.

    Args:
        annotations: which the rows are of.
    """
    conventions, odd, first = BoxConventions(), 0, 0
    for start in range(0, len(rows), _WATCHED):
        part = rows[start : start + _WATCHED]
        images = [annotations.imgs[row["image_id"]] for row in part]
        boxes = np.array([row["bbox"] for row in part], np.float64).reshape(-1, 4)
        heights, widths = (np.array([image[key] for image in images], np.int64) for key in ("height", "width"))
        for places, _ in conventions.watch(boxes, np.full_like(boxes, np.nan), heights, widths):
            first = first if odd else start + int(places[0])
            odd += len(places)
    fault = conventions.fault()
    if fault is not None:
        yield fault
    elif odd:
        yield f"{odd} of {len(rows)} boxes leave their image, as COCO reads them (first: row {first})"


def _row_fault(row: ResultRow, key: str) -> str | None:
    if not isinstance(row, Mapping):
        return f"is a {kind(row)}, not a detection"
    for needed in ("image_id", "category_id", "score", key):
        if needed not in row:
            return f"has no '{needed}'"
    for name in ("image_id", "category_id"):
        if type(row[name]) is float and row[name].is_integer():
            return f"has the {name} {told(row[name])}, with a decimal point: write {row[name]:.0f}"
        if not is_id(row[name]):
            return f"has the {name} {told(row[name])}, which is neither a whole number nor a text"
    if not is_number(row["score"]):
        return f"has the score {told(row['score'])}, which is not a finite number"
    if key == "keypoints":
        return _keypoint_fault(row[key])
    return _box_fault(row[key]) if key == "bbox" else _mask_fault(row[key])


def _box_fault(box: Any) -> str | None:
    if not isinstance(box, Sequence) or len(box) != 4 or not all(map(is_number, box)):
        return f"has the bbox {told(box)}, which is not four finite numbers (x, y, width, height)"
    if box[2] < 0 or box[3] < 0:
        return f"has the bbox {told(box)}, whose width or height is negative"
    return None


def _keypoint_fault(keypoints: Any) -> str | None:
    wanted = 3 * len(KEYPOINT_NAMES)
    if not isinstance(keypoints, Sequence) or len(keypoints) != wanted or not all(map(is_number, keypoints)):
        return f"has keypoints that are not {wanted} finite numbers (x, y and a mark for each of {len(KEYPOINT_NAMES)})"
    return None


def _mask_fault(rle: Any) -> str | None:
    if not isinstance(rle, Mapping) or not isinstance(rle.get("counts"), str | bytes):
        return "has a segmentation other than compressed run lengths ({'size': [h, w], 'counts': text})"
    size = rle.get("size")
    if not isinstance(size, Sequence) or len(size) != 2 or any(type(n) is not int or n < 1 for n in size):
        return f"has a segmentation of size {told(size)}, which is not [height, width]"
    if size[0] * size[1] > MOST_MASK_PIXELS:
        return f"has a segmentation of {size[0]}x{size[1]} pixels, more than pycocotools can count"
    counts = rle["counts"]
    # What is no text, such as half of a surrogate pair, is no run length either.
    counts = counts if isinstance(counts, bytes) else counts.encode("utf-8", "surrogatepass")
    if not runs_cover(counts, size[0] * size[1]):
        return f"has run lengths that are damaged or do not make up {size[0]}x{size[1]} pixels"
    return None


def _foreign(row: ResultRow, iou_type: IouType, annotations: COCO) -> str | None:
    if not is_known(row["image_id"], annotations.imgs):
        return f"is of image {told(row['image_id'])}, which the annotations do not have: is it another data set?"
    if not is_known(row["category_id"], annotations.cats):
        return (
            f"is of category {told(row['category_id'])}, which the annotations do not have: "
            "results carry the data set's category ids, not class numbers"
        )
    if iou_type == "segm":
        image = annotations.imgs[row["image_id"]]
        size = [image.get("height"), image.get("width")]
        if list(row["segmentation"]["size"]) != size:
            return f"has a mask of size {row['segmentation']['size']}, but image {row['image_id']} has {size}"
    return None
