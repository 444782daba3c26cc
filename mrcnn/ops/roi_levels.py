"""Which pyramid level a RoI takes its features from; answers to Detectron modeling/FPN.py:map_rois_to_fpn_levels."""

import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.ops.boxes import box_areas


def roi_levels(boxes: Tensor, cfg: Config) -> Tensor:
    """The pyramid level `[R]` (int64) that each of `[R, 4]` boxes, in network pixels, takes its features from.

    Level `cfg.FPN.ROI_CANONICAL_LEVEL` holds the boxes of area `cfg.FPN.ROI_CANONICAL_SCALE ** 2`; the 1e-6 stands
    inside the logarithm (Detectron modeling/FPN.py:map_rois_to_fpn_levels). All in float32, as there. A box whose far
    corner lies before the near one, as detections in pictures of a few pixels can, has no area; Detectron stops there.
    """
    scale = torch.sqrt(box_areas(boxes).clamp(min=0)) / cfg.FPN.ROI_CANONICAL_SCALE
    levels = torch.floor(cfg.FPN.ROI_CANONICAL_LEVEL + torch.log2(scale + 1e-6))
    return levels.clamp(cfg.FPN.ROI_MIN_LEVEL, cfg.FPN.ROI_MAX_LEVEL).long()
