"""An RPN by itself: proposals and nothing else; answers to Detectron core/rpn_generator.py."""

import torch
from torch import Tensor

from detectron_gn.mrcnn.backbones import build_backbone
from detectron_gn.mrcnn.config import Config, refuse_training
from detectron_gn.mrcnn.data.any_image import AnyImage, as_image
from detectron_gn.mrcnn.data.categories import PROPOSALS
from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.detectors.detector import Detector
from detectron_gn.mrcnn.detectors.proposed import proposed
from detectron_gn.mrcnn.heads.rpn import RPN
from detectron_gn.mrcnn.inference.network_input import NetworkInput
from detectron_gn.mrcnn.structures import Detections
from detectron_gn.mrcnn.training.samplers import Sampler


class ProposalNetwork(Detector):
    """A backbone and an RPN (`cfg.MODEL.RPN_ONLY`)."""

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self.backbone = build_backbone(cfg)
        self.rpn = RPN(cfg, self.backbone.dim, self.backbone.strides)

    @property
    def classes(self) -> tuple[str, ...]:
        """`__background__` and `proposal`, whatever classes the proposals are made for."""
        return PROPOSALS.classes

    @torch.inference_mode()
    def proposals(self, image: AnyImage) -> tuple[Tensor, Tensor]:
        """The boxes and scores of `detect`, as tensors on the network's device."""
        return proposed(self, self.rpn, as_image(image))

    @torch.inference_mode()
    def detect_dynamic(self, batch: NetworkInput) -> list[Detections]:
        """The proposals of each image, best first: boxes in image pixels, not clipped to the image, all of class 1.

        They are clipped to the padded image before they are scaled back (Detectron core/rpn_generator.py:im_proposals).
        """
        found = []
        with self.products():
            features = self.features(batch.data)
            outputs = self.rpn(features)
            for index, (size, info) in enumerate(zip(batch.image_sizes, batch.im_info, strict=True)):
                rois, scores = self.rpn.collected(outputs, features.strides, index, info)
                classes = torch.ones_like(scores, dtype=torch.long)
                boxes = rois[:, 1:] / info.scale
                found.append(Detections.from_tensors(boxes, scores, classes, None, size, self.cfg))
        return found

    def losses(self, minibatch: Minibatch, sampler: Sampler) -> dict[str, Tensor]:
        """The losses of a minibatch, as Detectron names them, none of them summed; nothing is proposed."""
        refuse_training(self.cfg)
        with self.products():
            features = self.features(minibatch.data.to(self.device, non_blocking=True))
            # Losses are in float32 whatever the network computed in.
            outputs = [(logits.float(), deltas.float()) for logits, deltas in self.rpn(features)]
            return self.rpn.losses(outputs, sampler.anchors(self.rpn.training_anchors(), minibatch))
