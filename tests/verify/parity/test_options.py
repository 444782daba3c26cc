"""Options of the heads and of what comes after them, beside Caffe2's: whole runs on two photos."""

import cv2
import h5py
import pytest

from detectron_gn.verify.diagnosis.diagnose import diagnose
from detectron_gn.verify.parity.blobs import compare_image, parity_holds
from tests.helpers.caffe2_moments import caffe2_moments
from tests.helpers.zoo_reference import assert_same_boxes, variants, zoo_model, zoo_parities


@pytest.mark.slow
def test_boxes_and_masks_that_all_classes_share_are_caffe2s(shared):
    for model, reference, parity in zoo_parities(shared, "agnostic"):
        assert (len(parity.blobs), parity.not_compared, parity.same_rois) == (287, (), True)
        assert parity_holds(parity, 1e-3) and diagnose(model, parity, reference, 1e-3) is None
        with caffe2_moments(model):
            parity = compare_image(model, reference)
        assert max(row.relative_error for row in parity.blobs) < 2e-4
        found = parity.detections
        assert found.matched == found.count == found.reference_count == 15
        assert found.box_error < 0.02 and found.score_error < 1e-4
        assert found.mask_error < 1e-3 and found.min_mask_iou > 0.999


@pytest.mark.slow
def test_every_detection_of_fifteen_ways_after_the_network_is_caffe2s(shared):
    path = shared / "parity" / "zoo" / "post.h5"
    model = zoo_model(path)
    with h5py.File(path) as file:
        for image in file:
            pixels = cv2.imread(str(shared / "data" / "coco_ccby" / "val2017" / image))
            names = []
            for name, cfg, expected in variants(file, image, model.cfg):
                names.append(name)
                model.cfg, plain = cfg, model.cfg
                found = model.detect(pixels)
                model.cfg = plain
                assert_same_boxes(found.boxes, found.scores, found.classes, expected, (1e-3, 1e-5))
            assert len(names) == 16
