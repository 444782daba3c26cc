"""How many anchors and RoIs Detectron drew by lot, beside how many our own drawing takes.

Which are drawn is chance, how many is not. So our sampling itself is run once more on the same minibatch, with a
generator of its own, and what it takes is counted. What it takes is trained on nowhere.
"""

import math

import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.training.anchor_targets import AnchorField, AnchorSample
from detectron_gn.mrcnn.training.roi_candidates import network_rois
from detectron_gn.mrcnn.training.roi_targets import RoiSample
from detectron_gn.mrcnn.training.samplers import RandomSampler
from detectron_gn.verify.parity.roi_rounding import NO_SIDES, SAME_ROI, SIDES, Sides, to_sides

# Of the RoIs, the share that our RPN need not propose.
MOST_UNPROPOSED = 0.01
# Two draws of one kind are further apart than is taken for chance once in 10^9 times.
_LOG_ODDS = math.log(1e9)


def own_anchors(field: AnchorField, minibatch: Minibatch, cfg: Config) -> list[AnchorSample]:
    """What our drawing takes of the anchors of each image."""
    return RandomSampler(cfg, field.anchors.device, seed=0).anchors(field, minibatch)


def miscounted_anchors(theirs: Tensor, ours: Tensor, is_object: Tensor, is_background: Tensor) -> int:
    """By how many too many or too few anchors of an image were drawn.

    Args:
        theirs, ours: the labels `[S]` of its candidates in both draws: 1, 0, or -1 for those that were not drawn.
        is_object, is_background: `[S]`, which of them may be drawn as which; some may be either.

    The background is drawn with replacement, unless there is not enough, and turns objects over. So the objects that
    show may be fewer than were drawn, by as many as may have been turned over; and of the background fewer show than
    were drawn, by as many as were drawn twice, which is chance (`_chance`).
    """
    (least, most), (own_least, own_most) = _objects(theirs, is_object), _objects(ours, is_object)
    objects = max(own_least - most, least - own_most, 0)
    background, own_background = (int((labels[is_background] == 0).sum()) for labels in (theirs, ours))
    there, apart = int(is_background.sum()), abs(background - own_background)
    by_chance = 0.0 if own_background == there else _chance(background, there)
    return objects + (apart if apart > by_chance else 0)


def miscounted_rois(recorded: RoiSample, minibatch: Minibatch, cfg: Config) -> tuple[int, int]:
    """By how many too many or too few RoIs were drawn, and how many for their keypoints; nothing is left to chance.

    Args:
        recorded: on the CPU.

    Of proposals from a file all are known, and as many must be drawn. Of what Detectron's RPN proposed only that is
    known which was drawn. It was drawn within the limits, so that of it and the gt boxes as many are drawn again. That
    shows a limit of ours that is too low; for one that is too high see `miscounted_proposed`.
    """
    sampler = RandomSampler(cfg, torch.device("cpu"), seed=0)
    theirs = _counts(recorded, minibatch)
    if minibatch.proposals is not None:
        apart = (_counts(sampler.rois(None, minibatch), minibatch) - theirs).abs().sum(dim=0)
        return int(apart[:2].sum()), int(apart[2])
    rois = keypoints = len(recorded.rois)
    for sides in (NO_SIDES, *SIDES):
        again = _counts(sampler.rois(_no_gt_boxes(recorded.rois, minibatch, sides), minibatch), minibatch)
        rois = min(rois, int((again - theirs)[:, :2].abs().sum()))
        # Others than the box head's are drawn for their keypoints, and all of them may be.
        lacking = int((again - theirs)[:, 2].clamp(min=0).sum())
        if recorded.keypoints is not None:
            of_keypoints = _no_gt_boxes(recorded.keypoints.rois, minibatch, sides)
            again = _counts(sampler.rois(of_keypoints, minibatch), minibatch)
            lacking = max(lacking, int((again - theirs)[:, 2].abs().sum()))
        keypoints = min(keypoints, lacking)
        if not rois and not keypoints:
            break
    return rois, keypoints


def miscounted_proposed(recorded: RoiSample, proposals: Tensor, minibatch: Minibatch, cfg: Config) -> int:
    """By how many too many or too few RoIs were drawn, compared with what we draw from what our RPN proposes.

    Args:
        recorded: on the CPU.
        proposals: `[P, 5]` of all images, on the CPU.

    Where there is more to draw from than is drawn, the numbers are the same whatever is proposed. Where there is less,
    and all of it is drawn, each proposal that rounding exchanges may count: 0 for no more than `MOST_UNPROPOSED`.
    """
    ours = RandomSampler(cfg, torch.device("cpu"), seed=0).rois(proposals, minibatch)
    # An object more leaves room for a background RoI less.
    apart = int((_counts(ours, minibatch) - _counts(recorded, minibatch)).abs().amax(dim=1).sum())
    return apart if apart > math.ceil(MOST_UNPROPOSED * len(recorded.rois)) else 0


def _objects(labels: Tensor, is_object: Tensor) -> tuple[int, int]:
    """How many objects were drawn, at least and at most: some may be background since."""
    drawn = int((labels[is_object] == 1).sum())
    return drawn, drawn + int((labels[is_object] == 0).sum())


def _chance(distinct: int, there: int) -> float:
    """How far the numbers of different ones in two draws with replacement may be apart, of which one had `distinct`.

    The variance of their number in a draw of `c * there` is about `there * (exp(-c) - (1 + c) * exp(-2 * c))`, and they
    number `there * (1 - exp(-c))`. A draw that is rarely repeated is Poisson's, whose tail is longer: Bernstein's bound
    holds for both.
    """
    left = 1 - distinct / there
    variance = there * (left - (1 - math.log(left)) * left**2) if left > 0 else 0.0
    return math.sqrt(4 * max(variance, 0.0) * _LOG_ODDS) + _LOG_ODDS / 3


def _counts(sample: RoiSample, minibatch: Minibatch) -> Tensor:
    """Of each image: objects, background and RoIs with keypoints `[images, 3]`."""
    images, is_object = sample.rois[:, 0].long(), sample.labels > 0
    with_keypoints = images[:0] if sample.keypoints is None else sample.keypoints.rois[:, 0].long()
    kinds = (images[is_object], images[~is_object], with_keypoints)
    return torch.stack([kind.bincount(minlength=len(minibatch.im_info)) for kind in kinds], dim=1)


def _no_gt_boxes(rois: Tensor, minibatch: Minibatch, sides: Sides) -> Tensor:
    """The RoIs `[R, 5]` less those that are gt boxes, which are drawn from in any case; corners moved to `sides`."""
    images = enumerate(zip(minibatch.ground_truth, minibatch.im_info, strict=True))
    gt_boxes = [network_rois(torch.from_numpy(o.boxes), i, im_info.scale) for i, (o, im_info) in images]
    apart = torch.cdist(rois, torch.cat(gt_boxes), p=float("inf")) > SAME_ROI
    others = rois[apart.all(dim=1)]
    return torch.cat((others[:, :1], to_sides(others[:, 1:], sides)), dim=1)
