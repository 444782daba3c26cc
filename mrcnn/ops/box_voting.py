"""Box voting (arXiv:1505.01749); answers to Detectron utils/boxes.py:box_voting."""

import math

import torch
from torch import Tensor

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.ops.boxes import box_overlaps


def vote_boxes(
    top_boxes: Tensor,
    top_scores: Tensor,
    all_boxes: Tensor,
    all_scores: Tensor,
    *,
    threshold: float,
    method: str,
    beta: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Replace each kept box by the score-weighted mean of all boxes that overlap it by `threshold` or more.

    Args:
        top_boxes, top_scores: `[K, 4]` and `[K]`, what NMS kept.
        all_boxes, all_scores: `[N, 4]` and `[N]`, what NMS was given.
        threshold: `cfg.TEST.BBOX_VOTE.VOTE_TH`.
        method: how the score is formed, `cfg.TEST.BBOX_VOTE.SCORING_METHOD`.
        beta: temperature or exponent of the methods that have one.

    Returns:
        New boxes `[K, 4]` and scores `[K]`, float32 (Detectron utils/boxes.py:box_voting).
    """
    overlaps = box_overlaps(top_boxes, all_boxes)
    boxes, scores = top_boxes.clone(), top_scores.clone()
    for k, row in enumerate(overlaps):
        voters = row >= threshold
        weights = all_scores[voters]
        boxes[k] = (all_boxes[voters] * weights[:, None]).sum(dim=0) / weights.sum()
        scores[k] = _voted_score(top_scores[k], weights, row[voters], method, beta)
    return boxes, scores


def _voted_score(score: Tensor, weights: Tensor, overlaps: Tensor, method: str, beta: float) -> Tensor:
    """The score of one voted box from its voters' scores and overlaps."""
    if method == "ID":
        return score
    if method == "TEMP_AVG":
        probabilities = torch.stack((weights, 1 - weights))
        tempered = (probabilities / probabilities.amax(dim=0)).log().div(beta).exp()
        return (tempered[0] / tempered.sum(dim=0)).mean()
    if method == "AVG":
        return weights.mean()
    if method == "IOU_AVG":
        return (weights * overlaps).sum() / overlaps.sum()
    if method == "GENERALIZED_AVG":
        return torch.pow(torch.pow(weights, beta).mean(), 1.0 / beta)
    if method == "QUASI_SUM":
        return weights.sum() / math.pow(len(weights), beta)
    methods = "ID, TEMP_AVG, AVG, IOU_AVG, GENERALIZED_AVG or QUASI_SUM"
    raise InputError(f"TEST.BBOX_VOTE.SCORING_METHOD is {method!r}: give {methods}")
