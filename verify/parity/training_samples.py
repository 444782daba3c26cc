"""The anchors and RoIs that an iteration of training is run on: Detectron's own, and how ours compare with them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.training.anchor_targets import AnchorField, AnchorSample
from detectron_gn.mrcnn.training.roi_targets import MaskSample, RoiSample
from detectron_gn.mrcnn.training.samplers import Sampler
from detectron_gn.verify.parity.matching import Pairs, pair_boxes
from detectron_gn.verify.reference.training_trace import TraceIteration

# RoIs are the same when their corners agree to this, in network pixels.
ROI_TOLERANCE = 0.05


@dataclass(frozen=True)
class SampleParity:
    """How the sampled targets of an iteration compare with Detectron's, as sets.

    Attributes:
        anchors, reference_anchors: anchors trained on; `different_anchors` have another label or are on one side only.
        rois, reference_rois: RoIs trained on; `different_rois` have no partner of the same image, box and label.
        box_target_error: largest difference of a box target of an anchor or RoI.
        masks, different_masks: mask targets, and those that differ in a pixel or in their class.
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

    @property
    def different(self) -> int:
        """How many anchors, RoIs and masks differ."""
        return self.different_anchors + self.different_rois + self.different_masks


class ReferenceSampler:
    """The anchors and RoIs that Detectron drew in one iteration of the reference."""

    def __init__(self, iteration: TraceIteration, cfg: Config, device: torch.device) -> None:
        self._iteration, self._cfg, self._device = iteration, cfg, device

    def anchors(self, field: AnchorField, minibatch: Minibatch) -> list[AnchorSample]:
        """Those of each image."""
        samples = self._iteration.anchors(self._cfg, len(field.anchors))
        return [AnchorSample(*(part.to(self._device) for part in sample)) for sample in samples]

    def rois(self, proposals: Tensor, minibatch: Minibatch) -> RoiSample:
        """Those of the minibatch, whatever is proposed."""
        sample, device = self._iteration.rois(self._cfg), self._device
        masks = None if sample.masks is None else MaskSample(*(part.to(device) for part in sample.masks))
        rois, labels, box_classes, box_targets = (part.to(device) for part in sample[:4])
        return RoiSample(rois, labels, box_classes, box_targets, masks)


class RecordingSampler:
    """A sampler that remembers what it drew, but has the heads trained on the reference's RoIs.

    Of two proposals whose scores tie the other one may be cut off; that shows in the comparison, and ends with it.
    """

    def __init__(self, sampler: Sampler, reference: ReferenceSampler) -> None:
        self._sampler, self._reference = sampler, reference
        self.drawn_anchors: Sequence[AnchorSample] = ()
        self.drawn_rois: RoiSample | None = None

    def anchors(self, field: AnchorField, minibatch: Minibatch) -> Sequence[AnchorSample]:
        """Those that were drawn here."""
        self.drawn_anchors = self._sampler.anchors(field, minibatch)
        return self.drawn_anchors

    def rois(self, proposals: Tensor, minibatch: Minibatch) -> RoiSample:
        """The reference's."""
        self.drawn_rois = self._sampler.rois(proposals, minibatch)
        return self._reference.rois(proposals, minibatch)


def is_exhaustive(cfg: Config, field: AnchorField) -> bool:
    """Whether a configuration trains on every anchor and RoI there is, so that nothing is random."""
    train = cfg.TRAIN
    every_anchor = train.RPN_BATCH_SIZE_PER_IM * train.RPN_FG_FRACTION >= len(field.anchors)
    return every_anchor and train.BATCH_SIZE_PER_IM * train.FG_FRACTION >= 2 * train.RPN_POST_NMS_TOP_N


def compare_samples(
    ours: RecordingSampler,
    reference: ReferenceSampler,
    field: AnchorField,
    minibatch: Minibatch,
    *,
    anchors_too: bool,
) -> SampleParity:
    """Compare what was drawn here with what Detectron drew.

    Args:
        anchors_too: whether the reference holds the anchors.
    """
    box_error = 0.0
    anchors = reference_anchors = different_anchors = 0
    if anchors_too:
        for mine, theirs in zip(ours.drawn_anchors, reference.anchors(field, minibatch), strict=True):
            my_labels, their_labels = (_label_map(sample, len(field.anchors)) for sample in (mine, theirs))
            anchors, reference_anchors = anchors + len(mine.anchors), reference_anchors + len(theirs.anchors)
            different_anchors += int((my_labels != their_labels).sum())
            if torch.equal(mine.anchors, theirs.anchors) and bool((theirs.labels == 1).any()):
                objects = theirs.labels == 1
                box_error = max(box_error, float((mine.box_targets - theirs.box_targets)[objects].abs().max()))
    drawn, expected = ours.drawn_rois, reference.rois(torch.empty(0), minibatch)
    assert drawn is not None
    pairs = _pair_rois(drawn.rois, drawn.labels, expected.rois, expected.labels)
    targets = (drawn.box_targets[pairs[:, 0]] - expected.box_targets[pairs[:, 1]]).abs()
    box_error = max(box_error, float(targets.max()) if len(pairs) else 0.0)
    masks = different_masks = 0
    if drawn.masks is not None and expected.masks is not None:
        mask_pairs = _pair_rois(drawn.masks.rois, drawn.masks.classes, expected.masks.rois, expected.masks.classes)
        ours_of_pair, theirs_of_pair = drawn.masks.targets[mask_pairs[:, 0]], expected.masks.targets[mask_pairs[:, 1]]
        equal = int((ours_of_pair == theirs_of_pair).flatten(1).all(dim=1).sum())
        masks = len(drawn.masks.targets)
        different_masks = max(masks, len(expected.masks.targets)) - equal
    return SampleParity(
        anchors,
        reference_anchors,
        different_anchors,
        len(drawn.rois),
        len(expected.rois),
        max(len(drawn.rois), len(expected.rois)) - len(pairs),
        box_error,
        masks,
        different_masks,
    )


def _pair_rois(rois: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor) -> Pairs:
    """Pairs `[P, 2]` of RoIs of one image and label whose corners agree."""
    boxes, box_labels, other_boxes, others_labels = (t.cpu().numpy() for t in (rois, labels, others, other_labels))
    return pair_boxes(boxes, box_labels, other_boxes, others_labels, ROI_TOLERANCE)


def _label_map(sample: AnchorSample, size: int) -> Tensor:
    labels = sample.labels.new_full((size,), -1)
    labels[sample.anchors] = sample.labels
    return labels
