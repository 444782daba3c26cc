"""Layers and bodies as nodes of an ONNX graph, one function a kind of module."""

from functools import singledispatch
from typing import cast

from torch import nn

from detectron_gn.mrcnn.backbones.c4 import C4Backbone
from detectron_gn.mrcnn.backbones.fpn import FPN, PyramidBackbone
from detectron_gn.mrcnn.backbones.resnet import Bottleneck, ResNet
from detectron_gn.mrcnn.backbones.vgg import VGG16, VGG16_STAGES, VGG_CNN_M_1024
from detectron_gn.mrcnn.layers import AffineChannel, ConvNorm
from detectron_gn.port.export.graph import FLOAT, INT, Value
from detectron_gn.port.export.tensors import reshape


@singledispatch
def layer(module: nn.Module, x: Value) -> Value:
    """What the module makes of `[N, C, H, W]` (or `[N, C]`, for a product)."""
    raise AssertionError(f"no ONNX nodes are known for a {type(module).__name__}")


@singledispatch
def maps(module: nn.Module, data: Value) -> list[Value]:
    """The feature maps that a backbone makes of prepared images, finest first."""
    raise AssertionError(f"no ONNX nodes are known for a {type(module).__name__}")


def relu(x: Value) -> Value:
    """What is above 0."""
    return x.graph.op("Relu", x)


def max_pool(x: Value, kernel: int, padding: int = 0) -> Value:
    """Maxima at stride 2; what is left at the end of a side is left out."""
    return x.graph.op(
        "MaxPool", x, kernel_shape=[kernel, kernel], strides=[2, 2], pads=[padding] * 4
    )


@layer.register
def _(module: nn.Conv2d, x: Value) -> Value:
    (down, right), bias = cast(tuple[int, int], module.padding), module.bias
    return x.graph.op(
        "Conv",
        x,
        x.graph.weight(module.weight),
        None if bias is None else x.graph.weight(bias),
        kernel_shape=list(module.kernel_size),
        strides=list(module.stride),
        pads=[down, right, down, right],
        dilations=list(module.dilation),
        group=module.groups,
    )


@layer.register
def _(module: nn.ConvTranspose2d, x: Value) -> Value:
    (down, right), bias = cast(tuple[int, int], module.padding), module.bias
    return x.graph.op(
        "ConvTranspose",
        x,
        x.graph.weight(module.weight),
        None if bias is None else x.graph.weight(bias),
        kernel_shape=list(module.kernel_size),
        strides=list(module.stride),
        pads=[down, right, down, right],
    )


@layer.register
def _(module: nn.Linear, x: Value) -> Value:
    return x.graph.op("Gemm", x, x.graph.weight(module.weight), x.graph.weight(module.bias), transB=1)


@layer.register
def _(module: nn.GroupNorm, x: Value) -> Value:
    """Each group as one long row, which is normalised; then scale and shift of each channel."""
    graph, groups = x.graph, module.num_groups
    assert module.weight is not None and module.bias is not None
    ones, zeros = graph.const([1.0] * groups, FLOAT), graph.const([0.0] * groups, FLOAT)
    rows = graph.op("InstanceNormalization", reshape(x, (0, groups, -1)), ones, zeros, epsilon=module.eps)
    back = graph.op("Reshape", rows, graph.op("Shape", x, dtype=INT))
    of_channels = (module.num_channels, 1, 1)
    return back * graph.weight(module.weight, of_channels) + graph.weight(module.bias, of_channels)


@layer.register
def _(module: AffineChannel, x: Value) -> Value:
    of_channels = (len(module.weight), 1, 1)
    return x * x.graph.weight(module.weight, of_channels) + x.graph.weight(module.bias, of_channels)


@layer.register
def _(module: nn.LocalResponseNorm, x: Value) -> Value:
    return x.graph.op("LRN", x, size=module.size, alpha=module.alpha, beta=module.beta, bias=module.k)


@layer.register
def _(module: ConvNorm, x: Value) -> Value:
    x = layer(module.conv, x)
    if module.norm is not None:
        x = layer(module.norm, x)
    return relu(x) if module.relu else x


@layer.register
def _(module: nn.Sequential, x: Value) -> Value:
    for each in module:
        x = layer(each, x)
    return x


@layer.register
def _(module: Bottleneck, x: Value) -> Value:
    shortcut = x if module.branch1 is None else layer(module.branch1, x)
    return relu(layer(module.branch2c, layer(module.branch2b, layer(module.branch2a, x))) + shortcut)


@maps.register
def _(module: ResNet, data: Value) -> list[Value]:
    x = max_pool(layer(module.conv1, data), 3, padding=1)
    stages = []
    for number in module.stages:
        x = layer(module.get_submodule(f"res{number}"), x)
        stages.append(x)
    return stages


@maps.register
def _(module: C4Backbone, data: Value) -> list[Value]:
    return maps(module.body, data)[-1:]


@maps.register
def _(module: PyramidBackbone, data: Value) -> list[Value]:
    stages = maps(module.body, data)
    with data.graph.stage("fpn"):
        return _pyramid(module.fpn, stages)


@maps.register
def _(module: VGG16, data: Value) -> list[Value]:
    x = data
    for number, (_, count) in enumerate(VGG16_STAGES, 1):
        if number > 1:
            x = max_pool(x, 2)
        for place in range(1, count + 1):
            x = layer(module.get_submodule(f"conv{number}_{place}"), x)
    return [x]


@maps.register
def _(module: VGG_CNN_M_1024, data: Value) -> list[Value]:
    x = max_pool(layer(module.norm1, layer(module.conv1, data)), 3)
    x = max_pool(layer(module.norm2, layer(module.conv2, x)), 3)
    return [layer(module.conv5, layer(module.conv4, layer(module.conv3, x)))]


def _pyramid(fpn: FPN, stages: list[Value]) -> list[Value]:
    levels: list[Value] = []
    top_down: Value | None = None
    for name, stage in zip(fpn.inner, reversed(stages)):
        lateral = layer(fpn.inner[name], stage)
        top_down = lateral if top_down is None else lateral + _upsampled(top_down)
        levels.insert(0, layer(fpn.output[name], top_down))
    if fpn.has_subsampled_level:
        levels.append(max_pool(levels[-1], 1))
    above = stages[-1]
    for conv in fpn.extra.values():
        levels.append(layer(conv, above))
        above = relu(levels[-1])
    return levels


def _upsampled(x: Value) -> Value:
    """Each value twice in both directions."""
    scales = x.graph.const([1, 1, 2, 2], FLOAT)
    return x.graph.op(
        "Resize", x, None, scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )
