"""Greedy non-maximum suppression; answers to Detectron utils/cython_nms.pyx:nms."""

import torch
from torch import Tensor

from mrcnn.boxes import box_areas, box_intersections
from mrcnn.ordering import argsort

# Boxes settled together: their overlaps stay in the processor's cache.
BLOCK = 256


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
    ordered = boxes[order]
    kept = torch.zeros(0, dtype=torch.long, device=boxes.device)
    for first in range(0, len(order), BLOCK):
        block = torch.arange(first, min(first + BLOCK, len(order)), device=boxes.device)
        free = ~(_overlaps(ordered[kept], ordered[block]) >= threshold).any(dim=0)
        block = block[free]
        kept = torch.cat((kept, block[_keep(ordered[block], threshold)]))
    return order[kept].sort().values


def _keep(ordered: Tensor, threshold: float) -> Tensor:
    """Which of `[N, 4]` boxes, best first, greedy suppression keeps: `[N]` bool."""
    # suppresses[i, j]: box i comes before box j and overlaps it too much.
    suppresses = (_overlaps(ordered, ordered) >= threshold).triu_(diagonal=1).to(torch.float32)
    # "Kept" is the one solution of: kept[j] unless some kept[i] suppresses j. Each round settles at least the next
    # box in order, whole generations in practice.
    kept = suppresses.new_ones(len(ordered))
    while True:
        settled = (kept @ suppresses == 0).to(torch.float32)
        if torch.equal(settled, kept):
            return kept.bool()
        kept = settled


def _overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union `[N, M]`, in float32 throughout, as Detectron's NMS computes it."""
    shared = box_intersections(boxes, others)
    return shared / (box_areas(boxes)[:, None] + box_areas(others)[None, :] - shared)
