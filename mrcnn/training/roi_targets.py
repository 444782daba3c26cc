"""What the heads are trained towards: RoIs sampled, with classes, boxes and masks.

Answers to Detectron roi_data/fast_rcnn.py, roi_data/mask_rcnn.py and, for the overlaps, datasets/json_dataset.py and
datasets/roidb.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.coco import Segm
from detectron_gn.mrcnn.data.roidb import FloatArray, GroundTruth
from detectron_gn.mrcnn.data.segms import segm_boxes, segm_in_box
from detectron_gn.mrcnn.ops.boxes import box_overlaps, encode_boxes
from detectron_gn.mrcnn.training.anchor_targets import random_subset

# A mask pixel that is not trained on.
IGNORE = -1


class MaskSample(NamedTuple):
    """The RoIs that the mask head is trained on: the objects among the sampled ones.

    Attributes:
        rois: `[Q, 5]` float32, (index of the image, x1, y1, x2, y2) in network pixels; a background RoI for an image
            that has no object.
        classes: `[Q]` int64, whose map is trained; 0 for that background RoI.
        targets: `[Q, M, M]` int8, 1 object, 0 not, -1 not trained on.
    """

    rois: Tensor
    classes: Tensor
    targets: Tensor


class RoiSample(NamedTuple):
    """The RoIs that the heads are trained on.

    Attributes:
        rois: `[R, 5]` float32, (index of the image, x1, y1, x2, y2) in network pixels.
        labels: `[R]` int64, class, 0 for the background.
        box_classes: `[R]` int64, whose four outputs are trained; 0 for none.
        box_targets: `[R, 4]` float32, encoded with `cfg.MODEL.BBOX_REG_WEIGHTS`.
        masks: what the mask head is trained on; None for a model without one.
    """

    rois: Tensor
    labels: Tensor
    box_classes: Tensor
    box_targets: Tensor
    masks: MaskSample | None


def sample_rois(
    proposals: Tensor,
    objects: GroundTruth,
    image_index: int,
    scale: float,
    cfg: Config,
    generator: torch.Generator,
) -> RoiSample:
    """Draw the RoIs of one image and set their targets.

    Args:
        proposals: `[P, 4]` float32 in network pixels.
        objects: the ground truth, in pixels of the image on disk.
        image_index: written into column 0 of the RoIs.
        scale: network pixels per image pixel.
        generator: of the proposals' device.

    The gt boxes join the proposals. A RoI has the class of the gt box that it overlaps most, crowds included, and it
    is an object from an overlap of `cfg.TRAIN.FG_THRESH`, background within `[BG_THRESH_LO, BG_THRESH_HI)`; a crowd's
    own box is neither. `FG_FRACTION` of `BATCH_SIZE_PER_IM` are objects and the rest background, both without
    replacement and without making up for what is lacking. Box targets lead to the gt box of most overlap that is no
    crowd (Detectron roi_data/fast_rcnn.py:_sample_rois, datasets/json_dataset.py:add_proposals,
    datasets/roidb.py:compute_bbox_regression_targets).
    """
    train = cfg.TRAIN
    device = proposals.device
    gt_boxes = torch.from_numpy(objects.boxes).to(device)
    gt_classes = torch.from_numpy(objects.classes).to(device)
    is_crowd = torch.from_numpy(objects.is_crowd).to(device)
    # Detectron holds the scale as float32 and both scalings of the boxes are in float32.
    scale = float(np.float32(scale))
    boxes = torch.cat((gt_boxes, proposals * float(np.float32(1.0 / scale))))
    overlap, best_gt = box_overlaps(boxes[len(gt_boxes) :], gt_boxes).max(dim=1)
    overlaps = torch.cat((torch.where(is_crowd, -1.0, 1.0), overlap))
    classes = torch.cat((gt_classes.where(~is_crowd, 0), gt_classes[best_gt].where(overlap > 0, 0)))

    foreground = (overlaps >= train.FG_THRESH).nonzero()[:, 0]
    background = ((overlaps < train.BG_THRESH_HI) & (overlaps >= train.BG_THRESH_LO)).nonzero()[:, 0]
    foreground = random_subset(foreground, round(train.FG_FRACTION * train.BATCH_SIZE_PER_IM), generator)
    background = random_subset(background, train.BATCH_SIZE_PER_IM - len(foreground), generator)
    sampled = torch.cat((foreground, background))

    boxes, classes = boxes[sampled], classes[sampled]
    labels = classes.clone()
    labels[len(foreground) :] = 0
    box_classes = classes.where(overlaps[sampled] >= train.BBOX_THRESH, 0)
    no_crowd = gt_boxes[~is_crowd]
    best_gt = box_overlaps(boxes, no_crowd).argmax(dim=1)
    box_targets = encode_boxes(boxes, no_crowd[best_gt], cfg.MODEL.BBOX_REG_WEIGHTS)
    box_targets = box_targets * (box_classes > 0)[:, None]

    rois = torch.cat((boxes.new_full((len(boxes), 1), image_index), boxes * scale), dim=1)
    masks = _sample_masks(boxes, rois, labels, objects, cfg.MRCNN.RESOLUTION) if cfg.MODEL.MASK_ON else None
    return RoiSample(rois, labels, box_classes, box_targets, masks)


def join_samples(samples: Sequence[RoiSample]) -> RoiSample:
    """The samples of the images of a minibatch as one."""
    rois, labels, box_classes, box_targets = (torch.cat(column) for column in list(zip(*samples, strict=True))[:4])
    masks = [sample.masks for sample in samples if sample.masks is not None]
    joined = MaskSample(*map(torch.cat, zip(*masks, strict=True))) if masks else None
    return RoiSample(rois, labels, box_classes, box_targets, joined)


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
    return MaskSample(rois[with_mask], labels[with_mask], targets)


def _mask_targets(boxes: FloatArray, objects: GroundTruth, resolution: int) -> Tensor:
    """Masks `[Q, resolution, resolution]` int8 of `[Q, 4]` boxes in pixels of the image.

    Each box takes the outline whose own bounding box it overlaps most, be it of another class than the RoI's
    (Detectron roi_data/mask_rcnn.py:add_mask_rcnn_blobs).
    """
    chosen = np.flatnonzero(~objects.is_crowd)
    segms: list[Segm] = [objects.segms[i] for i in chosen]
    bounds = segm_boxes(segms, fallback=objects.boxes[chosen])
    nearest = box_overlaps(torch.from_numpy(boxes), torch.from_numpy(bounds)).argmax(dim=1).tolist()
    masks = np.full((len(boxes), resolution, resolution), IGNORE, dtype=np.int8)
    for mask, box, index in zip(masks, boxes, nearest, strict=True):
        target = segm_in_box(segms[index], box, resolution)
        if target is not None:
            mask[:] = target
    return torch.from_numpy(masks)
