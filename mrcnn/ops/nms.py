"""Greedy non-maximum suppression; answers to Detectron utils/cython_nms.pyx:nms."""

import torch
from torch import Tensor

from detectron_gn.mrcnn.ops.boxes import box_areas, box_intersections
from detectron_gn.mrcnn.ops.numpy_ties import argsort
from detectron_gn.mrcnn.tracing import refuse_export

# Boxes settled together: their overlaps stay in the processor's cache.
BLOCK = 256


def nms(boxes: Tensor, scores: Tensor, threshold: float, first_kept: int = 0) -> Tensor:
    """Greedy suppression: a box goes when a kept box of higher score overlaps it by `threshold` or more.

    Args:
        boxes: `[N, 4]` float32, inclusive corners.
        scores: `[N]` float32.
        threshold: intersection over union; equality suppresses.
        first_kept: how many of the kept boxes are wanted, the first in input order; 0 for all. Where the input is
            sorted, best first, the rest is not computed.

    Returns:
        Indices `[K]` (int64) of the kept boxes, **in input order** and not by score. Equal scores go in the
        reversed order of numpy's argsort (Detectron utils/cython_nms.pyx:nms).
    """
    refuse_export("suppression keeps boxes")
    order = argsort(scores).flip(0)
    ordered = boxes[order]
    # earliest_after[i]: the first row of the input that is settled at i or later; nothing before it can change then.
    earliest_after = order.flip(0).cummin(0).values.flip(0)
    kept: list[Tensor] = []
    for block in torch.split(torch.arange(len(order), device=boxes.device), BLOCK):
        if 0 < first_kept <= sum(int((order[part] < earliest_after[block[0]]).sum()) for part in kept):
            break
        for part in kept:
            block = block[~(_overlaps(ordered[part], ordered[block]) >= threshold).any(dim=0)]
        kept.append(block[_keep(ordered[block], threshold)])
    indices = order[torch.cat(kept)].sort().values
    return indices[:first_kept] if first_kept > 0 else indices


def nms_in_rounds(ordered: Tensor, suppressible: Tensor, threshold: float, rounds: int) -> tuple[Tensor, Tensor]:
    """Greedy suppression in a fixed number of rounds: the host reads nothing in between, so a GPU does not wait.

    Args:
        ordered: `[B, N, 4]` float32, inclusive corners, each of the B lists best first.
        suppressible: `[B, N, N]` bool (or what broadcasts to it), whether box i may suppress box j.
        threshold: intersection over union; equality suppresses.
        rounds: each settles at least one more box of a list. A chain, in which one box goes because another stays,
            takes one round per box.

    Returns:
        Which boxes are kept, `[B, N]` bool, and which lists are settled, `[B]` bool: the boxes kept in any other are
        not the ones of greedy suppression.
    """
    suppresses = (_overlaps(ordered, ordered) >= threshold).triu_(diagonal=1)
    suppresses = (suppresses & suppressible).to(torch.float32)
    kept = suppresses.new_ones((len(suppresses), 1, suppresses.shape[1]))
    before = torch.empty_like(kept)
    for _ in range(rounds):
        before, kept = kept, torch.eq(kept @ suppresses, 0, out=before)
    return kept[:, 0].bool(), (kept == before).all(dim=2)[:, 0]


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
    """Intersection over union `[..., N, M]`, in float32 throughout, as Detectron's NMS computes it."""
    shared = box_intersections(boxes, others)
    return shared / (box_areas(boxes)[..., :, None] + box_areas(others)[..., None, :] - shared)
