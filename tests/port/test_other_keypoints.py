"""A model of another number of keypoints than a person's 17 detects; only what is made for the 17 is refused."""

import json

import cv2
import h5py
import numpy as np
import pytest

from detectron_gn.mrcnn import visualize
from detectron_gn.mrcnn.config import with_values
from detectron_gn.mrcnn.ops.keypoints import decode_heatmaps
from detectron_gn.port.blobs.convert import build_model
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.yaml_dumper import dump_config
from detectron_gn.weights import read_blobs, write_blobs
from detectron_gn.weights.weights_file import WeightsFile
from tests.helpers.command_line import assert_one_sentence
from tests.helpers.zoo_reference import zoo_model

# Places of five of the seventeen.
FIVE = [0, 5, 6, 11, 16]


@pytest.fixture(scope="module")
def models(data):
    """A reference's model of 17 keypoints, and one of five of them."""
    whole = zoo_model(data / "zoo" / "keypoint.h5")
    cfg = with_values(whole.cfg, {"KRCNN.NUM_KEYPOINTS": 5})
    blobs = {
        row.blob: whole.get_parameter(row.parameter).detach().numpy() for row in BlobTable.from_model(whole).rows
    }
    blobs["kps_score_lowres_w"] = blobs["kps_score_lowres_w"][:, FIVE]
    blobs["kps_score_lowres_b"] = blobs["kps_score_lowres_b"][FIVE]
    blobs["kps_score_w"] = blobs["kps_score_w"][FIVE][:, FIVE]
    blobs["kps_score_b"] = blobs["kps_score_b"][FIVE]
    weights = WeightsFile(blobs, dump_config(cfg), None, "five", "pkl")
    return whole, build_model(cfg, weights), weights


@pytest.fixture
def image(demo_model, data):
    with h5py.File(data / "zoo" / "keypoint.h5") as file:
        return demo_model / "val" / next(iter(file))


@pytest.fixture
def five(models, tmp_path):
    path = tmp_path / "five.pkl"
    write_blobs(path, models[2])
    return path


def test_five_of_seventeen_keypoints_are_where_they_are_among_the_seventeen(models, image):
    whole, part, _ = models
    expected, found = whole.detect(image), part.detect(image)
    assert found.keypoints.shape == (len(expected), 4, 5) and len(found)
    np.testing.assert_allclose(found.keypoints, expected.keypoints[:, :, FIVE], rtol=1e-4, atol=1e-4)
    assert "keypoints" in found.tensors() and len(found.to_coco(1)[0]["keypoints"]) == 15


def test_they_are_drawn_as_points_without_limbs(models, image, monkeypatch):
    lines = []
    monkeypatch.setattr(visualize.cv2, "line", lambda *_: lines.append(1))
    _, part, _ = models
    picture, found = cv2.imread(str(image)), part.detect(image)
    found.keypoints[:, 2] = 9
    drawn = found.plot(picture, min_score=0)
    assert not lines
    found.keypoints[:, 2] = 0
    assert (found.plot(picture, min_score=0) != drawn).any()


def test_they_are_converted_inspected_and_detected_by_the_commands(five, image, tmp_path, run):
    assert run("convert", five, "--out", tmp_path / "five.pth")[0] == 0
    assert run("convert", tmp_path / "five.pth", "--out", tmp_path / "back.pkl")[0] == 0
    assert (tmp_path / "back.pkl").read_bytes() == five.read_bytes()
    assert read_blobs(five).blobs["kps_score_w"].shape == (5, 5, 4, 4)
    assert run("inspect", five)[0] == 0
    code, _, err = run("detect", five, image, "--out", tmp_path / "out")
    assert code == 0, err
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert rows and {len(row["keypoints"]) for row in rows} == {15}


def test_their_boxes_are_scored_and_their_keypoints_written(five, image, tmp_path, run):
    height, width = cv2.imread(str(image)).shape[:2]
    document = {
        "images": [{"id": 1, "file_name": image.name, "height": height, "width": width}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 40, 40], "area": 1600, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "person"}],
    }
    annotations = tmp_path / "a.json"
    annotations.write_text(json.dumps(document))
    data = ["--annotations", annotations, "--images", image.parent]
    code, out, err = run("test", five, *data, "--out", tmp_path / "out")
    assert code == 0, err
    assert "keypoints have no AP: KRCNN.NUM_KEYPOINTS is 5, and COCO's AP is of a person's 17" in out
    (ap,) = json.loads((tmp_path / "out" / "ap.json").read_text()).values()
    assert set(ap) == {"box"}
    rows = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert rows and {len(row["keypoints"]) for row in rows} == {15}
    scored = run("score", tmp_path / "out" / "keypoints.json", "--annotations", annotations, "--type", "keypoints")
    assert_one_sentence(scored, "keypoints that are not 51 finite numbers")


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["KRCNN.NMS_OKS", "True"], "KRCNN.NMS_OKS"),
        (["TEST.KPS_AUG.ENABLED", "True", "TEST.KPS_AUG.H_FLIP", "True"], "TEST.KPS_AUG.H_FLIP"),
    ],
)
def test_what_knows_a_persons_keypoints_alone_is_refused_by_key(overrides, key, five, image, tmp_path, run):
    result = run("detect", five, image, "--out", tmp_path / "out", "--set", *overrides)
    assert_one_sentence(result, f"{key} is True, which takes the keypoints to be the 17 of COCO's person")


def test_scales_of_augmentation_are_for_any_number_of_keypoints(models, image):
    _, part, weights = models
    views = {"TEST.KPS_AUG.ENABLED": True, "TEST.KPS_AUG.SCALES": (96,)}
    found = build_model(with_values(part.cfg, views), weights).detect(image)
    assert found.keypoints.shape[1:] == (4, 5)


@pytest.mark.parametrize("count", [1, 200])
def test_one_keypoint_and_more_than_opencv_enlarges_at_once_are_read_off_heatmaps(count):
    maps = np.zeros((2, count, 4, 4), np.float32)
    maps[:, :, 1, 2] = 5
    boxes = np.array([[0, 0, 8, 8], [10, 20, 18, 28]], np.float32)
    points = decode_heatmaps(maps, boxes, 0)
    assert points.shape == (2, 4, count)
    assert (points[1, :2] - points[0, :2] == [[10], [20]]).all() and (abs(points[0, 0] - 5) <= 0.5).all()
