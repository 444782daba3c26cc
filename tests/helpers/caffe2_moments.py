"""GroupNorm with the float32 sums of Caffe2's CPU operator, to tell summation order from real differences.

Caffe2 on a CPU adds up a group's values, and their squares, one after another in eight float32 lanes, and takes
E[x^2] - E[x]^2 (Caffe2 operators/group_norm_op.h, utils/math/reduce.cc:Moments, compiled for SSE). For a group of a
hundred thousand values that errs by 1e-5, which sixty layers of random weights turn into 1e-3. Caffe2 on a GPU and
PyTorch add in other orders and err otherwise. A network that agrees with a CPU reference to 1e-4 once its sums run in
the same order has the same formulas; this is how the parity tests tell. Far too slow for anything else.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

LANES = 8


@contextmanager
def caffe2_moments(model: nn.Module) -> Iterator[None]:
    """Let every GroupNorm of a model sum as Caffe2's CPU operator does, while the context is open."""
    norms = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    for norm in norms:
        norm.forward = functools.partial(_normalise, norm)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _normalise(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """GroupNorm of `[N, C, H, W]`, in float32 throughout."""
    batch, groups = len(x), norm.num_groups
    mean, inverse_std = _moments(x.reshape(batch * groups, -1), norm.eps)
    scale = inverse_std.view(batch, groups, 1) * norm.weight.view(groups, -1)
    shift = norm.bias.view(groups, -1) - mean.view(batch, groups, 1) * scale
    return x * scale.view(batch, -1, 1, 1) + shift.view(batch, -1, 1, 1)


def _moments(groups: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation `[G]` of `[G, n]` float32 values, summed in `LANES` running sums."""
    values = groups.cpu().numpy()
    count = np.float32(values.shape[1])
    lanes = np.pad(values, ((0, 0), (0, -values.shape[1] % LANES))).reshape(len(values), -1, LANES)
    mean = np.cumsum(lanes, axis=1, dtype=np.float32)[:, -1].sum(axis=1, dtype=np.float32) / count
    square = np.cumsum(lanes * lanes, axis=1, dtype=np.float32)[:, -1].sum(axis=1, dtype=np.float32) / count
    inverse_std = 1 / np.sqrt(square - mean * mean + np.float32(epsilon))
    return torch.from_numpy(mean).to(groups), torch.from_numpy(inverse_std).to(groups)
