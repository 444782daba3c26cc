"""RoIAlign without the half-pixel shift; answers to Caffe2 modules/detectron/roi_align_op.cu."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.ops.roi_levels import roi_levels
from detectron_gn.mrcnn.structures import Features
from detectron_gn.mrcnn.tracing import is_traced, refuse_export


class _Maps(NamedTuple):
    """Where each RoI's feature map lies in a table of rows, one row per position: `[R]` each.

    Attributes:
        first_row: int64, of the first image's map; those of the other images follow it.
        height, width: int64, of a map.
        scale: float32, positions of the map per pixel of the network's input.
    """

    first_row: Tensor
    height: Tensor
    width: Tensor
    scale: Tensor


def _axis_samples(start: Tensor, length: Tensor, bins: int, samples: int, size: Tensor) -> tuple[Tensor, Tensor]:
    """Where the samples of one axis read a map, and with which weight.

    Args:
        start, length: `[R]` float32, of each RoI on the map.
        bins, samples: bins per RoI, samples per bin.
        size: `[R]` int64, positions of the map along this axis.

    Returns:
        Positions (int64) and bilinear weights (float32), both `[R, bins, 2 * samples]`. A sample more than one
        position outside of the map weighs nothing; one within is moved onto the border.
    """
    size, bin_length = size[:, None, None], (length / bins)[:, None, None]
    bin_index = torch.arange(bins, device=start.device, dtype=start.dtype)[:, None]
    sample_index = torch.arange(samples, device=start.device, dtype=start.dtype)
    where = start[:, None, None] + bin_index * bin_length + (sample_index + 0.5) * bin_length / samples
    inside = ((where >= -1) & (where <= size)).to(where.dtype)
    where = torch.minimum(where.clamp(min=0), (size - 1).to(where.dtype))
    low = where.floor()
    high_weight = where - low
    positions = torch.stack((low.long(), torch.minimum(low.long() + 1, size - 1)), dim=-1)
    weights = torch.stack((1 - high_weight, high_weight), dim=-1) * inside[..., None]
    return positions.flatten(2), weights.flatten(2)


def _align_with_samples(table: Tensor, maps: _Maps, rois: Tensor, resolution: int, samples: tuple[int, int]) -> Tensor:
    """RoIAlign of RoIs that all take `samples` = (vertical, horizontal) samples per bin, from a table `[P, C]`.

    Each bin is a weighted sum of rows: one `embedding_bag`, which on channels-last features reads whole rows, in
    the gradient too.
    """
    corners = rois[:, 1:] * maps.scale[:, None]
    sides = (corners[:, 2:] - corners[:, :2]).clamp(min=1)
    y, y_weight = _axis_samples(corners[:, 1], sides[:, 1], resolution, samples[0], maps.height)
    x, x_weight = _axis_samples(corners[:, 0], sides[:, 0], resolution, samples[1], maps.width)
    first_row = maps.first_row + rois[:, 0].long() * (maps.height * maps.width)
    y = y * maps.width[:, None, None] + first_row[:, None, None]
    rows = y[:, :, None, :, None] + x[:, None, :, None, :]
    weights = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :] / (samples[0] * samples[1])
    bins = F.embedding_bag(
        rows.flatten(3).flatten(0, 2),
        table,
        mode="sum",
        per_sample_weights=weights.flatten(3).flatten(0, 2).to(table.dtype),
    )
    return bins.view(rois.shape[0], resolution, resolution, table.shape[1]).permute(0, 3, 1, 2)


def _rows(features: Tensor) -> Tensor:
    """`[N, C, H, W]` as a table `[N * H * W, C]`; channels-last memory is not copied."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)


def roi_align(features: Tensor, rois: Tensor, spatial_scale: float, resolution: int, sampling_ratio: int) -> Tensor:
    """Average bilinear samples of a feature map in a grid of bins over each RoI.

    Args:
        features: `[N, C, H, W]`; fastest in channels-last memory.
        rois: `[R, 5]` float32, (index of the image, x1, y1, x2, y2) in pixels of the network's input. The
            corners are scaled, neither rounded nor moved by half a pixel, and sides are at least one position.
        spatial_scale: positions of the map per pixel of the network's input.
        resolution: bins per side.
        sampling_ratio: samples per bin and axis; 0 takes `ceil(side / resolution)` of each RoI.

    Returns:
        `[R, C, resolution, resolution]`, channels-last in memory. Differentiable in `features`.
    """
    table = _rows(features)
    integers = torch.zeros_like(rois[:, 0], dtype=torch.int64)
    maps = _Maps(
        integers,
        torch.full_like(integers, features.shape[2]),
        torch.full_like(integers, features.shape[3]),
        torch.full_like(rois[:, 0], spatial_scale),
    )
    if sampling_ratio <= 0:
        refuse_export("RoIAlign with as many samples as a RoI needs (ROI_XFORM_SAMPLING_RATIO 0) takes them")
    if sampling_ratio > 0 or not len(rois):
        # Of no RoI as well: its features still have a gradient.
        samples_per_axis = max(sampling_ratio, 1)
        return _align_with_samples(table, maps, rois, resolution, (samples_per_axis, samples_per_axis))
    corners = rois[:, 1:] * spatial_scale
    sides = (corners[:, 2:] - corners[:, :2]).clamp(min=1)
    samples = torch.ceil(sides / resolution).long().flip(1)
    aligned = features.new_zeros((len(rois), features.shape[1], resolution, resolution))
    for pair in torch.unique(samples, dim=0):
        chosen = (samples == pair).all(dim=1).nonzero()[:, 0]
        of_chosen = _Maps(*(column[chosen] for column in maps))
        part = _align_with_samples(table, of_chosen, rois[chosen], resolution, (int(pair[0]), int(pair[1])))
        aligned.index_copy_(0, chosen, part)
    return aligned


def align_from_one_table(
    features: Sequence[Tensor],
    scales: Sequence[float],
    place: Tensor,
    rois: Tensor,
    resolution: int,
    sampling_ratio: int,
) -> Tensor:
    """RoIAlign of each RoI on the map `features[place]`, `place [R]` int64, at its scale in `scales`.

    All maps are copied into one table, so the host need not know which RoI reads which map, and a GPU does not wait.
    On a CPU the copy costs more than it saves.
    """
    heights, widths = [each.shape[2] for each in features], [each.shape[3] for each in features]
    rows = [_rows(each) for each in features]
    # Shapes, and no lengths: they may be symbols of a trace.
    first_rows = [sum(each.shape[0] for each in rows[:number]) for number in range(len(rows))]
    maps = _Maps(
        _chosen(place, first_rows, torch.int64),
        _chosen(place, heights, torch.int64),
        _chosen(place, widths, torch.int64),
        _chosen(place, scales, torch.float32),
    )
    return _align_with_samples(torch.cat(rows), maps, rois, resolution, (sampling_ratio, sampling_ratio))


def _chosen(place: Tensor, values: Sequence[float], dtype: torch.dtype) -> Tensor:
    """`values[place]` without a copy of the values from the host."""
    chosen = torch.full_like(place, values[0], dtype=dtype)
    for number, value in enumerate(values):
        chosen = chosen.masked_fill(place == number, value)
    return chosen


def pyramid_roi_align(
    features: Features, rois: Tensor, cfg: Config, resolution: int, sampling_ratio: int
) -> Tensor:
    """RoIAlign of each RoI on its own pyramid level, rows in the order of the RoIs.

    Args:
        features: of the pyramid; only the levels `cfg.FPN.ROI_MIN_LEVEL` to `cfg.FPN.ROI_MAX_LEVEL` are read.
        rois: `[R, 5]` float32, (index of the image, x1, y1, x2, y2) in pixels of the network's input.

    A level without a RoI has a gradient of 0, as in Caffe2. So its parameters have one, which decays them by their
    weight, and which several processes can add up.
    """
    level_of_roi = roi_levels(rois[:, 1:], cfg)
    numbers = range(cfg.FPN.ROI_MIN_LEVEL, cfg.FPN.ROI_MAX_LEVEL + 1)
    map_of_stride = dict(zip(features.strides, features.maps, strict=True))
    maps, scales = [map_of_stride[2**number] for number in numbers], [2.0**-number for number in numbers]
    if (rois.device.type != "cpu" or is_traced()) and sampling_ratio > 0:
        place = level_of_roi - cfg.FPN.ROI_MIN_LEVEL
        return align_from_one_table(maps, scales, place, rois, resolution, sampling_ratio)
    parts, order = [], []
    for number, feature_map, scale in zip(numbers, maps, scales, strict=True):
        chosen = (level_of_roi == number).nonzero()[:, 0]
        if len(chosen) or feature_map.requires_grad:
            parts.append(roi_align(feature_map, rois[chosen], scale, resolution, sampling_ratio))
            order.append(chosen)
    if not parts:
        return roi_align(maps[0], rois, scales[0], resolution, sampling_ratio)
    # Whole rows of channels-last memory; writing into one tensor level by level would copy its gradient as often.
    rows = torch.cat([part.permute(0, 2, 3, 1) for part in parts])
    return rows.index_select(0, torch.cat(order).argsort()).permute(0, 3, 1, 2)
