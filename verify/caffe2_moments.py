"""GroupNorm with the float32 sums of Caffe2's CPU operator, to tell summation order from real differences.

Caffe2 on a CPU adds up a group's values, and their squares, one after another in eight float32 lanes, and takes
E[x^2] - E[x]^2 (Caffe2 operators/group_norm_op.h, utils/math/reduce.cc:Moments, compiled for SSE). For a group of a
hundred thousand values that errs by 1e-5, which sixty layers of random weights turn into 1e-3. Caffe2 on a GPU and
PyTorch add in other orders and err otherwise. A network that agrees with a CPU reference to 1e-4 once its sums run in
the same order has the same formulas; this is how the parity tests tell. Far too slow for anything else.
"""

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
    hooks = [norm.register_forward_hook(_recompute) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _recompute(norm: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
    """A forward hook: GroupNorm's output `[N, C, H, W]` from its input, in float32 throughout."""
    assert isinstance(norm, nn.GroupNorm)
    x = inputs[0]
    batch, channels = x.shape[:2]
    mean, inverse_std = _moments(x.reshape(batch * norm.num_groups, -1), norm.eps)
    scale = (inverse_std.view(batch, norm.num_groups, 1) * norm.weight.view(norm.num_groups, -1)).view(batch, -1)
    shift = norm.bias - mean.view(batch, norm.num_groups, 1).expand(-1, -1, channels // norm.num_groups).reshape(
        batch, -1
    ).mul(scale)
    return x * scale[:, :, None, None] + shift[:, :, None, None]


def _moments(groups: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation `[G]` of `[G, n]` float32 values, summed in `LANES` running sums."""
    values = groups.cpu().numpy()
    count = np.float32(values.shape[1])
    lanes = np.pad(values, ((0, 0), (0, -values.shape[1] % LANES))).reshape(len(values), -1, LANES)
    mean = np.cumsum(lanes, axis=1, dtype=np.float32)[:, -1].sum(axis=1, dtype=np.float32) / count
    square = np.cumsum(lanes * lanes, axis=1, dtype=np.float32)[:, -1].sum(axis=1, dtype=np.float32) / count
    inverse_std = 1 / np.sqrt(square - mean * mean + np.float32(epsilon))
    return torch.from_numpy(mean).to(groups), torch.from_numpy(inverse_std).to(groups)
