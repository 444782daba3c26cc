"""3x3 convolutions with half the multiplications, for wide maps on a CPU: Winograd's F(4, 3) along the height.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), in one direction: four rows of the output
come from six rows of the input by six products instead of twelve. The two directions together would save more products
and lose them to moving data.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 4  # rows of the output that are made together
# Where the polynomials are evaluated, besides at infinity. The textbook's 0, 1, -1, 2, -2 are exact in binary and lose
# twice as much: with these the error is 9e-7 of a map's norm over 256 channels, that of plain summation 6e-7.
POINTS = (0.0, 0.65, -0.65, 1.5, -1.5)
PRODUCTS = len(POINTS) + 1
# Rows of a map, and positions of a batch of small maps, in one go: what lies between stays in the processor's cache.
ROWS_AT_ONCE = 16
POSITIONS_AT_ONCE = 12544
# Fewer channels or positions take longer to transform than they save; of small maps, as of RoIs, more positions.
LEAST_CHANNELS = 192
LEAST_POSITIONS = 1500
LEAST_POSITIONS_OF_SMALL_MAPS = 6000
SMALL_MAP = 16  # rows
# The weight's gradient sums over positions, and is quick at it without help.
LEAST_POSITIONS_OF_GRADIENT = 6000
LEAST_ROWS_OF_GRADIENT = 14


def winograd_pays(x: Tensor, weight: Tensor) -> bool:
    """Whether `winograd_conv` of `[N, C, H, W]` float32 on a CPU and `[K, C, k, k]` is faster than torch's operator."""
    positions = x.shape[0] * x.shape[2] * x.shape[3]
    least = LEAST_POSITIONS_OF_SMALL_MAPS if x.shape[2] < SMALL_MAP else LEAST_POSITIONS
    return weight.shape[2:] == (3, 3) and min(weight.shape[:2]) >= LEAST_CHANNELS and positions >= least


def _gradient_pays(x: Tensor) -> bool:
    positions = x.shape[0] * x.shape[2] * x.shape[3]
    return positions >= LEAST_POSITIONS_OF_GRADIENT and x.shape[2] >= LEAST_ROWS_OF_GRADIENT


def winograd_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What `F.conv2d(x, weight, bias, padding=1)` gives, differentiable.

    Args:
        x: `[N, C, H, W]`; channels-last memory is not copied.
        weight: `[K, C, 3, 3]`.
        bias: `[K]`, or None.

    Returns:
        `[N, K, H, W]`, channels-last in memory.
    """
    mapped: Tensor = _Winograd.apply(x, weight)  # type: ignore[no-untyped-call]
    return mapped if bias is None else mapped + bias[:, None, None]


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        x_gradient = _convolve(gradient, weight.flip(2, 3).transpose(0, 1)) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return x_gradient, None
        if _gradient_pays(x):
            return x_gradient, _weight_gradient(x, gradient)
        _, weight_gradient, _ = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, (False, True, False)
        )
        return x_gradient, weight_gradient


def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    rows = x.permute(0, 2, 3, 1)
    images, height, width, _ = rows.shape
    kernels = _transformed(weight)
    out = x.new_empty((images, height, width, len(weight)))
    for some, first, last in _bands(images, height, width):
        top, bottom = max(first - 1, 0), min(last + 1, height)
        into, back = _matrices(last - first, first - top, bottom - last)
        band = rows[some, top:bottom].flatten(2)
        tiles = (into @ band).view(len(band), PRODUCTS, -1, width, x.shape[1])
        products = [
            F.conv2d(tiles[:, i].permute(0, 3, 1, 2), kernel, padding=(0, 1)) for i, kernel in enumerate(kernels)
        ]
        joined = torch.cat(products, dim=2).permute(0, 2, 3, 1).flatten(2)
        torch.matmul(back, joined, out=out[some, first:last].flatten(2))
    return out.permute(0, 3, 1, 2)


def _weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient `[K, C, 3, 3]` of the weight: each product's by itself, of rows that are transformed as before.

    Nine sums over all positions become eighteen over a quarter of them.
    """
    rows, given = x.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    images, height, width, channels = rows.shape
    kernels = x.new_zeros((PRODUCTS, gradient.shape[1], 3, channels))
    for some, first, last in _bands(images, height, width):
        top, bottom = max(first - 1, 0), min(last + 1, height)
        into, back = _matrices(last - first, first - top, bottom - last)
        tiles = into @ rows[some, top:bottom].flatten(2)
        tiles = tiles.view(len(tiles), PRODUCTS, -1, width, channels)
        products = (back.t() @ given[some, first:last].flatten(2)).view(*tiles.shape[:-1], gradient.shape[1])
        for number in range(PRODUCTS):
            _, of_product, _ = torch.ops.aten.convolution_backward(
                products[:, number].permute(0, 3, 1, 2),
                tiles[:, number].permute(0, 3, 1, 2),
                kernels[number, :, None].permute(0, 3, 1, 2),
                None, (1, 1), (0, 1), (1, 1), False, (0, 0), 1, (False, True, False),
            )  # fmt: skip
            kernels[number] += of_product[:, :, 0].permute(0, 2, 1)
    # Back from the points to the three rows of the weight, as `_transformed` took them there.
    powers = torch.from_numpy(_powers(3)).float()
    return (powers.t() @ kernels.flatten(1)).view(3, *kernels.shape[1:]).permute(1, 3, 0, 2)


def _bands(images: int, height: int, width: int) -> Iterator[tuple[slice, int, int]]:
    """Parts of a batch that are convolved one after another: some images, and the first and last row of each.

    The rows of a large map are cut at multiples of TILE; small maps, RoIs among them, are taken many at once.
    """
    at_once = max(1, POSITIONS_AT_ONCE // (min(height, ROWS_AT_ONCE) * width))
    for image in range(0, images, at_once):
        for first in range(0, height, ROWS_AT_ONCE):
            yield slice(image, min(image + at_once, images)), first, min(first + ROWS_AT_ONCE, height)


def _transformed(weight: Tensor) -> list[Tensor]:
    """A `[K, C, 3, 3]` weight to six of `[K, C, 1, 3]`, one for each product."""
    kernels = torch.from_numpy(_powers(3)).float() @ weight.permute(0, 2, 3, 1).flatten(2)
    return list(kernels.view(len(weight), PRODUCTS, 1, 3, -1).permute(1, 0, 4, 2, 3).unbind())


@lru_cache
def _matrices(height: int, above: int, below: int) -> tuple[Tensor, Tensor]:
    """What takes rows of the input to the products and back: `[6 * tiles, above + height + below]` and the reverse.

    Args:
        height: rows of the output.
        above, below: rows of the input beyond them, 0 or 1; where there is none it is zero.
    """
    tiles = -(-height // TILE)
    interpolation = np.linalg.inv(_powers(PRODUCTS)).T
    into = np.zeros((PRODUCTS, tiles, height + 2 + TILE))
    back = np.zeros((tiles, TILE, PRODUCTS, tiles))
    for tile in range(tiles):
        into[:, tile, TILE * tile : TILE * tile + PRODUCTS] = interpolation
        back[tile, :, :, tile] = _powers(TILE).T
    # Column 0 of `into` is the row above the output.
    given = into[:, :, 1 - above : 1 + height + below].reshape(PRODUCTS * tiles, -1)
    wanted = back.reshape(TILE * tiles, -1)[:height]
    return torch.from_numpy(given).float(), torch.from_numpy(wanted).float()


def _powers(count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Powers 0 to `count` - 1 of the points, `[6, count]`; at infinity the highest one counts alone."""
    powers = np.vander((*POINTS, 0.0), count, increasing=True)
    powers[-1] = np.arange(count) == count - 1
    return powers
