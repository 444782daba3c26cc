"""RetinaNet's head: what it begins with, and its variants."""

import math

import pytest
import torch

from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.mrcnn.heads.retinanet import RetinaNetHead
from detectron_gn.mrcnn.structures import Features
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config

NARROW = ["MODEL.NUM_CLASSES", "4", "FPN.DIM", "8", "RESNETS.WIDTH_PER_GROUP", "2", "RETINANET.NUM_CONVS", "2"]


def config(*overrides):
    return bundled_config("retinanet_R-50-FPN_1x", [*NARROW, *overrides])


def rows(*overrides):
    table = BlobTable.from_config(config(*overrides)).rows
    return {row.blob: row.shape for row in table if row.blob.startswith("retnet")}


def test_every_class_begins_with_the_prior_probability():
    head = RetinaNetHead(config())
    torch.testing.assert_close(head.cls_pred.bias.sigmoid(), torch.full((27,), 0.01))


def test_with_a_softmax_all_classes_together_begin_with_it():
    head = RetinaNetHead(config("RETINANET.SOFTMAX", "True"))
    logits = head.cls_pred.bias.view(1, -1, 1, 1)
    probabilities = head.probabilities(logits).view(9, 4)
    assert probabilities[:, 0].tolist() == pytest.approx([0.99] * 9)
    assert head.cls_pred.bias.view(9, 4)[:, 0].tolist() == pytest.approx([math.log(3 * 99)] * 9)


def test_all_levels_share_the_parameters_of_the_finest():
    shapes = rows()
    assert list(shapes) == [
        f"retnet_{layer}_fpn3_{ending}"
        for layer in ("cls_conv_n0", "cls_conv_n1", "cls_pred", "bbox_conv_n0", "bbox_conv_n1", "bbox_pred")
        for ending in "wb"
    ]
    assert (shapes["retnet_cls_pred_fpn3_w"], shapes["retnet_bbox_pred_fpn3_w"]) == ((27, 8, 3, 3), (36, 8, 3, 3))


def test_a_shared_tower_gives_the_boxes_too():
    shapes = rows("RETINANET.SHARE_CLS_BBOX_TOWER", "True")
    assert [blob for blob in shapes if "bbox" in blob] == ["retnet_bbox_pred_fpn3_w", "retnet_bbox_pred_fpn3_b"]
    head = RetinaNetHead(config("RETINANET.SHARE_CLS_BBOX_TOWER", "True"))
    (outputs,) = head(Features([x := torch.randn(1, 8, 5, 6)], (8,)))
    torch.testing.assert_close(outputs.bbox_pred, head.bbox_pred(head.cls_convs(x)))


def test_classes_may_have_boxes_of_their_own():
    assert rows("RETINANET.CLASS_SPECIFIC_BBOX", "True")["retnet_bbox_pred_fpn3_w"] == (108, 8, 3, 3)


def test_the_softmax_is_over_the_classes_of_each_anchor():
    head = RetinaNetHead(config("RETINANET.SOFTMAX", "True"))
    probabilities = head.probabilities(torch.randn(2, 36, 3, 2))
    torch.testing.assert_close(probabilities.view(2, 9, 4, 3, 2).sum(dim=2), torch.ones(2, 9, 3, 2))


def test_a_pyramid_without_extra_convolutions_ends_in_a_level_without_parameters():
    cfg = config("FPN.EXTRA_CONV_LEVELS", "False", "FPN.RPN_MAX_LEVEL", "6", "FPN.RPN_MIN_LEVEL", "2")
    model = build_detector(cfg).eval()
    features = model.features(torch.randn(1, 3, 128, 128))
    assert features.strides == (4, 8, 16, 32, 64)
    assert [tuple(level.shape[2:]) for level in features.maps] == [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2)]
    assert torch.equal(features.maps[4], features.maps[3][:, :, ::2, ::2])
    assert not any(row.blob.startswith("fpn_6") for row in BlobTable.from_model(model).rows)


def test_extra_levels_begin_at_the_body_and_only_the_second_has_a_relu_before_it():
    fpn = build_detector(config()).backbone.fpn
    stages = [torch.randn(1, dim, size, size) for dim, size in ((256, 32), (512, 16), (1024, 8), (2048, 4))]
    levels = fpn(stages)
    p6 = fpn.extra["P6"](stages[-1])
    assert len(levels) == 5 and bool((p6 < 0).any())
    torch.testing.assert_close(levels[3], p6)
    torch.testing.assert_close(levels[4], fpn.extra["P7"](p6.relu()))
