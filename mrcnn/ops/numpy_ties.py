"""Sorting that breaks ties as Detectron's numpy did; answers to its calls of argsort and argpartition.

Many of the best proposals tie: a float32 sigmoid is exactly 1 from a logit of 17 on, and coarse long before. Which of
them are taken, and which comes first in NMS, then depends only on the sorting algorithm, which is unstable. numpy has
replaced that algorithm for float32 since, but not for long doubles. These hold every float32, so sorting them still
gives the order of 2018.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detectron_gn.mrcnn.tracing import refuse_export

_DECIDED = "numpy orders what ties"


def argsort(values: Tensor) -> Tensor:
    """`numpy.argsort` of `[N]` float32 values, ascending, ties in the order of numpy's introsort.

    Not on a GPU: there the sort is stable, because waiting for the values would cost more than the ties are worth.
    """
    if values.device.type != "cpu":
        return values.argsort(stable=True)
    return torch.from_numpy(np.argsort(_long_double(values)))


def argtop(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` highest of `[N]` float32 scores, best first; all of them where `count <= 0`.

    `argpartition` of the negated scores, then `argsort` of what it chose, as in Detectron
    ops/generate_proposals.py:proposals_for_one_image.
    """
    refuse_export(_DECIDED)
    if count <= 0 or count >= len(scores):
        return argsort(-scores)
    best, index = scores.topk(count + 1)
    if scores.device.type != "cpu" or not bool((best[1:] == best[:-1]).any()):
        # Without ties there is only one order, and topk is ten times faster.
        return index[:count]
    chosen = np.argpartition(_long_double(-scores), count)[:count]
    index = torch.from_numpy(chosen)
    return index[argsort(-scores[index])]


def argpartition(scores: Tensor, count: int) -> Tensor:
    """`numpy.argpartition(scores, -count)[-count:]` of `[N]` float32 scores, `count <= N`: the highest, in its order.

    0 takes them all. On a GPU they come best first.
    """
    if scores.device.type != "cpu":
        return scores.topk(count or len(scores)).indices
    return torch.from_numpy(np.argpartition(_long_double(scores), -count)[-count:])


def _long_double(values: Tensor) -> npt.NDArray[np.longdouble]:
    refuse_export(_DECIDED)
    array: npt.NDArray[np.float32] = values.detach().numpy()
    return array.astype(np.longdouble)
