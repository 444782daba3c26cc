"""RoI max pooling; answers to Caffe2 modules/detectron/roi_pool_f_op.cu and operators/roi_pool_op.cc."""

import torch
from torch import Tensor

from detectron_gn.mrcnn.tracing import refuse_export


def roi_pool(features: Tensor, rois: Tensor, spatial_scale: float, resolution: int) -> Tensor:
    """The largest value of each bin of a grid over each RoI; 0 where a bin holds no position of the map.

    Args:
        features: `[N, C, H, W]`.
        rois: `[R, 5]` float32, (index of the image, x1, y1, x2, y2) in pixels of the network's input. Corners are
            rounded to positions of the map, halves away from zero, and both belong to the RoI.
        spatial_scale: positions of the map per pixel of the network's input.
        resolution: bins per side. Bins begin and end at whole positions, and may share some.

    Returns:
        `[R, C, resolution, resolution]`.
    """
    refuse_export("RoI max pooling makes its bins")
    height, width = features.shape[2:]
    pooled = features.new_zeros((len(rois), features.shape[1], resolution, resolution))
    corners = rois[:, 1:] * spatial_scale
    corners = torch.trunc(corners + torch.where(corners < 0, -0.5, 0.5))
    rows = _bins(corners[:, 1], corners[:, 3], resolution, height)
    columns = _bins(corners[:, 0], corners[:, 2], resolution, width)
    for number, (image, of_rows, of_columns) in enumerate(zip(rois[:, 0].long().tolist(), rows, columns)):
        for y, (top, bottom) in enumerate(of_rows):
            if bottom <= top:
                continue
            strip = features[image, :, top:bottom].amax(dim=1)
            for x, (left, right) in enumerate(of_columns):
                if right > left:
                    pooled[number, :, y, x] = strip[:, left:right].amax(dim=1)
    return pooled


def _bins(first: Tensor, last: Tensor, bins: int, size: int) -> list[list[list[int]]]:
    """Begin and end of each bin of each RoI along an axis of `size` positions, computed in float32."""
    length = (last - first + 1).clamp(min=1) / bins
    index = torch.arange(bins + 1, device=first.device, dtype=torch.float32) * length[:, None]
    begin = (index[:, :-1].floor() + first[:, None]).clamp(0, size)
    end = (index[:, 1:].ceil() + first[:, None]).clamp(0, size)
    bounds: list[list[list[int]]] = torch.stack((begin, end), dim=2).long().tolist()
    return bounds
