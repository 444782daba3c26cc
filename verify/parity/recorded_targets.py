"""Anchors and RoIs that Detectron drew by lot, and that are trained on: what our rules make of them, compared.

Which of them are drawn is chance. What each may be drawn as, and what it is trained towards, is not: here it is
computed again for those that were drawn, by what sampling itself uses.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product

import numpy as np
import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.ground_truth import GroundTruth
from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.data.proposal_matches import MatchedProposals
from detectron_gn.mrcnn.ops.pairs import PARTNER_DISTANCE, pair_boxes
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
    roi_classes,
    roi_roles,
)
from detectron_gn.mrcnn.training.roi_targets import MaskSample, RoiSample, join_samples, moved, roi_targets
from detectron_gn.mrcnn.training.samplers import network_boxes
from detectron_gn.verify.parity.sample_parity import (
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
# A recorded RoI is a gt box or a proposal of a file where their corners agree to this, in network pixels: float32 holds
# these to 1e-4, and no other box is as near.
_SAME_ROI = 1e-3
# The share of RoIs that our RPN need not propose.
_MOST_UNPROPOSED = 0.01
# To which side each corner may have been rounded: whatever is cut at the edges of cells jumps there.
_SIDES = tuple(product((-1.0, 1.0), repeat=4))
_NO_SIDES = (0.0, 0.0, 0.0, 0.0)

Sides = tuple[float, ...]
# The numbers `[N]` of candidates that may be drawn, and the label `[N]` with which each may be.
Roles = Callable[[MatchedProposals], tuple[Tensor, Tensor]]

_NOTHING = SampleParity(0, 0, 0, 0, 0, 0, 0.0, 0, 0)


def compare_recorded(
    anchors: Sequence[AnchorSample],
    rois: RoiSample | None,
    field: AnchorField,
    minibatch: Minibatch,
    cfg: Config,
    proposals: Tensor | None = None,
) -> SampleParity:
    """Compare the labels and targets of what Detectron drew with those that our rules give it.

    Args:
        anchors: of each image, those of the RPN; none for a model on proposals.
        rois: of the minibatch; None for an RPN by itself.
        field: of the RPN.
        proposals: `[P, 5]` of all images, what our RPN proposes; None to leave that uncompared.
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
            unproposed=0 if proposals is None else _unproposed(recorded, proposals.to(recorded.rois), minibatch, cfg),
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

    RoIs are recorded in network pixels. Gt boxes and proposals from a file are looked up among these, so that nothing
    is rounded. Others are scaled back to the image. A target that is not the recorded one then, but would be if the
    corners lay the rounding to one side or the other, counts as the recorded one.
    """
    plain = _targets(recorded, minibatch, cfg)
    if minibatch.proposals is not None or not with_rois(_NOTHING, plain, recorded).different:
        return plain
    others = (_targets(recorded, minibatch, cfg, sides) for sides in _SIDES)
    return reduce(lambda found, other: _nearer(found, other, recorded), others, plain)


def by_image(sample: RoiSample) -> RoiSample:
    """A sample with the RoIs of the first image first, then those of the next, each in their order.

    Which RoIs have masks (`MaskSample.rows`) is left as it is.
    """
    order = sample.rois[:, 0].argsort(stable=True)
    rois, labels, box_classes, box_targets = (part[order] for part in sample[:4])
    masks, keypoints = sample.masks, sample.keypoints
    if masks is not None:
        own = masks.rois[:, 0].argsort(stable=True)
        masks = MaskSample(*(part[own] for part in masks))
    if keypoints is not None:
        own = keypoints.rois[:, 0].argsort(stable=True)
        keypoints = KeypointSample(*(part[own] for part in keypoints))
    return RoiSample(rois, labels, box_classes, box_targets, masks, keypoints)


def _targets(recorded: RoiSample, minibatch: Minibatch, cfg: Config, sides: Sides = _NO_SIDES) -> RoiSample:
    """The RoIs with their targets, were each corner `sides` of its rounding off where it is recorded."""
    samples = []
    for image in _images(minibatch, cfg):
        own = recorded.rois[:, 0] == image.index
        sample = image.targets(recorded.rois[own], recorded.labels[own], sides)
        if recorded.keypoints is not None:
            rois = recorded.keypoints.rois
            sample = sample._replace(keypoints=image.keypoint_targets(rois[rois[:, 0] == image.index], sides))
        samples.append(sample)
    return join_samples(samples)


@dataclass(frozen=True)
class _Image:
    """One image of a minibatch.

    `known` are candidates for its RoIs, gt boxes among them, in pixels of the image on disk: all there are, where the
    proposals come from a file (`all_known`).
    """

    index: int
    objects: GroundTruth
    scale: float
    known: MatchedProposals
    all_known: bool
    cfg: Config

    def targets(self, rois: Tensor, labels: Tensor, sides: Sides) -> RoiSample:
        """Of recorded RoIs `[R, 5]` that were drawn as `labels [R]`."""
        drawn, may_be_drawn = self.drawn(rois, labels, sides)
        sample = roi_targets(drawn, labels > 0, self.objects, self.index, self.scale, self.cfg)
        masks = sample.masks
        if masks is not None:
            masks = masks._replace(rois=rois[masks.rows])
        may_be_so = may_be_drawn | (sample.labels != labels)
        return sample._replace(rois=rois, labels=sample.labels.where(may_be_so, NOT_DRAWN), masks=masks)

    def keypoint_targets(self, rois: Tensor, sides: Sides) -> KeypointSample:
        """Of RoIs `[Q, 5]` that were recorded for their keypoints."""
        labels = torch.zeros(len(rois), dtype=torch.int64)
        drawn, may_be_drawn = self._found(rois, labels, self._keypoint_roles, sides)
        sample = keypoint_targets(drawn, self.objects, self.index, self.scale, self.cfg)
        return sample._replace(rois=rois, positions=sample.positions.where(may_be_drawn[:, None], NOT_DRAWN))

    def drawn(self, rois: Tensor, labels: Tensor, sides: Sides = _NO_SIDES) -> tuple[MatchedProposals, Tensor]:
        """Recorded RoIs `[R, 5]` as candidates, and which of them may be drawn as `labels [R]`."""
        return self._found(rois, labels, self._roles, sides)

    def _roles(self, candidates: MatchedProposals) -> tuple[Tensor, Tensor]:
        is_object, is_background = (role.nonzero()[:, 0] for role in roi_roles(candidates.overlaps, self.cfg))
        classes = roi_classes(candidates, self.objects)[is_object]
        return torch.cat((is_object, is_background)), torch.cat((classes, torch.zeros_like(is_background)))

    def _keypoint_roles(self, candidates: MatchedProposals) -> tuple[Tensor, Tensor]:
        rows = are_keypoint_rois(candidates, self.objects, self.cfg).nonzero()[:, 0]
        return rows, torch.zeros_like(rows)

    def _found(self, rois: Tensor, labels: Tensor, roles: Roles, sides: Sides) -> tuple[MatchedProposals, Tensor]:
        """As `drawn`, of any kind of RoIs.

        One that is a known candidate is exactly that, and of two objects in one place the one of its label.
        """
        moved_by = rois[:, 1:] * (ROUNDING * rois.new_tensor(sides))
        found = match_network_boxes(rois[:, 1:] + moved_by, self.objects, self.scale)
        rows, in_role = roles(found)
        may_be_drawn = torch.zeros(len(rois), dtype=torch.bool)
        if not self.all_known:
            may_be_drawn[rows[in_role == labels[rows]]] = True
        rows, in_role = roles(self.known)
        candidates = network_rois(self.known.boxes, self.index, self.scale)[rows]
        pairs = pair_boxes(candidates.numpy(), in_role.numpy(), rois.numpy(), labels.numpy(), _SAME_ROI)
        chosen, places = torch.from_numpy(pairs).unbind(1)
        for part, known in zip(found, self.known, strict=True):
            part[places] = known[rows[chosen]]
        may_be_drawn[places] = True
        return found, may_be_drawn


def _images(minibatch: Minibatch, cfg: Config) -> Iterator[_Image]:
    for index, (objects, im_info) in enumerate(zip(minibatch.ground_truth, minibatch.im_info, strict=True)):
        proposals = match_network_boxes(torch.zeros((0, 4)), objects, im_info.scale)
        if minibatch.proposals is not None:
            proposals = minibatch.proposals[index]
        known = roi_candidates(proposals, objects)
        yield _Image(index, objects, im_info.scale, known, minibatch.proposals is not None, cfg)


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

    Of what an RPN proposed not all is known, so that there may be more to be drawn from, but not less.
    """
    rois = keypoints = 0
    most, size = most_object_rois(cfg), cfg.TRAIN.BATCH_SIZE_PER_IM
    for image in _images(minibatch, cfg):
        own = recorded.rois[:, 0] == image.index
        of_image, is_object = recorded.rois[own], recorded.labels[own] > 0
        objects = int(is_object.sum())
        are_objects, are_background = (int(role.sum()) for role in roi_roles(image.known.overlaps, cfg))
        for drawn, there, wanted in (
            (objects, are_objects, most),
            (len(of_image) - objects, are_background, size - objects),
        ):
            rois += _outside(drawn, min(wanted, there), min(wanted, there) if image.all_known else wanted)
        if recorded.keypoints is not None:
            known = [image.known, image.drawn(of_image[is_object], recorded.labels[own][is_object])[0]]
            there = max(int(are_keypoint_rois(candidates, image.objects, cfg).sum()) for candidates in known)
            drawn = int((recorded.keypoints.rois[:, 0] == image.index).sum())
            keypoints += _outside(drawn, min(most, there), min(most, there) if image.all_known else most)
    return rois, keypoints


def _unproposed(recorded: RoiSample, proposals: Tensor, minibatch: Minibatch, cfg: Config) -> int:
    """How many RoIs are neither gt boxes nor among the proposals; 0 for no more than `_MOST_UNPROPOSED` of them."""
    rois = recorded.rois if recorded.keypoints is None else torch.cat((recorded.rois, recorded.keypoints.rois))
    count = 0
    for image in _images(minibatch, cfg):
        gt_boxes = network_rois(image.known.boxes, image.index, image.scale)
        drawn, ours = (part[part[:, 0] == image.index, 1:] for part in (rois, torch.cat((gt_boxes, proposals))))
        distance = torch.cdist(drawn, ours, p=float("inf")).amin(dim=1)
        count += int((distance > PARTNER_DISTANCE).sum())
    return count if count > math.ceil(_MOST_UNPROPOSED * len(rois)) else 0


def _outside(count: int, least: int, most: int) -> int:
    """How far a count is outside of its limits."""
    return max(least - count, count - most, 0)
