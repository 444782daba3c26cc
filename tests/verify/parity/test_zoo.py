"""The families of Detectron's zoo beside Caffe2: every blob, every detection, narrow models of random weights.

`tests/data/zoo` holds references of images of the demo; those of photos lie with the large reference data.
"""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from detectron_gn.mrcnn.data.read_image import read_image
from detectron_gn.verify.diagnosis.diagnose import diagnose
from detectron_gn.verify.parity.blobs import compare_image, first_difference, parity_holds
from detectron_gn.verify.parity.matching import pair_detections
from detectron_gn.verify.reference.image_dump import read_references
from tests.helpers.zoo_reference import zoo_model

DATA = Path(__file__).parents[2] / "data" / "zoo"
SMALL = sorted(path.stem for path in DATA.glob("*.h5") if not path.stem.startswith("ops_"))
PHOTOS = [
    "rpn_fpn", "rpn_c4", "faster_fpn", "faster_c4", "faster_x101", "mask_c4", "mask_x101", "fast_fpn", "fast_c4",
    "mask_fpn_prop", "mask_c4_prop", "keypoint", "keypoint_prop", "vgg",
]  # fmt: skip

# parity/zoo/README.md: what rounding moves, times ten or more.
TOLERANCE = 1e-4
MOST_PIXELS, MOST_SCORE = 0.02, 1e-4


def assert_all_agrees(model, path, images):
    for reference in read_references(path, images, model.cfg):
        parity = compare_image(model, reference)
        assert parity_holds(parity, TOLERANCE), first_difference(parity, TOLERANCE)
        assert parity.same_rois and parity.not_compared == ()
        # References leave out the inner convolutions of most blocks.
        assert [blob for blob in parity.absent if "_branch2" not in blob] == []
        found = parity.detections
        assert found.matched == found.count == found.reference_count > 0
        assert found.box_error < MOST_PIXELS and found.score_error < MOST_SCORE
        # A pixel near the threshold may come and go.
        assert found.equal_rles == found.count or found.min_mask_iou >= 0.99
        assert found.moved_keypoints == 0 and (found.keypoints > 0) == model.cfg.MODEL.KEYPOINTS_ON
        assert diagnose(model, parity, reference, TOLERANCE) is None


@pytest.mark.parametrize("name", SMALL)
def test_every_blob_and_every_detection_of_a_family_is_caffe2s(name, demo_model):
    assert_all_agrees(zoo_model(DATA / f"{name}.h5"), DATA / f"{name}.h5", demo_model / "val")


@pytest.mark.slow
@pytest.mark.parametrize("name", PHOTOS)
def test_every_blob_and_every_detection_in_photos_is_caffe2s(name, shared):
    path = shared / "parity" / "zoo" / f"{name}.h5"
    assert_all_agrees(zoo_model(path), path, shared / "data" / "coco_ccby" / "val2017")


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["plain", "plain_vote"])
def test_an_x_152_finds_what_caffe2_finds(variant, shared):
    path, images = shared / "parity" / "zoo" / "mask_x152.h5", shared / "data" / "coco_ccby" / "val2017"
    with h5py.File(path) as file:
        for name in file:
            group = file[name]["variants"][variant]
            found = zoo_model(path, *str(group.attrs["opts"]).split()).detect(read_image(images / name))
            boxes, scores = group["det_boxes"][()], group["det_scores"][()]
            pairs = pair_detections(found, boxes, group["det_classes"][()])
            ours, theirs = pairs[:, 0], pairs[:, 1]
            assert len(pairs) == len(found) == len(boxes)
            assert np.abs(found.boxes[ours] - boxes[theirs]).max() < MOST_PIXELS
            assert np.abs(found.scores[ours] - scores[theirs]).max() < MOST_SCORE
            rles = [rle["counts"].encode() for rle in found.rles()]
            assert [rles[row] for row in ours] == [group["rle_counts"][row] for row in theirs]


def test_the_references_say_how_far_rounding_moves_them():
    for name in SMALL:
        with h5py.File(DATA / f"{name}.h5") as file:
            noise = json.loads(file.attrs["noise"])
        assert noise["base"]["matched"] == noise["base"]["total"] > 0 and noise["worst_blob"] < TOLERANCE
