"""RetinaNet: objects straight from the feature maps, without proposals.

Answers to Detectron modeling/model_builder.py:build_generic_retinanet_model and core/test_retinanet.py:im_detect_bbox.
"""

import torch
from torch import Tensor

from detectron_gn.mrcnn.backbones.fpn import PyramidBackbone
from detectron_gn.mrcnn.config import Config, refuse_training
from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.detectors.detector import Detector
from detectron_gn.mrcnn.heads.retinanet import LevelOutputs, RetinaNetHead
from detectron_gn.mrcnn.inference.dense_detections import dense_detections, level_candidates
from detectron_gn.mrcnn.inference.network_input import NetworkInput
from detectron_gn.mrcnn.ops.anchors import retinanet_anchors
from detectron_gn.mrcnn.structures import Detections, Features
from detectron_gn.mrcnn.training.samplers import Sampler


class RetinaNet(Detector):
    """A backbone and one head for the pyramid's levels, filled as Caffe2 fills them."""

    backbone: PyramidBackbone

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self.backbone = PyramidBackbone(cfg)
        self.head = RetinaNetHead(cfg)
        self.levels = range(cfg.FPN.RPN_MIN_LEVEL, cfg.FPN.RPN_MAX_LEVEL + 1)
        # Constants of the configuration, not state: they follow the model's device, not its checkpoints.
        for level, anchors in zip(self.levels, retinanet_anchors(cfg), strict=True):
            self.register_buffer(f"anchors_fpn{level}", anchors, persistent=False)

    @torch.inference_mode()
    def detect_dynamic(self, batch: NetworkInput) -> list[Detections]:
        """The objects in a batch, step by step with as many boxes as there are."""
        features = self.features(batch.data)
        with self.products():
            outputs = self.head(features)
        return [
            self._detections_of(index, outputs, features, size, info.scale)
            for index, (size, info) in enumerate(zip(batch.image_sizes, batch.im_info, strict=True))
        ]

    def _detections_of(
        self, index: int, outputs: list[LevelOutputs], features: Features, size: tuple[int, int], scale: float
    ) -> Detections:
        """The objects in one image of the batch.

        The coarsest level takes every score above 0, so that there is always a candidate
        (Detectron core/test_retinanet.py:im_detect_bbox).
        """
        candidates = []
        for level, stride, (cls_pred, bbox_pred) in zip(self.levels, features.strides, outputs, strict=True):
            height, width = cls_pred.shape[2:]
            probabilities = self.head.probabilities(cls_pred[index : index + 1])
            probabilities = probabilities.reshape(self.head.num_anchors, -1, height, width)
            threshold = 0.0 if level == self.levels[-1] else self.cfg.RETINANET.INFERENCE_TH
            candidates.append(
                level_candidates(
                    probabilities[:, 1:] if self.head.softmax else probabilities,
                    bbox_pred[index].float().reshape(self.head.num_anchors, -1, 4, height, width),
                    self.get_buffer(f"anchors_fpn{level}"),
                    stride,
                    scale,
                    size,
                    threshold,
                    self.cfg,
                )
            )
        return Detections.from_tensors(*dense_detections(candidates, self.cfg), None, size, self.cfg)

    def losses(self, minibatch: Minibatch, sampler: Sampler) -> dict[str, Tensor]:
        """The losses of a minibatch, as Detectron names them, and two metrics; none of them summed."""
        refuse_training(self.cfg)
        targets = sampler.dense(self.head.training_anchors(), minibatch)
        with self.products():
            features = self.features(minibatch.data.to(self.device, non_blocking=True))
            return self.head.losses(self.head(features), targets)
