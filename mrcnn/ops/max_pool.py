"""The stem's max pooling with Caffe2's gradient; answers to Caffe2 operators/pool_gradient_op.cc."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from detectron_gn.mrcnn.tracing import is_exported


def max_pool(x: Tensor) -> Tensor:
    """3x3 maxima at stride 2, padded by 1, of `[N, C, H, W]`.

    Where several positions of a window hold its maximum, Caffe2 gives the gradient to *every one* of them and torch to
    the first. Zero padding of the image and flat colours make thousands of such windows.
    """
    if torch.is_grad_enabled() and x.requires_grad and not is_exported():
        pooled: Tensor = _MaxPool.apply(x)  # type: ignore[no-untyped-call]
        return pooled
    return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        pooled = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        ctx.save_for_backward(x, pooled)
        return pooled

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, pooled = ctx.saved_tensors
        height, width = pooled.shape[2:]
        x_gradient = torch.zeros_like(x)
        # Output (i, j) looks at inputs (2i + row, 2j + column): one strided view per offset, cut to the input.
        for row in (-1, 0, 1):
            for column in (-1, 0, 1):
                first_i, first_j = int(row < 0), int(column < 0)
                last_i = min(height, (x.shape[2] - row + 1) // 2)
                last_j = min(width, (x.shape[3] - column + 1) // 2)
                outputs = (..., slice(first_i, last_i), slice(first_j, last_j))
                inputs = (
                    ...,
                    slice(2 * first_i + row, 2 * last_i + row - 1, 2),
                    slice(2 * first_j + column, 2 * last_j + column - 1, 2),
                )
                x_gradient[inputs] += gradient[outputs] * (x[inputs] == pooled[outputs])
        return x_gradient
