"""Proposals from Caffe2's own RPN outputs, saturated ties included, against the ones its operators made of them."""

import h5py
import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.ops.anchors import pyramid_anchors
from detectron_gn.mrcnn.ops.proposals import (
    ImInfo,
    collect_proposals,
    large_enough,
    level_proposals,
    scored_proposals,
)
from detectron_gn.mrcnn.structures import Proposals
from detectron_gn.port.config.read import bundled_config, merge_overrides


@pytest.fixture(scope="module")
def reference(data):
    """One image of a narrow R-101 with random weights: 227 anchors of P2 score exactly 1, for 40 places."""
    with h5py.File(data / "proposals.h5") as file:
        cfg = merge_overrides(bundled_config("e2e_mask_rcnn_R-101-FPN_3x_gn"), file.attrs["opts"].split())
        (group,) = file.values()
        yield cfg, {name: torch.from_numpy(blob[:]) for name, blob in group.items()}


@pytest.fixture(scope="module")
def ours(reference):
    cfg, blobs = reference
    im_info = ImInfo(*blobs["im_info"][0].tolist())
    return [
        scored_proposals(
            blobs[f"rpn_cls_probs_fpn{level}"][0],
            blobs[f"rpn_bbox_pred_fpn{level}"][0],
            anchors,
            2**level,
            0,
            im_info,
            cfg.TEST,
        )
        for level, anchors in enumerate(pyramid_anchors(cfg), 2)
    ]


def test_the_fixture_has_more_ties_than_places(reference):
    cfg, blobs = reference
    assert int((blobs["rpn_cls_probs_fpn2"] == 1).sum()) == 227
    assert cfg.TEST.RPN_PRE_NMS_TOP_N == 40


@pytest.mark.parametrize("level", range(2, 7))
def test_proposals_of_a_level_are_caffe2s_ties_and_all(level, reference, ours):
    _, blobs = reference
    found = ours[level - 2]
    np.testing.assert_array_equal(found.scores, blobs[f"rpn_roi_probs_fpn{level}"][:, 0])
    np.testing.assert_allclose(found.rois, blobs[f"rpn_rois_fpn{level}"], rtol=0, atol=1e-4)


def test_collected_rois_are_caffe2s_ties_and_all(reference, ours):
    cfg, blobs = reference
    rois = collect_proposals(ours, cfg.TEST.RPN_POST_NMS_TOP_N).rois
    np.testing.assert_allclose(rois, blobs["rois"], rtol=0, atol=1e-4)


def test_collecting_caffe2s_levels_gives_caffe2s_rois(reference):
    cfg, blobs = reference
    parts = [
        Proposals(blobs[f"rpn_rois_fpn{level}"], blobs[f"rpn_roi_probs_fpn{level}"][:, 0]) for level in range(2, 7)
    ]
    np.testing.assert_array_equal(collect_proposals(parts, cfg.TEST.RPN_POST_NMS_TOP_N).rois, blobs["rois"])


def test_logits_are_scored_by_their_sigmoid(reference):
    cfg, blobs = reference
    anchors, deltas = pyramid_anchors(cfg)[4], blobs["rpn_bbox_pred_fpn6"][0]
    im_info, logits = ImInfo(320.0, 384.0, 1.0), torch.linspace(-3, 3, 90).view(3, 5, 6)
    from_logits = level_proposals(logits, deltas, anchors, 64, 0, im_info, cfg.TEST)
    from_scores = scored_proposals(logits.sigmoid(), deltas, anchors, 64, 0, im_info, cfg.TEST)
    assert torch.equal(from_logits.rois, from_scores.rois) and torch.equal(from_logits.scores, from_scores.scores)


# By Detectron ops/generate_proposals.py:_filter_boxes: sides of the original image, (x2 - x1) / scale + 1, at two
# pixels of the network each, and the centre, x1 + (x2 - x1 + 1) / 2, in an input of 80 x 60 pixels.
SIZED = [
    ([0, 0, 30, 30], 16, True),  # 30 / 2 + 1 = 16
    ([0, 0, 29, 30], 16, False),
    ([0, 0, 30, 29], 16, False),
    ([10, 10, 10, 10], 0, True),  # one pixel
    ([10, 10, 9, 10], 0, False),  # a half, and one is the least whatever RPN_MIN_SIZE is
    ([10, 10, 10, 9], 0, False),
    ([78, 10, 80, 40], 0, True),  # the centre at 79.5
    ([79, 10, 80, 40], 0, False),  # at 80
    ([10, 58, 40, 60], 0, True),  # at 59.5
    ([10, 59, 40, 60], 0, False),
]


@pytest.mark.parametrize(("box", "min_size", "kept"), SIZED, ids=str)
def test_a_proposal_is_kept_by_its_sides_on_the_image_and_its_centre_by_hand(box, min_size, kept):
    assert large_enough(torch.tensor([box], dtype=torch.float32), 60, 80, 2.0, min_size).tolist() == [kept]
