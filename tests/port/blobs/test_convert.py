"""Which blobs a configuration needs, and the error when a file lacks one or has it in another shape."""

import dataclasses

import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.blobs.convert import build_model, fill_parameters, model_blobs
from detectron_gn.port.blobs.match import match_blobs
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config
from tests.helpers.recipe import recipe_weights

NARROW = (
    "MODEL.NUM_CLASSES 5 RESNETS.WIDTH_PER_GROUP 8 FPN.DIM 32 FAST_RCNN.CONV_HEAD_DIM 32 FAST_RCNN.MLP_HEAD_DIM 64 "
    "MRCNN.DIM_REDUCED 32"
).split()
GN = [*NARROW, "GROUP_NORM.NUM_GROUPS", "8"]


@pytest.fixture(scope="module")
def gn():
    return bundled_config("e2e_mask_rcnn_R-50-FPN_2x_gn", GN)


@pytest.fixture(scope="module")
def bn():
    return bundled_config("e2e_mask_rcnn_R-50-FPN_2x", NARROW)


@pytest.fixture(scope="module")
def gn_weights(gn):
    return recipe_weights(BlobTable.from_config(gn), 0)


def changed(weights, **blobs):
    """The weights with some blobs replaced; None takes one away."""
    together = weights.blobs | blobs
    return dataclasses.replace(weights, blobs={name: array for name, array in together.items() if array is not None})


def test_parameters_come_back_as_the_same_blobs_in_the_same_order(gn, gn_weights):
    blobs = model_blobs(build_model(gn, gn_weights))
    assert list(blobs) == list(gn_weights.blobs)
    assert all(np.array_equal(blobs[name], array) for name, array in gn_weights.blobs.items())


def test_momentum_is_read_and_written_beside_its_parameter(gn, gn_weights):
    with_momentum = changed(gn_weights, fc6_w_momentum=gn_weights.blobs["fc6_w"] / 2)
    model = build_model(gn, with_momentum)
    match = match_blobs(BlobTable.from_model(model), with_momentum)
    momentum = {name: torch.from_numpy(array) for name, array in match.momentum.items()}
    assert list(momentum) == ["box_head.fc6.weight"]
    blobs = model_blobs(model, momentum)
    assert list(blobs)[-1] == "fc6_w_momentum"
    assert np.array_equal(blobs["fc6_w_momentum"], gn_weights.blobs["fc6_w"] / 2)


def test_the_imagenet_classifier_is_preserved(gn, gn_weights):
    weights = changed(gn_weights, pred_w=np.zeros((1000, 2048), np.float32), pred_b=np.zeros(1000, np.float32))
    match = match_blobs(BlobTable.from_config(gn), weights)
    assert match.leftovers.preserved == ("pred_w", "pred_b") and not match.leftovers.trained
    build_model(gn, weights)


def test_a_bracketed_name_falls_back_to_what_follows_the_bracket(bn):
    weights = recipe_weights(BlobTable.from_config(bn), 1)
    renamed = {name.removeprefix("_[mask]_"): array for name, array in weights.blobs.items()}
    model = build_model(bn, dataclasses.replace(weights, blobs=renamed))
    np.testing.assert_array_equal(
        model.get_parameter("mask_head.convs.0.conv.weight").detach().numpy(), weights.blobs["_[mask]_fcn1_w"]
    )


def test_filling_leaves_parameters_without_a_blob_as_they_were(gn, gn_weights):
    backbone = {name: array for name, array in gn_weights.blobs.items() if name.startswith(("conv1", "res"))}
    model = build_detector(gn)
    before = model.box_head.fc6.weight.detach().clone()
    fill_parameters(model, match_blobs(BlobTable.from_model(model), dataclasses.replace(gn_weights, blobs=backbone)))
    assert torch.equal(model.box_head.fc6.weight.detach(), before)
    np.testing.assert_array_equal(model.backbone.body.conv1.conv.weight.detach().numpy(), backbone["conv1_w"])


def test_half_and_double_blobs_become_float32(gn, gn_weights):
    model = build_model(gn, changed(gn_weights, fc6_b=gn_weights.blobs["fc6_b"].astype(np.float64)))
    assert model.box_head.fc6.bias.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"fc6_w": None}, r"recipe 0 lacks fc6_w, which the configuration needs"),
        ({"fc7_w": np.zeros(3, np.float32)}, "recipe 0 was trained with fc7_w, which the configuration has no place"),
        ({"surplus_w_momentum": np.zeros(3, np.float32)}, r"was trained with surplus_w_momentum"),
        (
            {"conv1_gn_s": np.ones(1, np.float32)},
            r"conv1_gn_s is \[1\] in recipe 0, but the configuration makes it \[64\]",
        ),
        ({"fc6_w": np.zeros((1568, 64), np.float32)}, r"fc6_w is \[1568, 64\] .* \[64, 1568\]"),
        ({"fc6_w_momentum": np.zeros(1, np.float32)}, r"fc6_w_momentum is \[1\]"),
    ],
)
def test_blobs_that_do_not_fit_are_named(gn, gn_weights, change, sentence):
    with pytest.raises(InputError, match=sentence):
        build_model(gn, changed(gn_weights, **change))


def test_gn_weights_under_a_bn_configuration(bn, gn_weights):
    with pytest.raises(InputError, match=r"is an R-50 GN model, but the configuration is for R-50 BN\*"):
        build_model(bn, gn_weights)


def test_r101_weights_under_an_r50_configuration(gn):
    weights = recipe_weights(BlobTable.from_config(bundled_config("e2e_mask_rcnn_R-101-FPN_2x_gn", GN)), 0)
    with pytest.raises(InputError, match=r"R-101 GN model, .* R-50 GN: pass --config with the YAML"):  # it is narrow
        build_model(gn, weights)


def test_weights_whose_body_no_bundled_configuration_has_are_sent_to_their_own_yaml(gn, gn_weights):
    counts = {2: 3, 3: 8, 4: 36, 5: 3}
    blocks = {f"res{stage}_{i}_branch2a_w": np.zeros(1) for stage, count in counts.items() for i in range(count)}
    with pytest.raises(InputError, match="is an R-152 GN model, .* R-50 GN: pass --config with the YAML"):
        build_model(gn, changed(gn_weights, **blocks))


def test_weights_of_another_number_of_classes(gn_weights):
    cfg = bundled_config("e2e_mask_rcnn_R-50-FPN_2x_gn", [*GN, "MODEL.NUM_CLASSES", "2"])
    told = r"has 5 classes \(cls_score_b\), but MODEL.NUM_CLASSES is 2: pass --set MODEL.NUM_CLASSES 5 or"
    with pytest.raises(InputError, match=told):
        build_model(cfg, gn_weights)


def test_the_number_of_classes_is_no_way_out_where_more_is_wrong(gn_weights):
    cfg = bundled_config("e2e_mask_rcnn_R-50-FPN_2x_gn", [*GN, "MODEL.NUM_CLASSES", "2", "FPN.DIM", "16"])
    with pytest.raises(InputError, match="but MODEL.NUM_CLASSES is 2: pass --config with the YAML it was trained with"):
        build_model(cfg, gn_weights)


def test_an_imagenet_file_is_no_detector(gn, gn_weights):
    backbone = {name: array for name, array in gn_weights.blobs.items() if name.startswith(("conv1", "res"))}
    backbone |= {"pred_w": np.zeros((1000, 2048), np.float32)}
    with pytest.raises(InputError, match="is an ImageNet backbone"):
        build_model(gn, dataclasses.replace(gn_weights, blobs=backbone))


def test_a_model_without_a_pyramid_is_refused(gn, gn_weights):
    blobs = {name: array for name, array in gn_weights.blobs.items() if not name.startswith("fpn_")}
    with pytest.raises(InputError, match="without a feature pyramid"):
        build_model(gn, dataclasses.replace(gn_weights, blobs=blobs))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_weights_that_are_no_numbers_in_float32_are_refused_by_name(gn, gn_weights, value):
    bias = np.full_like(gn_weights.blobs["fc6_b"], value, dtype=np.float64)
    with pytest.raises(InputError, match="fc6_b in recipe 0 holds NaN or infinity"):
        build_model(gn, changed(gn_weights, fc6_b=bias))
