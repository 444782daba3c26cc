"""Which object each proposal of an image overlaps most; answers to Detectron datasets/json_dataset.py.

Detectron's names: _merge_proposal_boxes_into_roidb, _filter_crowd_proposals.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pycocotools.mask as coco_mask
import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.proposals_file import Boxes, usable_proposals
from detectron_gn.mrcnn.ops.boxes import box_overlaps, box_sides


class MatchedProposals(NamedTuple):
    """Proposals of an image, and the gt box that each overlaps most.

    Attributes:
        boxes: `[P, 4]` float32, in pixels of the image on disk.
        overlaps: `[P]` float32 with that gt box; -1 for what a crowd covers, which is neither object nor background.
        best_gt: `[P]` int64, that gt box, crowds among them; 0 where there is none.
    """

    boxes: Tensor
    overlaps: Tensor
    best_gt: Tensor

    def rows(self, chosen: Tensor) -> "MatchedProposals":
        """Those of the numbers `[N]` int64, or where `[P]` bool is true."""
        return MatchedProposals(self.boxes[chosen], self.overlaps[chosen], self.best_gt[chosen])


def match_proposals(boxes: Tensor, gt_boxes: Tensor) -> MatchedProposals:
    """Match `[P, 4]` float32 boxes with `[G, 4]` gt boxes, crowds among them, in pixels of the image on disk."""
    if not len(gt_boxes):
        return MatchedProposals(boxes, boxes.new_zeros(len(boxes)), torch.zeros_like(boxes[:, 0], dtype=torch.int64))
    overlaps, best_gt = box_overlaps(boxes, gt_boxes).max(dim=1)
    return MatchedProposals(boxes, overlaps, best_gt)


def match_stored_proposals(
    stored: Boxes, gt_boxes: Boxes, is_crowd: npt.NDArray[np.bool_], height: int, width: int, cfg: Config
) -> MatchedProposals:
    """Make `[R, 4]` proposals of a file fit for an image, as for detection but all of them, and match them.

    Args:
        gt_boxes, is_crowd: `[G, 4]` float32 and `[G]` of the ground truth.

    Those that a crowd covers to more than `cfg.TRAIN.CROWD_FILTER_THRESH` of their own area are kept out, where that is
    above 0.
    """
    boxes = torch.from_numpy(usable_proposals(stored, height, width, limit=0))
    matched = match_proposals(boxes, torch.from_numpy(gt_boxes))
    crowds = gt_boxes[is_crowd]
    if cfg.TRAIN.CROWD_FILTER_THRESH <= 0 or not len(crowds) or not len(boxes):
        return matched
    covered = coco_mask.iou(_xywh(boxes), _xywh(torch.from_numpy(crowds)), [1] * len(crowds)).max(axis=1)
    is_covered = torch.from_numpy(covered > cfg.TRAIN.CROWD_FILTER_THRESH)
    return matched._replace(overlaps=matched.overlaps.masked_fill(is_covered, -1.0))


def _xywh(boxes: Tensor) -> npt.NDArray[np.float64]:
    """`[N, 4]` as x, y, width and height, as pycocotools takes them."""
    rows: npt.NDArray[np.float64] = torch.stack((boxes[:, 0], boxes[:, 1], *box_sides(boxes)), dim=1).double().numpy()
    return rows
