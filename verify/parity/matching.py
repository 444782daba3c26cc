"""Which rows of two lists are partners, one to one: detections, proposals, RoIs.

Scores that tie in one order of float32 sums stand in another order after the next, so rows are known by what they
hold and not by their places.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detectron_gn.mrcnn.structures import Detections

Array = npt.NDArray[Any]
Pairs = npt.NDArray[np.int64]

# Two RoIs or detections are partners when no corner of theirs is further apart than this, in pixels. How far apart
# partners are is reported; this only says who they are.
PARTNER_DISTANCE = 0.5

# A keypoint is where a heatmap, enlarged to its box, is largest. Where two places are nearly as large, rounding
# decides, which happens to at most this share of them.
MOST_MOVED_KEYPOINTS = 1 / 500

# Of rows that are known in part, the one in the same place is the partner when no other is nearer by this, in pixels.
_NEARER = 0.01


def pair_one_to_one(possible: npt.NDArray[np.bool_], *costs: Array) -> Pairs:
    """Pair the rows of one list with those of another, the cheapest pair first.

    Args:
        possible: `[N, M]`, which pairs there may be.
        costs: `[N, M]` each; the first one decides, each further one only where those before it are equal. Pairs that
            are equal in all of them are taken in the order of the rows.

    Returns:
        `[P, 2]` numbers (row of the first list, row of the second) in the order in which they were taken; each row
        stands in one pair at most.
    """
    rows, columns = np.nonzero(possible)
    order = np.lexsort([cost[rows, columns] for cost in reversed(costs)])
    pairs: list[tuple[int, int]] = []
    taken_rows: set[int] = set()
    taken_columns: set[int] = set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in taken_rows and column not in taken_columns:
            pairs.append((row, column))
            taken_rows.add(row)
            taken_columns.add(column)
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def pair_boxes(
    boxes: Array, labels: Array | None, others: Array, other_labels: Array | None, tolerance: float = PARTNER_DISTANCE
) -> Pairs:
    """Pair boxes of one label, no coordinate of which is further apart than the tolerance; the nearest pair first.

    Args:
        boxes, others: `[N, C]` and `[M, C]`, corners in pixels; the index of an image may stand before them.
        labels, other_labels: `[N]` and `[M]`, or None where boxes of any label may be partners.

    Returns:
        `[P, 2]` numbers (box, other), in the order of the others.
    """
    distance = np.abs(boxes[:, None] - others[None]).max(axis=2, initial=0)
    possible = distance <= tolerance
    if labels is not None and other_labels is not None:
        possible &= labels[:, None] == other_labels[None]
    pairs = pair_one_to_one(possible, distance)
    return pairs[np.argsort(pairs[:, 1], kind="stable")]


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
