"""A Detectron configuration: its keys, what they mean and what must hold between them (Detectron core/config.py)."""

from detectron_gn.mrcnn.config.check import check_config, refuse_proposal_files, refuse_training
from detectron_gn.mrcnn.config.functions import (
    backbone_depth,
    box_head_kind,
    mask_head_kind,
    model_family,
    norm_of_backbone,
    num_box_classes,
    num_mask_classes,
    pooling_sections,
    pyramid_levels,
)
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
    "backbone_depth",
    "box_head_kind",
    "check_config",
    "flatten",
    "key_use",
    "mask_head_kind",
    "model_family",
    "norm_of_backbone",
    "num_box_classes",
    "num_mask_classes",
    "pooling_sections",
    "pyramid_levels",
    "refuse_proposal_files",
    "refuse_training",
    "unsupported_values",
    "with_values",
]
