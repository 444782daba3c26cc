"""Targets and loss of a keypoint head, by hand; the traces of test_roi_training.py hold Detectron's own."""

import math

import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.data.ground_truth import GroundTruth
from detectron_gn.mrcnn.data.minibatch import Minibatch, minibatches
from detectron_gn.mrcnn.data.proposal_matches import match_proposals
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.ops.keypoints import encode_keypoints
from detectron_gn.mrcnn.ops.proposals import ImInfo
from detectron_gn.mrcnn.training.keypoint_targets import KeypointSample
from detectron_gn.mrcnn.training.losses import keypoint_loss
from detectron_gn.mrcnn.training.roi_targets import sample_matched
from detectron_gn.mrcnn.training.samplers import has_enough_keypoints
from tests.helpers.roi_run import roi_config, roi_data

SMALL = {"MODEL.NUM_CLASSES": 2, "KRCNN.NUM_KEYPOINTS": 17, "KRCNN.HEATMAP_SIZE": 10, "TRAIN.IMS_PER_BATCH": 1}
CFG = with_values(Config(), {"MODEL.KEYPOINTS_ON": True, **SMALL})
# Of one person from (10, 20) to (29, 59): the nose within, an eye on the far corner, one unseen, one outside.
POINTS = [(14, 30, 2), (29, 59, 1), (20, 40, 0), (30, 40, 2)]
BOX = [10.0, 20.0, 29.0, 59.0]


def keypoints(*points):
    padded = [*points, *[(0, 0, 0)] * (17 - len(points))]
    return np.array(padded, np.int32).T[None]


def person(*points, box=BOX, crowd=False):
    boxes = np.array([box], np.float32)
    return GroundTruth(boxes, np.array([1]), np.array([crowd]), ((),), keypoints(*points))


def test_a_box_is_cut_into_positions_and_its_far_edge_belongs_to_the_last():
    positions, visible = encode_keypoints(torch.from_numpy(keypoints(*POINTS)), torch.tensor([BOX]), 10)
    assert visible[0].tolist() == [True, True, *[False] * 15]
    # 4 of 19 pixels and 10 of 39 in tenths; then the last row and column.
    assert positions[0].tolist() == [2 * 10 + 2, 99, *[0] * 15]


def drawn(objects, proposals, **train):
    cfg = with_values(CFG, {f"TRAIN.{key}": value for key, value in train.items()})
    matched = match_proposals(torch.tensor(proposals), torch.from_numpy(objects.boxes))
    return sample_matched(matched, objects, 0, 2.0, cfg, torch.Generator().manual_seed(0)).keypoints


def test_rois_that_hold_a_visible_keypoint_of_their_object_are_drawn_in_network_pixels():
    within, beside = [11.0, 20.0, 29.0, 59.0], [15.0, 20.0, 29.0, 58.0]
    sample = drawn(person(POINTS[0]), [within, beside])
    assert sorted(sample.rois.tolist()) == [[0.0, *(2 * x for x in box)] for box in (BOX, within)]
    assert sample.visible.sum(dim=1).tolist() == [1, 1]
    assert drawn(person(POINTS[2]), [within]).rois.shape == (0, 5)


def test_a_far_box_and_a_crowd_are_not_drawn():
    far = [60.0, 60.0, 70.0, 70.0]
    assert len(drawn(person(POINTS[0]), [far]).rois) == 1
    assert len(drawn(person(POINTS[0], crowd=True), [far]).rois) == 0


def test_no_more_are_drawn_than_the_box_head_has_objects():
    near = [[10.0 + i / 10, 20.0, 29.0, 59.0] for i in range(20)]
    assert len(drawn(person(POINTS[0]), near, BATCH_SIZE_PER_IM=16).rois) == 4


def sample_of(*visible):
    rows = torch.zeros(len(visible), 17, dtype=torch.bool)
    for row, count in zip(rows, visible, strict=True):
        row[:count] = True
    return KeypointSample(torch.zeros(len(visible), 5), torch.zeros(len(visible), 17, dtype=torch.int64), rows)


def test_the_loss_is_the_mean_over_visible_keypoints_times_its_weight():
    heatmaps, sample = torch.zeros(2, 17, 10, 10), sample_of(3, 1)
    heatmaps[1, 0, 0, 0] = 2.0
    of_one = math.log(99 + math.exp(2)) - 2
    expected = (3 * math.log(100) + of_one) / 4
    cfg = with_values(CFG, {"KRCNN.LOSS_WEIGHT": 0.5, "NUM_GPUS": 2})
    assert keypoint_loss(heatmaps, sample, CFG) == {"loss_kps": pytest.approx(expected)}
    assert keypoint_loss(heatmaps, sample, cfg) == {"loss_kps": pytest.approx(expected / 4)}


def test_the_other_normaliser_is_what_a_minibatch_could_have():
    cfg = with_values(
        CFG, {"KRCNN.NORMALIZE_BY_VISIBLE_KEYPOINTS": False, "TRAIN.IMS_PER_BATCH": 2, "TRAIN.BATCH_SIZE_PER_IM": 16}
    )
    (loss,) = keypoint_loss(torch.zeros(2, 17, 10, 10), sample_of(3, 1), cfg).items()
    assert loss == ("loss_kps_normalized", pytest.approx(4 * math.log(100) / (2 * 16 * 0.25 * 17)))


@pytest.mark.parametrize("by_visible", [True, False])
def test_no_visible_keypoint_is_a_loss_of_zero_with_a_gradient(by_visible):
    cfg = with_values(CFG, {"KRCNN.NORMALIZE_BY_VISIBLE_KEYPOINTS": by_visible})
    for sample in (sample_of(0), sample_of()):
        heatmaps = torch.zeros(len(sample.rois), 17, 10, 10, requires_grad=True)
        (loss,) = keypoint_loss(heatmaps, sample, cfg).values()
        loss.backward()
        assert float(loss.detach()) == 0 and not heatmaps.grad.any()


def minibatch_of(objects, proposals):
    matched = None if proposals is None else [match_proposals(proposals, torch.from_numpy(objects.boxes))]
    return Minibatch(0, torch.zeros(1, 3, 64, 64), [ImInfo(64, 64, 1.0)], [objects], ["1.png"], [], matched)


def test_a_minibatch_of_few_visible_keypoints_is_not_trained_on_where_proposals_come_from_files():
    few = with_values(CFG, {"KRCNN.MIN_KEYPOINT_COUNT_FOR_VALID_MINIBATCH": 1, "MODEL.FASTER_RCNN": False})
    one, two = person(POINTS[0]), person(*POINTS)
    nothing = torch.zeros(0, 4)
    assert not has_enough_keypoints(minibatch_of(one, nothing), few)
    assert has_enough_keypoints(minibatch_of(two, nothing), few)
    assert has_enough_keypoints(minibatch_of(one, None), few)
    assert has_enough_keypoints(minibatch_of(one, nothing), with_values(few, {"MODEL.KEYPOINTS_ON": False}))


@pytest.fixture
def people():
    cfg = roi_config("keypoint", "TRAIN.IMS_PER_BATCH", "2")
    return training_roidb([roi_data("keypoint")[0]], cfg), cfg


@pytest.mark.parametrize("workers", [0, 2])
def test_in_place_of_a_minibatch_that_is_not_trained_on_another_one_is_the_same_whoever_loads(people, workers):
    roidb, cfg = people
    plain = {each.number: each.names for each in minibatches(roidb, cfg, 3, range(6), workers=0)}
    left_out = set(plain[0]) | set(plain[4])
    again = list(
        minibatches(roidb, cfg, 3, range(6), workers, is_trained_on=lambda each: not left_out & set(each.names))
    )
    assert [each.number for each in again] == list(range(6))
    assert not any(left_out & set(each.names) for each in again)
    kept = [number for number, names in plain.items() if not left_out & set(names)]
    assert kept and all(again[number].names == plain[number] for number in kept)
    (alone,) = minibatches(roidb, cfg, 3, [4], workers=0, is_trained_on=lambda each: not left_out & set(each.names))
    assert alone.names == again[4].names


def test_where_no_minibatch_is_trained_on_the_run_ends_with_the_way_out(people):
    roidb, cfg = people
    with pytest.raises(InputError, match=r"minibatch 0 and all others .*KRCNN\.MIN_KEYPOINT_COUNT_FOR_VALID_MINIBATCH"):
        list(minibatches(roidb, cfg, 3, [0], workers=0, is_trained_on=lambda each: False))
