"""RoIAlign without the half-pixel shift; answers to Caffe2 modules/detectron/roi_align_op.cu."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mrcnn.config import Config
from mrcnn.fpn import roi_levels


def _axis_samples(start: Tensor, length: Tensor, bins: int, samples: int, size: int) -> tuple[Tensor, Tensor]:
    """Where the samples of one axis read a map, and with which weight.

    Args:
        start, length: `[R]` float32, of each RoI on the map.
        bins, samples: bins an RoI, samples a bin.
        size: positions of the map along this axis.

    Returns:
        Positions (int64) and bilinear weights (float32), both `[R, bins, 2 * samples]`. A sample more than one
        position outside of the map weighs nothing; one within is moved onto the border.
    """
    bin_length = (length / bins)[:, None, None]
    bin_index = torch.arange(bins, device=start.device, dtype=start.dtype)[:, None]
    sample_index = torch.arange(samples, device=start.device, dtype=start.dtype)
    where = start[:, None, None] + bin_index * bin_length + (sample_index + 0.5) * bin_length / samples
    inside = ((where >= -1) & (where <= size)).to(where.dtype)
    where = where.clamp(0, size - 1)
    low = where.floor()
    high_weight = where - low
    positions = torch.stack((low, (low + 1).clamp(max=size - 1)), dim=-1).long()
    weights = torch.stack((1 - high_weight, high_weight), dim=-1) * inside[..., None]
    return positions.flatten(2), weights.flatten(2)


def _align_with_samples(
    features: Tensor, rois: Tensor, spatial_scale: float, resolution: int, samples: tuple[int, int]
) -> Tensor:
    """RoIAlign of RoIs that all take `samples` = (vertical, horizontal) samples a bin.

    Each bin is a weighted sum of rows of the map seen as `[N * H * W, C]`: one `embedding_bag`, which on
    channels-last features reads whole rows and whose gradient is as short.
    """
    batch, channels, height, width = features.shape
    corners = rois[:, 1:] * spatial_scale
    sides = (corners[:, 2:] - corners[:, :2]).clamp(min=1)
    y, y_weight = _axis_samples(corners[:, 1], sides[:, 1], resolution, samples[0], height)
    x, x_weight = _axis_samples(corners[:, 0], sides[:, 0], resolution, samples[1], width)
    y = y * width + rois[:, 0].long()[:, None, None] * (height * width)
    rows = y[:, :, None, :, None] + x[:, None, :, None, :]
    weights = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :] / (samples[0] * samples[1])
    table = features.permute(0, 2, 3, 1).reshape(batch * height * width, channels)
    bins = F.embedding_bag(
        rows.flatten(3).flatten(0, 2),
        table,
        mode="sum",
        per_sample_weights=weights.flatten(3).flatten(0, 2).to(table.dtype),
    )
    return bins.view(len(rois), resolution, resolution, channels).permute(0, 3, 1, 2)


def roi_align(features: Tensor, rois: Tensor, spatial_scale: float, resolution: int, sampling_ratio: int) -> Tensor:
    """Average bilinear samples of a feature map in a grid of bins over each RoI.

    Args:
        features: `[N, C, H, W]`; fastest in channels-last memory.
        rois: `[R, 5]` float32, (index of the image, x1, y1, x2, y2) in network pixels. The corners are scaled, not
            rounded, nor moved by half a pixel, and sides are at least one position.
        spatial_scale: positions of the map a network pixel.
        resolution: bins a side.
        sampling_ratio: samples a bin and axis; 0 takes `ceil(side / resolution)` of each RoI.

    Returns:
        `[R, C, resolution, resolution]`, channels-last in memory. Differentiable in `features`.
    """
    if sampling_ratio > 0:
        return _align_with_samples(features, rois, spatial_scale, resolution, (sampling_ratio, sampling_ratio))
    corners = rois[:, 1:] * spatial_scale
    sides = (corners[:, 2:] - corners[:, :2]).clamp(min=1)
    samples = torch.ceil(sides / resolution).long().flip(1)
    aligned = features.new_zeros((len(rois), features.shape[1], resolution, resolution))
    for pair in torch.unique(samples, dim=0):
        chosen = (samples == pair).all(dim=1).nonzero()[:, 0]
        part = _align_with_samples(features, rois[chosen], spatial_scale, resolution, (int(pair[0]), int(pair[1])))
        aligned.index_copy_(0, chosen, part)
    return aligned


def pyramid_roi_align(levels: list[Tensor], rois: Tensor, cfg: Config, resolution: int, sampling_ratio: int) -> Tensor:
    """RoIAlign of each RoI on its own pyramid level, rows in the order of the RoIs.

    Args:
        levels: the features of P2 and coarser, `[N, C, H, W]` each, finest first; only those of
            `cfg.FPN.ROI_MIN_LEVEL` to `cfg.FPN.ROI_MAX_LEVEL` are read.
        rois: `[R, 5]` float32, (index of the image, x1, y1, x2, y2) in network pixels.
    """
    level_of_roi = roi_levels(rois[:, 1:], cfg)
    parts, order = [], []
    for level in range(cfg.FPN.ROI_MIN_LEVEL, cfg.FPN.ROI_MAX_LEVEL + 1):
        chosen = (level_of_roi == level).nonzero()[:, 0]
        if len(chosen):
            parts.append(roi_align(levels[level - 2], rois[chosen], 2.0**-level, resolution, sampling_ratio))
            order.append(chosen)
    if not parts:
        return roi_align(levels[0], rois, 1.0, resolution, sampling_ratio)
    # Whole rows of channels-last memory; writing into one tensor level by level would copy its gradient as often.
    rows = torch.cat([part.permute(0, 2, 3, 1) for part in parts])
    return rows.index_select(0, torch.cat(order).argsort()).permute(0, 3, 1, 2)
