"""Anchors of the region proposal network and of RetinaNet; answers to Detectron modeling/generate_anchors.py."""

import numpy as np
import numpy.typing as npt
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
    return torch.from_numpy(_exact_anchors(stride, size, ratios)).float()


def _exact_anchors(stride: int, size: float, ratios: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """`base_anchors` as they are before they are rounded to float32."""
    window_ratios = np.asarray(ratios, dtype=np.float64)
    widths = np.round(np.sqrt(stride * stride / window_ratios))
    heights = np.round(widths * window_ratios)
    half = 0.5 * (np.stack([widths, heights], axis=1) * (size / stride) - 1)
    middle = 0.5 * (stride - 1)
    return np.concatenate([middle - half, middle + half], axis=1)


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


def retinanet_anchors(cfg: Config) -> list[Tensor]:
    """RetinaNet's anchors at the first position of each level `cfg.FPN.RPN_MIN_LEVEL` to `cfg.FPN.RPN_MAX_LEVEL`.

    `[A, 4]` float64 each, finest level first; rows ordered (octave, ratio). An anchor of octave o has the size
    `cfg.RETINANET.ANCHOR_SCALE * 2 ** (o / cfg.RETINANET.SCALES_PER_OCTAVE)` strides. Detectron adds a position to them
    before it rounds to float32 (core/test_retinanet.py:_create_cell_anchors, im_detect_bbox).
    """
    dense = cfg.RETINANET
    scales = [2.0 ** (octave / dense.SCALES_PER_OCTAVE) for octave in range(dense.SCALES_PER_OCTAVE)]
    levels = []
    for level in range(cfg.FPN.RPN_MIN_LEVEL, cfg.FPN.RPN_MAX_LEVEL + 1):
        stride = 2**level
        rows = [_exact_anchors(stride, stride * scale * dense.ANCHOR_SCALE, dense.ASPECT_RATIOS) for scale in scales]
        levels.append(torch.from_numpy(np.concatenate(rows)))
    return levels


def single_level_anchors(cfg: Config, stride: int) -> Tensor:
    """`[A, 4]` of an RPN on one map: `cfg.RPN.SIZES` of each of `cfg.RPN.ASPECT_RATIOS`, rows ordered (ratio, size).

    Detectron modeling/rpn_heads.py:add_single_scale_rpn_outputs.
    """
    of_size = [base_anchors(stride, size, cfg.RPN.ASPECT_RATIOS) for size in cfg.RPN.SIZES]
    return torch.stack(of_size, dim=1).flatten(0, 1)
