"""How a head pools its RoIs; answers to Detectron modeling/detector.py:RoIFeatureTransform."""

import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.config.schema import FastRcnn, Krcnn, Mrcnn
from detectron_gn.mrcnn.ops.roi_align import pyramid_roi_align, roi_align
from detectron_gn.mrcnn.ops.roi_levels import roi_levels
from detectron_gn.mrcnn.ops.roi_pool import roi_pool
from detectron_gn.mrcnn.structures import Features


def pool_rois(
    features: Features, rois: Tensor, cfg: Config, pooling: FastRcnn | Mrcnn | Krcnn, resolution: int | None = None
) -> Tensor:
    """The features `[R, C, S, S]` that a head pools from `[R, 5]` RoIs.

    Args:
        features: of a pyramid, or of one map.
        pooling: the head's section of the configuration, whose `ROI_XFORM_RESOLUTION` is S.
        resolution: S, where the head has its own.
    """
    size, ratio = resolution or pooling.ROI_XFORM_RESOLUTION, pooling.ROI_XFORM_SAMPLING_RATIO
    max_pooled = pooling.ROI_XFORM_METHOD == "RoIPoolF"
    if not cfg.FPN.FPN_ON:
        scale = 1 / features.strides[0]
        if max_pooled:
            return roi_pool(features.maps[0], rois, scale, size)
        return roi_align(features.maps[0], rois, scale, size, ratio)
    if max_pooled:
        return _pyramid_roi_pool(features, rois, cfg, size)
    return pyramid_roi_align(features, rois, cfg, size, ratio)


def _pyramid_roi_pool(features: Features, rois: Tensor, cfg: Config, resolution: int) -> Tensor:
    """RoI max pooling of each RoI on its own pyramid level, rows in the order of the RoIs."""
    levels = roi_levels(rois[:, 1:], cfg)
    pooled = features.maps[0].new_zeros((len(rois), features.maps[0].shape[1], resolution, resolution))
    for stride, feature_map in zip(features.strides, features.maps, strict=True):
        chosen = (torch.full_like(levels, 2) ** levels == stride).nonzero()[:, 0]
        pooled[chosen] = roi_pool(feature_map, rois[chosen], 1 / stride, resolution)
    return pooled
