"""Two-stage detectors: proposals from an RPN, then boxes and, where there is a mask head, masks.

Answers to Detectron modeling/model_builder.py:build_generic_detection_model and core/test.py:im_detect_all.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from detectron_gn.mrcnn.backbones.fpn import PyramidBackbone
from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.detectors.augmented import detect_augmented
from detectron_gn.mrcnn.detectors.detector import Detector
from detectron_gn.mrcnn.heads.box import BoxHead
from detectron_gn.mrcnn.heads.mask import MaskHead
from detectron_gn.mrcnn.heads.rpn import RPN
from detectron_gn.mrcnn.inference.dynamic import class_boxes, select_detections
from detectron_gn.mrcnn.inference.network_input import NetworkInput
from detectron_gn.mrcnn.inference.static_shapes import StaticDetections, static_detections, static_proposals
from detectron_gn.mrcnn.inference.tta import is_augmented
from detectron_gn.mrcnn.ops.proposals import collect_proposals
from detectron_gn.mrcnn.structures import Detections, Features
from detectron_gn.mrcnn.training.samplers import Sampler


class GeneralizedRCNN(Detector):
    """A backbone, an RPN, a box head and, with `cfg.MODEL.MASK_ON`, a mask head; filled as Caffe2 fills them."""

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self.backbone = PyramidBackbone(cfg)
        self.rpn = RPN(cfg)
        self.box_head = BoxHead(cfg)
        self.mask_head = MaskHead(cfg) if cfg.MODEL.MASK_ON else None

    @torch.inference_mode()
    def detect_dynamic(self, batch: NetworkInput) -> list[Detections]:
        """The objects in a batch, step by step with as many boxes as there are."""
        if batch.images is not None and is_augmented(self.cfg):
            return [detect_augmented(self, image) for image in batch.images]
        features = self.features(batch.data)
        return [
            self.detect_in_rois(features, rois, size, info.scale)
            for rois, size, info in zip(
                self.rois_of_images(features, batch), batch.image_sizes, batch.im_info, strict=True
            )
        ]

    def rois_of_images(self, features: Features, batch: NetworkInput) -> Iterator[Tensor]:
        """RoIs `[R, 5]` of each image of a batch, in network pixels."""
        with self.products():
            rpn_outputs = self.rpn(features)
        for index, info in enumerate(batch.im_info):
            proposals = self.rpn.proposals(rpn_outputs, features.strides, index, info, self.cfg.TEST)
            yield collect_proposals(proposals, self.cfg.TEST.RPN_POST_NMS_TOP_N).rois

    def detect_in_rois(
        self, features: Features, rois: Tensor, image_size: tuple[int, int], scale: float
    ) -> Detections:
        """Both passes of the second stage: boxes from the RoIs of one image, then masks of the boxes that stay.

        Args:
            features: of the batch.
            rois: `[R, 5]` float32 in network pixels, all of one image.
            image_size: (height, width) of the image as it was read.
            scale: network pixels per image pixel.
        """
        found = select_detections(*self.scored_boxes(features, rois, image_size, scale), self.cfg)
        mask_probs = None
        if self.mask_head is not None:
            index = int(rois[0, 0]) if len(rois) else 0
            mask_probs = self.soft_masks(features, found.boxes, found.classes, scale, image_index=index)
        return Detections.from_tensors(*found, mask_probs, image_size, self.cfg)

    def scored_boxes(
        self, features: Features, rois: Tensor, image_size: tuple[int, int], scale: float
    ) -> tuple[Tensor, Tensor]:
        """The first pass: scores `[R, K]` of `[R, 5]` RoIs, and boxes `[R, 4K]` in image pixels, none selected yet."""
        with self.products():
            cls_score, bbox_pred = self.box_head.outputs(features, rois)
        boxes = class_boxes(rois[:, 1:], bbox_pred.float(), scale, image_size, self.cfg)
        return cls_score.float().softmax(dim=1), boxes

    def soft_masks(
        self, features: Features, boxes: Tensor, classes: Tensor, scale: float, image_index: int
    ) -> Tensor:
        """The second pass: soft masks `[D, M, M]` of `[D, 4]` boxes in image pixels, for the class of each.

        The boxes are scaled in float64 and rounded to float32 afterwards (Detectron core/test.py:_project_im_rois).
        """
        assert self.mask_head is not None
        index = boxes.new_full((len(boxes), 1), image_index)
        mask_rois = torch.cat((index, (boxes.double() * scale).float()), dim=1)
        with self.products():
            return self.mask_head.probabilities(features, mask_rois, classes)

    def static_outputs(self, data: Tensor, scales: Tensor, image_sizes: Tensor) -> StaticDetections:
        """The detections of a batch and their soft masks, without the host looking at any number."""
        cfg = self.cfg
        with self.products():
            features = self.features(data)
            network_size, rounded = (data.shape[2], data.shape[3]), scales.float()
            proposals = static_proposals(
                self.rpn(features), self.rpn.anchors, features.strides, network_size, rounded, cfg
            )
            images, rois = proposals.valid.shape
            cls_score, bbox_pred = (
                output.float().view(images, rois, -1)
                for output in self.box_head.outputs(features, proposals.rois.flatten(0, 1))
            )
            height, width = (side[:, None, None] for side in image_sizes.unbind(1))
            boxes = class_boxes(proposals.rois[:, :, 1:], bbox_pred, rounded[:, None, None], (height, width), cfg)
            found = static_detections(cls_score.softmax(dim=2), boxes, proposals, cfg)
            if self.mask_head is None:
                return found
            mask_boxes = (found.boxes.double() * scales[:, None, None]).float()
            image_index = proposals.rois[:, :1, :1].expand(-1, found.boxes.shape[1], 1)
            mask_rois = torch.cat((image_index, mask_boxes), dim=2)
            probs = self.mask_head.probabilities(features, mask_rois.flatten(0, 1), found.classes.flatten())
            return found._replace(mask_probs=probs.view(*found.classes.shape, *probs.shape[1:]))

    def losses(self, minibatch: Minibatch, sampler: Sampler) -> dict[str, Tensor]:
        """The losses of a minibatch, as Detectron names them, and the metric `accuracy_cls`; none of them summed.

        Proposals are collected over all images of the minibatch, of which the best
        `cfg.TRAIN.RPN_POST_NMS_TOP_N` stay, so an image may take more than its share
        (Detectron ops/collect_and_distribute_fpn_rpn_proposals.py:collect).
        """
        train = self.cfg.TRAIN
        with self.products():
            features = self.features(minibatch.data.to(self.device, non_blocking=True))
            # Boxes and losses are in float32 whatever the network computed in.
            rpn_outputs = [(logits.float(), deltas.float()) for logits, deltas in self.rpn(features)]
            outputs = self.rpn.losses(rpn_outputs, sampler.anchors(self.rpn.training_anchors(), minibatch))
            with torch.no_grad():
                parts = [
                    part
                    for index, im_info in enumerate(minibatch.im_info)
                    for part in self.rpn.proposals(rpn_outputs, features.strides, index, im_info, train)
                ]
                sample = sampler.rois(collect_proposals(parts, train.RPN_POST_NMS_TOP_N).rois, minibatch)
            outputs |= self.box_head.losses(features, sample)
            if self.mask_head is not None:
                outputs |= self.mask_head.losses(features, sample)
        return outputs
