"""The network with its losses, as one GPU trains it; answers to Detectron modeling/model_builder.py."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.detectors.generalized_rcnn import MaskRCNN
from detectron_gn.mrcnn.ops.proposals import collect_proposals
from detectron_gn.mrcnn.training.anchor_targets import AnchorField, AnchorSample, sample_anchors
from detectron_gn.mrcnn.training.losses import accuracy_cls, fast_rcnn_losses, mask_loss, rpn_losses
from detectron_gn.mrcnn.training.roi_targets import RoiSample, join_samples, sample_rois


class Sampler(Protocol):
    """What chooses the anchors and RoIs that a minibatch is trained on."""

    def anchors(self, field: AnchorField, minibatch: Minibatch) -> Sequence[AnchorSample]:
        """The anchors of each image."""
        ...

    def rois(self, proposals: Tensor, minibatch: Minibatch) -> RoiSample:
        """The RoIs of the minibatch, from the proposals `[P, 5]` of all its images."""
        ...


class RandomSampler:
    """Detectron's sampling, with its randomness from one generator on the model's device."""

    def __init__(self, model: MaskRCNN, seed: int) -> None:
        self._cfg = model.cfg
        self._generator = torch.Generator(model.device).manual_seed(seed)

    def anchors(self, field: AnchorField, minibatch: Minibatch) -> list[AnchorSample]:
        """Drawn by `sample_anchors`; gt boxes are scaled in float32."""
        samples = []
        for objects, im_info in zip(minibatch.ground_truth, minibatch.im_info, strict=True):
            gt_boxes = torch.from_numpy(objects.boxes[~objects.is_crowd]) * im_info.scale
            gt_boxes = gt_boxes.to(field.anchors.device)
            samples.append(sample_anchors(field.anchors, gt_boxes, im_info, self._cfg, self._generator))
        return samples

    def rois(self, proposals: Tensor, minibatch: Minibatch) -> RoiSample:
        """Drawn image by image by `sample_rois`."""
        return join_samples(
            [
                sample_rois(
                    proposals[proposals[:, 0] == index, 1:], objects, index, im_info.scale, self._cfg, self._generator
                )
                for index, (objects, im_info) in enumerate(zip(minibatch.ground_truth, minibatch.im_info, strict=True))
            ]
        )


def recompute_activations(model: MaskRCNN) -> None:
    """Keep only the outputs of the backbone's stages for the backward pass and compute what is within them again.

    That saves most of the memory of a training step for a third more time in the backbone; the numbers are the same.
    """
    for stage in model.backbone.children():
        if isinstance(stage, nn.Sequential):
            stage.forward = partial(checkpoint, stage.forward, use_reentrant=False)  # type: ignore[method-assign]


class TrainingNetwork(nn.Module):
    """A Mask R-CNN whose forward pass ends in losses."""

    def __init__(self, model: MaskRCNN) -> None:
        super().__init__()
        self.model = model
        self.cfg = model.cfg
        self._field = AnchorField(model.cfg, model.device)

    def forward(self, minibatch: Minibatch, sampler: Sampler) -> dict[str, Tensor]:
        """The losses of a minibatch, as Detectron names them, and the metric `accuracy_cls`; none of them summed.

        Proposals are collected over all images of the minibatch, of which the best
        `cfg.TRAIN.RPN_POST_NMS_TOP_N` stay, so an image may take more than its share
        (Detectron ops/collect_and_distribute_fpn_rpn_proposals.py:collect).
        """
        model, train = self.model, self.cfg.TRAIN
        data = minibatch.data.to(model.device, non_blocking=True)
        levels = model.features(data)
        # Boxes and losses are in float32 whatever the network computed in.
        rpn_outputs = [(logits.float(), deltas.float()) for logits, deltas in model.rpn(levels)]
        outputs = rpn_losses(rpn_outputs, sampler.anchors(self._field, minibatch), self._field, self.cfg)
        with torch.no_grad():
            parts = [
                part
                for index, im_info in enumerate(minibatch.im_info)
                for part in model.image_proposals(rpn_outputs, index, im_info, train)
            ]
            sample = sampler.rois(collect_proposals(parts, train.RPN_POST_NMS_TOP_N).rois, minibatch)
        cls_score, bbox_pred = model.box_outputs(levels, sample.rois)
        outputs |= fast_rcnn_losses(cls_score, bbox_pred, sample, self.cfg)
        outputs |= mask_loss(model.mask_outputs(levels, sample.mask_rois, sample.mask_classes), sample, self.cfg)
        outputs["accuracy_cls"] = accuracy_cls(cls_score, sample)
        return outputs
