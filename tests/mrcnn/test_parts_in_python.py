"""The parts of every family in Python: proposals in and out, features of boxes, a sentence where there is none."""

import cv2
import h5py
import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.structures import Detections, Features
from tests.helpers.dense_run import dense_config
from tests.helpers.zoo_reference import zoo_model

BOXES = [[8, 8, 40, 40], [0, 0, 90, 60]]


@pytest.fixture(scope="module")
def fast(data):
    return zoo_model(data / "zoo" / "fast_fpn.h5")


@pytest.fixture(scope="module")
def rpn(data):
    return zoo_model(data / "zoo" / "rpn_fpn.h5")


@pytest.fixture(scope="module")
def retinanet():
    return build_detector(dense_config("retinanet")).eval()


@pytest.fixture(scope="module")
def image(demo_model):
    return cv2.imread(str(min((demo_model / "val").iterdir())))


@pytest.mark.parametrize(
    "wrong",
    [
        [[1, 2, 3]],
        [1, 2, 3, 4],
        [[0, 0, 9, float("nan")]],
        [[0, 0, 9, float("inf")]],
        [[0, 0, 9, 1e30]],
        "rpn_proposals.pkl",
        [["a", "b", "c", "d"]],
        [[0, 0, 9, 9], [0, 0, 9]],
        np.zeros((1, 4), bool),
        np.zeros((0, 5), np.float32),
        torch.zeros(2, 1, 4),
        {"boxes": BOXES},
        7,
        object(),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'shape', '')}",
)
def test_proposals_that_are_no_boxes_are_refused_in_a_sentence(fast, image, wrong):
    told = r"proposals must be \[R, 4\] finite numbers \(x1, y1, x2, y2 in pixels of the image\)"
    for call in (
        lambda: fast.detect(image, wrong),
        lambda: fast.detect([image], [wrong]),
        lambda: fast.detect_batch([image], [wrong]),
    ):
        with pytest.raises(InputError, match=told):
            call()
    with pytest.raises(InputError, match=told.replace("proposals", "boxes")):
        fast.region_features(image, wrong)


@pytest.mark.parametrize("wrong", ["rpn_proposals.pkl", [BOXES, BOXES], [], 7])
def test_a_list_of_images_takes_proposals_of_each(fast, image, wrong):
    with pytest.raises(InputError, match=r"1 images and proposals of \d: give them for each"):
        fast.detect([image], wrong)


def test_boxes_come_as_arrays_lists_and_tensors(fast, image):
    expected = fast.detect(image, np.array(BOXES, np.float32))
    for form in (BOXES, np.array(BOXES), np.array(BOXES, np.float64), torch.tensor(BOXES), torch.tensor(BOXES).half()):
        np.testing.assert_array_equal(fast.detect(image, form).boxes, expected.boxes)
        (found,) = fast.detect([image], [form])
        np.testing.assert_array_equal(found.boxes, expected.boxes)
    for none in ([], np.zeros((0, 4), np.float32), torch.zeros(0, 4)):
        assert len(fast.detect(image, none)) == 0
        assert fast.region_features(image, none).shape == (0, *fast.region_features(image, BOXES).shape[1:])


def test_the_sentence_about_missing_proposals_tells_both_ways(fast, rpn, retinanet, image):
    for call in (lambda: fast.detect(image), lambda: fast([image])):
        with pytest.raises(InputError, match=r"give --proposals .* or in Python `detect\(image, proposals\)`"):
            call()
    for model, name in ((rpn, "an RPN"), (retinanet, "a RetinaNet")):
        told = rf"{name} makes its own .* leave --proposals \(in Python `proposals`\) out"
        with pytest.raises(InputError, match=told):
            model.detect(image, BOXES)


def test_an_rpn_by_itself_proposes_what_it_detects(rpn, image, data):
    found = rpn.detect(image)
    boxes, scores = rpn.proposals(image)
    np.testing.assert_array_equal(boxes.numpy(), found.boxes)
    np.testing.assert_array_equal(scores.numpy(), found.scores)
    with h5py.File(data / "zoo" / "rpn_fpn.h5") as file:
        (name,) = file
        theirs = file[name]["proposal_scores"][:]
    assert len(scores) == len(theirs)


def test_what_an_rpn_finds_is_called_proposal(rpn, image):
    found = rpn.detect(image)
    assert rpn.classes == ("__background__", "proposal") and set(found.names) == {"proposal"}
    assert "(" + str(len(found)) + " proposal)" in repr(found)
    assert len(found.of_class("proposal")) == len(found)


def test_parts_that_a_family_lacks_are_told(fast, rpn, retinanet, image):
    for model, name in ((fast, "a Fast R-CNN"), (retinanet, "a RetinaNet")):
        with pytest.raises(InputError, match=f"^{name} has no RPN, so that it proposes nothing"):
            model.proposals(image)
    for model, name in ((rpn, "an RPN"), (retinanet, "a RetinaNet")):
        with pytest.raises(InputError, match=f"^{name} has no box head"):
            model.region_features(image, BOXES)
    assert fast.region_features(image, BOXES).shape[0] == 2


def test_features_are_maps_and_strides(fast, retinanet, image):
    data = fast.network_input([image], [np.array(BOXES, np.float32)]).data
    # In any form, as `detect` takes it.
    as_tensor = torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1)
    assert torch.equal(retinanet.network_input([as_tensor]).data, retinanet.network_input([image]).data)
    for model, strides in ((fast, (4, 8, 16, 32)), (retinanet, (8, 16, 32, 64, 128))):
        features = model.features(data)
        assert isinstance(features, Features)
        assert features.strides[: len(strides)] == strides
        for level, stride in zip(features.maps, features.strides, strict=True):
            assert level.shape[2:] == (-(-data.shape[2] // stride), -(-data.shape[3] // stride))


def test_too_few_category_ids_are_refused():
    found = Detections(
        np.zeros((2, 4), np.float32), np.ones(2, np.float32), np.array([1, 3]), (10, 20)
    )
    for ids in ([], [5], np.array([5, 6])):
        with pytest.raises(InputError, match=f"there are {len(ids)} category ids, but a detection is of class 3"):
            found.to_coco(1, ids)
    rows = found.to_coco(1, np.array([5, 6, 7]))
    assert [(row["category_id"], type(row["category_id"])) for row in rows] == [(5, int), (7, int)]
    assert [row["category_id"] for row in found.to_coco(1)] == [1, 3]
