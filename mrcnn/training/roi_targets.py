"""What the heads are trained towards: RoIs sampled, with classes, boxes, masks and keypoints.

Answers to Detectron roi_data/fast_rcnn.py, roi_data/mask_rcnn.py and, for the boxes, datasets/roidb.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config, num_box_classes
from detectron_gn.mrcnn.data.coco import Segm
from detectron_gn.mrcnn.data.ground_truth import FloatArray, GroundTruth
from detectron_gn.mrcnn.data.proposal_matches import MatchedProposals
from detectron_gn.mrcnn.data.segms import segm_boxes, segm_in_box
from detectron_gn.mrcnn.ops.boxes import box_overlaps, encode_boxes
from detectron_gn.mrcnn.training.anchor_targets import random_subset
from detectron_gn.mrcnn.training.keypoint_targets import KeypointSample, sample_keypoints
from detectron_gn.mrcnn.training.roi_candidates import (
    match_network_boxes,
    most_object_rois,
    network_rois,
    roi_candidates,
    roi_classes,
    roi_roles,
)

# A mask pixel that is not trained on.
IGNORE = -1


class MaskSample(NamedTuple):
    """The RoIs that the mask head is trained on: the objects among the sampled ones.

    Attributes:
        rois: `[Q, 5]` float32, (index of the image, x1, y1, x2, y2) in network pixels; a background RoI for an image
            that has no object.
        classes: `[Q]` int64, whose map is trained; 0 for that background RoI.
        targets: `[Q, M, M]` int8, 1 object, 0 not, -1 not trained on.
        rows: `[Q]` int64, which of the box head's RoIs each is.
    """

    rois: Tensor
    classes: Tensor
    targets: Tensor
    rows: Tensor


class RoiSample(NamedTuple):
    """The RoIs that the heads are trained on.

    Attributes:
        rois: `[R, 5]` float32, (index of the image, x1, y1, x2, y2) in network pixels.
        labels: `[R]` int64, class, 0 for the background.
        box_classes: `[R]` int64, which of the `num_box_classes` four outputs are trained; 0 for none.
        box_targets: `[R, 4]` float32, encoded with `cfg.MODEL.BBOX_REG_WEIGHTS`.
        masks, keypoints: what these heads are trained on; None for a model without them.
    """

    rois: Tensor
    labels: Tensor
    box_classes: Tensor
    box_targets: Tensor
    masks: MaskSample | None
    keypoints: KeypointSample | None = None


def sample_rois(
    proposals: Tensor,
    objects: GroundTruth,
    image_index: int,
    scale: float,
    cfg: Config,
    generator: torch.Generator,
) -> RoiSample:
    """`sample_matched` of the proposals that an RPN makes: `[P, 4]` float32 in network pixels."""
    matched = match_network_boxes(proposals, objects, scale)
    return sample_matched(matched, objects, image_index, scale, cfg, generator)


def sample_matched(
    proposals: MatchedProposals,
    objects: GroundTruth,
    image_index: int,
    scale: float,
    cfg: Config,
    generator: torch.Generator,
) -> RoiSample:
    """Draw the RoIs of one image and set their targets.

    Args:
        proposals: in pixels of the image on disk.
        objects: the ground truth, in pixels of the image on disk.
        image_index: written into column 0 of the RoIs.
        scale: network pixels per image pixel.
        generator: of the proposals' device.

    The gt boxes join the proposals. `FG_FRACTION` of `BATCH_SIZE_PER_IM` are objects and the rest background, both
    without replacement and without making up for what is lacking (Detectron roi_data/fast_rcnn.py:_sample_rois).
    """
    candidates = roi_candidates(proposals, objects)
    is_object, is_background = roi_roles(candidates.overlaps, cfg)
    foreground = random_subset(is_object.nonzero()[:, 0], most_object_rois(cfg), generator)
    wanted = cfg.TRAIN.BATCH_SIZE_PER_IM - len(foreground)
    background = random_subset(is_background.nonzero()[:, 0], wanted, generator)
    keypoints = None
    if cfg.MODEL.KEYPOINTS_ON:
        keypoints = sample_keypoints(candidates, objects, image_index, scale, cfg, generator)
    sampled = torch.cat((foreground, background))
    are_objects = torch.arange(len(sampled), device=sampled.device) < len(foreground)
    sample = roi_targets(candidates.rows(sampled), are_objects, objects, image_index, scale, cfg)
    return sample._replace(keypoints=keypoints)


def roi_targets(
    drawn: MatchedProposals,
    is_object: Tensor,
    objects: GroundTruth,
    image_index: int,
    scale: float,
    cfg: Config,
) -> RoiSample:
    """The targets of the RoIs that were drawn from an image; keypoints have RoIs of their own (`keypoint_targets`).

    Args:
        drawn: `[R]`, in pixels of the image on disk.
        is_object: `[R]`, which of them were drawn as objects.
        objects, image_index, scale: as of `sample_matched`.

    A RoI has the class of the gt box that it overlaps most, crowds included. Box targets lead to the gt box of most
    overlap that is no crowd. Where there is none, no box is trained, and what lies on a crowd has its class
    (Detectron roi_data/fast_rcnn.py:_sample_rois, datasets/roidb.py:compute_bbox_regression_targets).
    """
    boxes, classes = drawn.boxes, roi_classes(drawn, objects)
    gt_boxes = torch.from_numpy(objects.boxes).to(boxes.device)
    labels = classes.where(is_object, 0)
    box_classes = classes.where(drawn.overlaps >= cfg.TRAIN.BBOX_THRESH, 0).clamp(max=num_box_classes(cfg) - 1)
    no_crowd = gt_boxes[~torch.from_numpy(objects.is_crowd).to(boxes.device)]
    if len(no_crowd):
        nearest = no_crowd[box_overlaps(boxes, no_crowd).argmax(dim=1)]
        box_targets = encode_boxes(boxes, nearest, cfg.MODEL.BBOX_REG_WEIGHTS) * (box_classes > 0)[:, None]
    else:
        box_classes, box_targets = torch.zeros_like(box_classes), torch.zeros_like(boxes)
    rois = network_rois(boxes, image_index, scale)
    masks = _sample_masks(boxes, rois, labels, objects, cfg.MRCNN.RESOLUTION) if cfg.MODEL.MASK_ON else None
    return RoiSample(rois, labels, box_classes, box_targets, masks)


def join_samples(samples: Sequence[RoiSample]) -> RoiSample:
    """The samples of the images of a minibatch as one."""
    rois, labels, box_classes, box_targets = (torch.cat(column) for column in list(zip(*samples, strict=True))[:4])
    masks, first = [], 0
    for sample in samples:
        if sample.masks is not None:
            masks.append(sample.masks._replace(rows=sample.masks.rows + first))
        first += len(sample.rois)
    joined_masks = MaskSample(*map(torch.cat, zip(*masks, strict=True))) if masks else None
    keypoints = [sample.keypoints for sample in samples if sample.keypoints is not None]
    joined_keypoints = KeypointSample(*map(torch.cat, zip(*keypoints, strict=True))) if keypoints else None
    return RoiSample(rois, labels, box_classes, box_targets, joined_masks, joined_keypoints)


def moved(sample: RoiSample, device: torch.device) -> RoiSample:
    """The sample on another device."""
    masks = None if sample.masks is None else MaskSample(*(part.to(device) for part in sample.masks))
    keypoints = None if sample.keypoints is None else KeypointSample(*(part.to(device) for part in sample.keypoints))
    rois, labels, box_classes, box_targets = (part.to(device) for part in sample[:4])
    return RoiSample(rois, labels, box_classes, box_targets, masks, keypoints)


def _sample_masks(boxes: Tensor, rois: Tensor, labels: Tensor, objects: GroundTruth, resolution: int) -> MaskSample:
    """The RoIs with a mask to learn, among `[R, 4]` boxes in pixels of the image and the same as `[R, 5]` RoIs.

    A network cannot be run on no RoI at all, so an image without objects lends its first background RoI with a mask of
    nothing to train on (Detectron roi_data/mask_rcnn.py:add_mask_rcnn_blobs).
    """
    with_mask = (labels > 0).nonzero()[:, 0]
    if len(with_mask):
        targets = _mask_targets(boxes[with_mask].cpu().numpy(), objects, resolution).to(boxes.device)
    else:
        with_mask = torch.zeros(min(1, len(boxes)), dtype=torch.int64, device=boxes.device)
        targets = torch.full((len(with_mask), resolution, resolution), IGNORE, device=boxes.device).to(torch.int8)
    return MaskSample(rois[with_mask], labels[with_mask], targets, with_mask)


def _mask_targets(boxes: FloatArray, objects: GroundTruth, resolution: int) -> Tensor:
    """Masks `[Q, resolution, resolution]` int8 of `[Q, 4]` boxes in pixels of the image.

    Each box takes the outline whose own bounding box it overlaps most, be it of another class than the RoI's
    (Detectron roi_data/mask_rcnn.py:add_mask_rcnn_blobs).
    """
    chosen = np.flatnonzero(~objects.is_crowd)
    masks = np.full((len(boxes), resolution, resolution), IGNORE, dtype=np.int8)
    if not len(chosen):
        # Boxes of a crowd, from a file of proposals; Detectron crashes on them.
        return torch.from_numpy(masks)
    segms: list[Segm] = [objects.segms[i] for i in chosen]
    bounds = segm_boxes(segms, fallback=objects.boxes[chosen])
    nearest = box_overlaps(torch.from_numpy(boxes), torch.from_numpy(bounds)).argmax(dim=1).tolist()
    for mask, box, index in zip(masks, boxes, nearest, strict=True):
        target = segm_in_box(segms[index], box, resolution)
        if target is not None:
            mask[:] = target
    return torch.from_numpy(masks)
