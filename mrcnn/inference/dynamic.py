"""From class scores and boxes to detections; answers to Detectron core/test.py:box_results_with_nms_and_limit."""

from typing import NamedTuple

import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.ops.box_voting import vote_boxes
from detectron_gn.mrcnn.ops.boxes import clip_boxes, decode_boxes
from detectron_gn.mrcnn.ops.nms import nms
from detectron_gn.mrcnn.ops.soft_nms import soft_nms

# The score under which Soft-NMS drops a box, fixed in Detectron core/test.py:box_results_with_nms_and_limit.
SOFT_NMS_SCORE_THRESH = 0.0001


class Detected(NamedTuple):
    """Boxes `[D, 4]` float32 in image pixels, scores `[D]`, classes `[D]` int64 from 1 on; by class, then RoI."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor


def class_boxes(
    rois: Tensor,
    bbox_pred: Tensor,
    scale: float | Tensor,
    image_size: tuple[float | Tensor, float | Tensor],
    cfg: Config,
) -> Tensor:
    """Boxes `[..., R, 4K]` of every class, clipped to the image, in its own pixels.

    Args:
        rois: `[..., R, 4]` float32 in network pixels.
        bbox_pred: `[..., R, 4B]` float32. Where all classes share their boxes B is 2, and the object's count.
        scale: network pixels per image pixel; a float32 tensor `[N, 1, 1]` for the RoIs of N images.
        image_size: (height, width) of the image as it was read, not padded; likewise.

    The RoIs go back to image pixels *before* they are decoded (Detectron core/test.py:im_detect_bbox).
    """
    boxes, one_for_all = rois / scale, cfg.MODEL.CLS_AGNOSTIC_BBOX_REG
    if cfg.TEST.BBOX_REG:
        deltas = bbox_pred[..., -4:] if one_for_all else bbox_pred
        boxes = clip_boxes(decode_boxes(boxes, deltas, cfg.MODEL.BBOX_REG_WEIGHTS), *image_size)
        if not one_for_all:
            return boxes
    return torch.cat([boxes] * cfg.MODEL.NUM_CLASSES, dim=-1)


def no_detections(like: Tensor) -> Detected:
    """None, on the device of a tensor."""
    return Detected(like.new_zeros((0, 4)), like.new_zeros(0), like.new_zeros(0, dtype=torch.long))


def select_detections(scores: Tensor, boxes: Tensor, cfg: Config) -> Detected:
    """Threshold, non-maximum suppression class by class, and the limit over all classes.

    Args:
        scores: `[R, K]` float32 class probabilities; class 0 is the background.
        boxes: `[R, 4K]` float32 in image pixels.

    Of the boxes kept, all that score at least as high as number `cfg.TEST.DETECTIONS_PER_IM` stay, so ties can make
    them more (Detectron core/test.py:box_results_with_nms_and_limit).
    """
    parts = []
    above = scores.t() > cfg.TEST.SCORE_THRESH
    above[0] = False
    for label in above.any(dim=1).nonzero()[:, 0].tolist():
        chosen = above[label]
        candidates = boxes[chosen, 4 * label : 4 * label + 4], scores[chosen, label]
        kept_boxes, kept_scores = _vote(*suppress(*candidates, cfg), *candidates, cfg)
        parts.append(Detected(kept_boxes, kept_scores, torch.full_like(kept_scores, label, dtype=torch.long)))
    if not parts:
        return no_detections(boxes)
    detected = Detected(*(torch.cat(column) for column in zip(*parts, strict=True)))
    limit = cfg.TEST.DETECTIONS_PER_IM
    if 0 < limit < len(detected.scores):
        enough = detected.scores >= detected.scores.topk(limit).values[-1]
        detected = Detected(*(column[enough] for column in detected))
    return detected


def suppress(boxes: Tensor, scores: Tensor, cfg: Config) -> tuple[Tensor, Tensor]:
    """What NMS or Soft-NMS leaves of the `[N, 4]` boxes of one class, and their scores `[N]`."""
    if cfg.TEST.SOFT_NMS.ENABLED:
        boxes, scores, _ = soft_nms(
            boxes,
            scores,
            sigma=cfg.TEST.SOFT_NMS.SIGMA,
            overlap_threshold=cfg.TEST.NMS,
            score_threshold=SOFT_NMS_SCORE_THRESH,
            method=cfg.TEST.SOFT_NMS.METHOD,
        )
        return boxes, scores
    kept = nms(boxes, scores, cfg.TEST.NMS)
    return boxes[kept], scores[kept]


def _vote(
    kept_boxes: Tensor, kept_scores: Tensor, boxes: Tensor, scores: Tensor, cfg: Config
) -> tuple[Tensor, Tensor]:
    """The boxes of one class that were kept, as all of them vote, where the config asks for it."""
    if not cfg.TEST.BBOX_VOTE.ENABLED:
        return kept_boxes, kept_scores
    vote = cfg.TEST.BBOX_VOTE
    return vote_boxes(
        kept_boxes, kept_scores, boxes, scores, threshold=vote.VOTE_TH, method=vote.SCORING_METHOD
    )
