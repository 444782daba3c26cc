"""Greedy non-maximum suppression; answers to Detectron utils/cython_nms.pyx:nms."""

import torch
from torch import Tensor

from mrcnn.boxes import box_areas, box_intersections
from mrcnn.ordering import argsort


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Greedy suppression: a box goes when a kept box of higher score overlaps it by `threshold` or more.

    Args:
        boxes: `[N, 4]` float32, inclusive corners.
        scores: `[N]` float32.
        threshold: intersection over union; equality suppresses.

    Returns:
        Indices `[K]` (int64) of the kept boxes, **in input order** and not by score. Equal scores go in the
        reversed order of numpy's argsort (Detectron utils/cython_nms.pyx:nms).
    """
    order = argsort(scores).flip(0)
    ordered, areas = boxes[order], box_areas(boxes)[order]
    shared = box_intersections(ordered, ordered)
    overlaps = shared / (areas[:, None] + areas[None, :] - shared)
    # suppresses[i, j]: box j is of lower score than box i and overlaps it too much.
    suppresses = (overlaps >= threshold).triu_(diagonal=1).to(torch.float32)
    # "Kept" is the one solution of: kept[j] unless some kept[i] suppresses j. Each round settles at least the next
    # box in order, whole generations in practice (about ten rounds for a thousand proposals).
    kept = torch.ones_like(scores)
    while True:
        settled = (kept @ suppresses == 0).to(torch.float32)
        if torch.equal(settled, kept):
            break
        kept = settled
    return order[kept.bool()].sort().values
