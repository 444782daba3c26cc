"""A detector without a mask head (MODEL.MASK_ON False) falls out of the same parts: Faster R-CNN on a pyramid."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.detectors import GeneralizedRCNN, build_detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.blobs.convert import build_model
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config
from tests.helpers.recipe import recipe_weights
from tests.helpers.small_run import SMALL

HEADS = {
    "2mlp": "fast_rcnn_heads.add_roi_2mlp_head",
    "Xconv1fc": "fast_rcnn_heads.add_roi_Xconv1fc_head",
    "Xconv1fc_gn": "fast_rcnn_heads.add_roi_Xconv1fc_gn_head",
}


def config(head, *overrides):
    base = ["MODEL.MASK_ON", "False", "FAST_RCNN.ROI_BOX_HEAD", HEADS[head]]
    return bundled_config("e2e_mask_rcnn_R-50-FPN_shapes_gn", [*SMALL.split(), *base, *overrides])


@pytest.fixture
def image(demo_model):
    return cv2.imread(str(min((demo_model / "val").iterdir())))


@pytest.fixture(params=HEADS)
def model(request):
    cfg = config(request.param)
    return build_model(cfg, recipe_weights(BlobTable.from_config(cfg), 3))


def test_it_has_the_parameters_of_the_mask_rcnn_but_for_the_mask_heads():
    for head in HEADS:
        boxes = BlobTable.from_config(config(head))
        both = BlobTable.from_config(config(head, "MODEL.MASK_ON", "True"))
        without_masks = [row for row in both.rows if not row.parameter.startswith("mask_head.")]
        assert list(boxes.rows) == without_masks and len(without_masks) < len(both.rows)


def test_it_finds_boxes_and_no_masks(model, image):
    found = model.detect(image)
    assert len(found) > 0 and found.mask_probs is None
    with pytest.raises(InputError, match="no mask head"):
        found.masks()


def test_boxes_are_those_of_the_mask_rcnn_with_the_same_weights(image):
    cfg = config("Xconv1fc_gn", "MODEL.MASK_ON", "True")
    weights = recipe_weights(BlobTable.from_config(cfg), 3)
    with_masks = build_model(cfg, weights).detect(image)
    boxes = config("Xconv1fc_gn")
    own = {row.blob: weights.blobs[row.blob] for row in BlobTable.from_config(boxes).rows}
    found = build_model(boxes, replace(weights, blobs=own)).detect(image)
    np.testing.assert_array_equal(found.boxes, with_masks.boxes)
    np.testing.assert_array_equal(found.scores, with_masks.scores)


def test_the_mask_head_of_a_mask_rcnn_that_was_trained_in_the_same_run_is_no_part_of_it():
    weights = recipe_weights(BlobTable.from_config(config("2mlp", "MODEL.MASK_ON", "True")), 3)
    assert build_model(config("2mlp"), weights).mask_head is None
    trained = {**weights.blobs, "_mask_fcn1_w_momentum": weights.blobs["_mask_fcn1_w"]}
    with pytest.raises(InputError, match=r"_mask_fcn1_w"):
        build_model(config("2mlp"), replace(weights, blobs=trained))


@torch.inference_mode()
def test_static_shapes_find_the_same(model, image):
    batch = model.network_input([image])
    expected, found = model.start_batch(batch)()[0], model.start_batch(batch, model.static_outputs)()[0]
    assert found.mask_probs is None
    np.testing.assert_allclose(found.boxes, expected.boxes, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-5)


def test_a_detector_checks_its_configuration():
    for build in (build_detector, GeneralizedRCNN):
        with pytest.raises(InputError, match="ROI_BOX_HEAD"):
            build(bundled_config("e2e_mask_rcnn_R-50-FPN_2x", ["FAST_RCNN.ROI_BOX_HEAD", "''"]))
