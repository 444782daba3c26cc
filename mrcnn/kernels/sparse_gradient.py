"""A 3x3 convolution that expects its gradient at few positions, as the RPN's comes from the sampled anchors alone."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from detectron_gn.mrcnn.kernels.winograd import winograd_conv, winograd_pays

# The share of positions with a gradient from which on all of them are computed.
DENSE = 0.25


def sparse_gradient_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What `F.conv2d(x, weight, bias, padding=1)` gives; its backward pass skips positions whose gradient is zero.

    A batch of two images has 256 to 512 sampled anchors on maps of a hundred thousand positions.

    Args:
        x: `[N, C, H, W]`.
        weight: `[K, C, 3, 3]`.
        bias: `[K]`.
    """
    mapped: Tensor = _SparseGradient.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return mapped


class _SparseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        if winograd_pays(x, weight):
            return winograd_conv(x, weight, bias)
        return F.conv2d(x, weight, bias, padding=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        channels, (height, width) = x.shape[1], x.shape[2:]
        rows = gradient.permute(0, 2, 3, 1).reshape(-1, len(weight))
        given = rows.any(dim=1).nonzero()[:, 0]
        if len(given) > DENSE * len(rows):
            gradients: tuple[Tensor | None, Tensor | None, Tensor | None] = torch.ops.aten.convolution_backward(
                gradient, x, weight, (len(weight),), (1, 1), (1, 1), (1, 1), False, (0, 0), 1, ctx.needs_input_grad
            )
            return gradients
        rows = rows[given]
        index, inside = _neighbourhoods(given, height, width)
        patches = x.permute(0, 2, 3, 1).reshape(-1, channels)[index] * inside[..., None]
        weight_gradient = (rows.t() @ patches.flatten(1)).view(-1, 3, 3, channels).permute(0, 3, 1, 2)
        x_gradient = None
        if ctx.needs_input_grad[0]:
            patches_gradient = (rows @ weight.permute(0, 2, 3, 1).flatten(1)).view(patches.shape) * inside[..., None]
            x_rows = x.new_zeros((len(x) * height * width, channels))
            x_rows.index_add_(0, index.flatten(), patches_gradient.flatten(0, 1))
            x_gradient = x_rows.view(len(x), height, width, channels).permute(0, 3, 1, 2)
        return x_gradient, weight_gradient, rows.sum(dim=0)


def _neighbourhoods(positions: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The 3x3 positions `[P, 9]` around `positions [P]` of `[N * H * W]`, and which of them lie on the map.

    Those that do not are given as the position itself.
    """
    offsets = torch.arange(-1, 2, device=positions.device)
    y = (positions // width % height)[:, None, None] + offsets[:, None]
    x = (positions % width)[:, None, None] + offsets
    inside = ((y >= 0) & (y < height) & (x >= 0) & (x < width)).flatten(1)
    neighbours = positions[:, None] + (offsets[:, None] * width + offsets).flatten()
    return neighbours.where(inside, positions[:, None]), inside
