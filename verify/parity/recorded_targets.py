"""Anchors and RoIs that Detectron drew by lot, and that are trained on: what our rules make of them, compared.

Which of them are drawn is chance. What each may be drawn as, and what it is trained towards, is not: here it is
computed again for those that were drawn, by what sampling itself uses.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.ground_truth import GroundTruth
from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.data.proposal_matches import MatchedProposals
from detectron_gn.mrcnn.ops.pairs import pair_boxes
from detectron_gn.mrcnn.training.anchor_targets import (
    AnchorField,
    AnchorSample,
    anchor_candidates,
    anchor_sample,
    most_object_anchors,
)
from detectron_gn.mrcnn.training.keypoint_targets import KeypointSample, are_keypoint_rois, keypoint_targets
from detectron_gn.mrcnn.training.roi_candidates import (
    match_network_boxes,
    most_object_rois,
    network_rois,
    roi_candidates,
    roi_roles,
)
from detectron_gn.mrcnn.training.roi_targets import MaskSample, RoiSample, join_samples, moved, roi_targets
from detectron_gn.mrcnn.training.samplers import network_boxes
from detectron_gn.verify.parity.sample_parity import (
    ROI_TOLERANCE,
    SampleParity,
    are_equal_targets,
    compare_anchors,
    with_rois,
)

# The label of a RoI, and the place of its keypoints, that our rules would not draw as what it was drawn as.
NOT_DRAWN = -1
# How far a corner that is scaled back to the image may be from where Detectron had it, as a share of itself. Three
# roundings of up to 2^-24 each lie between: of its product with the scale, of 1 / scale, and of the product of both.
ROUNDING = 2.0**-22
# To which side each corner may have been rounded: whatever is cut at the edges of cells jumps there.
_SIDES = tuple(product((-1.0, 1.0), repeat=4))
_NO_SIDES = (0.0, 0.0, 0.0, 0.0)

Sides = tuple[float, ...]
# Of candidates `[C]`, as what each may be drawn: `[C, roles]`.
Roles = Callable[[MatchedProposals], Tensor]

_NOTHING = SampleParity(0, 0, 0, 0, 0, 0, 0.0, 0, 0)


def compare_recorded(
    anchors: Sequence[AnchorSample], rois: RoiSample | None, field: AnchorField, minibatch: Minibatch, cfg: Config
) -> SampleParity:
    """Compare the labels and targets of what Detectron drew with those that our rules give it.

    Args:
        anchors: of each image, those of the RPN; none for a model on proposals.
        rois: of the minibatch; None for an RPN by itself.
        field: of the RPN.
    """
    parity = _NOTHING
    if anchors:
        found = [_recomputed_anchors(sample, index, field, minibatch, cfg) for index, sample in enumerate(anchors)]
        parity = compare_anchors([ours for ours, _ in found], anchors, len(field.anchors))
        miscounted = sum(count for _, count in found)
        parity = replace(parity, different_anchors=parity.different_anchors + miscounted)
    if rois is not None:
        recorded = by_image(moved(rois, torch.device("cpu")))
        parity = with_rois(parity, recomputed_rois(recorded, minibatch, cfg), recorded)
        miscounted, of_keypoints = _miscounted_rois(recorded, minibatch, cfg)
        parity = replace(
            parity,
            different_rois=parity.different_rois + miscounted,
            different_keypoints=parity.different_keypoints + of_keypoints,
        )
    return replace(parity, are_given=True)


def _recomputed_anchors(
    recorded: AnchorSample, index: int, field: AnchorField, minibatch: Minibatch, cfg: Config
) -> tuple[AnchorSample, int]:
    """The anchors of an image that were drawn, as our rules have them, and by how many too many or too few these are.

    One that may not be drawn as what it was drawn as is left out, or has its other label. Where all objects are drawn,
    or all of the background, there are those, too, that were not. The background is drawn with replacement otherwise,
    so that fewer show, and turns objects over.
    """
    im_info = minibatch.im_info[index]
    gt_boxes = network_boxes(minibatch.ground_truth[index], im_info, field.anchors.device)
    found = anchor_candidates(field.anchors, gt_boxes, im_info, cfg)
    theirs = found.anchors.new_full((len(field.anchors),), -1)
    theirs[recorded.anchors] = recorded.labels.long()
    as_object, as_background = theirs[found.anchors] == 1, theirs[found.anchors] == 0
    is_object, is_background = found.matched.is_object, found.background
    objects, most = int(is_object.sum()), most_object_anchors(cfg)
    wanted = max(cfg.TRAIN.RPN_BATCH_SIZE_PER_IM - min(objects, most), 0)
    labels = torch.where(is_object & (as_object | (objects <= most)), 1, -1)
    labels[is_background & (as_background | (int(is_background.sum()) <= wanted))] = 0
    drawn, turned = int(as_object.sum()), int((as_background & is_object).sum())
    surplus = max(drawn - most, 0) + max(int(as_background.sum()) - wanted, 0)
    lacking = max(most - drawn - turned, 0) if objects > most else 0
    return anchor_sample(found, labels, field.anchors, gt_boxes), surplus + lacking


def recomputed_rois(recorded: RoiSample, minibatch: Minibatch, cfg: Config) -> RoiSample:
    """The RoIs that were drawn with the targets that our rules give them; one that these would not draw, `NOT_DRAWN`.

    Args:
        recorded: on the CPU, in the order of the images.

    RoIs are recorded in network pixels. Those of proposals from a file are looked up among these, so that nothing is
    rounded. Others are scaled back to the image. A target that is not the recorded one then, but would be if the
    corners lay the rounding to one side or the other, counts as the recorded one.
    """
    plain = _targets(recorded, minibatch, cfg)
    if minibatch.proposals is not None or not with_rois(_NOTHING, plain, recorded).different:
        return plain
    others = (_targets(recorded, minibatch, cfg, sides) for sides in _SIDES)
    return reduce(lambda found, other: _nearer(found, other, recorded), others, plain)


def by_image(sample: RoiSample) -> RoiSample:
    """A sample with the RoIs of the first image first, then those of the next, each in their order."""
    order = sample.rois[:, 0].argsort(stable=True)
    rois, labels, box_classes, box_targets = (part[order] for part in sample[:4])
    masks, keypoints = sample.masks, sample.keypoints
    if masks is not None:
        own = masks.rois[:, 0].argsort(stable=True)
        masks = MaskSample(*(part[own] for part in masks[:3]), order.argsort()[masks.rows[own]])
    if keypoints is not None:
        own = keypoints.rois[:, 0].argsort(stable=True)
        keypoints = KeypointSample(*(part[own] for part in keypoints))
    return RoiSample(rois, labels, box_classes, box_targets, masks, keypoints)


def _targets(recorded: RoiSample, minibatch: Minibatch, cfg: Config, sides: Sides = _NO_SIDES) -> RoiSample:
    """The RoIs with their targets, were each corner `sides` of its rounding off where it is recorded."""
    samples = []
    for index, (objects, im_info) in enumerate(zip(minibatch.ground_truth, minibatch.im_info, strict=True)):
        stored = None if minibatch.proposals is None else roi_candidates(minibatch.proposals[index], objects)
        image = _Image(index, objects, im_info.scale, stored, cfg)
        own = recorded.rois[:, 0] == index
        sample = image.targets(recorded.rois[own], recorded.labels[own] > 0, sides)
        if recorded.keypoints is not None:
            rois = recorded.keypoints.rois
            sample = sample._replace(keypoints=image.keypoint_targets(rois[rois[:, 0] == index], sides))
        samples.append(sample)
    return join_samples(samples)


class _Image(NamedTuple):
    """One image of a minibatch, with what its RoIs are drawn from where that is stored in a file."""

    index: int
    objects: GroundTruth
    scale: float
    stored: MatchedProposals | None
    cfg: Config

    def targets(self, rois: Tensor, is_object: Tensor, sides: Sides) -> RoiSample:
        """Of recorded RoIs `[R, 5]`, drawn as objects or as background."""

        def roles(candidates: MatchedProposals) -> Tensor:
            return torch.stack(roi_roles(candidates.overlaps, self.cfg), dim=1)

        drawn, may_be_drawn = self._found(rois, (~is_object).long(), roles, sides)
        sample = roi_targets(drawn, is_object, self.objects, self.index, self.scale, self.cfg)
        masks = sample.masks
        if masks is not None:
            masks = masks._replace(rois=rois[masks.rows])
        return sample._replace(rois=rois, labels=sample.labels.where(may_be_drawn, NOT_DRAWN), masks=masks)

    def keypoint_targets(self, rois: Tensor, sides: Sides) -> KeypointSample:
        """Of RoIs `[Q, 5]` recorded for their keypoints."""

        def roles(candidates: MatchedProposals) -> Tensor:
            return are_keypoint_rois(candidates, self.objects, self.cfg)[:, None]

        drawn, may_be_drawn = self._found(rois, torch.zeros(len(rois), dtype=torch.int64), roles, sides)
        sample = keypoint_targets(drawn, self.objects, self.index, self.scale, self.cfg)
        return sample._replace(rois=rois, positions=sample.positions.where(may_be_drawn[:, None], NOT_DRAWN))

    def _found(self, rois: Tensor, role: Tensor, roles: Roles, sides: Sides) -> tuple[MatchedProposals, Tensor]:
        """Recorded RoIs `[R, 5]` as candidates, and which of them may be drawn in their role `[R]`."""
        moved_by = rois[:, 1:] * (ROUNDING * rois.new_tensor(sides))
        found = match_network_boxes(rois[:, 1:] + moved_by, self.objects, self.scale)
        if self.stored is None:
            return found, roles(found)[torch.arange(len(rois)), role]
        rows, in_role = roles(self.stored).nonzero().unbind(1)
        candidates = network_rois(self.stored.boxes, self.index, self.scale)[rows]
        arrays = (part.numpy() for part in (candidates, in_role, rois, role))
        chosen, places = torch.from_numpy(pair_boxes(*arrays, ROI_TOLERANCE)).unbind(1)
        for part, stored in zip(found, self.stored, strict=True):
            part[places] = stored[rows[chosen]]
        return found, torch.zeros(len(rois), dtype=torch.bool).index_fill(0, places, True)


def _nearer(found: RoiSample, other: RoiSample, recorded: RoiSample) -> RoiSample:
    """Targets of the same RoIs, each taken from the other where it is the recorded one there."""
    rows = np.arange(len(recorded.rois))
    is_target = are_equal_targets(other, recorded, np.stack((rows, rows), axis=1))
    labels, box_classes = map(_where_recorded, found[1:3], other[1:3], recorded[1:3])
    box_targets = torch.where(is_target[:, None], other.box_targets, found.box_targets)
    masks, keypoints = found.masks, found.keypoints
    if masks is not None and other.masks is not None and recorded.masks is not None:
        if torch.equal(masks.rois, recorded.masks.rois) and torch.equal(masks.rows, other.masks.rows):
            masks = MaskSample(masks.rois, *map(_where_recorded, masks[1:], other.masks[1:], recorded.masks[1:]))
    if keypoints is not None and other.keypoints is not None and recorded.keypoints is not None:
        positions, visible = map(_where_recorded, keypoints[1:], other.keypoints[1:], recorded.keypoints[1:])
        keypoints = KeypointSample(keypoints.rois, positions, visible)
    return RoiSample(found.rois, labels, box_classes, box_targets, masks, keypoints)


def _where_recorded(found: Tensor, other: Tensor, recorded: Tensor) -> Tensor:
    """Element by element, the other's where it is as recorded."""
    return torch.where(other == recorded, other, found)


def _miscounted_rois(recorded: RoiSample, minibatch: Minibatch, cfg: Config) -> tuple[int, int]:
    """By how many too many or too few RoIs were drawn, and how many for their keypoints.

    What there was to be drawn from is only known of proposals from a file; of others too many show, and too few do not.
    """
    rois = keypoints = 0
    most, size = most_object_rois(cfg), cfg.TRAIN.BATCH_SIZE_PER_IM
    for index, objects in enumerate(minibatch.ground_truth):
        labels = recorded.labels[recorded.rois[:, 0] == index]
        foreground, background = int((labels > 0).sum()), int((labels == 0).sum())
        of_points = 0 if recorded.keypoints is None else int((recorded.keypoints.rois[:, 0] == index).sum())
        if minibatch.proposals is None:
            rois += max(foreground - most, 0) + max(foreground + background - size, 0)
            keypoints += max(of_points - most, 0)
            continue
        candidates = roi_candidates(minibatch.proposals[index], objects)
        objects_there, background_there = (int(role.sum()) for role in roi_roles(candidates.overlaps, cfg))
        wanted = min(most, objects_there)
        rois += abs(foreground - wanted) + abs(background - min(size - wanted, background_there))
        if recorded.keypoints is not None:
            keypoints += abs(of_points - min(most, int(are_keypoint_rois(candidates, objects, cfg).sum())))
    return rois, keypoints
