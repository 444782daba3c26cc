"""What the keypoint head is trained towards; answers to Detectron roi_data/keypoint_rcnn.py."""

from typing import NamedTuple

import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.ground_truth import GroundTruth
from detectron_gn.mrcnn.ops.keypoints import encode_keypoints
from detectron_gn.mrcnn.training.anchor_targets import random_subset


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
    boxes: Tensor,
    overlaps: Tensor,
    best_gt: Tensor,
    objects: GroundTruth,
    image_index: int,
    scale: float,
    cfg: Config,
    generator: torch.Generator,
) -> KeypointSample:
    """Draw the RoIs of one image whose keypoints are trained, from all its candidates, whatever the box head is given.

    Args:
        boxes: `[P, 4]` float32, gt boxes among them, in pixels of the image on disk.
        overlaps, best_gt: `[P]`, of each box with the gt box that it overlaps most.
        scale: network pixels per image pixel, as float32 holds it.

    A RoI is an object from an overlap of `cfg.TRAIN.FG_THRESH` and counts here only if it holds a visible keypoint of
    that object; `FG_FRACTION` of `BATCH_SIZE_PER_IM` are taken at most
    (Detectron roi_data/keypoint_rcnn.py:add_keypoint_rcnn_blobs).
    """
    train = cfg.TRAIN
    assert objects.keypoints is not None
    keypoints = torch.from_numpy(objects.keypoints).to(boxes.device)[best_gt]
    foreground = overlaps >= train.FG_THRESH
    chosen = (foreground & _holds_visible(keypoints, boxes)).nonzero()[:, 0]
    chosen = random_subset(chosen, round(train.FG_FRACTION * train.BATCH_SIZE_PER_IM), generator)
    boxes = boxes[chosen]
    positions, visible = encode_keypoints(keypoints[chosen], boxes, cfg.KRCNN.HEATMAP_SIZE)
    rois = torch.cat((boxes.new_full((len(boxes), 1), image_index), boxes * scale), dim=1)
    return KeypointSample(rois, positions, visible)


def _holds_visible(keypoints: Tensor, boxes: Tensor) -> Tensor:
    """Whether each of `[P, 4]` boxes, ends included, holds a visible one of its keypoints `[P, 3, K]`."""
    x, y, visibility = keypoints.unbind(1)
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
    inside = (x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)
    return (inside & (visibility > 0)).any(dim=1)
