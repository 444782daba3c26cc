"""Which rows of two lists are partners, one to one: detections, proposals, RoIs.

Scores that tie in one order of float32 sums stand in another order after the next, so rows are known by what they
hold and not by their places.
"""

import torch
from torch import Tensor

from detectron_gn.mrcnn.ops.pairs import PARTNER_DISTANCE, Array, Pairs, pair_boxes, pair_one_to_one
from detectron_gn.mrcnn.structures import Detections

# Of rows that are known in part, the one in the same place is the partner when no other is nearer by this, in pixels.
_NEARER = 0.01


def pair_detections(
    detections: Detections, boxes: Array, classes: Array, *, any_class: bool = False
) -> Pairs:
    """Pairs (ours, reference's) of detections of one class whose boxes agree; each detection in one pair at most.

    Args:
        boxes, classes: the reference's, `[D, 4]` in image pixels and `[D]` from 1 on.
        any_class: whether detections of other classes may be partners too.
    """
    return pair_boxes(detections.boxes, None if any_class else detections.classes, boxes, classes)


def order_like(rows: Tensor, reference: Tensor) -> Tensor | None:
    """The permutation that brings `rows [R, D]` into the order of the reference, or None where they are not the same.

    Of several rows that are near enough the one in the same place is the partner, else the nearest free one. What the
    reference does not know is NaN there; the row in the same place must then be as near as any.
    """
    if rows.shape != reference.shape:
        return None
    distances = _distances(reference.to(rows), rows).cpu()
    settled = distances.diagonal() <= PARTNER_DISTANCE
    if reference.isnan().any():
        settled &= distances.diagonal() <= distances.amin(dim=1) + _NEARER
    free = (~settled).nonzero()[:, 0]
    rest = distances[free][:, free].numpy()
    pairs = torch.from_numpy(pair_one_to_one(rest <= PARTNER_DISTANCE, rest))
    if len(pairs) < len(free):
        return None
    order = torch.arange(len(rows))
    order[free[pairs[:, 0]]] = free[pairs[:, 1]]
    return order


def without_partner(rows: Tensor, others: Tensor) -> Tensor:
    """Which of `rows [R, D]` are near none of `others`; coordinates that are NaN tell nothing."""
    if not len(others):
        return torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    return ~(_distances(rows, others).amin(dim=1) <= PARTNER_DISTANCE)


def _distances(rows: Tensor, others: Tensor) -> Tensor:
    """The largest difference `[N, M]` of a coordinate that both of `rows [N, D]` and `others [M, D]` know."""
    if not rows.isnan().any() and not others.isnan().any():
        distances: Tensor = torch.cdist(rows, others, p=float("inf"))
        return distances
    # Row by row: all differences at once would be a hundred times the size of the result.
    return torch.stack([(row - others).abs().nan_to_num(0.0).amax(dim=1) for row in rows])
