"""Names and shapes of torchvision's and timm's layouts, against tables that the libraries themselves wrote."""

import json
import lzma

import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.backbones.fpn import PyramidBackbone
from detectron_gn.mrcnn.config import norm_of_backbone, pyramid_levels
from detectron_gn.port.blobs.layouts import layout_of
from detectron_gn.port.blobs.torchvision_names import body_arrays, pyramid_arrays
from detectron_gn.port.config.read import bundled_config

GN = "norm_layer=lambda channels: torch.nn.GroupNorm(32, channels, eps=1e-05)"
CLASSIFIERS = {
    f"torchvision.models.resnet50({GN})": ("e2e_mask_rcnn_R-50-FPN_2x_gn", []),
    f"torchvision.models.resnet101({GN})": ("e2e_mask_rcnn_R-101-FPN_2x_gn", []),
    "torchvision.models.resnet50()": ("e2e_mask_rcnn_R-50-FPN_1x", ["RESNETS.STRIDE_1X1", "False"]),
    "torchvision.models.resnet101(groups=32, width_per_group=8)": ("e2e_mask_rcnn_X-101-32x8d-FPN_1x", []),
    "torchvision.models.resnet101(groups=64, width_per_group=4)": ("e2e_mask_rcnn_X-101-64x4d-FPN_1x", []),
    "timm.create_model('resnet50', norm_layer='groupnorm')": ("e2e_mask_rcnn_R-50-FPN_2x_gn", []),
    "timm.create_model('resnet101', norm_layer='groupnorm')": ("e2e_mask_rcnn_R-101-FPN_2x_gn", []),
    "timm.create_model('resnet50')": ("e2e_mask_rcnn_R-50-FPN_1x", ["RESNETS.STRIDE_1X1", "False"]),
    "timm.create_model('resnet101', cardinality=32, base_width=8)": ("e2e_mask_rcnn_X-101-32x8d-FPN_1x", []),
}
PYRAMIDS = ["e2e_mask_rcnn_R-50-FPN_2x_gn", "e2e_mask_rcnn_X-101-32x8d-FPN_1x", "retinanet_X-101-32x8d-FPN_1x"]


@pytest.fixture(scope="module")
def tables(data):
    """The network's expression -> its parameters and buffers -> shape."""
    return json.loads(lzma.decompress((data / "other_layouts.json.xz").read_bytes()))


def without_memory(module):
    """Arrays of the module's shapes that hold one number each."""
    return {
        name: np.broadcast_to(np.float32(1), tuple(tensor.shape)) for name, tensor in module.state_dict().items()
    }


def written(cfg):
    with torch.device("meta"):
        backbone = PyramidBackbone(cfg)
    body = body_arrays(without_memory(backbone.body), has_group_norm=norm_of_backbone(cfg) == "gn")
    return body, pyramid_arrays(without_memory(backbone.fpn), pyramid_levels(cfg).start)


def shapes(arrays):
    return {name: list(array.shape) for name, array in arrays.items()}


@pytest.mark.parametrize("network", CLASSIFIERS)
def test_the_body_has_all_names_and_shapes_of_the_classifier_but_its_last_layer(network, tables):
    name, overrides = CLASSIFIERS[network]
    body, _ = written(bundled_config(name, overrides))
    head = {"fc.weight": [1000, 2048], "fc.bias": [1000]}
    assert shapes(body) | head == tables[network]


@pytest.mark.parametrize("name", PYRAMIDS)
def test_body_and_pyramid_have_all_names_and_shapes_of_torchvisions(name, tables):
    cfg = bundled_config(name)
    body, pyramid = written(cfg)
    found = {f"body.{name}": shape for name, shape in shapes(body).items()}
    found |= {f"fpn.{name}": shape for name, shape in shapes(pyramid).items()}
    marks = ("GroupNorm" if norm_of_backbone(cfg) == "gn" else "groups=32", "LastLevelP6P7" * cfg.FPN.EXTRA_CONV_LEVELS)
    wanted = [network for network in tables if "WithFPN" in network and all(mark in network for mark in marks)]
    assert found == tables[wanted[0]]


def test_the_colours_are_turned_round_and_scaled_and_nothing_else_changes():
    with torch.device("meta"):
        body = PyramidBackbone(bundled_config("e2e_mask_rcnn_R-50-FPN_2x_gn")).body
    arrays = without_memory(body)
    stem = np.arange(64 * 3 * 49, dtype=np.float32).reshape(64, 3, 7, 7)
    arrays["conv1.conv.weight"] = stem
    found = body_arrays(arrays, has_group_norm=True)
    # Of red, which the file has last: 255 * 0.229.
    np.testing.assert_allclose(found["conv1.weight"][:, 0], 58.395 * stem[:, 2], rtol=1e-6)
    np.testing.assert_allclose(found["conv1.weight"][:, 2], 57.375 * stem[:, 0], rtol=1e-6)
    assert found["layer1.0.conv1.weight"] is arrays["res2.0.branch2a.conv.weight"]


def test_the_statistics_of_a_batch_norm_change_nothing():
    with torch.device("meta"):
        body = PyramidBackbone(bundled_config("e2e_mask_rcnn_R-50-FPN_1x")).body
    found = body_arrays(without_memory(body), has_group_norm=False)
    x = torch.randn(2, 64, 3, 3)
    mean, variance = (torch.from_numpy(found[f"bn1.running_{name}"]) for name in ("mean", "var"))
    norm = torch.nn.BatchNorm2d(64).eval()
    norm.load_state_dict({name: torch.from_numpy(np.array(found[f"bn1.{name}"])) for name in norm.state_dict()})
    assert not mean.any() and torch.equal(variance + norm.eps, torch.ones(64))
    torch.testing.assert_close(norm(x), x + 1, rtol=2e-7, atol=2e-7)


def test_what_is_written_is_named_where_it_is_given_back():
    for names in (["layer1.0.conv1.weight", "fc.bias"], ["body.layer1.0.conv1.weight", "fpn.layer_blocks.0.0.bias"]):
        layout = layout_of(names)
        assert layout is not None and layout.project == "torchvision's or timm's backbones"
