"""Soft-NMS (arXiv:1704.04503); answers to Detectron utils/cython_nms.pyx:soft_nms."""

import torch
from torch import Tensor

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.ops.boxes import box_overlaps
from detectron_gn.mrcnn.tracing import refuse_export


def soft_nms(
    boxes: Tensor, scores: Tensor, *, sigma: float, overlap_threshold: float, score_threshold: float, method: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Soft-NMS: overlapping boxes lose score instead of being removed.

    Args:
        boxes: `[N, 4]` float32, inclusive corners.
        scores: `[N]` float32.
        sigma: width of the `gaussian` method.
        overlap_threshold: overlap from which the `linear` and `hard` methods act.
        score_threshold: boxes whose score falls below it are dropped.
        method: `linear`, `gaussian` or `hard` (`cfg.TEST.SOFT_NMS.METHOD`).

    Returns:
        Boxes `[K, 4]`, their new scores `[K]` and their indices `[K]`, in the order in which they were picked.

    Follows the swaps of Detectron utils/cython_nms.pyx:soft_nms, since they decide which of equal scores is next.
    """
    refuse_export("Soft-NMS keeps boxes")
    if method not in ("linear", "gaussian", "hard"):
        raise InputError(f"TEST.SOFT_NMS.METHOD is {method!r}: give 'linear', 'gaussian' or 'hard'")
    boxes, scores = boxes.clone(), scores.clone()
    index = torch.arange(len(scores), device=scores.device)
    first = 0
    while first < len(scores):
        best = first + int(scores[first:].argmax())
        if best != first:
            for rows in (boxes, scores, index):
                picked = rows[best].clone()
                rows[best] = rows[first]
                rows[first] = picked
        rest = slice(first + 1, None)
        overlaps = box_overlaps(boxes[first, None], boxes[rest])[0]
        if method == "gaussian":
            weights = torch.exp(-(overlaps * overlaps) / sigma)
        elif method == "linear":
            weights = torch.where(overlaps > overlap_threshold, 1 - overlaps, 1.0)
        else:
            weights = (overlaps <= overlap_threshold).to(scores.dtype)
        # A box that does not touch the picked one is not even looked at.
        scores[rest] = torch.where(overlaps > 0, weights * scores[rest], scores[rest])
        dropped = (overlaps > 0) & (scores[rest] < score_threshold)
        boxes, scores, index = _without(first + 1 + dropped.nonzero()[:, 0], boxes, scores, index)
        first += 1
    return boxes, scores, index


def _without(dropped: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:
    """Remove rows the way Detectron does: the last row takes the place of a dropped one and comes next."""
    order = list(range(len(columns[0])))
    gone = set(dropped.tolist())
    position = 0
    while position < len(order):
        if order[position] in gone:
            order[position] = order[-1]
            order.pop()
        else:
            position += 1
    kept = torch.tensor(order, dtype=torch.long, device=columns[0].device)
    return tuple(column[kept] for column in columns)
