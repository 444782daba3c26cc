"""Anchors of the region proposal network; answers to Detectron modeling/generate_anchors.py."""

import numpy as np
import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config


def base_anchors(stride: int, size: float, ratios: tuple[float, ...]) -> Tensor:
    """Anchors of one pyramid level at the first position of its grid.

    Args:
        stride: pixels between grid positions.
        size: square root of the anchors' area, in pixels.
        ratios: heights over widths.

    Returns:
        `[A, 4]` float32, inclusive corners, one row per ratio.

    Detectron rounds the sides of a window of `stride` pixels half to even and scales afterwards, so that a ratio of
    0.5 on P5 is 360 x 176 and not 362 x 181 (modeling/generate_anchors.py:_ratio_enum, _scale_enum).
    """
    window_ratios = np.asarray(ratios, dtype=np.float64)
    widths = np.round(np.sqrt(stride * stride / window_ratios))
    heights = np.round(widths * window_ratios)
    half = 0.5 * (np.stack([widths, heights], axis=1) * (size / stride) - 1)
    middle = 0.5 * (stride - 1)
    return torch.from_numpy(np.concatenate([middle - half, middle + half], axis=1)).float()


def anchor_grid(base: Tensor, stride: int, height: int, width: int) -> Tensor:
    """Anchors `[height * width * A, 4]` at every position of a feature map, rows ordered (y, x, anchor).

    That is the order of the network's outputs after `permute(1, 2, 0)` (Detectron ops/generate_proposals.py:forward).
    """
    ys, xs = torch.meshgrid(
        torch.arange(height, device=base.device, dtype=base.dtype) * stride,
        torch.arange(width, device=base.device, dtype=base.dtype) * stride,
        indexing="ij",
    )
    shifts = torch.stack((xs, ys, xs, ys), dim=2).reshape(-1, 1, 4)
    return (shifts + base).reshape(-1, 4)


def pyramid_anchors(cfg: Config) -> list[Tensor]:
    """`base_anchors` of each level `cfg.FPN.RPN_MIN_LEVEL` to `cfg.FPN.RPN_MAX_LEVEL`, finest first.

    A level's stride is `2 ** level` and its size doubles with it from `cfg.FPN.RPN_ANCHOR_START_SIZE`.
    """
    first, last = cfg.FPN.RPN_MIN_LEVEL, cfg.FPN.RPN_MAX_LEVEL
    return [
        base_anchors(2**level, cfg.FPN.RPN_ANCHOR_START_SIZE * 2.0 ** (level - first), cfg.FPN.RPN_ASPECT_RATIOS)
        for level in range(first, last + 1)
    ]
