"""What a keypoint model takes from one of another number of keypoints."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.ops.keypoints import KEYPOINT_NAMES
from detectron_gn.mrcnn.training.solver import MomentumSGD
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.warm_start import start_from
from detectron_gn.weights.categories import Category
from tests.helpers.recipe import recipe_weights
from tests.helpers.roi_run import roi_config

PERSON = ("__background__", "person")
NAMES = ("tail", "right_eye", "nose")
_PLAIN = "KRCNN.USE_DECONV_OUTPUT False KRCNN.UP_SCALE 1 KRCNN.HEATMAP_SIZE 14".split()
HEADS = {"deconvolution": ("kps_score_lowres", ()), "convolution": ("kps_score", _PLAIN)}


def file_of(cfg, momentum=True):
    weights = recipe_weights(BlobTable.from_config(cfg), 1)
    momenta = {f"{name}_momentum": np.full_like(blob, 0.5) for name, blob in weights.blobs.items()}
    return replace(weights, blobs=weights.blobs | momenta) if momentum else weights


def started(cfg, weights, names):
    torch.manual_seed(0)
    model = build_detector(cfg)
    fresh = {name: parameter.detach().clone().numpy() for name, parameter in model.named_parameters()}
    point = start_from(model, MomentumSGD.from_config(model, cfg), weights, PERSON, PERSON, keypoints=names)
    return model, point, fresh


@pytest.mark.parametrize("kind", HEADS)
def test_rows_of_coco_s_keypoints_are_taken_by_name_and_the_others_initialised(kind):
    blob, overrides = HEADS[kind]
    weights = file_of(roi_config("keypoint", *overrides))
    model, point, fresh = started(roi_config("keypoint", *overrides, "KRCNN.NUM_KEYPOINTS", "3"), weights, NAMES)
    fixed = ("kps_score_w", "kps_score_b") if kind == "deconvolution" else ()
    found = point.keypoints
    assert (found.source_count, found.blobs, found.names) == (17, (f"{blob}_w", f"{blob}_b"), ("right_eye", "nose"))
    assert (found.is_reordered, found.is_whole, found.fixed) == (False, False, fixed)
    # What is made anew is not counted as copied.
    assert point.initialised == fixed and point.copied == len(BlobTable.from_model(model).rows) - 2 - len(fixed)
    for part, ending in (("weight", "w"), ("bias", "b")):
        ours = getattr(model.keypoint_head.score, part).detach().numpy()
        first, there = fresh[f"keypoint_head.score.{part}"], weights.blobs[f"{blob}_{ending}"]
        if kind == "deconvolution" and part == "weight":
            ours, first, there = (array.swapaxes(0, 1) for array in (ours, first, there))
        assert len(ours) == 3
        np.testing.assert_array_equal(ours[0], first[0])
        for place, name in enumerate(NAMES[1:], 1):
            np.testing.assert_array_equal(ours[place], there[KEYPOINT_NAMES.index(name)])
    if kind == "deconvolution":
        kernel = model.keypoint_head.upsample.weight.detach()
        np.testing.assert_array_equal(kernel, fresh["keypoint_head.upsample.weight"])
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert point.momenta == len(trained) - 2 and point.iteration is None
    (line,) = [line for line in point.report() if "keypoints" in line]
    assert line == (
        f"the file has 17 keypoints; partly copied, the rows of right_eye, nose; the others begin at random: "
        f"{blob}_w, {blob}_b"
    )


def test_seventeen_keypoints_that_the_file_names_are_not_taken_for_a_person_s():
    own = tuple(f"corner_{place}" for place in range(17))
    weights = replace(file_of(roi_config("keypoint")), categories=(Category("dog", 1, own),))
    cfg = roi_config("keypoint", "KRCNN.NUM_KEYPOINTS", "2", "TRAIN.USE_FLIPPED", "False")
    model, point, _ = started(cfg, weights, (own[4], "nose"))
    assert point.keypoints.names == (own[4],)
    ours = model.keypoint_head.score.bias.detach().numpy()
    assert ours[0] == weights.blobs["kps_score_lowres_b"][4]


@pytest.mark.parametrize(("count", "names"), [(17, None), (17, ("a", "b", "c")), (5, NAMES)])
def test_keypoints_of_no_known_names_are_initialised_which_is_said(count, names):
    weights = file_of(roi_config("keypoint", "KRCNN.NUM_KEYPOINTS", str(count)))
    model, point, fresh = started(roi_config("keypoint", "KRCNN.NUM_KEYPOINTS", "3"), weights, names)
    np.testing.assert_array_equal(model.keypoint_head.score.weight.detach(), fresh["keypoint_head.score.weight"])
    assert point.keypoints.names == ()
    assert any(f"the file has {count} keypoints, none of them of these names: initial" in x for x in point.report())


def test_where_the_file_has_all_keypoints_of_the_network_no_row_is_initialised():
    weights, names = file_of(roi_config("keypoint")), ("right_eye", "nose")
    cfg = roi_config("keypoint", "KRCNN.NUM_KEYPOINTS", "2", "TRAIN.USE_FLIPPED", "False")
    _, point, _ = started(cfg, weights, names)
    (line,) = [line for line in point.report() if "keypoints" in line]
    assert line == (
        "the file has 17 keypoints; partly copied, the rows of right_eye, nose: kps_score_lowres_w, kps_score_lowres_b"
    )


def test_as_many_keypoints_are_taken_whole():
    cfg = roi_config("keypoint", "KRCNN.NUM_KEYPOINTS", "3")
    weights = file_of(cfg)
    model, point, _ = started(cfg, weights, NAMES)
    assert point.keypoints is None and not any("keypoints" in line for line in point.report())
    np.testing.assert_array_equal(model.keypoint_head.score.weight.detach(), weights.blobs["kps_score_lowres_w"])


def test_a_keypoint_head_of_another_width_is_refused():
    weights = file_of(roi_config("keypoint", "KRCNN.CONV_HEAD_DIM", "4"), momentum=False)
    blobs = {name: blob for name, blob in weights.blobs.items() if not name.startswith("conv_fcn")}
    with pytest.raises(InputError, match=r"kps_score_lowres_w is \[4, 17, .* only the number of keypoints may differ"):
        started(roi_config("keypoint", "KRCNN.NUM_KEYPOINTS", "3"), replace(weights, blobs=blobs), NAMES)
