"""A ResNet, and the pyramid on it, under the names of torchvision's parameters, which are timm's too.

Ours are those of `mrcnn/backbones`; with them go the two changes to the numbers that the other libraries' conventions
ask for, the order and scale of the colours and the statistics of BatchNorm.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# The standard deviation (RGB) that the other libraries divide by; Detectron divides by nothing.
STD = (0.229, 0.224, 0.225)
# Both libraries' default epsilon of BatchNorm.
BATCH_NORM_EPSILON = 1e-5

_IN_A_BLOCK = {
    f"branch2{letter}.{ours}": f"{theirs}{number}"
    for number, letter in enumerate("abc", 1)
    for ours, theirs in (("conv", "conv"), ("norm", "bn"))
} | {"branch1.conv": "downsample.0", "branch1.norm": "downsample.1"}
_BLOCK = re.compile(r"res([2-5])\.(\d+)\.(branch\w+\.\w+)")
_PYRAMID = re.compile(r"(inner|output)\.res([2-5])\.(conv|norm)")


def body_arrays(parameters: Mapping[str, Array], *, has_group_norm: bool) -> dict[str, Array]:
    """The parameters of a `ResNet`, under torchvision's names, with the numbers that its input asks for.

    Args:
        parameters: by the names within the ResNet, `conv1.conv.weight`, `res2.0.branch2a.norm.bias`, ...
        has_group_norm: else the scales and shifts (Detectron's AffineChannel) become those of BatchNorms whose
            statistics change nothing.
    """
    arrays: dict[str, Array] = {}
    for name, array in parameters.items():
        layer, _, leaf = name.rpartition(".")
        theirs = _body_layer(layer)
        arrays[f"{theirs}.{leaf}"] = array
        if not has_group_norm and layer.endswith(".norm") and leaf == "bias":
            arrays |= {f"{theirs}.{leaf}": statistic for leaf, statistic in _no_statistics(len(array)).items()}
    arrays["conv1.weight"] = _for_rgb(arrays["conv1.weight"])
    return arrays


def pyramid_arrays(parameters: Mapping[str, Array], finest: int) -> dict[str, Array]:
    """The parameters of an `FPN` under the names of `torchvision.ops.FeaturePyramidNetwork`.

    Args:
        parameters: by the names within the FPN, `inner.res5.conv.weight`, `extra.P6.bias`, ...
        finest: the stage that the pyramid begins at, 2, or 3 in a RetinaNet; torchvision counts from it, from 0 on.
    """
    arrays = {}
    for name, array in parameters.items():
        layer, _, leaf = name.rpartition(".")
        match = _PYRAMID.fullmatch(layer)
        if match is None:
            theirs = layer.replace("extra.P", "extra_blocks.p")
        else:
            blocks = "inner_blocks" if match[1] == "inner" else "layer_blocks"
            theirs = f"{blocks}.{int(match[2]) - finest}.{0 if match[3] == 'conv' else 1}"
        arrays[f"{theirs}.{leaf}"] = array
    return arrays


def _body_layer(layer: str) -> str:
    match = _BLOCK.fullmatch(layer)
    if match is None:
        return {"conv1.conv": "conv1", "conv1.norm": "bn1"}[layer]
    return f"layer{int(match[1]) - 1}.{match[2]}.{_IN_A_BLOCK[match[3]]}"


def _for_rgb(weight: Array) -> Array:
    """The stem's `[64, 3, 7, 7]` for RGB in 0..1 divided by `STD`, from that for BGR in 0..255.

    The mean stays in the preprocessing: the zeros that the convolution pads with are the mean colour there as here.
    """
    scale = 255 * np.asarray(STD, np.float64)[:, None, None]
    flipped: Array = (weight[:, ::-1].astype(np.float64) * scale).astype(np.float32)
    return flipped


def _no_statistics(channels: int) -> dict[str, Array]:
    """A BatchNorm's running statistics under which it only scales and shifts: the variance and epsilon make 1."""
    return {
        "running_mean": np.zeros(channels, np.float32),
        "running_var": np.full(channels, 1 - BATCH_NORM_EPSILON, np.float32),
        "num_batches_tracked": np.array(0, np.int64),
    }
