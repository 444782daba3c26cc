"""An exported network beside the one it was made of: every detection of some pictures, compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.detectors import Boxes, Detector
from detectron_gn.mrcnn.ops.keypoints import MOST_MOVED_KEYPOINTS
from detectron_gn.mrcnn.ops.pairs import pair_boxes
from detectron_gn.mrcnn.structures import Detections
from detectron_gn.mrcnn.tables import text_table

# What may separate a pair of detections: pixels of a corner, score, overlap of the masks, pixels of a keypoint.
MOST_PIXELS, MOST_SCORE, LEAST_MASK_IOU, MOST_KEYPOINT_PIXELS = 0.05, 1e-3, 0.98, 0.5
# A detection without a partner is excused where its score lies so near to the threshold, or to the last one's.
MARGIN = 1e-4


@dataclass(frozen=True)
class Compared:
    """How far the detections of one picture are apart.

    Attributes:
        name: of the picture.
        image_size: (height, width).
        ours, exported: how many detections the PyTorch network and the exported one find.
        matched: pairs of one class within all limits, keypoints aside.
        lost: detections of either side that are in no such pair and not excused.
        box, score: largest differences of the pairs, in pixels and of the score.
        mask_iou: smallest overlap of the pasted masks of a pair; None without masks.
        keypoint: largest distance of a keypoint in place, in pixels; None without keypoints.
        keypoints, moved_keypoints: of all pairs, and those that are elsewhere.
    """

    name: str
    image_size: tuple[int, int]
    ours: int
    exported: int
    matched: int
    lost: int
    box: float
    score: float
    mask_iou: float | None = None
    keypoint: float | None = None
    keypoints: int = 0
    moved_keypoints: int = 0


def all_agree(compared: Sequence[Compared]) -> bool:
    """Whether every detection has its partner, and hardly a keypoint is elsewhere."""
    keypoints, moved = (sum(getattr(each, name) for each in compared) for name in ("keypoints", "moved_keypoints"))
    return not any(each.lost for each in compared) and moved <= math.ceil(MOST_MOVED_KEYPOINTS * keypoints)


class Exported(Protocol):
    """An exported network that runs."""

    def detect(self, model: Detector, image: Image, proposals: Boxes | None = None) -> Detections:
        """The objects in an `[H, W, 3]` uint8 BGR image; `model`, which it was made of, may prepare it."""
        ...


def compared_pictures(
    exported: Exported, model: Detector, pictures: Iterable[tuple[str, Image, Boxes | None]]
) -> Iterator[Compared]:
    """Both networks' detections of each picture, which comes with its name and the proposals it needs."""
    for name, image, proposals in pictures:
        ours = model.detect_batch([image], None if proposals is None else [proposals])[0]
        yield compare(name, ours, exported.detect(model, image, proposals), model)


def compare(name: str, ours: Detections, exported: Detections, model: Detector) -> Compared:
    """The detections of a picture, paired by class and place and measured."""
    pairs = pair_boxes(ours.boxes, ours.classes, exported.boxes, exported.classes)
    mine, other = ours.at(pairs[:, 0]), exported.at(pairs[:, 1])
    box = np.abs(mine.boxes - other.boxes).max(axis=1, initial=0)
    score = np.abs(mine.scores - other.scores)
    within = (box <= MOST_PIXELS) & (score <= MOST_SCORE)
    result = Compared(
        name, ours.image_size, len(ours), len(exported), 0, 0, float(box.max(initial=0)), float(score.max(initial=0))
    )
    if mine.mask_probs is not None:
        ious = np.array([_iou(*masks) for masks in zip(_whole_masks(mine), _whole_masks(other), strict=True)])
        within &= ious >= LEAST_MASK_IOU
        result = replace(result, mask_iou=float(ious.min(initial=1)))
    if mine.keypoints is not None and other.keypoints is not None:
        away = np.abs(mine.keypoints[:, :2] - other.keypoints[:, :2]).max(axis=1, initial=0)
        in_place = away <= MOST_KEYPOINT_PIXELS
        result = replace(
            result,
            keypoint=float(away[in_place].max(initial=0)),
            keypoints=away.size,
            moved_keypoints=int((~in_place).sum()),
        )
    lost = _lonely(ours, pairs[within, 0], exported, model) + _lonely(exported, pairs[within, 1], ours, model)
    return replace(result, matched=int(within.sum()), lost=lost)


def _lonely(found: Detections, partners: npt.NDArray[np.int64], others: Detections, model: Detector) -> int:
    """Detections that have no partner, and of whose score neither the threshold nor the limit is near."""
    scores = np.delete(found.scores, partners)
    limit = model.cfg.TEST.DETECTIONS_PER_IM
    borders = [model.cfg.TEST.SCORE_THRESH]
    if 0 < limit <= len(others):
        borders.append(float(others.scores.min()))
    return int((np.abs(scores[:, None] - np.array(borders)[None]).min(axis=1) > MARGIN).sum()) if len(scores) else 0


def _whole_masks(found: Detections) -> Iterator[npt.NDArray[np.bool_]]:
    """The pasted mask of each detection, one at a time."""
    return (found.row(number).masks()[0] for number in range(len(found)))


def _iou(mask: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    union = int((mask | other).sum())
    return int((mask & other).sum()) / union if union else 1.0


def compared_table(compared: Sequence[Compared]) -> str:
    """What was compared, a line for each picture."""
    header = ["picture", "HxW", "ours", "exported", "matched", "box px", "score"]
    if compared[0].mask_iou is not None:
        header.append("mask IoU")
    if compared[0].keypoint is not None:
        header += ["keypoint px", "moved"]
    rows = []
    for each in compared:
        row = [each.name, "{}x{}".format(*each.image_size), str(each.ours), str(each.exported), str(each.matched)]
        row += [f"{each.box:.1e}", f"{each.score:.1e}"]
        if each.mask_iou is not None:
            row.append(f"{each.mask_iou:.4f}")
        if each.keypoint is not None:
            row += [f"{each.keypoint:.1e}", f"{each.moved_keypoints} of {each.keypoints}"]
        rows.append(row)
    return text_table(header, rows)
