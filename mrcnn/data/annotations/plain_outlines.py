"""Outlines as COCO's own files have them, read into columns all at once; the others go to their rule one by one."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from detectron_gn.mrcnn.data.annotations.columns import OutlineColumns, compressed_texts, outline_columns
from detectron_gn.mrcnn.data.annotations.outlines import (
    SMALLEST_AREA,
    SMALLEST_POLYGON,
    Outline,
    outline_bounds,
    polygons,
    read_outline,
)
from detectron_gn.mrcnn.data.annotations.ragged import BoolArray, IntArray, NumberArray, Ragged, numbers, starts_of
from detectron_gn.mrcnn.limits import FARTHEST_OUTLINE, LONGEST_OUTLINE

Size = tuple[int, int]


class Outlines(NamedTuple):
    """Outlines that were read, and `[A, 4]`, the box around each, edge to edge: NaN where there is none."""

    columns: OutlineColumns
    bounds: NumberArray


def read_outlines(given: Sequence[Any], sizes: Sequence[Size], mend: Callable[[int, str], None]) -> Outlines:
    """The values of `segmentation` of annotations, None where one has none, as `read_outline` reads each.

    Args:
        sizes: height and width of the image of each.
        mend: told of each that is not as COCO's own files have it, by its number.

    Raises InputError where `read_outline` does.
    """
    is_plain = np.array([_looks_plain(each) for each in given], np.bool_)
    counts = [len(each) if plain else 0 for each, plain in zip(given, is_plain.tolist(), strict=True)]
    drawn = _polygons([each for each, plain in zip(given, is_plain.tolist(), strict=True) if plain])
    bounds = np.full((len(given), 4), np.nan)
    if drawn is None:
        is_plain[:] = False
    elif len(drawn):
        plain = np.flatnonzero(is_plain)
        heights, widths = np.array(sizes, np.int64).T
        of_outline = starts_of([counts[place] for place in plain.tolist()])
        bounds[plain], is_plain[plain] = _examined(drawn, of_outline, heights[plain], widths[plain])
    outlines: list[Outline] = list(given)
    for place in np.flatnonzero(~is_plain).tolist():
        height, width = sizes[place]
        outline = read_outline(given[place], height, width, partial(mend, place))
        is_drawn = isinstance(outline, Mapping) or bool(polygons(outline))
        bounds[place] = outline_bounds(outline, height, width) if is_drawn else np.nan
        outlines[place] = outline
    if drawn is None or counts != [0 if isinstance(each, Mapping) else len(each) for each in outlines]:
        return Outlines(outline_columns(outlines, sizes), bounds)
    return Outlines(OutlineColumns(drawn, starts_of(counts), compressed_texts(outlines, sizes)), bounds)


def _looks_plain(segmentation: Any) -> bool:
    """Whether it is a list of lists, each as long as the numbers of a polygon."""
    if type(segmentation) is not list or not segmentation:
        return False
    for polygon in segmentation:
        if type(polygon) is not list or len(polygon) < SMALLEST_POLYGON or len(polygon) % 2:
            return False
    return True


def _polygons(outlines: Sequence[list[list[Any]]]) -> Ragged | None:
    """The polygons of outlines; None where anything in them is no finite number."""
    lists = list(chain.from_iterable(outlines))
    values = numbers([*chain.from_iterable(lists)])
    return None if values is None else Ragged(values, starts_of(list(map(len, lists))))


def _examined(
    drawn: Ragged, starts: IntArray, heights: IntArray, widths: IntArray
) -> tuple[NumberArray, BoolArray]:
    """The boxes `[N, 4]` around outlines, and of which of them it is sure that their rule takes them as they are.

    Args:
        drawn: their polygons, at least one each.
        starts: `[N + 1]`, where those of each outline begin.
        heights, widths: `[N]`, of their images.
    """
    counts = np.diff(starts)
    xs, ys, first = drawn.values[0::2], drawn.values[1::2], drawn.starts[:-1] // 2
    lows, highs = ([end.reduceat(c, first) for c in (xs, ys)] for end in (np.minimum, np.maximum))
    low, high = np.minimum(*lows), np.maximum(*highs)
    sides = np.repeat(heights + widths, counts)
    is_near = (low >= -FARTHEST_OUTLINE * sides) & (high <= FARTHEST_OUTLINE * sides)
    # No edge is longer than the polygon is wide or high.
    is_short = drawn.lengths // 2 * (high - low) <= LONGEST_OUTLINE * sides
    along_x, along_y, next_x, next_y = (c[first + n] - c[first] for n in (1, 2) for c in (xs, ys))
    has_area = np.abs(along_x * next_y - along_y * next_x) > SMALLEST_AREA
    begins = starts[:-1]
    is_sure = np.logical_and.reduceat(is_near & is_short, begins) & np.logical_or.reduceat(has_area, begins)
    x1, y1 = (np.minimum.reduceat(each, begins) for each in lows)
    x2, y2 = (np.maximum.reduceat(each, begins) for each in highs)
    return np.stack((x1, y1, x2, y2), axis=1), is_sure
