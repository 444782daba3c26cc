"""The blob dictionary: which Caffe2 blob is which parameter of the network, one row each, built from the config.

Names are those that Detectron's model functions give (modeling/ResNet.py, FPN.py, fast_rcnn_heads.py,
mask_rcnn_heads.py), rows stand in the order in which Detectron creates, and so saves, its parameters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from detectron_gn.mrcnn.backbones.resnet import BLOCK_COUNTS
from detectron_gn.mrcnn.config import Config, backbone_depth, box_head_kind, mask_head_kind
from detectron_gn.mrcnn.detectors.generalized_rcnn import MaskRCNN
from detectron_gn.mrcnn.heads.mask import NUM_CONVS
from detectron_gn.mrcnn.layers import ParameterKind, parameter_kinds


@dataclass(frozen=True)
class BlobRow:
    """One parameter: its blob's name in a Detectron file, its own name in the network, its shape and what it is."""

    blob: str
    parameter: str
    shape: tuple[int, ...]
    kind: ParameterKind


@dataclass(frozen=True)
class BlobTable:
    """All parameters of one configuration's network, in Detectron's order."""

    rows: tuple[BlobRow, ...]

    @classmethod
    def from_config(cls, cfg: Config) -> "BlobTable":
        """The table of a configuration, read off the network itself without giving it any memory."""
        with torch.device("meta"):
            return cls.from_model(MaskRCNN(cfg))

    @classmethod
    def from_model(cls, model: MaskRCNN) -> "BlobTable":
        """The table of a network that exists."""
        prefixes = dict(layer_blobs(model.cfg))
        kinds = parameter_kinds(model)
        return cls(
            tuple(
                BlobRow(_blob_name(name, kinds[name], prefixes), name, tuple(parameter.shape), kinds[name])
                for name, parameter in model.named_parameters()
            )
        )

    @cached_property
    def by_blob(self) -> dict[str, BlobRow]:
        """Rows by blob name."""
        return {row.blob: row for row in self.rows}

    @cached_property
    def by_parameter(self) -> dict[str, BlobRow]:
        """Rows by parameter name."""
        return {row.parameter: row for row in self.rows}


def stage_blobs(cfg: Config) -> dict[str, str]:
    """The blob each stage ends in, for example `{"res5": "res5_2_sum", ...}`, coarsest first.

    Detectron modeling/FPN.py:fpn_level_info_ResNet50_conv5 and its siblings.
    """
    counts = BLOCK_COUNTS[backbone_depth(cfg)]
    return {f"res{stage}": f"res{stage}_{counts[stage - 2] - 1}_sum" for stage in (5, 4, 3, 2)}


def mask_blob_prefix(cfg: Config) -> str:
    """What the mask head's blobs begin with: `_mask_` with GroupNorm, `_[mask]_` without."""
    return "_mask_" if mask_head_kind(cfg) == "v1up4convs_gn" else "_[mask]_"


def layer_blobs(cfg: Config) -> Iterator[tuple[str, str]]:
    """Pairs of a layer's path in the network and the blob its convolution or matrix product writes.

    A layer's parameter blobs begin with that name; so do the blobs of its activations.
    """
    yield "backbone.conv1", "conv1"
    for stage, count in enumerate(BLOCK_COUNTS[backbone_depth(cfg)], 2):
        for block in range(count):
            branches = ("branch2a", "branch2b", "branch2c") + (("branch1",) if block == 0 else ())
            for branch in branches:
                yield f"backbone.res{stage}.{block}.{branch}", f"res{stage}_{block}_{branch}"
    stages = stage_blobs(cfg)
    for stage_name, blob in stages.items():
        yield f"fpn.inner.{stage_name}", f"fpn_inner_{blob}" + ("" if stage_name == "res5" else "_lateral")
    for stage_name, blob in stages.items():
        yield f"fpn.output.{stage_name}", f"fpn_{blob}"
    # All levels share the parameters of the finest, which carry its name (modeling/FPN.py:add_fpn_rpn_outputs).
    finest = cfg.FPN.RPN_MIN_LEVEL
    yield "rpn.conv", f"conv_rpn_fpn{finest}"
    yield "rpn.cls_logits", f"rpn_cls_logits_fpn{finest}"
    yield "rpn.bbox_pred", f"rpn_bbox_pred_fpn{finest}"
    two_layers = box_head_kind(cfg) == "2mlp"
    for index in range(0 if two_layers else cfg.FAST_RCNN.NUM_STACKED_CONVS):
        yield f"box_head.convs.{index}", f"head_conv{index + 1}"
    for layer in ("fc6", *(("fc7",) if two_layers else ()), "cls_score", "bbox_pred"):
        yield f"box_head.{layer}", layer
    for index in range(NUM_CONVS):
        yield f"mask_head.convs.{index}", f"{mask_blob_prefix(cfg)}fcn{index + 1}"
    for layer in ("conv5_mask", "mask_fcn_logits"):
        yield f"mask_head.{layer}", layer


def _blob_name(parameter: str, kind: ParameterKind, prefixes: dict[str, str]) -> str:
    """The blob of a parameter: its layer's prefix and Caffe2's endings.

    The AffineChannel of the stem is the one blob not named after its convolution: `res_conv1_bn_s`
    (Detectron modeling/ResNet.py:basic_bn_stem).
    """
    path, _, leaf = parameter.rpartition(".")
    layer = path.removesuffix(".norm").removesuffix(".conv")
    prefix = prefixes[layer if layer in prefixes else path]
    is_weight = leaf == "weight"
    if kind in ("gn_scale", "gn_shift"):
        return f"{prefix}_gn_{'s' if is_weight else 'b'}"
    if kind == "affine":
        prefix = "res_conv1" if prefix == "conv1" else prefix
        return f"{prefix}_bn_{'s' if is_weight else 'b'}"
    return f"{prefix}_{'w' if is_weight else 'b'}"
