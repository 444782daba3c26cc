"""Annotations that are as COCO's own files have them, read into columns all at once.

The rules for a record are in `mrcnn.data.annotations.records`. They have nothing to say about most records, which is
seen over many of them together in a tenth of the time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from detectron_gn.mrcnn.data.annotations.columns import AnnotationColumns, ignored, keypoint_columns
from detectron_gn.mrcnn.data.annotations.keypoints import count_visible
from detectron_gn.mrcnn.data.annotations.plain_outlines import Size, read_outlines
from detectron_gn.mrcnn.data.annotations.ragged import BoolArray, IntArray, NumberArray, numbers, whole_numbers
from detectron_gn.mrcnn.data.annotations.records import (
    LARGEST_ID,
    LARGEST_NUMBER,
    NO_CROWD_GIVEN,
    NO_OUTLINE,
    are_apart,
)
from detectron_gn.mrcnn.errors import InputError

_KEYS = ("id", "image_id", "category_id", "area", "bbox", "iscrowd", "segmentation")


@dataclass(frozen=True)
class KnownRecords:
    """What annotations may be of: ids of the images without fault, in rising order, and those of such categories."""

    image_ids: IntArray
    sizes: Sequence[Size]
    category_ids: IntArray

    def places(self, image_ids: IntArray) -> IntArray | None:
        """The place of each image; None where one is not known."""
        if not len(self.image_ids):
            return None
        places = np.searchsorted(self.image_ids, image_ids).clip(max=len(self.image_ids) - 1)
        return places if (self.image_ids[places] == image_ids).all() else None


class Read(NamedTuple):
    """Annotations that were read.

    Attributes:
        columns: all of them.
        bounds: `[A, 4]`, the box around each outline, edge to edge; NaN where there is none.
        sizes: height and width of the image of each.
    """

    columns: AnnotationColumns
    bounds: NumberArray
    sizes: Sequence[Size]


class Mended(NamedTuple):
    """What was mended in so many records, the first of which has this number."""

    first: int
    text: str
    times: int


def read_plain(records: Sequence[dict[str, Any]], known: KnownRecords) -> tuple[Read, list[Mended]] | None:
    """Annotations in which the rules find no fault; None where they have to go over each record, for what they say."""
    values = dict(zip(_KEYS, zip(*(map(record.get, _KEYS) for record in records), strict=True), strict=True))
    ids, image_ids, category_ids = (whole_numbers(values[key]) for key in ("id", "image_id", "category_id"))
    boxes, areas, is_crowd = _boxes(values["bbox"]), numbers(values["area"]), _crowds(values["iscrowd"])
    if ids is None or image_ids is None or category_ids is None or boxes is None or areas is None or is_crowd is None:
        return None
    places = known.places(image_ids)
    if places is None or np.abs(ids).max() > LARGEST_ID or not np.isin(category_ids, known.category_ids).all():
        return None
    if areas.min() < 0 or areas.max() > LARGEST_NUMBER:
        return None
    sizes = [known.sizes[place] for place in places.tolist()]
    mended = _Mending()
    without_crowd = np.array([value is None for value in values["iscrowd"]])
    mended.each(np.flatnonzero(without_crowd), NO_CROWD_GIVEN)
    try:
        outlines = read_outlines(values["segmentation"], sizes, mended.one)
    except InputError:
        return None
    if (are_apart(boxes, outlines.bounds, *np.array(sizes).T) & ~is_crowd).any():
        return None
    mended.each(np.flatnonzero(~outlines.columns.is_given), NO_OUTLINE)
    columns = AnnotationColumns(
        ids, image_ids, category_ids, boxes, areas, is_crowd, ignored(records), outlines.columns,
        keypoint_columns(_with_counts(records, mended.one)),
    )  # fmt: skip
    return Read(columns, outlines.bounds, sizes), mended.found()


class _Mending:
    """Collects what was mended, in the order of the records."""

    def __init__(self) -> None:
        self._found: list[Mended] = []

    def one(self, place: int, text: str) -> None:
        self._found.append(Mended(place, text, 1))

    def each(self, places: Any, text: str) -> None:
        if len(places):
            self._found.append(Mended(int(places[0]), text, len(places)))

    def found(self) -> list[Mended]:
        return sorted(self._found, key=lambda each: each.first)


def _boxes(given: Sequence[Any]) -> NumberArray | None:
    if not all(type(box) is list and len(box) == 4 for box in given):
        return None
    flat = numbers([*chain.from_iterable(given)])
    if flat is None or np.abs(flat).max() > LARGEST_NUMBER:
        return None
    boxes = flat.reshape(-1, 4)
    return boxes if boxes[:, 2:].min() >= 0 else None


def _crowds(given: Sequence[Any]) -> BoolArray | None:
    found = whole_numbers([0 if value is None else value for value in given])
    return found.astype(np.bool_) if found is not None and 0 <= found.min() <= found.max() <= 1 else None


def _with_counts(records: Sequence[dict[str, Any]], mend: Callable[[int, str], None]) -> list[dict[str, Any]]:
    return [
        record | count_visible(record, partial(mend, place)) if "keypoints" in record else record
        for place, record in enumerate(records)
    ]
