"""What chooses the anchors and RoIs that a minibatch is trained on: Detectron's random draws, or a recorded choice."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.data.roidb import GroundTruth
from detectron_gn.mrcnn.ops.proposals import ImInfo
from detectron_gn.mrcnn.training.anchor_targets import AnchorField, AnchorSample, sample_anchors
from detectron_gn.mrcnn.training.dense_targets import DenseField, DenseTargets, label_anchors
from detectron_gn.mrcnn.training.roi_targets import RoiSample, join_samples, sample_rois


class Sampler(Protocol):
    """What chooses the anchors and RoIs that a minibatch is trained on."""

    def anchors(self, field: AnchorField, minibatch: Minibatch) -> Sequence[AnchorSample]:
        """The RPN's anchors of each image."""
        ...

    def dense(self, field: DenseField, minibatch: Minibatch) -> Sequence[DenseTargets]:
        """What RetinaNet's anchors of each image are trained towards."""
        ...

    def rois(self, proposals: Tensor, minibatch: Minibatch) -> RoiSample:
        """The RoIs of the minibatch, from the proposals `[P, 5]` of all its images."""
        ...


class RandomSampler:
    """Detectron's sampling, with its randomness from one generator on the device that it samples on."""

    def __init__(self, cfg: Config, device: torch.device, seed: int) -> None:
        self._cfg = cfg
        self._generator = torch.Generator(device).manual_seed(seed)

    def anchors(self, field: AnchorField, minibatch: Minibatch) -> list[AnchorSample]:
        """Drawn by `sample_anchors`."""
        return [
            sample_anchors(
                field.anchors,
                network_boxes(objects, im_info, field.anchors.device),
                im_info,
                self._cfg,
                self._generator,
            )
            for objects, im_info in zip(minibatch.ground_truth, minibatch.im_info, strict=True)
        ]

    def dense(self, field: DenseField, minibatch: Minibatch) -> list[DenseTargets]:
        """Labelled by `label_anchors`; nothing is random."""
        device, targets = field.anchors.device, []
        for objects, im_info in zip(minibatch.ground_truth, minibatch.im_info, strict=True):
            classes = torch.from_numpy(objects.classes[~objects.is_crowd]).to(device)
            targets.append(label_anchors(field, network_boxes(objects, im_info, device), classes, self._cfg))
        return targets

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


def network_boxes(objects: GroundTruth, im_info: ImInfo, device: torch.device) -> Tensor:
    """The gt boxes `[G, 4]` that are no crowds, in network pixels; scaled in float32."""
    return (torch.from_numpy(objects.boxes[~objects.is_crowd]) * im_info.scale).to(device)
