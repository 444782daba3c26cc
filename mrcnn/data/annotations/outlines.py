"""The outlines of objects as annotation files hold them: polygons or run lengths, bounded by their image's size."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pycocotools.mask as coco_mask

from detectron_gn.mrcnn.data.json_values import told, whole_number
from detectron_gn.mrcnn.data.run_lengths import decoded_runs, runs_bounds, runs_cover
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.limits import FARTHEST_OUTLINE, LONGEST_OUTLINE, MOST_MASK_PIXELS

# Polygons as COCO writes them, each of (x, y, x, y, ...), or run lengths with `counts` and `size`.
Outline = list[list[float]] | Mapping[str, Any]
# x1, y1, x2, y2 in continuous coordinates.
Bounds = tuple[float, float, float, float]

# Numbers of a polygon of three points.
SMALLEST_POLYGON = 6
# In square pixels: what float64 makes of three points on a line is below, of COCO's two decimals above.
SMALLEST_AREA = 1e-6


def read_outline(segmentation: object, height: int, width: int, mend: Callable[[str], None]) -> Outline:
    """A COCO `segmentation` in the form that COCO's own files have; `[]` where there is none.

    Args:
        segmentation: the value of the file, None where it has none.
        height, width: of the image, in pixels.
        mend: told of every other form that is taken.

    Polygons of fewer than three points stay where they are; `polygons` leaves them out, as Detectron does.

    Raises InputError for what is neither polygons nor run lengths, or is larger than its image allows.
    """
    if segmentation is None:
        return []
    if isinstance(segmentation, list) and len(segmentation) == 1 and _is_run_lengths(segmentation[0]):
        mend("'segmentation' is a list with run lengths in it: they are taken")
        segmentation = segmentation[0]
    if _is_run_lengths(segmentation):
        read = _read_run_lengths(segmentation, height, width)
        if runs_bounds(_runs(read), height) is None:
            mend("run lengths in 'segmentation' that cover nothing: taken as no outline")
            return []
        return read
    if not isinstance(segmentation, list):
        raise InputError("segmentation is neither a list of polygons nor a run-length encoding with counts and size")
    found = _read_polygons(segmentation, mend)
    drawn = polygons(found)
    _check_extent(drawn, height, width)
    if drawn and all(map(_is_line, drawn)):
        mend("polygons in 'segmentation' whose points lie on a line, so that they cover nothing: taken as no outline")
        return []
    return found


def polygons(outline: list[list[float]]) -> list[list[float]]:
    """Those of three points and more: Detectron's (datasets/json_dataset.py:_add_gt_annotations)."""
    return [polygon for polygon in outline if len(polygon) >= SMALLEST_POLYGON]


def has_outline(annotation: Mapping[str, Any]) -> bool:
    """Whether an annotation that was read has more than its box."""
    outline = annotation["segmentation"]
    return isinstance(outline, Mapping) or any(len(polygon) >= SMALLEST_POLYGON for polygon in outline)


def encoded_outline(outline: Outline, height: int, width: int) -> dict[str, Any]:
    """An outline as pycocotools' compressed run lengths, with `counts` in bytes."""
    if isinstance(outline, Mapping):
        if isinstance(outline["counts"], list):
            encoded: dict[str, Any] = coco_mask.frPyObjects(outline, height, width)
            return encoded
        counts = outline["counts"]
        return {**outline, "counts": counts.encode("ascii") if isinstance(counts, str) else counts}
    merged: dict[str, Any] = coco_mask.merge(coco_mask.frPyObjects(polygons(outline), height, width))
    return merged


def outline_bounds(outline: Outline, height: int, width: int) -> Bounds:
    """The smallest box around an outline, edge to edge."""
    if isinstance(outline, Mapping):
        bounds = runs_bounds(_runs(outline), height)
        assert bounds is not None, "run lengths of nothing are read as no outline"
        return bounds
    drawn = polygons(outline)
    xs, ys = ([min(p[k::2]) for p in drawn] + [max(p[k::2]) for p in drawn] for k in (0, 1))
    return min(xs), min(ys), max(xs), max(ys)


def covered_pixels(outline: Outline, height: int, width: int) -> float:
    """How many pixels of its image an outline covers, as pycocotools draws it."""
    return float(coco_mask.area(encoded_outline(outline, height, width)))


def _is_run_lengths(value: object) -> bool:
    return isinstance(value, dict) and {"counts", "size"} <= value.keys()


def _runs(rle: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """The runs of run lengths that were read, as numbers."""
    counts = rle["counts"]
    runs = decoded_runs(counts.encode("ascii")) if isinstance(counts, str) else np.asarray(counts, dtype=np.int64)
    assert runs is not None
    return runs


def _read_run_lengths(rle: Any, height: int, width: int) -> Mapping[str, Any]:
    size, counts = rle["size"], rle["counts"]
    sides = [whole_number(side) for side in size] if isinstance(size, list) else []
    if sides != [height, width]:
        raise InputError(
            f"segmentation has the size {told(size)}, but the image is {height} x {width} (height x width)"
        )
    pixels = height * width
    if pixels > MOST_MASK_PIXELS:
        raise InputError(f"segmentation has {height} x {width} pixels, more than pycocotools can count")
    if isinstance(counts, str):
        covers = runs_cover(counts.encode("utf-8", "surrogatepass"), pixels)
    else:
        runs = [whole_number(run) for run in counts] if isinstance(counts, list) else [None]
        covers = all(run is not None and run >= 0 for run in runs) and sum(filter(None, runs)) == pixels
        counts = runs
    if not covers:
        raise InputError(f"segmentation holds run lengths that do not make up {height} x {width} pixels")
    return {**rle, "size": sides, "counts": counts}


def _read_polygons(segmentation: list[Any], mend: Callable[[str], None]) -> list[list[float]]:
    """Polygons as lists of numbers, from the forms that people write them in; `mend` is told of all but COCO's."""
    points = "'segmentation' is written as points: taken as polygons (x, y, x, y, ...)"
    if segmentation and _are_numbers(segmentation):
        mend("'segmentation' is one polygon without a list around it: taken as that polygon")
        return [segmentation]
    if segmentation and all(map(_is_point, segmentation)):
        mend(points)
        return [_joined(segmentation)]
    found: list[list[float]] = []
    for polygon in segmentation:
        if not isinstance(polygon, list):
            raise InputError(f"segmentation holds {told(polygon)} where a polygon [x, y, x, y, ...] should be")
        if _are_numbers(polygon):
            found.append(polygon)
        elif all(map(_is_point, polygon)):
            mend(points)
            found.append(_joined(polygon))
        elif all(isinstance(part, list) and _are_numbers(part) for part in polygon):
            mend("'segmentation' is a list of lists of polygons: taken as a list of polygons")
            found += polygon
        elif all(isinstance(part, list) and all(map(_is_point, part)) for part in polygon):
            if len(polygon) > 1:
                raise InputError("segmentation holds rings within a polygon: COCO has no holes, write run lengths")
            mend(points)
            found.append(_joined(polygon[0]))
        else:
            raise InputError("segmentation holds what is no number")
    return found


def _are_numbers(values: list[Any]) -> bool:
    return set(map(type, values)) <= {int, float}


def _is_point(value: Any) -> bool:
    if isinstance(value, dict):
        return value.keys() == {"x", "y"} and _are_numbers(list(value.values()))
    return isinstance(value, list) and len(value) == 2 and _are_numbers(value)


def _joined(points: list[Any]) -> list[float]:
    pairs = ([point["x"], point["y"]] if isinstance(point, dict) else point for point in points)
    return [coordinate for pair in pairs for coordinate in pair]


def _check_extent(drawn: list[list[float]], height: int, width: int) -> None:
    """Refuse what pycocotools would need a multiple of the image's own memory for, or would crash on."""
    longest, farthest = LONGEST_OUTLINE * (height + width), FARTHEST_OUTLINE * (height + width)
    for polygon in drawn:
        if len(polygon) % 2:
            raise InputError(f"segmentation holds a polygon of {len(polygon)} numbers: x and y come in pairs")
        if not _are_finite(polygon):
            raise InputError("segmentation holds a coordinate that is not finite or too large")
        xs, ys = polygon[0::2], polygon[1::2]
        low, high = min(min(xs), min(ys)), max(max(xs), max(ys))
        if low < -farthest or high > farthest:
            raise InputError(
                f"segmentation holds a coordinate of {low if low < -farthest else high:g}, far outside of its "
                f"{height} x {width} image (height x width)"
            )
        # No edge is longer than the polygon is wide or high, so that most polygons need not be measured.
        if len(xs) * (high - low) > longest:
            ends = zip(xs, ys, xs[1:] + xs[:1], ys[1:] + ys[:1], strict=True)
            length = sum(max(abs(x1 - x2), abs(y1 - y2)) for x1, y1, x2, y2 in ends)
            if length > longest:
                raise InputError(
                    f"segmentation holds a polygon {length:.0f} pixels long, more than {LONGEST_OUTLINE} times the "
                    f"height and width of its {height} x {width} image: write it as run lengths"
                )


def _is_line(polygon: list[float]) -> bool:
    """Whether all points of a polygon lie on one line, or in one place; most polygons tell by their first three."""
    x, y = polygon[:2]
    along = next(((a - x, b - y) for a, b in zip(polygon[2::2], polygon[3::2]) if (a, b) != (x, y)), (0.0, 0.0))
    return all(
        abs(along[0] * (b - y) - along[1] * (a - x)) <= SMALLEST_AREA for a, b in zip(polygon[2::2], polygon[3::2])
    )


def _are_finite(numbers: list[float]) -> bool:
    """Whether numbers are finite, and whole ones no larger than float64 holds."""
    try:
        return math.isfinite(sum(numbers))
    except OverflowError:
        return False
