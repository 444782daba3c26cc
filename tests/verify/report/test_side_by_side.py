"""Pictures side by side: what differs is drawn in red, whatever it scores, and the caption counts it."""

import numpy as np
import pycocotools.mask
import pytest
from pycocotools.coco import COCO

from detectron_gn.verify.report.side_by_side import Side, annotation_pairs, result_pairs

RED = (0, 0, 255)


@pytest.fixture
def coco(tmp_path):
    """One grey image of 640 x 640 pixels, whose file is returned too."""
    import cv2

    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.full((640, 640, 3), 128, np.uint8))
    data = COCO()
    data.dataset = {
        "images": [{"id": 1, "file_name": "a.png", "height": 640, "width": 640}],
        "annotations": [],
        "categories": [{"id": 1, "name": "square"}],
    }
    data.createIndex()
    return data, {1: path}


def side(title, *found):
    """Detections (x, y, side, score) as rows of both kinds."""
    boxes, segms = [], []
    for x, y, size, score in found:
        mask = np.zeros((640, 640), np.uint8, order="F")
        mask[y : y + size, x : x + size] = 1
        row = {"image_id": 1, "category_id": 1, "score": score}
        boxes.append({**row, "bbox": [float(x), float(y), float(size), float(size)]})
        rle = pycocotools.mask.encode(mask)
        segms.append({**row, "segmentation": {**rle, "counts": rle["counts"].decode()}})
    return Side(title, boxes, segms)


def red_pixels(picture):
    return int((picture == RED).all(axis=2).sum())


def pair_of(coco, reference, ours):
    data, files = coco
    (pair,) = result_pairs(data, files, side("reference", *reference), side("ours", *ours), 8)
    return pair


def test_equal_sides_have_nothing_red(coco):
    both = [(100, 100, 200, 0.9), (400, 400, 50, 0.2)]
    pair = pair_of(coco, both, both)
    assert red_pixels(pair.left) == red_pixels(pair.right) == 0
    assert pair.caption == (
        "1 object that scores 0.5 or more, every one on both sides; masks equal to the pixel; not drawn: 1 of lower "
        "scores that match"
    )


def test_a_detection_of_low_score_that_one_side_lacks_is_drawn_red(coco):
    pair = pair_of(coco, [(100, 100, 200, 0.9), (400, 400, 50, 0.2)], [(100, 100, 200, 0.9)])
    assert red_pixels(pair.left) > 50 and red_pixels(pair.right) == 0
    assert "red: 1 of the left and 0 of the right that have no match on the other side" in pair.caption


def test_a_pair_out_of_tolerance_is_red_on_both_sides_and_so_are_its_pixels(coco):
    pair = pair_of(coco, [(100, 100, 200, 0.9)], [(110, 100, 200, 0.9)])
    assert "red: 1 of the left and 1 of the right" in pair.caption
    # Ten columns of 200 pixels at either edge.
    assert "4000 mask pixels differ (red)" in pair.caption
    assert tuple(pair.right[200, 104]) == RED and tuple(pair.right[200, 305]) == RED


def test_a_score_out_of_tolerance_is_red_though_the_masks_are_equal(coco):
    pair = pair_of(coco, [(100, 100, 200, 0.9)], [(100, 100, 200, 0.8)])
    assert "red: 1 of the left and 1 of the right" in pair.caption and "masks equal to the pixel" in pair.caption


def test_annotated_objects_are_drawn_with_what_outline_they_have(coco):
    data, files = coco
    row = {"image_id": 1, "category_id": 1, "iscrowd": 0, "area": 1.0, "bbox": [100.0, 100.0, 200.0, 200.0]}
    whole = [100.0, 100.0, 300.0, 100.0, 300.0, 300.0, 100.0, 300.0]
    drawn = []
    for segmentation in ([], [[1.0, 2.0, 3.0, 4.0]], [whole], [[1.0, 2.0, 3.0, 4.0], whole]):
        data.dataset["annotations"] = [{**row, "id": 1, "segmentation": segmentation}]
        data.createIndex()
        (pair,) = annotation_pairs(data, files, side("ours"), 1)
        drawn.append(pair.left)
    boxes = drawn[0]
    assert (drawn[1] == boxes).all() and (drawn[2] == drawn[3]).all() and (drawn[2] != boxes).any()


def people(title, *moved):
    """A person whose keypoints stand in a square, the numbered ones 30 pixels further down."""
    found = side(title, (100, 100, 300, 0.9))
    x, y = np.meshgrid(np.linspace(120, 360, 5), np.linspace(120, 360, 4))
    points = np.stack([x.ravel()[:17], y.ravel()[:17], np.ones(17)], axis=1)
    points[list(moved), 1] += 30
    row = {"image_id": 1, "category_id": 1, "score": 0.9, "keypoints": points.ravel().tolist()}
    return Side(title, found.boxes, found.segms, [row])


def test_people_are_drawn_with_their_skeletons(coco):
    data, files = coco
    (with_keypoints,) = result_pairs(data, files, people("reference"), people("ours"), 8)
    (without,) = result_pairs(data, files, side("reference", (100, 100, 300, 0.9)), side("o", (100, 100, 300, 0.9)), 8)
    assert (with_keypoints.left == with_keypoints.right).all()
    assert int((with_keypoints.left != without.left).any(axis=2).sum()) > 1000
    assert with_keypoints.caption.endswith("masks equal to the pixel; all keypoints in place")


def test_a_keypoint_that_is_elsewhere_has_a_red_ring_on_both_sides(coco):
    data, files = coco
    (pair,) = result_pairs(data, files, people("reference"), people("ours", 7), 8)
    assert "every one on both sides" in pair.caption and "; 1 keypoint is elsewhere (red rings)" in pair.caption
    assert 20 < red_pixels(pair.left) < 400 and 20 < red_pixels(pair.right) < 400
    # Of a person at most half may be: nine elsewhere make it another one, though its box and mask agree.
    (pair,) = result_pairs(data, files, people("reference"), people("ours", *range(9)), 8)
    assert "red: 1 of the left and 1 of the right" in pair.caption and "9 keypoints are elsewhere" in pair.caption


def test_annotated_keypoints_are_drawn_where_there_are_any(coco):
    data, files = coco
    row = {"image_id": 1, "category_id": 1, "iscrowd": 0, "area": 1.0, "bbox": [100.0, 100.0, 200.0, 200.0]}
    seen = people("ours").keypoints[0]["keypoints"]
    drawn = []
    for keypoints in ([], [0] * 51, seen):
        data.dataset["annotations"] = [{**row, "id": 1, "segmentation": [], "keypoints": keypoints}]
        data.createIndex()
        (pair,) = annotation_pairs(data, files, side("ours"), 1)
        drawn.append(pair.left)
    assert (drawn[0] == drawn[1]).all() and (drawn[1] != drawn[2]).any()
