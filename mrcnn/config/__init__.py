"""A Detectron configuration: its keys, what they mean and what must hold between them (Detectron core/config.py)."""

from detectron_gn.mrcnn.config.check import check_config, check_keypoints, refuse_training
from detectron_gn.mrcnn.config.functions import (
    a_family,
    backbone_depth,
    body,
    box_head_kind,
    has_box_head,
    keypoint_head_kind,
    mask_head_kind,
    model_family,
    norm_of_backbone,
    num_box_classes,
    num_mask_classes,
    padding_stride,
    pooling_sections,
    pyramid_levels,
    takes_proposals,
)
from detectron_gn.mrcnn.config.idle import idle_remarks, idle_training_remarks
from detectron_gn.mrcnn.config.schema import Config
from detectron_gn.mrcnn.config.supported import (
    INERT,
    LIMITED,
    KeyUse,
    Limit,
    flatten,
    key_use,
    unsupported_values,
    with_values,
)

__all__ = [
    "INERT",
    "LIMITED",
    "Config",
    "KeyUse",
    "Limit",
    "a_family",
    "backbone_depth",
    "body",
    "box_head_kind",
    "check_config",
    "check_keypoints",
    "flatten",
    "has_box_head",
    "idle_remarks",
    "idle_training_remarks",
    "key_use",
    "keypoint_head_kind",
    "mask_head_kind",
    "model_family",
    "norm_of_backbone",
    "num_box_classes",
    "num_mask_classes",
    "padding_stride",
    "pooling_sections",
    "pyramid_levels",
    "refuse_training",
    "takes_proposals",
    "unsupported_values",
    "with_values",
]
