"""What the RoIs of an image may be drawn from, and as what; answers to Detectron datasets/json_dataset.py.

The rules of sampling: roi_data/fast_rcnn.py:_sample_rois.
"""

import numpy as np
import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.ground_truth import GroundTruth
from detectron_gn.mrcnn.data.proposal_matches import MatchedProposals, match_proposals


def match_network_boxes(boxes: Tensor, objects: GroundTruth, scale: float) -> MatchedProposals:
    """Match `[P, 4]` float32 boxes in network pixels with the ground truth; what is matched is in pixels of the image.

    Detectron holds the scale as float32 and scales the boxes back in float32.
    """
    on_image = boxes * float(np.float32(1.0 / float(np.float32(scale))))
    return match_proposals(on_image, torch.from_numpy(objects.boxes).to(boxes.device))


def roi_candidates(proposals: MatchedProposals, objects: GroundTruth) -> MatchedProposals:
    """The gt boxes and, after them, the proposals: what the RoIs of an image are drawn from.

    A gt box overlaps itself wholly; a crowd's own box is neither object nor background
    (Detectron datasets/json_dataset.py:add_proposals).
    """
    device = proposals.boxes.device
    gt_boxes, is_crowd = (torch.from_numpy(part).to(device) for part in (objects.boxes, objects.is_crowd))
    return MatchedProposals(
        torch.cat((gt_boxes, proposals.boxes)),
        torch.cat((torch.where(is_crowd, -1.0, 1.0), proposals.overlaps)),
        torch.cat((torch.arange(len(gt_boxes), device=device), proposals.best_gt)),
    )


def roi_roles(overlaps: Tensor, cfg: Config) -> tuple[Tensor, Tensor]:
    """Which candidates `[P]` may be drawn as objects, and which as background, by their largest overlap `[P]`.

    An object has an overlap of `cfg.TRAIN.FG_THRESH`, the background one within `[BG_THRESH_LO, BG_THRESH_HI)`.
    """
    train = cfg.TRAIN
    is_background = (overlaps < train.BG_THRESH_HI) & (overlaps >= train.BG_THRESH_LO)
    return overlaps >= train.FG_THRESH, is_background


def roi_classes(candidates: MatchedProposals, objects: GroundTruth) -> Tensor:
    """The class `[P]` of the gt box that each candidate overlaps most, crowds included; 0 where it overlaps none."""
    classes = torch.from_numpy(objects.classes).to(candidates.best_gt.device)
    # An image without objects may have proposals from a file.
    own = classes[candidates.best_gt] if len(classes) else candidates.best_gt
    return own.where(candidates.overlaps > 0, 0)


def most_object_rois(cfg: Config) -> int:
    """How many RoIs of an image are objects at most; as many are trained on for their keypoints."""
    return round(cfg.TRAIN.FG_FRACTION * cfg.TRAIN.BATCH_SIZE_PER_IM)


def network_rois(boxes: Tensor, image_index: int, scale: float) -> Tensor:
    """`[R, 4]` boxes in pixels of the image as RoIs `[R, 5]` in network pixels; the scale is held as float32."""
    return torch.cat((boxes.new_full((len(boxes), 1), image_index), boxes * float(np.float32(scale))), dim=1)
