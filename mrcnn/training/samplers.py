"""What chooses the anchors and RoIs that a minibatch is trained on: Detectron's random draws, or a recorded choice."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.training.anchor_targets import AnchorField, AnchorSample, sample_anchors
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
    """Detectron's sampling, with its randomness from one generator on the device that it samples on."""

    def __init__(self, cfg: Config, device: torch.device, seed: int) -> None:
        self._cfg = cfg
        self._generator = torch.Generator(device).manual_seed(seed)

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
