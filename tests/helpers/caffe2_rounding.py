"""The choices that Caffe2's rounding made in a training trace, for a replay that makes the same ones.

A ReLU whose input is 0 but for rounding lets its whole gradient through or none of it, and a maximum that two
positions of a window reach but for rounding gives its gradient to one or both. Of the eleven million ReLUs of an
iteration about twenty are decided by rounding, enough to move updates by one percent: Caffe2 itself, run on another
machine, differs from its own trace that much. With the same choices, updates agree to 1e-4.
"""

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from detectron_gn.mrcnn.ops.max_pool import _MaxPool


class CaffeRounding(TorchFunctionMode):
    """Every ReLU takes the signs that a trace holds for inputs next to 0 (`relu_signs`, over all ReLUs in order)."""

    def __init__(self, group):
        super().__init__()
        self._index = torch.from_numpy(group["relu_signs/index"][:].astype("int64"))
        self._positive = torch.from_numpy(group["relu_signs/positive"][:].astype(bool))
        self.seen = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not torch.relu_:
            return func(*args, **(kwargs or {}))
        size = args[0].numel()
        here = (self._index >= self.seen) & (self._index < self.seen + size)
        choices = self._index[here] - self.seen, self._positive[here]
        self.seen += size
        return _Relu.apply(args[0], *choices)


class _Relu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, index, positive):
        passes = (x > 0).contiguous().view(-1)
        passes[index] = positive
        ctx.save_for_backward(passes.view(x.shape))
        return torch.clamp(x, min=0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None, None


def max_pool_with_winners(group):
    """`mrcnn.ops.max_pool.max_pool` with the winners that a trace holds for windows that rounding decides."""
    index = torch.from_numpy(group["pool_winners/index"][:].astype("int64"))
    positions = torch.from_numpy(group["pool_winners/positions"][:].astype("int64"))

    class Pool(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            pooled = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
            ctx.save_for_backward(x, pooled)
            return pooled

        @staticmethod
        def backward(ctx, gradient):
            x, pooled = ctx.saved_tensors
            given = torch.zeros(pooled.numel())
            given[index] = 1.0
            given = given.view(pooled.shape)
            masks = torch.zeros(pooled.numel(), dtype=torch.int64)
            masks[index] = positions
            masks = masks.view(pooled.shape)
            ctx_of_rest = type("Rest", (), {"saved_tensors": (x, pooled)})
            x_gradient = _MaxPool.backward(ctx_of_rest, gradient * (1 - given))
            padded = F.pad(torch.zeros_like(x), (1, 1, 1, 1)).contiguous()
            height, width = pooled.shape[2:]
            for place in range(9):
                row, column = divmod(place, 3)
                window = padded[:, :, row : row + 2 * height - 1 : 2, column : column + 2 * width - 1 : 2]
                window += gradient * given * ((masks >> place) & 1)
            return x_gradient + padded[:, :, 1:-1, 1:-1]

    return Pool.apply
