"""What each record of an annotation file means, decided once for training, evaluation and `check-data`."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from detectron_gn.mrcnn.data.annotations.keypoints import count_visible
from detectron_gn.mrcnn.data.annotations.outlines import (
    Bounds,
    covered_pixels,
    has_outline,
    outline_bounds,
    read_outline,
)
from detectron_gn.mrcnn.data.annotations.ragged import BoolArray, IntArray, NumberArray
from detectron_gn.mrcnn.data.json_values import is_number, is_text, told, whole_number
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.limits import LARGEST_SIDE, MOST_MASK_PIXELS

Record = dict[str, Any]
# Told of each thing that is mended.
Mend = Callable[[str], None]

# pycocotools keeps ids as float64 in places, which counts no further.
LARGEST_ID = 2**53
# Of a coordinate, a side or an area.
LARGEST_NUMBER = LARGEST_SIDE**2

NO_CROWD_GIVEN = "an annotation without 'iscrowd': taken as no crowd"
NO_OUTLINE = "an annotation without an outline: its box is used, masks are neither trained nor scored on it"


def read_id(value: Any, key: str = "id") -> int:
    """An id: a whole number. InputError for everything else, texts with numbers in them too."""
    if value is None:
        raise InputError(f"has no '{key}'")
    number = whole_number(value)
    if number is not None and abs(number) <= LARGEST_ID:
        return number
    if isinstance(value, str):
        raise InputError(f"{key} is {told(value)}, a text: COCO's ids are whole numbers, without quotes")
    if number is not None:
        raise InputError(f"{key} is {told(value)}: pycocotools counts to {LARGEST_ID}")
    raise InputError(f"{key} is {told(value)}, which is no whole number")


def read_category(record: Mapping[str, Any], mend: Mend) -> Record:
    """A category with a whole number as `id` and a text as `name`."""
    number = read_id(record.get("id"))
    name = record.get("name")
    if name is None:
        mend("a category without 'name': called by its id")
        name = str(number)
    elif type(name) is int:
        name = str(name)
    if not is_text(name):
        raise InputError(f"its name {told(name)} is no text")
    return {**record, "id": number, "name": name}


def _names_a_file(name: object) -> bool:
    """Whether a value may be a file name: text, in which Python's halves of surrogates stand for bytes not in UTF-8."""
    if not isinstance(name, str) or "\0" in name:
        return False
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def read_image_record(record: Mapping[str, Any], mend: Mend) -> Record:
    """An image with `id`, `file_name`, `height` and `width`, the last two in pixels."""
    number = read_id(record.get("id"))
    name = record.get("file_name")
    if name is None:
        mend("an image without 'file_name': looked for as COCO names its id")
        name = f"{number:012d}.jpg"
    if not _names_a_file(name):
        raise InputError(f"'file_name' is {told(name)}, no text that names a file")
    for key in ("height", "width"):
        if record.get(key) is None:
            raise InputError(f"has no '{key}': give the size of every image in pixels, as COCO does")
    height, width = (whole_number(record[key]) for key in ("height", "width"))
    if height is None or width is None or not (0 < height <= LARGEST_SIDE and 0 < width <= LARGEST_SIDE):
        raise InputError(f"height {told(record['height'])} and width {told(record['width'])} are no size")
    if height * width > MOST_MASK_PIXELS:
        raise InputError(f"height {height} and width {width} are more pixels than pycocotools can count")
    return {"id": number, "file_name": name, "height": height, "width": width}


def read_annotation(record: Mapping[str, Any], height: int, width: int, mend: Mend) -> tuple[Record, Bounds | None]:
    """An annotation of a `height` x `width` image with `bbox`, `area`, `iscrowd` and `segmentation`; ids as they are.

    What the file leaves out is filled in, by the outline where there is one: `bbox` by the box around it, `area` by the
    pixels that it covers. The second value is the box around the outline; None without one.
    """
    iscrowd = record.get("iscrowd")
    if iscrowd is None:
        mend(NO_CROWD_GIVEN)
        iscrowd = 0
    if not isinstance(iscrowd, int | float) or iscrowd not in (0, 1):
        raise InputError(f"iscrowd is {told(iscrowd)} instead of 0 or 1")
    outline = read_outline(record.get("segmentation"), height, width, mend)
    read = {**record, **count_visible(record, mend), "segmentation": outline, "iscrowd": int(iscrowd)}
    bounds = None
    if has_outline(read):
        bounds = outline_bounds(outline, height, width)
    else:
        mend(NO_OUTLINE)
    read["bbox"] = _box(record.get("bbox"), bounds, mend)
    read["area"] = _area(record.get("area"), read, bounds, height, width, mend)
    if bounds is not None and not iscrowd and bool(are_apart(*map(np.array, (read["bbox"], bounds, height, width)))):
        raise InputError(
            f"its outline, from ({bounds[0]:g}, {bounds[1]:g}) to ({bounds[2]:g}, {bounds[3]:g}), lies wholly outside "
            f"of its bbox {told(read['bbox'])}"
        )
    return read, bounds


def _box(bbox: Any, bounds: Bounds | None, mend: Mend) -> list[float]:
    if bbox is None:
        if bounds is None:
            raise InputError("has no 'bbox', and no outline to take it from")
        mend("an annotation without 'bbox': the box around its outline is taken")
        return [bounds[0], bounds[1], bounds[2] - bounds[0], bounds[3] - bounds[1]]
    if not isinstance(bbox, list):
        raise InputError("bbox is not a list of x, y, width and height")
    if len(bbox) != 4:
        raise InputError(f"bbox has {len(bbox)} numbers instead of x, y, width and height")
    for side in bbox:
        _check_number("bbox", side)
    if min(bbox[2:]) < 0:
        raise InputError(f"bbox {told(bbox)} has a negative width or height: COCO's is x, y, width, height")
    return bbox


def _area(area: Any, read: Record, bounds: Bounds | None, height: int, width: int, mend: Mend) -> Any:
    if area is not None:
        _check_number("area", area)
        if area < 0:
            raise InputError(f"area is {told(area)}, which is negative: leave it out to have it taken from the outline")
        return area
    if bounds is None:
        mend("an annotation without 'area': that of its box is taken")
        return float(read["bbox"][2] * read["bbox"][3])
    mend("an annotation without 'area': the pixels that its outline covers are counted")
    return covered_pixels(read["segmentation"], height, width)


def _check_number(key: str, value: Any) -> None:
    if type(value) not in (int, float):
        raise InputError(f"{key} holds {told(value)}, which is not a number")
    if not is_number(value) or abs(value) > LARGEST_NUMBER:
        raise InputError(f"{key} holds {told(value)}, which is not finite or too large")


def are_apart(boxes: NumberArray, bounds: NumberArray, heights: IntArray, widths: IntArray) -> BoolArray:
    """Whether each outline and its box are more than a pixel apart; not where there is no outline.

    A box of a pixel or less within the image says nothing: Detectron drops the annotation for it.

    Args:
        boxes: `[..., 4]` as in the file.
        bounds: `[..., 4]`, the corners of the box around each outline; NaN where there is none.
        heights, widths: `[...]`, of their images.
    """
    x1, y1, w, h = np.moveaxis(boxes, -1, 0)
    left, top, right, bottom = np.moveaxis(bounds, -1, 0)
    x2, y2 = x1 + w, y1 + h
    is_seen = (np.minimum(x2, widths) - np.maximum(x1, 0) > 1) & (np.minimum(y2, heights) - np.maximum(y1, 0) > 1)
    gaps = np.maximum(np.maximum(left - x2, x1 - right), np.maximum(top - y2, y1 - bottom))
    apart: BoolArray = is_seen & (gaps > 1)
    return apart
