"""How the anchors and RoIs that are trained on, and their targets, compare with Detectron's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.ops.pairs import Pairs, pair_boxes
from detectron_gn.mrcnn.training.anchor_targets import AnchorField, AnchorSample
from detectron_gn.mrcnn.training.dense_targets import DenseField, DenseTargets
from detectron_gn.mrcnn.training.keypoint_targets import KeypointSample
from detectron_gn.mrcnn.training.roi_targets import MaskSample, RoiSample
from detectron_gn.verify.parity.training_samples import RecordingSampler, ReferenceSampler

# RoIs are the same when their corners agree to this, in network pixels.
ROI_TOLERANCE = 0.05
# Box targets are the same to this, and what moves a RoI's corners by a part of its side moves them by some tens of it.
BOX_TARGET_TOLERANCE = 1e-3
_TARGET_PER_SIDE = 50
# As float32, a sum over the images of a minibatch is the same to this.
_NUMBER_ROUNDING = 2.0**-22


@dataclass(frozen=True)
class SampleParity:
    """How the sampled targets of an iteration compare with Detectron's, as sets.

    Attributes:
        anchors, reference_anchors: anchors trained on; `different_anchors` have another label or box target, or are on
            one side only. RetinaNet's are those on the maps, and a number of the minibatch (`retnet_fg_num`,
            `retnet_bg_num`) that is another one counts as one more.
        rois, reference_rois: RoIs trained on; `different_rois` have no partner of the same image, box and label, or
            one with other box targets.
        box_target_error: largest difference of a box target of an anchor or RoI.
        masks, different_masks: mask targets, and those that differ in a pixel or in their class.
        keypoints, different_keypoints: RoIs whose keypoints are trained on, and those that have no partner or differ
            from it in the place of a keypoint, or in whether it counts.
        are_given: whether they were drawn by lot, so that Detectron's are trained on. Then those on this side are the
            same with the labels and targets that our rules give them.
        unproposed: RoIs that are given and that our RPN does not propose. Rounding decides what suppresses what, and so
            moves one of some hundreds: up to a hundredth of them, rounded up, counts as none.
        miscounted: by how many more or fewer RoIs are given than our drawing takes from what our RPN proposes; as many
            may be by rounding.
        classes: the (ours, theirs) that there are among the classes of an object's RoI or, of a RetinaNet, anchor.
    """

    anchors: int
    reference_anchors: int
    different_anchors: int
    rois: int
    reference_rois: int
    different_rois: int
    box_target_error: float
    masks: int
    different_masks: int
    keypoints: int = 0
    different_keypoints: int = 0
    are_given: bool = False
    unproposed: int = 0
    miscounted: int = 0
    classes: frozenset[tuple[int, int]] = frozenset()

    @property
    def different(self) -> int:
        """How many anchors, RoIs, masks and keypoints differ."""
        return self.different_anchors + self.different_proposed + self.unproposed + self.miscounted

    @property
    def different_proposed(self) -> int:
        """How many RoIs, masks and keypoints differ, which come from what the network proposes."""
        return self.different_rois + self.different_masks + self.different_keypoints


def compare_samples(
    ours: RecordingSampler,
    reference: ReferenceSampler,
    field: AnchorField,
    minibatch: Minibatch,
    *,
    anchors_too: bool,
) -> SampleParity:
    """Compare what was drawn here with what Detectron drew, of what the network is trained on.

    Args:
        field: of the RPN.
        anchors_too: whether the reference holds the RPN's anchors.
    """
    parity = SampleParity(0, 0, 0, 0, 0, 0, 0.0, 0, 0)
    if ours.dense_field is not None:
        parity = _compare_dense(ours.drawn_dense, reference, ours.dense_field)
    if anchors_too:
        parity = compare_anchors(ours.drawn_anchors, reference.anchors(field, minibatch), len(field.anchors))
    if ours.drawn_rois is not None:
        parity = with_rois(parity, ours.drawn_rois, reference.rois(None, minibatch))
    return parity


def compare_anchors(ours: Sequence[AnchorSample], reference: Sequence[AnchorSample], size: int) -> SampleParity:
    """Compare the anchors of an RPN, from a field of `size`, image by image."""
    box_error = 0.0
    anchors = reference_anchors = different_anchors = 0
    for mine, theirs in zip(ours, reference, strict=True):
        my_labels, their_labels = (_label_map(sample, size) for sample in (mine, theirs))
        anchors, reference_anchors = anchors + len(mine.anchors), reference_anchors + len(theirs.anchors)
        different_anchors += int((my_labels != their_labels).sum())
        objects = (my_labels == 1) & (their_labels == 1)
        errors = (_target_map(mine, size) - _target_map(theirs, size))[objects].abs().amax(dim=1)
        different_anchors += int((errors > BOX_TARGET_TOLERANCE).sum())
        box_error = max([box_error, *errors.tolist()])
    return SampleParity(anchors, reference_anchors, different_anchors, 0, 0, 0, box_error, 0, 0)


def _compare_dense(ours: Sequence[DenseTargets], reference: ReferenceSampler, field: DenseField) -> SampleParity:
    """Compare RetinaNet's anchors: labels on the maps, objects and their boxes on the whole field, and the numbers."""
    expected, shapes = reference.dense_on_maps(field)
    box_error = 0.0
    anchors = reference_anchors = different = 0
    classes: set[tuple[int, int]] = set()
    for mine, theirs in zip(ours, expected, strict=True):
        for my_map, their_map, (height, width) in zip(field.maps(mine.labels), field.maps(theirs.labels), shapes):
            my_labels, their_labels = my_map[:, :height, :width], their_map[:, :height, :width]
            anchors += int((my_labels >= 0).sum())
            reference_anchors += int((their_labels >= 0).sum())
            different += int((my_labels != their_labels).sum())
            classes |= _classes(my_labels, their_labels)
        if torch.equal(mine.objects, theirs.objects):
            errors = (mine.box_targets - theirs.box_targets).abs().amax(dim=1)
            different += int((errors > BOX_TARGET_TOLERANCE).sum())
            box_error = max([box_error, *errors.tolist()])
        else:
            different += len(set(mine.objects.tolist()) ^ set(theirs.objects.tolist()))
    for kind in ("fg_num", "bg_num"):
        number, theirs_of_it = (sum(float(getattr(image, kind)) for image in side) for side in (ours, expected))
        different += not math.isclose(number, theirs_of_it, rel_tol=_NUMBER_ROUNDING)
    parity = SampleParity(anchors, reference_anchors, different, 0, 0, 0, box_error, 0, 0)
    return replace(parity, classes=frozenset(classes))


def with_rois(parity: SampleParity, drawn: RoiSample, expected: RoiSample) -> SampleParity:
    """The comparison with that of the RoIs and masks beside it."""
    pairs = _pair_rois(drawn.rois, drawn.labels, expected.rois, expected.labels)
    targets = (drawn.box_targets[pairs[:, 0]] - expected.box_targets[pairs[:, 1]]).abs()
    box_error = max(parity.box_target_error, float(targets.max()) if len(pairs) else 0.0)
    equal_rois = int(are_equal_targets(drawn, expected, pairs).sum())
    places = _pair_rois(drawn.rois, drawn.labels > 0, expected.rois, expected.labels > 0)
    masks = different_masks = 0
    if drawn.masks is not None and expected.masks is not None:
        ours, theirs = drawn.masks, expected.masks
        mask_pairs = _pair_rois(_trained_boxes(ours), ours.classes, _trained_boxes(theirs), theirs.classes)
        ours_of_pair, theirs_of_pair = drawn.masks.targets[mask_pairs[:, 0]], expected.masks.targets[mask_pairs[:, 1]]
        equal = int((ours_of_pair == theirs_of_pair).flatten(1).all(dim=1).sum())
        masks = len(drawn.masks.targets)
        different_masks = max(masks, len(expected.masks.targets)) - equal
    keypoints = different_keypoints = 0
    if drawn.keypoints is not None and expected.keypoints is not None:
        keypoints = len(drawn.keypoints.rois)
        equal = _equal_keypoints(drawn.keypoints, expected.keypoints)
        different_keypoints = max(keypoints, len(expected.keypoints.rois)) - equal
    return replace(
        parity,
        rois=len(drawn.rois),
        reference_rois=len(expected.rois),
        different_rois=max(len(drawn.rois), len(expected.rois)) - equal_rois,
        box_target_error=box_error,
        masks=masks,
        different_masks=different_masks,
        keypoints=keypoints,
        different_keypoints=different_keypoints,
        classes=frozenset(_classes(drawn.labels[places[:, 0]], expected.labels[places[:, 1]])),
    )


def are_equal_targets(drawn: RoiSample, expected: RoiSample, pairs: Pairs) -> Tensor:
    """Of pairs of RoIs `[P]`, whether the same outputs are trained, on one box but for what their corners differ."""
    ours, theirs = pairs[:, 0], pairs[:, 1]
    moved_by = (drawn.rois[ours] - expected.rois[theirs]).abs().amax(dim=1)
    corners = expected.rois[theirs, 1:]
    sides = (corners[:, 2:] - corners[:, :2]).amin(dim=1).clamp(min=1)
    tolerance = BOX_TARGET_TOLERANCE + _TARGET_PER_SIDE * moved_by / sides
    errors = (drawn.box_targets[ours] - expected.box_targets[theirs]).abs().amax(dim=1)
    return (errors <= tolerance) & (drawn.box_classes[ours] == expected.box_classes[theirs])


def _trained_boxes(masks: MaskSample) -> Tensor:
    """The RoIs `[Q, 5]` with masks; only the image of one that is lent by the background, which stands there by lot."""
    corners = masks.rois[:, 1:].where(masks.classes[:, None] > 0, 0.0)
    return torch.cat((masks.rois[:, :1], corners), dim=1)


def _equal_keypoints(drawn: KeypointSample, expected: KeypointSample) -> int:
    """How many RoIs have a partner with the same keypoints in the same places."""
    same = torch.zeros(len(drawn.rois)), torch.zeros(len(expected.rois))
    pairs = _pair_rois(drawn.rois, same[0], expected.rois, same[1])
    positions = drawn.positions[pairs[:, 0]] == expected.positions[pairs[:, 1]]
    visible = drawn.visible[pairs[:, 0]] == expected.visible[pairs[:, 1]]
    return int((positions & visible).all(dim=1).sum())


def _pair_rois(rois: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor) -> Pairs:
    """Pairs `[P, 2]` of RoIs of one image and label whose corners agree."""
    boxes, box_labels, other_boxes, others_labels = (t.cpu().numpy() for t in (rois, labels, others, other_labels))
    return pair_boxes(boxes, box_labels, other_boxes, others_labels, ROI_TOLERANCE)


def _classes(labels: Tensor, others: Tensor) -> set[tuple[int, int]]:
    """The pairs of classes that there are where both are an object's."""
    are_objects = (labels > 0) & (others > 0)
    return set(zip(labels[are_objects].tolist(), others[are_objects].tolist(), strict=True))


def _label_map(sample: AnchorSample, size: int) -> Tensor:
    labels = sample.labels.new_full((size,), -1)
    labels[sample.anchors] = sample.labels
    return labels


def _target_map(sample: AnchorSample, size: int) -> Tensor:
    targets = sample.box_targets.new_zeros((size, 4))
    targets[sample.anchors] = sample.box_targets
    return targets
