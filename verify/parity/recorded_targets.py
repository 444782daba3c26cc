"""Anchors and RoIs that Detectron drew by lot, and that are trained on: what our rules make of them, compared.

Which of them are drawn is chance. What each may be drawn as, and what it is trained towards, is not: here it is
computed again for those that were drawn, by what sampling itself uses. How many are drawn: `drawn_counts`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

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
)
from detectron_gn.mrcnn.training.keypoint_targets import KeypointSample, are_keypoint_rois, keypoint_targets
from detectron_gn.mrcnn.training.roi_candidates import (
    match_network_boxes,
    network_rois,
    roi_candidates,
    roi_classes,
    roi_roles,
)
from detectron_gn.mrcnn.training.roi_targets import MaskSample, RoiSample, join_samples, moved, roi_targets
from detectron_gn.mrcnn.training.samplers import network_boxes
from detectron_gn.verify.parity.drawn_counts import (
    MOST_UNPROPOSED,
    miscounted_anchors,
    miscounted_proposed,
    miscounted_rois,
    own_anchors,
)
from detectron_gn.verify.parity.roi_rounding import NO_SIDES, SAME_ROI, SIDES, Sides, to_sides
from detectron_gn.verify.parity.sample_parity import (
    SampleParity,
    are_equal_targets,
    compare_anchors,
    with_rois,
)

# The label of a RoI, and the place of its keypoints, that our rules would not draw as what it was drawn as.
NOT_DRAWN = -1
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
        drawn = zip(anchors, own_anchors(field, minibatch, cfg), strict=True)
        found = [_recomputed_anchors(*both, index, field, minibatch, cfg) for index, both in enumerate(drawn)]
        parity = compare_anchors([ours for ours, _ in found], anchors, len(field.anchors))
        miscounted = sum(count for _, count in found)
        parity = replace(parity, different_anchors=parity.different_anchors + miscounted)
    if rois is not None:
        recorded = by_image(moved(rois, torch.device("cpu")))
        parity = with_rois(parity, recomputed_rois(recorded, minibatch, cfg), recorded)
        miscounted, of_keypoints = miscounted_rois(recorded, minibatch, cfg)
        parity = replace(
            parity,
            different_rois=parity.different_rois + miscounted,
            different_keypoints=parity.different_keypoints + of_keypoints,
        )
        if proposals is not None:
            ours = proposals.to(recorded.rois)
            parity = replace(
                parity,
                unproposed=_unproposed(recorded, ours, minibatch, cfg),
                miscounted=miscounted_proposed(recorded, ours, minibatch, cfg),
            )
    return replace(parity, are_given=True)


def _recomputed_anchors(
    recorded: AnchorSample, own: AnchorSample, index: int, field: AnchorField, minibatch: Minibatch, cfg: Config
) -> tuple[AnchorSample, int]:
    """The anchors of an image that were drawn, as our rules have them, and by how many too many or too few these are.

    Args:
        own: what our own drawing takes.

    One that may not be drawn as what it was drawn as is left out, or has its other label. Where ours takes all objects,
    or all of the background, there are those, too, that were not drawn.
    """
    im_info = minibatch.im_info[index]
    gt_boxes = network_boxes(minibatch.ground_truth[index], im_info, field.anchors.device)
    found = anchor_candidates(field.anchors, gt_boxes, im_info, cfg)
    theirs, ours = (_labels(sample, len(field.anchors))[found.anchors] for sample in (recorded, own))
    is_object, is_background = found.matched.is_object, found.background
    takes_objects, takes_background = (ours[is_object] == 1).all(), (ours[is_background] == 0).all()
    labels = torch.where(is_object & ((theirs == 1) | takes_objects), 1, -1)
    labels[is_background & ((theirs == 0) | takes_background)] = 0
    miscounted = miscounted_anchors(theirs, ours, is_object, is_background)
    return anchor_sample(found, labels, field.anchors, gt_boxes), miscounted


def _labels(sample: AnchorSample, size: int) -> Tensor:
    """Of every anchor of a field of `size`; -1 for those that were not drawn."""
    labels = sample.anchors.new_full((size,), -1)
    labels[sample.anchors] = sample.labels.long()
    return labels


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
    others = (_targets(recorded, minibatch, cfg, sides) for sides in SIDES)
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


def _targets(recorded: RoiSample, minibatch: Minibatch, cfg: Config, sides: Sides = NO_SIDES) -> RoiSample:
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

    def drawn(self, rois: Tensor, labels: Tensor, sides: Sides = NO_SIDES) -> tuple[MatchedProposals, Tensor]:
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
        found = match_network_boxes(to_sides(rois[:, 1:], sides), self.objects, self.scale)
        rows, in_role = roles(found)
        may_be_drawn = torch.zeros(len(rois), dtype=torch.bool)
        if not self.all_known:
            may_be_drawn[rows[in_role == labels[rows]]] = True
        rows, in_role = roles(self.known)
        candidates = network_rois(self.known.boxes, self.index, self.scale)[rows]
        pairs = pair_boxes(candidates.numpy(), in_role.numpy(), rois.numpy(), labels.numpy(), SAME_ROI)
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


def _unproposed(recorded: RoiSample, proposals: Tensor, minibatch: Minibatch, cfg: Config) -> int:
    """How many RoIs are neither gt boxes nor among the proposals; 0 for no more than `MOST_UNPROPOSED` of them."""
    rois = recorded.rois if recorded.keypoints is None else torch.cat((recorded.rois, recorded.keypoints.rois))
    count = 0
    for image in _images(minibatch, cfg):
        gt_boxes = network_rois(image.known.boxes, image.index, image.scale)
        drawn, ours = (part[part[:, 0] == image.index, 1:] for part in (rois, torch.cat((gt_boxes, proposals))))
        distance = torch.cdist(drawn, ours, p=float("inf")).amin(dim=1)
        count += int((distance > PARTNER_DISTANCE).sum())
    return count if count > math.ceil(MOST_UNPROPOSED * len(rois)) else 0
