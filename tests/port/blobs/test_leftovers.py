"""Blobs that no parameter takes: preserved as in Detectron, unless they tell of another network."""

import logging
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.blobs.convert import build_model, check_leftovers
from detectron_gn.port.blobs.family import family_of
from detectron_gn.port.blobs.leftovers import Leftovers
from detectron_gn.port.blobs.match import match_blobs
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config
from detectron_gn.weights.weights_file import WeightsFile
from tests.helpers.recipe import recipe_weights

NARROW = ["RESNETS.WIDTH_PER_GROUP", "2", "FPN.DIM", "8", "FAST_RCNN.MLP_HEAD_DIM", "8", "MRCNN.DIM_REDUCED", "8"]
NARROW += ["MODEL.NUM_CLASSES", "5", "TEST.SCALE", "96", "TEST.MAX_SIZE", "128"]
BN = bundled_config("e2e_mask_rcnn_R-50-FPN_2x", NARROW)
TABLE = BlobTable.from_config(BN)
FROZEN = ("conv1", "res2")
TRAINED = [row.blob for row in TABLE.rows if row.kind in ("weight", "bias") and not row.blob.startswith(FROZEN)]


def weights_with(momenta: bool, **blobs: np.ndarray):
    """A BN* model, with momenta as after training or without, and some blobs more."""
    weights = recipe_weights(TABLE, 0)
    held = {f"{name}_momentum": weights.blobs[name] for name in TRAINED} if momenta else {}
    return replace(weights, blobs={**weights.blobs, **held, **blobs})


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def biases() -> dict[str, np.ndarray]:
    """The bias of every convolution of the body, as MSRA's ImageNet models have one."""
    convolutions = [row for row in TABLE.rows if row.kind == "weight" and row.blob.startswith(("conv1_", "res"))]
    return {f"{row.blob[:-2]}_b": ones(row.shape[0]) for row in convolutions}


PRESERVED = {
    "MSRA's biases and classifier": {**biases(), "fc1000_w": ones(1000, 2048), "fc1000_b": ones(1000)},
    "keypoint heads of another detector": {"kps_score_w": ones(17, 17, 4, 4), "conv_fcn1_w": ones(8, 8, 3, 3)},
    "a renamed layer's old copy": {"cls_score_w_jcvbackup": ones(81, 8), "lr": np.float32(0.02).reshape(())},
}


@pytest.mark.parametrize("momenta", [True, False])
@pytest.mark.parametrize("case", PRESERVED)
def test_blobs_that_are_not_used_are_preserved_told_and_change_no_detection(case, momenta, caplog):
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    with caplog.at_level(logging.WARNING):
        ours = build_model(BN, weights_with(momenta, **PRESERVED[case])).detect(image)
    (told,) = [record.getMessage() for record in caplog.records]
    assert f"{len(PRESERVED[case])} blobs that the network does not use are preserved" in told
    plain = build_model(BN, weights_with(momenta)).detect(image)
    assert len(plain) > 0
    for field in ("boxes", "scores", "classes", "mask_probs"):
        assert np.array_equal(getattr(ours, field), getattr(plain, field)), field


@pytest.mark.parametrize("name", ["head_conv1_w", "conv_rpn_w", "res4_6_branch2a_w", "conv1_gn_s", "fpn_inner_x_w"])
def test_in_a_file_with_momenta_what_has_none_was_preserved(name):
    weights = weights_with(True, **{name: ones(8)})
    assert match_blobs(TABLE, weights).leftovers == Leftovers(preserved=(name,), trained=())
    if not name.startswith("res4_6_"):  # One block more is told as a deeper body.
        assert build_model(BN, weights)


@pytest.mark.parametrize("name", ["bbox_pred_std_w", "kps_score_w", "anything_w", "res2_0_branch2a_b"])
def test_what_was_trained_in_the_file_is_of_its_network(name):
    weights = weights_with(True, **{name: ones(8), f"{name}_momentum": ones(8)})
    with pytest.raises(InputError, match=f"was trained with {name}, which the configuration has no place for"):
        build_model(BN, weights)
    assert build_model(BN, weights, keep_unused=True)


@pytest.mark.parametrize(
    "name", ["res4_6_branch2a_w", "head_conv1_gn_s", "fpn_res5_2_sum_gn_b", "conv_rpn_b", "retnet_cls_pred_fpn3_w"]
)
def test_without_any_momentum_the_weights_and_norms_of_another_network_tell(name):
    with pytest.raises(InputError, match=f"was trained with {name}"):
        build_model(BN, weights_with(False, **{name: ones(8)}))


def full_width(name: str, *overrides: str) -> dict[str, np.ndarray]:
    """All blobs of a configuration as it is published; they take no memory."""
    rows = BlobTable.from_config(bundled_config(name, overrides)).rows
    return {row.blob: np.broadcast_to(np.float32(0), row.shape) for row in rows}


def advised(sentence: str) -> tuple[str, list[str]]:
    """The configuration that a sentence names, and the values that it says to set."""
    name, values = re.search(r"pass --config (e2e\S+?)(?: --set (\S+ \S+?))?, ", sentence).groups()
    return name, (values or "").split()


@pytest.mark.parametrize("classes", ["81", "5"])
def test_the_configuration_that_fits_is_named_and_works(classes):
    mask, faster, deep = (f"e2e_{name}-FPN_2x" for name in ("mask_rcnn_R-50", "faster_rcnn_R-50", "mask_rcnn_R-101"))
    blobs = full_width(mask, "MODEL.NUM_CLASSES", classes)
    weights = WeightsFile(blobs | {"conv5_mask_b_momentum": blobs["conv5_mask_b"]}, None, None, "m.pkl", "pkl")
    for refused in (faster, deep):
        with pytest.raises(InputError, match=f"pass --config {mask}") as error:
            build_model(bundled_config(refused, ["MODEL.NUM_CLASSES", classes]), weights)
        name, values = advised(str(error.value))
        assert (name, values) == (mask, [] if classes == "81" else ["MODEL.NUM_CLASSES", "5"])
        assert build_model(bundled_config(name, values), weights).mask_head is not None
    assert build_model(bundled_config(faster, values), weights, keep_unused=True).mask_head is None


KEYPOINTS, RPN = "e2e_keypoint_rcnn_R-50-FPN_1x", "rpn_R-50-FPN_1x"


@pytest.mark.parametrize("refused", [KEYPOINTS, "retinanet_R-50-FPN_1x", RPN])
def test_of_another_family_the_one_that_fits_is_named_before_classes_are_spoken_of(refused):
    mask = "e2e_mask_rcnn_R-50-FPN_2x"
    blobs = full_width(mask)
    momenta = {f"{name}_momentum": blob for name, blob in blobs.items() if name.startswith(("mask", "conv5", "fc"))}
    weights = WeightsFile(blobs | momenta, None, None, "m.pkl", "pkl")
    with pytest.raises(InputError, match=f"pass --config {mask}, ") as error:
        build_model(bundled_config(refused), weights)
    assert "--set MODEL.NUM_CLASSES" not in str(error.value)


@pytest.mark.parametrize("momenta", [True, False])
@pytest.mark.parametrize(
    "name", ["fpn_7_w", "conv_rpn_w", "kps_score_w", "res2_0_branch2a_gn_s", "retnet_cls_conv_n0_fpn3_w", "fc8_w"]
)
def test_what_no_configuration_has_names_none_but_keep_unused_which_works(name, momenta):
    blobs = full_width("e2e_mask_rcnn_R-50-FPN_2x")
    more = {name: ones(4)} | ({f"{name}_momentum": ones(4)} if momenta else {})
    weights = WeightsFile(blobs | more, None, None, "m.pkl", "pkl")
    leftovers = match_blobs(BlobTable.from_config(bundled_config("e2e_mask_rcnn_R-50-FPN_2x")), weights).leftovers
    if not leftovers.trained:
        assert not momenta and leftovers.preserved == (name,)
        return
    with pytest.raises(InputError, match=f"was trained with {name}, .*: pass --keep-unused to go on") as error:
        check_leftovers(leftovers, weights)
    assert "e2e" not in str(error.value)
    check_leftovers(leftovers, weights, keep_unused=True)


@pytest.mark.parametrize(
    "name",
    [
        "e2e_mask_rcnn_R-50-FPN_2x_gn", "e2e_mask_rcnn_R-101-FPN_2x_gn", "e2e_mask_rcnn_R-101-FPN_2x",
        "e2e_faster_rcnn_R-50-FPN_2x", "e2e_mask_rcnn_R-50-FPN_2x_bn_4conv1fc", "e2e_mask_rcnn_X-101-32x8d-FPN_2x",
        "e2e_faster_rcnn_X-101-64x4d-FPN_2x",
    ],
)  # fmt: skip
def test_the_family_of_a_file_names_its_configuration(name):
    table = BlobTable.from_config(bundled_config(name))
    blobs = {row.blob: np.broadcast_to(np.float32(0), row.shape) for row in table.rows}
    assert family_of(blobs).config_name == name


def test_blobs_that_are_not_used_are_no_parameters():
    model = build_model(BN, weights_with(True, **PRESERVED["MSRA's biases and classifier"]))
    assert {name for name, _ in model.named_parameters()} == {row.parameter for row in TABLE.rows}
    assert all(torch.isfinite(value).all() for value in model.parameters())
