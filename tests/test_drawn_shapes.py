"""The drawn data are the demo's, with keypoints that Detectron understands."""

import json

import cv2
import numpy as np
import pytest

from benchmarks.drawn_shapes import SHAPES, SPLITS, draw_data_set
from detectron_gn.mrcnn.data.check import check_dataset
from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.ops.keypoints import KEYPOINT_NAMES, MIRRORED
from detectron_gn.port.config.read import bundled_config


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder with the demo's validation set."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_data_set(folder, "val", SPLITS["val"])
    return folder


def keypoints_of(folder):
    """The annotations of `keypoints_val.json` with their keypoints as `[17, 3]`, crowds left out."""
    annotations = json.loads((folder / "keypoints_val.json").read_text())["annotations"]
    return [(each, np.reshape(each["keypoints"], (-1, 3))) for each in annotations if not each["iscrowd"]]


def test_the_drawn_validation_set_is_that_of_the_embedded_demo(drawn, demo_model):
    ours, demos = (json.loads((folder / "instances_val.json").read_text()) for folder in (drawn, demo_model))
    assert ours == demos
    for image in ours["images"]:
        mine, theirs = (cv2.imread(str(folder / "val" / image["file_name"])) for folder in (drawn, demo_model))
        assert np.array_equal(mine, theirs)


def test_keypoints_are_corners_of_the_outlines_within_their_boxes(drawn):
    count = 0
    for annotation, keypoints in keypoints_of(drawn):
        outline = np.reshape(annotation["segmentation"][0], (-1, 2))
        x, y, width, height = annotation["bbox"]
        for place in keypoints[keypoints[:, 2] > 0, :2]:
            assert np.abs(outline - place).max(axis=1).min() <= 2
            # Detectron's box ends at x + width - 1.
            assert x <= place[0] <= x + width - 1 and y <= place[1] <= y + height - 1
            count += 1
        assert annotation["num_keypoints"] == (keypoints[:, 2] > 0).sum()
    assert count > 300


def test_every_keypoint_of_coco_is_one_of_a_shape_and_some_are_covered(drawn):
    visibility = np.stack([keypoints[:, 2] for _, keypoints in keypoints_of(drawn)])
    assert (visibility == 2).any(axis=0).all() and (visibility == 1).any()


def test_a_mirrored_shape_has_left_and_right_where_flipped_keypoints_are():
    """Unturned, each shape is its own mirror image: keypoints changed over as for a flipped picture fall on its own."""
    for shape in SHAPES:
        outline = shape.outline(0, 0, 40, 0)
        places = {KEYPOINT_NAMES.index(name): outline[corner] for name, corner in shape.keypoints.items()}
        for keypoint, (x, y) in places.items():
            assert np.allclose(places[MIRRORED[keypoint]], (-x, y), atol=0.02)


@pytest.mark.parametrize("kind", ["instances", "keypoints"])
def test_nothing_of_a_drawn_set_is_left_out_of_training(drawn, kind):
    family = "e2e_keypoint_rcnn_R-50-FPN_shapes_gn" if kind == "keypoints" else "e2e_mask_rcnn_R-50-FPN_shapes_gn"
    report = check_dataset(read_dataset(drawn / f"{kind}_val.json", drawn / "val"), bundled_config(family))
    assert [finding for finding in report.findings if finding.severity != "note"] == []
