"""What the keypoint head is trained towards; answers to Detectron roi_data/keypoint_rcnn.py."""

from typing import NamedTuple

import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.ground_truth import GroundTruth
from detectron_gn.mrcnn.data.proposal_matches import MatchedProposals
from detectron_gn.mrcnn.ops.keypoints import encode_keypoints
from detectron_gn.mrcnn.training.anchor_targets import random_subset
from detectron_gn.mrcnn.training.roi_candidates import most_object_rois, network_rois, roi_roles


class KeypointSample(NamedTuple):
    """The RoIs that the keypoint head is trained on; there may be none.

    Attributes:
        rois: `[Q, 5]` float32, (index of the image, x1, y1, x2, y2) in network pixels.
        positions: `[Q, K]` int64, of each keypoint in its heatmap, row by row; 0 for one that is not trained on.
        visible: `[Q, K]` bool, which keypoints are trained on.
    """

    rois: Tensor
    positions: Tensor
    visible: Tensor


def sample_keypoints(
    candidates: MatchedProposals,
    objects: GroundTruth,
    image_index: int,
    scale: float,
    cfg: Config,
    generator: torch.Generator,
) -> KeypointSample:
    """Draw the RoIs of one image whose keypoints are trained, from all its candidates, whatever the box head is given.

    Args:
        candidates: `[P]`, gt boxes among them, in pixels of the image on disk.
        scale: network pixels per image pixel.

    As many as the box head has objects are taken at most
    (Detectron roi_data/keypoint_rcnn.py:add_keypoint_rcnn_blobs).
    """
    chosen = are_keypoint_rois(candidates, objects, cfg).nonzero()[:, 0]
    chosen = random_subset(chosen, most_object_rois(cfg), generator)
    return keypoint_targets(candidates.rows(chosen), objects, image_index, scale, cfg)


def are_keypoint_rois(candidates: MatchedProposals, objects: GroundTruth, cfg: Config) -> Tensor:
    """Which candidates `[P]` may be drawn for their keypoints.

    These are objects that hold a visible keypoint of the object that they overlap most; in an image without objects
    there are none.
    """
    if not len(objects.boxes):
        return torch.zeros_like(candidates.overlaps, dtype=torch.bool)
    keypoints = _keypoints_of(candidates, objects)
    is_object, _ = roi_roles(candidates.overlaps, cfg)
    return is_object & _holds_visible(keypoints, candidates.boxes)


def keypoint_targets(
    drawn: MatchedProposals, objects: GroundTruth, image_index: int, scale: float, cfg: Config
) -> KeypointSample:
    """The targets of the RoIs `[Q]` that were drawn from an image for their keypoints."""
    keypoints = _keypoints_of(drawn, objects)
    positions, visible = encode_keypoints(keypoints, drawn.boxes, cfg.KRCNN.HEATMAP_SIZE)
    return KeypointSample(network_rois(drawn.boxes, image_index, scale), positions, visible)


def _keypoints_of(matched: MatchedProposals, objects: GroundTruth) -> Tensor:
    """The keypoints `[P, 3, K]` of the object that each box overlaps most."""
    assert objects.keypoints is not None
    return torch.from_numpy(objects.keypoints).to(matched.boxes.device)[matched.best_gt]


def _holds_visible(keypoints: Tensor, boxes: Tensor) -> Tensor:
    """Whether each of `[P, 4]` boxes, ends included, holds a visible one of its keypoints `[P, 3, K]`."""
    x, y, visibility = keypoints.unbind(1)
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
    inside = (x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)
    return (inside & (visibility > 0)).any(dim=1)
