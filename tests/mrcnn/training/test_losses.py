"""Losses by hand; tests/verify/parity/test_training.py compares whole iterations with Caffe2's."""

import math

import pytest
import torch

from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.training.anchor_targets import AnchorField, AnchorSample
from detectron_gn.mrcnn.training.losses import accuracy_cls, fast_rcnn_losses, mask_loss, rpn_losses
from detectron_gn.mrcnn.training.roi_targets import IGNORE, MaskSample, RoiSample

CFG = with_values(Config(), {"FPN.FPN_ON": True, "TRAIN.MAX_SIZE": 128, "TRAIN.RPN_BATCH_SIZE_PER_IM": 10})
MAPS = [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2)]


def outputs(images=2):
    return [(torch.zeros(images, 3, h, w), torch.zeros(images, 12, h, w)) for h, w in MAPS]


def anchor_sample(index, labels, targets=None):
    targets = torch.zeros(len(index), 4) if targets is None else targets
    return AnchorSample(torch.tensor(index), torch.tensor(labels), targets)


def roi_sample(labels, box_classes=None, targets=None, mask_classes=(), masks=None):
    count = len(labels)
    return RoiSample(
        torch.zeros(count, 5),
        torch.tensor(labels),
        torch.tensor(box_classes or labels),
        torch.zeros(count, 4) if targets is None else targets,
        MaskSample(
            torch.zeros(len(mask_classes), 5),
            torch.tensor(mask_classes, dtype=torch.int64),
            torch.zeros(len(mask_classes), 2, 2, dtype=torch.int8) if masks is None else masks,
            torch.arange(len(mask_classes)),
        ),
    )


def test_rpn_classification_is_divided_by_the_batch_size_and_not_by_what_was_drawn():
    # Two anchors drawn of ten wanted, ln 2 each; 10 a picture, 2 pictures of cfg.TRAIN.IMS_PER_BATCH.
    samples = [anchor_sample([0], [1.0]), anchor_sample([3 * 1024], [0.0])]
    losses = rpn_losses(outputs(), samples, AnchorField(CFG), CFG)
    assert losses["loss_rpn_cls_fpn2"].item() == pytest.approx(math.log(2) / 20)
    assert losses["loss_rpn_cls_fpn3"].item() == pytest.approx(math.log(2) / 20)
    assert losses["loss_rpn_cls_fpn4"].item() == 0


def test_rpn_boxes_are_divided_by_the_anchors_drawn_in_their_image_with_a_beta_of_a_ninth():
    # |d| = 1 counts 1 - 1/18, |d| = 0.1 counts 0.01 * 9 / 2; four anchors drawn, two images.
    targets = torch.zeros(4, 4)
    targets[0, :2] = torch.tensor([1.0, 0.1])
    targets[1, 0] = 5.0  # background: does not count
    samples = [anchor_sample([0, 1, 2, 3], [1.0, 0.0, 0.0, 0.0], targets), anchor_sample([0], [0.0])]
    losses = rpn_losses(outputs(), samples, AnchorField(CFG), CFG)
    assert losses["loss_rpn_bbox_fpn2"].item() == pytest.approx((1 - 1 / 18 + 0.045) / 4 / 2)


def test_anchors_beyond_the_map_count_among_the_drawn_but_have_no_loss():
    small = [(logits[:, :, :16, :16], deltas[:, :, :16, :16]) for logits, deltas in outputs(1)]
    targets = torch.ones(2, 4)
    samples = [anchor_sample([0, 20 * 3], [1.0, 1.0], targets)]
    losses = rpn_losses(small, samples, AnchorField(CFG), CFG)
    assert losses["loss_rpn_bbox_fpn2"].item() == pytest.approx(4 * (1 - 1 / 18) / 2)


def test_box_losses_are_divided_by_the_number_of_rois():
    targets = torch.zeros(4, 4)
    targets[0] = torch.tensor([0.5, 2.0, 0.0, 0.0])  # 0.125 and 1.5
    bbox_pred = torch.zeros(4, 12)
    bbox_pred[0, :4] = 100  # the background's columns
    losses = fast_rcnn_losses(torch.zeros(4, 3), bbox_pred, roi_sample([1, 0, 0, 0], targets=targets), CFG)
    assert losses["loss_bbox"].item() == pytest.approx(1.625 / 4)
    assert losses["loss_cls"].item() == pytest.approx(math.log(3))


def test_mask_loss_is_the_mean_over_the_pixels_that_are_trained_on():
    masks = torch.tensor([[[1, 0], [1, 0]], [[IGNORE, IGNORE], [IGNORE, 1]]], dtype=torch.int8)
    logits = torch.zeros(2, 2, 2)
    logits[1, 1, 1] = 2.0
    loss = mask_loss(logits, roi_sample([1, 2], mask_classes=(1, 2), masks=masks).masks, CFG)["loss_mask"]
    assert loss.item() == pytest.approx((4 * math.log(2) + math.log(1 + math.exp(-2))) / 5)


def test_a_minibatch_without_a_mask_has_a_mask_loss_of_zero_and_a_gradient():
    logits = torch.zeros(1, 2, 2, requires_grad=True)
    masks = torch.full((1, 2, 2), IGNORE, dtype=torch.int8)
    loss = mask_loss(logits, roi_sample([0], mask_classes=(0,), masks=masks).masks, CFG)["loss_mask"]
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().max() == 0


def test_every_loss_is_divided_by_the_number_of_gpus():
    eight = with_values(CFG, {"NUM_GPUS": 8})
    samples = [anchor_sample([0], [1.0], torch.ones(1, 4)), anchor_sample([1], [0.0])]
    masks = torch.ones(1, 2, 2, dtype=torch.int8)
    rois = roi_sample([1, 0], targets=torch.ones(2, 4), mask_classes=(1,), masks=masks)

    def all_losses(cfg):
        losses = rpn_losses(outputs(), samples, AnchorField(cfg), cfg)
        losses |= fast_rcnn_losses(torch.zeros(2, 3), torch.zeros(2, 12), rois, cfg)
        return losses | mask_loss(torch.zeros(1, 2, 2), rois.masks, cfg)

    one, of_eight = all_losses(CFG), all_losses(eight)
    for name, loss in one.items():
        assert of_eight[name].item() == pytest.approx(loss.item() / 8)


def test_accuracy_is_the_share_of_right_classes():
    scores = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert accuracy_cls(scores, roi_sample([0, 1, 1, 1])).item() == 0.75
