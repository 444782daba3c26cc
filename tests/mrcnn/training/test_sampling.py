"""Targets by hand, and 1,000 draws beside 1,000 of Detectron's own.

`tests/data/sampling.json` holds means and standard deviations that roi_data/rpn.py:_get_rpn_blobs and
roi_data/fast_rcnn.py:_sample_rois gave over 1,000 draws on the first four images of tests/data/train_images.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.data.ground_truth import GroundTruth
from detectron_gn.mrcnn.data.image_blob import image_scale
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.ops.proposals import ImInfo
from detectron_gn.mrcnn.training.anchor_targets import AnchorField, sample_anchors
from detectron_gn.mrcnn.training.roi_targets import IGNORE, sample_rois

DATA = Path(__file__).parents[2] / "data"
DETECTRON = json.loads((DATA / "sampling.json").read_text())
DRAWS = 1000

# pycocotools under numpy 2, once for every mask.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PYRAMID = {
    "FPN.FPN_ON": True,
    "MODEL.NUM_CLASSES": 5,
    "TRAIN.SCALES": (160,),
    "TRAIN.MAX_SIZE": 256,
    "TRAIN.USE_FLIPPED": False,
    "MRCNN.RESOLUTION": 28,
    "TRAIN.BATCH_SIZE_PER_IM": 64,
}


@pytest.fixture
def cfg():
    return with_values(Config(), {**PYRAMID, "MODEL.MASK_ON": True})


@pytest.fixture
def roidb(cfg):
    return training_roidb([read_dataset(DATA / "train_images.json", DATA / "train_images")], cfg)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(1)


def assert_drawn_alike(values, mean, std):
    """The mean within four standard errors of both samples, the spread within 15 % (a rare event spreads by 0.05)."""
    ours = np.asarray(values, dtype=np.float64)
    error = math.sqrt((std**2 + ours.std() ** 2) / DRAWS)
    assert abs(ours.mean() - mean) <= 4 * error + 1e-4
    assert ours.std() == pytest.approx(std, rel=0.15, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("expected", DETECTRON["anchors"])
def test_anchors_are_drawn_as_often_as_detectron_draws_them(cfg, roidb, generator, expected):
    cfg = with_values(
        cfg,
        {
            "TRAIN.RPN_BATCH_SIZE_PER_IM": expected["batch"],
            "TRAIN.RPN_NEGATIVE_OVERLAP": expected["negative_overlap"],
        },
    )
    entry = roidb[expected["image"]]
    scale = image_scale(entry.height, entry.width, 160, 256)
    im_info = ImInfo(float(np.round(entry.height * scale)), float(np.round(entry.width * scale)), scale)
    gt_boxes = torch.from_numpy(entry.ground_truth.boxes[~entry.ground_truth.is_crowd]) * scale
    anchors = AnchorField(cfg).anchors
    objects, background = [], []
    for _ in range(DRAWS):
        labels = sample_anchors(anchors, gt_boxes, im_info, cfg, generator).labels
        objects.append(int((labels == 1).sum()))
        background.append(int((labels == 0).sum()))
    assert_drawn_alike(objects, expected["pos_mean"], expected["pos_std"])
    assert_drawn_alike(background, expected["neg_mean"], expected["neg_std"])


@pytest.mark.slow
@pytest.mark.parametrize("expected", DETECTRON["rois"])
def test_rois_are_drawn_as_often_as_detectron_draws_them(cfg, roidb, generator, expected):
    cfg = with_values(cfg, {"TRAIN.BATCH_SIZE_PER_IM": expected["batch"]})
    objects = roidb[expected["image"]].ground_truth
    proposals = torch.tensor(DETECTRON["proposals"][expected["image"]])
    foreground, total, background_x, classes = [], [], [], []
    for _ in range(DRAWS):
        sample = sample_rois(proposals, objects, 0, 1.0, cfg, generator)
        foreground.append(int((sample.labels > 0).sum()))
        total.append(len(sample.labels))
        classes.append(torch.bincount(sample.labels, minlength=5).tolist())
        background_x.append(float(sample.rois[sample.labels == 0, 1].mean()))
        assert len(sample.masks.targets) == foreground[-1]
    assert_drawn_alike(foreground, expected["fg_mean"], expected["fg_std"])
    assert_drawn_alike(total, expected["total_mean"], expected["total_std"])
    assert_drawn_alike(background_x, expected["background_x_mean"], expected["background_x_std"])
    for of_class, mean, std in zip(
        zip(*classes), expected["class_means"], expected["class_stds"], strict=True
    ):
        assert_drawn_alike(of_class, mean, std)


def objects_at(boxes, classes=None, crowds=None, segms=None):
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    corners = [
        (np.array([x1, y1, x2 + 1, y1, x2 + 1, y2 + 1, x1, y2 + 1], float),) for x1, y1, x2, y2 in boxes
    ]
    return GroundTruth(
        boxes,
        np.asarray(classes or [1] * len(boxes), dtype=np.int64),
        np.asarray(crowds or [False] * len(boxes)),
        tuple(segms or corners),
    )


def test_the_field_of_anchors_is_as_large_as_the_largest_image(cfg):
    # 256 pixels: 64^2 + 32^2 + 16^2 + 8^2 + 4^2 positions of 3 anchors.
    assert len(AnchorField(cfg).anchors) == 3 * (4096 + 1024 + 256 + 64 + 16)
    # 1333 is rounded up to 1344.
    large = with_values(cfg, {"TRAIN.MAX_SIZE": 1333})
    assert len(AnchorField(large).anchors) == 3 * (336**2 + 168**2 + 84**2 + 42**2 + 21**2)


def test_anchors_are_located_in_the_outputs_and_cut_to_the_map(cfg):
    field = AnchorField(cfg)
    sizes = [(40, 56), (20, 28), (10, 14), (5, 7), (3, 4)]
    # P2: row 1, column 2, anchor 1; P2: column 56, beyond the map; P3: row 0, column 3, anchor 2.
    index = torch.tensor([(64 + 2) * 3 + 1, 56 * 3, 3 * 4096 + 3 * 3 + 2])
    level, where, on_map = field.locate(index, sizes)
    assert level.tolist() == [0, 0, 1]
    assert on_map.tolist() == [True, False, True]
    assert where[on_map].tolist() == [(56 + 2) * 3 + 1, 3 * 40 * 56 + 3 * 3 + 2]


def test_anchors_that_leave_the_scaled_image_are_not_trained_on(cfg, generator):
    cfg = with_values(cfg, {"TRAIN.RPN_BATCH_SIZE_PER_IM": 10**6})
    field = AnchorField(cfg)
    info = ImInfo(100.0, 120.0, 1.0)
    sample = sample_anchors(field.anchors, torch.tensor([[10.0, 10.0, 50.0, 50.0]]), info, cfg, generator)
    trained = field.anchors[sample.anchors]
    assert trained[:, :2].min() >= 0 and trained[:, 2].max() < 120 and trained[:, 3].max() < 100
    everywhere = with_values(cfg, {"TRAIN.RPN_STRADDLE_THRESH": -1})
    sample = sample_anchors(
        field.anchors, torch.tensor([[10.0, 10.0, 50.0, 50.0]]), info, everywhere, generator
    )
    assert field.anchors[sample.anchors][:, 2].max() >= 120


def test_every_anchor_that_ties_for_best_is_an_object(cfg, generator):
    cfg = with_values(cfg, {"TRAIN.RPN_BATCH_SIZE_PER_IM": 10**6, "TRAIN.RPN_NEGATIVE_OVERLAP": 0.0})
    anchors = torch.tensor([[0.0, 0.0, 9.0, 9.0], [20.0, 0.0, 29.0, 9.0], [0.0, 50.0, 9.0, 59.0]])
    gt_boxes = torch.tensor([[10.0, 0.0, 19.0, 9.0]]) + torch.tensor([-5.0, 0.0, 5.0, 0.0])
    sample = sample_anchors(anchors, gt_boxes, ImInfo(100.0, 100.0, 1.0), cfg, generator)
    assert sample.anchors.tolist() == [0, 1] and sample.labels.tolist() == [1.0, 1.0]


def test_a_poor_best_anchor_is_turned_over_when_it_is_drawn_as_background(cfg, generator):
    # Its overlap is under 0.3, so Detectron draws it too (roi_data/rpn.py: labels[enable_inds] = 0).
    cfg = with_values(cfg, {"TRAIN.RPN_BATCH_SIZE_PER_IM": 256})
    anchors = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    sample = sample_anchors(
        anchors, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), ImInfo(100.0, 100.0, 1.0), cfg, generator
    )
    assert sample.labels.tolist() == [0.0]


def test_without_a_gt_box_every_anchor_is_background(cfg, generator):
    sample = sample_anchors(
        torch.tensor([[0.0, 0.0, 9.0, 9.0]]), torch.zeros((0, 4)), ImInfo(50.0, 50.0, 1.0), cfg, generator
    )
    assert sample.labels.tolist() == [0.0]


def test_gt_boxes_are_rois_too_and_their_target_is_zero(cfg, generator):
    objects = objects_at([[10, 10, 49, 49]], [3])
    sample = sample_rois(torch.zeros((0, 4)), objects, 1, 2.0, cfg, generator)
    assert sample.rois.tolist() == [[1.0, 20.0, 20.0, 98.0, 98.0]]
    assert (sample.labels.tolist(), sample.box_classes.tolist()) == ([3], [3])
    assert sample.box_targets.tolist() == [[0.0, 0.0, 0.0, 0.0]]
    assert sample.masks.targets.min() == 1 and sample.masks.targets.shape == (1, 28, 28)


def test_a_box_target_is_by_hand_and_times_its_weight(cfg, generator):
    # The proposal is 40 x 40 at (20, 10); the object 40 x 40 at (10, 10): dx = -10 / 40, times 10.
    objects = objects_at([[10, 10, 49, 49]])
    sample = sample_rois(torch.tensor([[20.0, 10.0, 59.0, 49.0]]), objects, 0, 1.0, cfg, generator)
    target = sample.box_targets[sample.rois[:, 1] == 20.0][0]
    torch.testing.assert_close(target, torch.tensor([-2.5, 0.0, 0.0, 0.0]))


def test_a_crowd_gives_its_class_but_neither_its_box_nor_its_mask(cfg, generator):
    crowd = {"counts": [0, 2500, 2500], "size": [50, 100]}
    objects = objects_at(
        [[0, 0, 39, 39], [60, 0, 79, 19]],
        [2, 1],
        [True, False],
        [crowd, (np.array([60, 0, 80, 0, 80, 20, 60, 20], float),)],
    )
    sample = sample_rois(torch.tensor([[0.0, 0.0, 39.0, 35.0]]), objects, 0, 1.0, cfg, generator)
    assert sorted(sample.labels.tolist()) == [1, 2]  # the crowd's own box is in neither group
    of_crowd = sample.labels == 2
    # Its target leads to the other object, which it does not touch.
    assert sample.box_targets[of_crowd, 0].item() == pytest.approx(10 * (70 - 20) / 40)


def test_an_image_without_foreground_lends_a_background_roi_with_nothing_to_train(cfg, generator):
    cfg = with_values(cfg, {"TRAIN.FG_THRESH": 1.5, "TRAIN.BG_THRESH_HI": 1.5})
    objects = objects_at([[10, 10, 49, 49]])
    sample = sample_rois(torch.tensor([[80.0, 80.0, 90.0, 90.0]]), objects, 0, 1.0, cfg, generator)
    assert sample.labels.tolist() == [0, 0]
    assert len(sample.masks.rois) == 1 and torch.equal(sample.masks.rois[0], sample.rois[0])
    assert (sample.masks.targets == IGNORE).all()


def test_an_object_without_an_outline_trains_its_box_and_no_mask(cfg, generator):
    objects = objects_at([[10, 10, 49, 49]], segms=[()])
    sample = sample_rois(torch.zeros((0, 4)), objects, 0, 1.0, cfg, generator)
    assert sample.labels.tolist() == [1]
    assert (sample.masks.targets == IGNORE).all()


def test_a_mask_comes_from_the_nearest_outline_whatever_its_class(cfg, generator):
    # A small object within a large one of another class: the RoI overlaps the small outline more.
    outer, inner = [0, 0, 99, 99], [10, 10, 29, 29]
    objects = objects_at([outer, inner], [1, 2])
    objects = replace_segms(objects, [objects.segms[1], objects.segms[0]])
    sample = sample_rois(torch.zeros((0, 4)), objects, 0, 1.0, cfg, generator)
    by_class = {int(c): mask.float().mean().item() for c, mask in zip(sample.masks.classes, sample.masks.targets)}
    assert by_class == {1: 1.0, 2: 1.0}


def replace_segms(objects, segms):
    return objects._replace(segms=tuple(segms))


def test_the_same_generator_draws_the_same_sample(cfg, roidb):
    objects = roidb[1].ground_truth
    proposals = torch.tensor(DETECTRON["proposals"][1])
    first, second = (
        sample_rois(proposals, objects, 0, 1.0, cfg, torch.Generator().manual_seed(5)) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first[:4], second[:4]))
    assert all(torch.equal(a, b) for a, b in zip(first.masks, second.masks))


def test_bbox_thresh_apart_from_fg_thresh_trains_boxes_of_background_rois(cfg, generator):
    """Detectron keeps the class of the target apart from the label (roi_data/fast_rcnn.py:_expand_bbox_targets)."""
    cfg = replace(cfg, TRAIN=replace(cfg.TRAIN, BBOX_THRESH=0.3, FG_THRESH=0.9, BG_THRESH_HI=0.9))
    objects = objects_at([[10, 10, 49, 49]])
    sample = sample_rois(torch.tensor([[20.0, 10.0, 59.0, 49.0]]), objects, 0, 1.0, cfg, generator)
    assert sorted(zip(sample.labels.tolist(), sample.box_classes.tolist())) == [(0, 1), (1, 1)]
