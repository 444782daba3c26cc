"""A Detectron configuration: its keys, what they mean and what must hold between them (Detectron core/config.py)."""

from detectron_gn.mrcnn.config.check import check_config, refuse_proposal_files
from detectron_gn.mrcnn.config.functions import (
    backbone_depth,
    box_head_kind,
    mask_head_kind,
    model_family,
    norm_of_backbone,
    pooling_sections,
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
    "pooling_sections",
    "refuse_proposal_files",
    "unsupported_values",
    "with_values",
]
