"""The anchors and RoIs that an iteration of training is run on: drawn here, or Detectron's own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.training.anchor_targets import AnchorField, AnchorSample, is_drawn_whole
from detectron_gn.mrcnn.training.dense_targets import DenseField, DenseTargets
from detectron_gn.mrcnn.training.roi_targets import RoiSample, moved
from detectron_gn.mrcnn.training.samplers import Sampler, network_boxes
from detectron_gn.verify.reference.training_trace import TraceIteration


class ReferenceSampler:
    """The anchors and RoIs that Detectron drew in one iteration of the reference."""

    def __init__(self, iteration: TraceIteration, cfg: Config, device: torch.device) -> None:
        self._iteration, self._cfg, self._device = iteration, cfg, device

    def anchors(self, field: AnchorField, minibatch: Minibatch) -> list[AnchorSample]:
        """Those of each image."""
        samples = self._iteration.anchors(self._cfg, len(field.anchors))
        return [AnchorSample(*(part.to(self._device) for part in sample)) for sample in samples]

    def dense(self, field: DenseField, minibatch: Minibatch) -> list[DenseTargets]:
        """Those of each image, as far as the reference holds them: on the maps."""
        return self.dense_on_maps(field)[0]

    def dense_on_maps(self, field: DenseField) -> tuple[list[DenseTargets], list[tuple[int, ...]]]:
        """Those of each image, and the (height, width) of each level's map."""
        targets, shapes = self._iteration.dense(self._cfg, field)
        return [DenseTargets(*(part.to(self._device) for part in image)) for image in targets], shapes

    def rois(self, proposals: Tensor | None, minibatch: Minibatch) -> RoiSample:
        """Those of the minibatch, whatever is proposed."""
        return moved(self._iteration.rois(self._cfg), self._device)


class RecordingSampler:
    """A sampler that remembers what it drew, but has the heads trained on the reference's RoIs.

    Of two proposals whose scores tie the other one may be cut off; that shows in the comparison, and ends with it.
    """

    def __init__(self, sampler: Sampler, reference: ReferenceSampler) -> None:
        self._sampler, self._reference = sampler, reference
        self.drawn_anchors: Sequence[AnchorSample] = ()
        self.drawn_dense: Sequence[DenseTargets] = ()
        self.dense_field: DenseField | None = None
        self.drawn_rois: RoiSample | None = None
        self.proposals: Tensor | None = None

    def anchors(self, field: AnchorField, minibatch: Minibatch) -> Sequence[AnchorSample]:
        """Those that were drawn here."""
        self.drawn_anchors = self._sampler.anchors(field, minibatch)
        return self.drawn_anchors

    def dense(self, field: DenseField, minibatch: Minibatch) -> Sequence[DenseTargets]:
        """Those that were made here."""
        self.drawn_dense, self.dense_field = self._sampler.dense(field, minibatch), field
        return self.drawn_dense

    def rois(self, proposals: Tensor | None, minibatch: Minibatch) -> RoiSample:
        """The reference's."""
        self.proposals = proposals
        self.drawn_rois = self._sampler.rois(proposals, minibatch)
        return self._reference.rois(proposals, minibatch)


def is_exhaustive(cfg: Config, field: AnchorField, minibatch: Minibatch) -> bool:
    """Whether a minibatch is trained on every anchor and RoI there is, so that nothing is random."""
    if cfg.RETINANET.RETINANET_ON:
        return True
    train = cfg.TRAIN
    sampled = train.BATCH_SIZE_PER_IM * train.FG_FRACTION
    if minibatch.proposals is not None:
        found = zip(minibatch.proposals, minibatch.ground_truth, strict=True)
        return all(sampled >= len(proposals.boxes) + len(objects.boxes) for proposals, objects in found)
    every_roi = cfg.MODEL.RPN_ONLY or sampled >= 2 * train.RPN_POST_NMS_TOP_N
    return every_roi and all(
        is_drawn_whole(field.anchors, network_boxes(objects, im_info, field.anchors.device), im_info, cfg)
        for objects, im_info in zip(minibatch.ground_truth, minibatch.im_info, strict=True)
    )
