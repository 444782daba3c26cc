"""What chooses the anchors and RoIs that a minibatch is trained on: Detectron's random draws, or a recorded choice."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.ground_truth import GroundTruth
from detectron_gn.mrcnn.data.minibatch import Minibatch, sampling_seed
from detectron_gn.mrcnn.ops.proposals import ImInfo
from detectron_gn.mrcnn.training.anchor_targets import AnchorField, AnchorSample, sample_anchors
from detectron_gn.mrcnn.training.dense_targets import DenseField, DenseTargets, label_anchors
from detectron_gn.mrcnn.training.roi_targets import RoiSample, join_samples, moved, sample_matched, sample_rois


class Sampler(Protocol):
    """What chooses the anchors and RoIs that a minibatch is trained on."""

    def anchors(self, field: AnchorField, minibatch: Minibatch) -> Sequence[AnchorSample]:
        """The RPN's anchors of each image."""
        ...

    def dense(self, field: DenseField, minibatch: Minibatch) -> Sequence[DenseTargets]:
        """What RetinaNet's anchors of each image are trained towards."""
        ...

    def rois(self, proposals: Tensor | None, minibatch: Minibatch) -> RoiSample:
        """The RoIs of the minibatch, from the proposals `[P, 5]` of all its images, or, without any, from its own."""
        ...


class RandomSampler:
    """Detectron's sampling, with its randomness from one generator on the device that it samples on."""

    def __init__(self, cfg: Config, device: torch.device, seed: int) -> None:
        self._cfg, self._device, self._seed = cfg, device, seed
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

    def rois(self, proposals: Tensor | None, minibatch: Minibatch) -> RoiSample:
        """Drawn image by image by `sample_rois`, or by `sample_matched` from proposals of files.

        The latter are drawn on the host, so that a loader can know what will be drawn (`has_enough_keypoints`).
        """
        images = list(enumerate(zip(minibatch.ground_truth, minibatch.im_info, strict=True)))
        if proposals is not None:
            return join_samples(
                [
                    sample_rois(
                        proposals[proposals[:, 0] == index, 1:],
                        objects,
                        index,
                        im_info.scale,
                        self._cfg,
                        self._generator,
                    )
                    for index, (objects, im_info) in images
                ]
            )
        assert minibatch.proposals is not None
        generator = torch.Generator().manual_seed(self._seed)
        samples = [
            sample_matched(minibatch.proposals[index], objects, index, im_info.scale, self._cfg, generator)
            for index, (objects, im_info) in images
        ]
        return moved(join_samples(samples), self._device)


def has_enough_keypoints(minibatch: Minibatch, cfg: Config) -> bool:
    """Whether a model on proposals from files is trained on a minibatch: always, but for one of few visible keypoints.

    Of keypoints there must be more than `cfg.KRCNN.MIN_KEYPOINT_COUNT_FOR_VALID_MINIBATCH`. Where the proposals come
    from an RPN they are not known in time, and Detectron trains on every minibatch (roi_data/loader.py:
    get_next_minibatch, roi_data/keypoint_rcnn.py:finalize_keypoint_minibatch, roi_data/rpn.py:add_rpn_blobs).
    """
    if minibatch.proposals is None or not cfg.MODEL.KEYPOINTS_ON:
        return True
    sampler = RandomSampler(cfg, torch.device("cpu"), sampling_seed(cfg.RNG_SEED, minibatch.number))
    keypoints = sampler.rois(None, minibatch).keypoints
    assert keypoints is not None
    return int(keypoints.visible.sum()) > cfg.KRCNN.MIN_KEYPOINT_COUNT_FOR_VALID_MINIBATCH


def network_boxes(objects: GroundTruth, im_info: ImInfo, device: torch.device) -> Tensor:
    """The gt boxes `[G, 4]` that are no crowds, in network pixels; scaled in float32."""
    return (torch.from_numpy(objects.boxes[~objects.is_crowd]) * im_info.scale).to(device)
