"""Which rows of two lists are partners, one to one."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Pairs = npt.NDArray[np.int64]

# Two RoIs or detections are partners when no corner of theirs is further apart than this, in pixels. How far apart
# partners are is reported; this only says who they are.
PARTNER_DISTANCE = 0.5


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
