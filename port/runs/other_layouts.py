"""ImageNet classifiers, and the backbones of detectors, as files that torchvision and timm load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from detectron_gn.mrcnn.backbones.fpn import PyramidBackbone
from detectron_gn.mrcnn.backbones.resnet import STAGE_CHANNELS
from detectron_gn.mrcnn.config import Config, backbone_depth, norm_of_backbone, pyramid_levels
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.blobs.classifier import build_classifier, mean_to_subtract, published_error
from detectron_gn.port.blobs.convert import build_model, check_is_detector
from detectron_gn.port.blobs.family import family_of
from detectron_gn.port.blobs.layouts import is_own_state_dict
from detectron_gn.port.blobs.torchvision_names import STD, Array, body_arrays, pyramid_arrays
from detectron_gn.port.runs.load import classifier_config, config_for, find_config
from detectron_gn.weights import read_blobs
from detectron_gn.weights.download.cache import resolve
from detectron_gn.weights.formats import state_dict_writer_of_name, write_state_dict
from detectron_gn.weights.weights_file import WeightsFile

OtherLayout = Literal["torchvision", "timm"]

# The last of the levels above res5 that torchvision convolves: it has P6 and P7, or neither.
_LAST_CONVOLVED = 7


@dataclass(frozen=True)
class Written:
    """A file in another library's layout, and what one must know to use it.

    Attributes:
        out: the file, a bare dictionary of tensors.
        layout: whose names the arrays have.
        arrays: how many it holds.
        network: the Python expression of the network that it loads into with `strict=True`.
        mean, std: of RGB in 0..1; the image has the mean subtracted, then is divided by the standard deviation.
        mean_reason: why it is this mean.
        top1: the share of ImageNet's validation images that it classifies rightly, in percent; None where none is
            published, and for a backbone.
        is_classifier: whether it is a classifier, or else the backbone of a detector.
    """

    out: Path
    layout: OtherLayout
    arrays: int
    network: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    mean_reason: str
    top1: float | None
    is_classifier: bool

    def document(self) -> dict[str, Any]:
        """What --json writes."""
        return asdict(self) | {"out": str(self.out)}

    def lines(self) -> list[str]:
        """What is said of the file: the network, the preprocessing that belongs to it, and how good it should be."""
        mean, std = (", ".join(f"{value:.9g}" for value in values) for values in (self.mean, self.std))
        lines = [
            f"{self.out}: {self.arrays} arrays in {self.layout}'s layout",
            f"network: {self.network}",
            f"preprocessing: RGB in 0..1, minus mean ({mean}), divided by std ({std}); {self.mean_reason}",
            "padding: zeros after that, "
            + ("" if self.is_classifier else "at the right and the bottom to multiples of 32 pixels, ")
            + "never before: Detectron's border is the mean colour",
        ]
        if not self.is_classifier:
            return lines
        if self.top1 is None:
            return [*lines, "top-1: no error was published"]
        return [
            *lines,
            f"top-1: {self.top1:.1f} % of ImageNet's validation images, with the short side at 256 pixels and a centre "
            f"crop of 224 (published error {100 - self.top1:.1f} %)",
        ]


def write_other_layout(
    source: str, out: Path, layout: OtherLayout, config: str | None = None, overrides: Sequence[str] = ()
) -> Written:
    """Write the classifier, or the body and pyramid of the detector, that SOURCE is.

    Args:
        source, config, overrides: see `port.runs.load.configured_weights`; a classifier's configuration is that of a
            detector with this body.
        out: ends in .pth or .safetensors.

    Raises InputError or WeightsError, with nothing written, where there is no such network in the other library.
    """
    state_dict_writer_of_name(out)
    given = None if config is None else find_config(config, overrides)
    path = resolve(source)
    weights = read_blobs(path)
    if family_of(weights.blobs).kind == "backbone":
        return _write_classifier(source, out, layout, weights, classifier_config(config, overrides), overrides)
    if not is_own_state_dict(weights.blobs):
        check_is_detector(weights)
    return _write_backbone(out, layout, weights, config_for(source, path, weights, given, overrides))


def _write_classifier(
    source: str,
    out: Path,
    layout: OtherLayout,
    weights: WeightsFile,
    cfg: Config | None,
    overrides: Sequence[str],
) -> Written:
    model = build_classifier(weights, cfg)
    _check_stride(model.cfg, weights)
    parameters = _arrays(model.body)
    arrays = body_arrays(parameters, has_group_norm=norm_of_backbone(model.cfg) == "gn")
    arrays |= {f"fc.{leaf}": array for leaf, array in _arrays(model.pred).items()}
    mean = mean_to_subtract(weights, cfg, overrides=overrides)
    error = published_error(source)
    write_state_dict(out, arrays, weights.source)
    return Written(
        out,
        layout,
        len(arrays),
        _resnet(model.cfg, layout, model.pred.out_features),
        _rgb_of_one(mean.values),
        STD,
        f"the mean is {mean.reason}",
        None if error is None else round(100 - error, 6),
        is_classifier=True,
    )


def _write_backbone(out: Path, layout: OtherLayout, weights: WeightsFile, cfg: Config) -> Written:
    if layout == "timm":
        raise InputError(
            f"{weights.source} is a detector, and timm has no feature pyramids: pass --layout torchvision, whose "
            "body.* are the names of timm's ResNets behind their first dot"
        )
    model = build_model(cfg, weights)
    backbone = model.backbone
    if not isinstance(backbone, PyramidBackbone):
        raise InputError(
            f"{weights.source} is a detector without a feature pyramid on a ResNet, which torchvision has no network "
            "for: convert it with --layout detectron, or give a model with one, such as 48616381"
        )
    _check_stride(cfg, weights)
    _check_levels(cfg, weights)
    arrays = {
        f"body.{name}": array
        for name, array in body_arrays(
            _arrays(backbone.body), has_group_norm=norm_of_backbone(cfg) == "gn"
        ).items()
    }
    pyramid = pyramid_arrays(_arrays(backbone.fpn), pyramid_levels(cfg).start)
    arrays |= {f"fpn.{name}": array for name, array in pyramid.items()}
    write_state_dict(out, arrays, weights.source)
    return Written(
        out,
        layout,
        len(arrays),
        _pyramid(cfg),
        _rgb_of_one(cfg.PIXEL_MEANS),
        STD,
        "the mean is PIXEL_MEANS of the model's configuration",
        top1=None,
        is_classifier=False,
    )


def _arrays(module: torch.nn.Module) -> dict[str, Array]:
    return {name: tensor.contiguous().numpy() for name, tensor in module.state_dict().items()}


def _rgb_of_one(mean: tuple[float, float, float]) -> tuple[float, float, float]:
    """A mean colour as RGB in 0..1, from BGR in 0..255."""
    blue, green, red = (round(value / 255, 12) for value in mean)
    return red, green, blue


def _check_stride(cfg: Config, weights: WeightsFile) -> None:
    """torchvision's and timm's bottlenecks have no choice about where the stride stands."""
    if cfg.RESNETS.STRIDE_1X1:
        raise InputError(
            f"{weights.source} strides in the first 1x1 convolution of a stage (RESNETS.STRIDE_1X1, as MSRA's networks "
            "and what was trained from them), but torchvision's and timm's ResNets stride in the 3x3 convolution and "
            "would compute something else: convert it with --layout detectron, or give a GN model, such as R-50-GN"
        )


def _check_levels(cfg: Config, weights: WeightsFile) -> None:
    """torchvision's pyramids end in a level by max pooling, or in two that are convolved."""
    if cfg.FPN.EXTRA_CONV_LEVELS and pyramid_levels(cfg)[-1] < _LAST_CONVOLVED:
        raise InputError(
            f"{weights.source} has a pyramid with FPN.EXTRA_CONV_LEVELS and without a level 7, which torchvision has "
            "no network for: convert it with --layout detectron"
        )


def _resnet(cfg: Config, layout: OtherLayout, classes: int | None = None) -> str:
    """The expression of the body alone, or of the classifier on it."""
    groups, width = cfg.RESNETS.NUM_GROUPS, cfg.RESNETS.WIDTH_PER_GROUP
    timm = layout == "timm"
    options = []
    if (groups, width) != (1, 64):
        named = ("cardinality", "base_width") if timm else ("groups", "width_per_group")
        options += [f"{named[0]}={groups}", f"{named[1]}={width}"]
    if classes not in (None, 1000):
        options.append(f"num_classes={classes}")
    if norm_of_backbone(cfg) == "gn":
        options.append(f"norm_layer={_timms_group_norm(cfg) if timm else _group_norm(cfg)}")
    name = f"resnet{backbone_depth(cfg)}"
    if timm:
        return f"timm.create_model({', '.join([repr(name), *options])})"
    return f"torchvision.models.{name}({', '.join(options)})"


def _pyramid(cfg: Config) -> str:
    finest = pyramid_levels(cfg).start
    stages = range(finest, 6)
    layers = {f"layer{stage - 1}": str(stage - finest) for stage in stages}
    options = [_resnet(cfg, "torchvision"), str(layers), str([STAGE_CHANNELS[stage - 2] for stage in stages])]
    options.append(str(cfg.FPN.DIM))
    if cfg.FPN.EXTRA_CONV_LEVELS:
        last = f"LastLevelP6P7({STAGE_CHANNELS[-1]}, {cfg.FPN.DIM})"
        options.append(f"torchvision.ops.feature_pyramid_network.{last}")
    if cfg.FPN.USE_GN:
        options.append(f"norm_layer={_group_norm(cfg)}")
    return f"torchvision.models.detection.backbone_utils.BackboneWithFPN({', '.join(options)})"


def _group_norm(cfg: Config, more: str = "") -> str:
    per_group = cfg.GROUP_NORM.DIM_PER_GP
    groups = f"channels // {per_group}" if per_group > 0 else str(cfg.GROUP_NORM.NUM_GROUPS)
    rest = f", {more}" if more else ""
    return f"lambda channels{rest}: torch.nn.GroupNorm({groups}, channels, eps={cfg.GROUP_NORM.EPSILON}{rest})"


def _timms_group_norm(cfg: Config) -> str:
    """timm has a word for 32 groups with its epsilon, and tells every norm the device and type that it is to have."""
    norm = cfg.GROUP_NORM
    if (norm.NUM_GROUPS, norm.DIM_PER_GP, norm.EPSILON) == (32, -1, 1e-5):
        return "'groupnorm'"
    return _group_norm(cfg, "**options")
