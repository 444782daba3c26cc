"""Annotations as columns: an array for each of their values, of which a data set of any size has the same few."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask

from detectron_gn.mrcnn.data.annotations.images import ImageColumns
from detectron_gn.mrcnn.data.annotations.outlines import SMALLEST_POLYGON, Outline
from detectron_gn.mrcnn.data.annotations.ragged import (
    BoolArray,
    IntArray,
    NumberArray,
    Ragged,
    joined,
    joined_starts,
    ragged,
    starts_of,
)
from detectron_gn.mrcnn.data.json_values import is_number
from detectron_gn.mrcnn.data.on_demand import OnDemand

Record = Mapping[str, Any]


@dataclass(frozen=True)
class OutlineColumns:
    """The outlines of `A` annotations: polygons or run lengths, or neither.

    Attributes:
        polygons: of all annotations, (x, y, x, y, ...) float64 each, those of fewer than three points too.
        starts: `[A + 1]`, where those of each annotation begin.
        run_lengths: `[A]`, COCO's compressed text as uint8; nothing for an outline that is none or polygons.
    """

    polygons: Ragged
    starts: IntArray
    run_lengths: Ragged

    def polygons_of(self, place: int) -> list[NumberArray]:
        """The polygons of an annotation."""
        return [self.polygons[each] for each in range(self.starts[place], self.starts[place + 1])]

    def run_lengths_of(self, place: int, height: int, width: int) -> dict[str, Any] | None:
        """The run lengths of an annotation of an image of this size, in COCO's form; None where it has none."""
        text = self.run_lengths[place].tobytes()
        return {"size": [height, width], "counts": text.decode("ascii")} if text else None

    @cached_property
    def is_given(self) -> BoolArray:
        """`[A]`, whether an annotation has run lengths, or a polygon of three points."""
        drawn = starts_of((self.polygons.lengths >= SMALLEST_POLYGON).astype(np.int64))
        found: BoolArray = (np.diff(drawn[self.starts]) > 0) | (self.run_lengths.lengths > 0)
        return found


@dataclass(frozen=True)
class KeypointColumns:
    """The keypoints of `A` annotations.

    Attributes:
        values: `[A]`, as in the file: x, y and visibility in turn; nothing where an annotation has none.
        counts: `[A]`, `num_keypoints`; -1 where it is left out.
        odd: `keypoints` and `num_keypoints` that are no such numbers, by the number of their annotation.
    """

    values: Ragged
    counts: IntArray
    odd: Mapping[int, Record]


@dataclass(frozen=True)
class AnnotationColumns:
    """`A` annotations that were read, in the order of their file.

    Attributes:
        ids, image_ids, category_ids: `[A]`, the file's own.
        boxes: `[A, 4]`, x, y, width and height in pixels, as in the file.
        areas: `[A]`, in pixels.
        is_crowd, is_ignored: `[A]`.
        outlines, keypoints: of each.
    """

    ids: IntArray
    image_ids: IntArray
    category_ids: IntArray
    boxes: NumberArray
    areas: NumberArray
    is_crowd: BoolArray
    is_ignored: BoolArray
    outlines: OutlineColumns
    keypoints: KeypointColumns

    def __len__(self) -> int:
        return len(self.ids)


def annotation_columns(records: Sequence[Record], sizes: Sequence[tuple[int, int]]) -> AnnotationColumns:
    """The columns of annotations that were read, with height and width of the image of each."""
    ids, image_ids, category_ids = (
        np.array([record[key] for record in records], np.int64) for key in ("id", "image_id", "category_id")
    )
    return AnnotationColumns(
        ids,
        image_ids,
        category_ids,
        np.array([record["bbox"] for record in records], np.float64).reshape(-1, 4),
        np.array([record["area"] for record in records], np.float64),
        np.array([record["iscrowd"] for record in records], np.bool_),
        ignored(records),
        outline_columns([record["segmentation"] for record in records], sizes),
        keypoint_columns(records),
    )


def ignored(records: Sequence[Record]) -> BoolArray:
    """`[A]`, which annotations Detectron ignores."""
    return np.array([record.get("ignore", 0) == 1 for record in records], np.bool_)


def outline_columns(outlines: Sequence[Outline], sizes: Sequence[tuple[int, int]]) -> OutlineColumns:
    """The columns of outlines that were read."""
    lists = [[] if isinstance(outline, Mapping) else outline for outline in outlines]
    # Nobody has looked at the numbers of a shorter polygon, nor will.
    polygons = [each if len(each) >= SMALLEST_POLYGON else [0.0] * len(each) for polygons in lists for each in polygons]
    return OutlineColumns(
        ragged(polygons), starts_of([len(each) for each in lists]), compressed_texts(outlines, sizes)
    )


def keypoint_columns(records: Sequence[Record]) -> KeypointColumns:
    """The columns of the keypoints of annotations that were read."""
    values: list[list[float]] = []
    counts: list[int] = []
    odd: dict[int, Record] = {}
    for place, record in enumerate(records):
        keypoints, count = record.get("keypoints"), record.get("num_keypoints")
        is_count = count is None or type(count) is int and 0 <= count < 2**31
        if is_count and (keypoints is None or keypoints == [] or _are_places(keypoints)):
            values.append(keypoints or [])
            counts.append(-1 if count is None else count)
        else:
            odd[place] = {key: record[key] for key in ("keypoints", "num_keypoints") if key in record}
            values.append([])
            counts.append(-1)
    return KeypointColumns(ragged(values), np.array(counts, np.int64), odd)


def joined_columns(parts: Sequence[AnnotationColumns]) -> AnnotationColumns:
    """The annotations of several parts, one part after another; there is at least one part."""
    odd: dict[int, Record] = {}
    before = 0
    for part in parts:
        odd |= {before + place: values for place, values in part.keypoints.odd.items()}
        before += len(part)
    outlines = [part.outlines for part in parts]
    return AnnotationColumns(
        ids=np.concatenate([part.ids for part in parts]),
        image_ids=np.concatenate([part.image_ids for part in parts]),
        category_ids=np.concatenate([part.category_ids for part in parts]),
        boxes=np.concatenate([part.boxes for part in parts]),
        areas=np.concatenate([part.areas for part in parts]),
        is_crowd=np.concatenate([part.is_crowd for part in parts]),
        is_ignored=np.concatenate([part.is_ignored for part in parts]),
        outlines=OutlineColumns(
            joined([each.polygons for each in outlines]),
            joined_starts([each.starts for each in outlines]),
            joined([each.run_lengths for each in outlines]),
        ),
        keypoints=KeypointColumns(
            joined([part.keypoints.values for part in parts]),
            np.concatenate([part.keypoints.counts for part in parts]),
            odd,
        ),
    )


def compressed_texts(outlines: Sequence[Outline], sizes: Sequence[tuple[int, int]]) -> Ragged:
    """The run lengths of outlines that were read, as COCO's compressed text; nothing of polygons."""
    texts = [
        _compressed(outline, *size) if isinstance(outline, Mapping) else b""
        for outline, size in zip(outlines, sizes, strict=True)
    ]
    return Ragged(np.frombuffer(b"".join(texts), np.uint8), starts_of([len(text) for text in texts]))


def _compressed(rle: Mapping[str, Any], height: int, width: int) -> bytes:
    counts = rle["counts"]
    if isinstance(counts, list):
        counts = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
    return counts.encode("ascii") if isinstance(counts, str) else bytes(counts)


def _are_places(keypoints: Any) -> bool:
    return isinstance(keypoints, list) and bool(keypoints) and all(is_number(n) and abs(n) < 2**31 for n in keypoints)


class AnnotationRecords(OnDemand[dict[str, Any]]):
    """Annotations of columns as records in COCO's form, each made when it is asked for. Coordinates are floats."""

    def __init__(self, columns: AnnotationColumns, images: ImageColumns) -> None:
        self.columns = columns
        self._images = images

    def __len__(self) -> int:
        return len(self.columns)

    def make(self, place: int) -> dict[str, Any]:
        """The record of an annotation."""
        columns = self.columns
        record: dict[str, Any] = {
            "id": int(columns.ids[place]),
            "image_id": int(columns.image_ids[place]),
            "category_id": int(columns.category_ids[place]),
            "bbox": columns.boxes[place].tolist(),
            "area": float(columns.areas[place]),
            "iscrowd": int(columns.is_crowd[place]),
            "segmentation": self._segmentation(place),
        }
        if columns.is_ignored[place]:
            record["ignore"] = 1
        if place in columns.keypoints.odd:
            return {**record, **columns.keypoints.odd[place]}
        keypoints, count = columns.keypoints.values[place], int(columns.keypoints.counts[place])
        if len(keypoints):
            record["keypoints"] = keypoints.tolist()
        if count >= 0:
            record["num_keypoints"] = count
        return record

    def _segmentation(self, place: int) -> Any:
        """The outline in COCO's form: polygons, none where there is none, or run lengths."""
        outlines, images = self.columns.outlines, self._images
        image = int(images.places(self.columns.image_ids[place]))
        encoded = outlines.run_lengths_of(place, int(images.heights[image]), int(images.widths[image]))
        return encoded or [polygon.tolist() for polygon in outlines.polygons_of(place)]
