"""The blob dictionary: which Caffe2 blob is which parameter of the network, one row each, built from the config.

Names come from `names/`; rows stand in the order in which Detectron creates, and so saves, its parameters.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.detectors import Detector, build_detector
from detectron_gn.mrcnn.layers import ParameterKind, parameter_kinds
from detectron_gn.port.blobs.names import layer_blobs


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
            return cls.from_model(build_detector(cfg))

    @classmethod
    def from_model(cls, model: Detector) -> "BlobTable":
        """The table of a network that exists."""
        return cls.from_component(model, model.cfg)

    @classmethod
    def from_component(cls, model: nn.Module, cfg: Config) -> "BlobTable":
        """The table of a part of a network, such as its body; parameters are named as the part names them."""
        prefixes = dict(layer_blobs(model, cfg))
        kinds = parameter_kinds(model)
        return cls(
            tuple(
                BlobRow(_blob_name(name, kinds[name], prefixes), name, tuple(parameter.shape), kinds[name])
                for name, parameter in model.named_parameters()
            )
        )

    @cached_property
    def by_parameter(self) -> dict[str, BlobRow]:
        """Rows by parameter name."""
        return {row.parameter: row for row in self.rows}


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
