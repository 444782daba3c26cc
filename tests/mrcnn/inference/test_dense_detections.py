"""From RetinaNet's maps to detections, on maps whose numbers are written by hand."""

import pytest
import torch

from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.inference.dense_detections import dense_detections, level_candidates
from detectron_gn.mrcnn.inference.dynamic import Detected

# One anchor of 8 x 8 pixels.
ANCHORS = torch.tensor([[0.0, 0.0, 7.0, 7.0]], dtype=torch.float64)
IMAGE = (100, 100)


def config(**changes):
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    return with_values(Config(), {"MODEL.NUM_CLASSES": 3, "TEST.NMS": 0.5, **keys})


def candidates(scores, deltas=None, *, anchors=ANCHORS, threshold=0.05, scale=1.0, image=IMAGE, **changes):
    """Of `[A][K][H][W]` scores, stride 16."""
    probabilities = torch.tensor(scores)
    height, width = probabilities.shape[2:]
    if deltas is None:
        deltas = torch.zeros(len(anchors), 1, 4, height, width)
    return level_candidates(probabilities, deltas, anchors, 16, scale, image, threshold, config(**changes))


def found(detected):
    return sorted(zip(detected.classes.tolist(), detected.boxes.tolist(), detected.scores.tolist(), strict=True))


def detected(*rows):
    """Rows (class, score, x1): boxes of 10 x 10 pixels."""
    boxes = torch.tensor([[x1, 0.0, x1 + 9, 9.0] for _, _, x1 in rows]).reshape(-1, 4)
    labels, scores = [row[0] for row in rows], torch.tensor([row[1] for row in rows])
    return Detected(boxes, scores, torch.tensor(labels, dtype=torch.long))


def test_a_candidate_is_an_anchor_at_its_position_with_its_class():
    # Classes in rows, two positions one above the other: class 2 at the lower one, 16 pixels down.
    one = candidates([[[[0.0], [0.0]], [[0.0], [0.75]]]])
    assert found(one) == [(2, [0.0, 16.0, 7.0, 23.0], 0.75)]


def test_a_score_on_the_threshold_is_no_candidate():
    assert len(candidates([[[[0.05]], [[0.0]]]]).scores) == 0
    assert len(candidates([[[[0.05]], [[0.0]]]], threshold=0.0).scores) == 1


def test_the_best_are_taken_over_all_classes_of_a_level():
    best = candidates([[[[0.3, 0.9]], [[0.6, 0.2]]]], RETINANET__PRE_NMS_TOP_N=2)
    assert [row[0] for row in found(best)] == [1, 2]
    assert sorted(best.scores.tolist()) == pytest.approx([0.6, 0.9])
    assert len(candidates([[[[0.3, 0.9]], [[0.6, 0.2]]]], RETINANET__PRE_NMS_TOP_N=0).scores) == 4


def test_boxes_are_scaled_after_they_are_decoded_and_clipped_to_the_image():
    # dx of half a width: centre 4 -> 8, corners 4 and 11 in network pixels, half of that in the image.
    deltas = torch.zeros(1, 1, 4, 1, 1)
    deltas[0, 0, 0] = 0.5
    scores = [[[[0.9]], [[0.0]]]]
    assert found(candidates(scores, deltas, scale=2.0))[0][1] == [2.0, 0.0, 5.5, 3.5]
    assert found(candidates(scores, deltas, scale=2.0, image=(3, 5)))[0][1] == [2.0, 0.0, 4.0, 2.0]
    assert found(candidates(scores, deltas, scale=2.0, TEST__BBOX_REG=False))[0][1] == [0.0, 0.0, 3.5, 3.5]


def test_each_class_takes_its_own_boxes_where_it_has_some():
    """Anchor by anchor, class by class: where training reads them (Detectron roi_data/retinanet.py)."""
    deltas = torch.zeros(1, 2, 4, 1, 1)
    deltas[0, 1, 0] = 1.0
    one, two = found(candidates([[[[0.9]], [[0.8]]]], deltas, RETINANET__CLASS_SPECIFIC_BBOX=True))
    assert (one[1][0], two[1][0]) == (0.0, 8.0)


def test_levels_are_suppressed_together_and_classes_apart():
    cfg = config()
    levels = [detected((1, 0.5, 0.0)), detected((1, 0.9, 1.0), (2, 0.8, 1.0))]
    kept = dense_detections(levels, cfg)
    assert kept.classes.tolist() == [1, 2]
    assert kept.boxes[:, 0].tolist() == [1.0, 1.0]


def test_the_limit_is_exact_and_detections_are_best_first_within_a_class():
    levels = [detected((2, 0.5, 0.0), (1, 0.5, 0.0), (1, 0.5, 40.0)), detected((1, 0.7, 20.0), (2, 0.75, 40.0))]
    kept = dense_detections(levels, config(TEST__DETECTIONS_PER_IM=3))
    # Three of five, though three tie for the last place.
    assert kept.classes.tolist() == [1, 1, 2]
    assert kept.scores.tolist() == pytest.approx([0.7, 0.5, 0.75])


def test_soft_nms_lowers_scores_and_voting_is_not_for_retinanet():
    levels = [detected((1, 0.8, 0.0), (1, 0.5, 1.0))]
    cfg = config(TEST__SOFT_NMS__ENABLED=True, TEST__BBOX_VOTE__ENABLED=True, TEST__BBOX_VOTE__VOTE_TH=0.1)
    kept = dense_detections(levels, cfg)
    # 90 of 110 pixels are shared.
    assert kept.scores.tolist() == pytest.approx([0.8, 0.5 * (1 - 90 / 110)])
    assert kept.boxes[:, 0].tolist() == [0.0, 1.0]


def test_the_threshold_of_rois_does_not_apply():
    assert len(dense_detections([detected((1, 0.06, 0.0))], config(TEST__SCORE_THRESH=0.5)).scores) == 1


def test_nothing_found_is_no_detection():
    assert len(dense_detections([detected(), detected()], config()).scores) == 0
