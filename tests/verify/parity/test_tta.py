"""Test-time augmentation beside Caffe2's: every detection and mask of augmented runs on photos."""

import cv2
import h5py
import numpy as np
import pytest

from detectron_gn.port.runs.load import load_model
from detectron_gn.verify.parity.blobs import compare_image
from detectron_gn.verify.parity.matching import pair_detections
from detectron_gn.verify.reference.image_dump import read_reference, reference_names
from tests.helpers.zoo_reference import assert_same_boxes, variants, zoo_model

# What is run of each reference: 12 detections each. The second image's union of thirteen views is voted on.
RUNS = {
    "tta_mask": [
        ("000000099053.jpg", {"base", "flip", "scales", "ratios_flip", "masks_only"}),
        ("000000119828.jpg", {"all_vote"}),
    ],
    "mask_x152": [("000000099053.jpg", {"base", "plain_vote"})],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_every_augmented_detection_and_mask_is_caffe2s(name, shared):
    path = shared / "parity" / "zoo" / f"{name}.h5"
    model = zoo_model(path)
    with h5py.File(path) as file:
        for image, wanted in RUNS[name]:
            pixels = cv2.imread(str(shared / "data" / "coco_ccby" / "val2017" / image))
            chosen = {each: (cfg, group) for each, cfg, group in variants(file, image, model.cfg) if each in wanted}
            assert chosen.keys() == wanted
            own = model.cfg
            for cfg, expected in chosen.values():
                model.cfg = cfg
                found = model.detect(pixels)
                assert_same_boxes(found.boxes, found.scores, found.classes, expected, (1e-3, 1e-5))
                assert [rle["counts"].encode() for rle in found.rles()] == expected["rle_counts"][:].tolist()
            model.cfg = own


@pytest.mark.slow
def test_a_dump_is_compared_with_one_look_at_the_image(pickle, demo_model):
    flipped = ["TEST.BBOX_AUG.ENABLED", "True", "TEST.BBOX_AUG.H_FLIP", "True"]
    found = []
    for overrides in ([], flipped):
        model = load_model(pickle, overrides=overrides, device="cpu")
        name = reference_names(demo_model / "blobs.h5")[0]
        reference = read_reference(demo_model / "blobs.h5", name, demo_model / "val", model.cfg)
        found.append(compare_image(model, reference))
    assert found[0] == found[1] and model.cfg.TEST.BBOX_AUG.ENABLED


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tta_fast", "tta_keypoint"])
def test_every_augmented_detection_on_proposals_and_keypoint_is_caffe2s(name, shared):
    path = shared / "parity" / "zoo" / f"{name}.h5"
    model, images = zoo_model(path), shared / "data" / "coco_ccby" / "val2017"
    own, compared = model.cfg, 0
    with h5py.File(path) as file:
        for image in file:
            pixels, proposals = cv2.imread(str(images / image)), file[image]["proposals"][()]
            for variant, cfg, expected in variants(file, image, own):
                model.cfg = cfg
                found = model.detect(pixels, proposals)
                pairs = pair_detections(found, expected["det_boxes"][()], expected["det_classes"][()])
                ours, theirs = pairs.T
                assert len(pairs) == len(found) == len(expected["det_boxes"]) > 0, variant
                assert np.abs(found.boxes[ours] - expected["det_boxes"][()][theirs]).max() < 0.02
                assert np.abs(found.scores[ours] - expected["det_scores"][()][theirs]).max() < 1e-4
                if name == "tta_keypoint":
                    apart = np.abs(found.keypoints[ours] - expected["keypoints"][()][theirs])
                    assert apart[:, :2].max() < 0.02 and apart[:, 2].max() < 1e-3, variant
                compared += len(pairs)
    assert compared > 100
