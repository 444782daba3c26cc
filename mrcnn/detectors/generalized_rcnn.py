"""Two-stage detectors: proposals, then boxes and, where there are heads for them, masks and keypoints.

Answers to Detectron modeling/model_builder.py:build_generic_detection_model and core/test.py:im_detect_all.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from detectron_gn.mrcnn.backbones import build_backbone
from detectron_gn.mrcnn.config import Config, padding_stride, refuse_training, takes_proposals
from detectron_gn.mrcnn.data.any_boxes import AnyBoxes, as_boxes
from detectron_gn.mrcnn.data.any_image import AnyImage, as_image
from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.detectors.augmented import detect_augmented
from detectron_gn.mrcnn.detectors.detector import Detector
from detectron_gn.mrcnn.detectors.proposed import proposed
from detectron_gn.mrcnn.heads.box import BoxHead
from detectron_gn.mrcnn.heads.keypoint import KeypointHead
from detectron_gn.mrcnn.heads.mask import MaskHead
from detectron_gn.mrcnn.heads.rpn import RPN
from detectron_gn.mrcnn.inference.dynamic import class_boxes, select_detections
from detectron_gn.mrcnn.inference.network_input import NetworkInput, network_input
from detectron_gn.mrcnn.inference.rois import ImageRois, given_rois, rois_of_boxes
from detectron_gn.mrcnn.inference.static_shapes import StaticDetections, static_detections, static_proposals
from detectron_gn.mrcnn.inference.tta import is_augmented
from detectron_gn.mrcnn.structures import Detections, Features
from detectron_gn.mrcnn.training.samplers import Sampler


class GeneralizedRCNN(Detector):
    """A backbone, an RPN, a box head, and heads for masks and keypoints as there are; filled as Caffe2 fills them.

    Attributes:
        rpn: None where proposals come from outside (Fast R-CNN: `cfg.MODEL.FASTER_RCNN` is False).
        mask_head, keypoint_head: with `cfg.MODEL.MASK_ON` and `cfg.MODEL.KEYPOINTS_ON`.
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self.backbone = build_backbone(cfg)
        dim = self.backbone.dim
        self.rpn = None if takes_proposals(cfg) else RPN(cfg, dim, self.backbone.strides)
        self.box_head = BoxHead(cfg, dim)
        self.mask_head = MaskHead(cfg, dim, self.box_head.res5) if cfg.MODEL.MASK_ON else None
        self.keypoint_head = KeypointHead(cfg, dim) if cfg.MODEL.KEYPOINTS_ON else None

    @torch.inference_mode()
    def detect_dynamic(self, batch: NetworkInput) -> list[Detections]:
        """The objects in a batch, step by step with as many boxes as there are."""
        if batch.images is not None and is_augmented(self.cfg):
            given: list[Tensor] | list[None] = batch.proposals or [None] * len(batch.images)
            return [detect_augmented(self, *each) for each in zip(batch.images, given, strict=True)]
        features = self.features(batch.data)
        return [
            self.detect_in_rois(features, rois, size, info.scale)
            for rois, size, info in zip(
                self.rois_of_images(features, batch), batch.image_sizes, batch.im_info, strict=True
            )
        ]

    def rois_of_images(self, features: Features, batch: NetworkInput) -> Iterator[ImageRois]:
        """The RoIs of each image of a batch: those that the RPN makes, or the proposals from outside."""
        if self.rpn is None:
            assert batch.proposals is not None
            for index, (proposals, info) in enumerate(zip(batch.proposals, batch.im_info, strict=True)):
                yield given_rois(proposals, index, info.scale, self.cfg.DEDUP_BOXES)
            return
        with self.products():
            rpn_outputs = self.rpn(features)
        for index, info in enumerate(batch.im_info):
            yield ImageRois(self.rpn.collected(rpn_outputs, features.strides, index, info).rois)

    @torch.inference_mode()
    def proposals(self, image: AnyImage) -> tuple[Tensor, Tensor]:
        """What the RPN proposes in an image, best first: boxes `[R, 4]` in its pixels and objectness `[R]`.

        Boxes are inclusive corners, clipped to the padded image, as the second stage takes them. Raises InputError for
        a network without an RPN.
        """
        return super().proposals(image) if self.rpn is None else proposed(self, self.rpn, as_image(image))

    @torch.inference_mode()
    def region_features(self, image: AnyImage, boxes: AnyBoxes) -> Tensor:
        """What the box head is given of boxes in an image: `[R, C, S, S]` float32.

        Args:
            boxes: `[R, 4]` numbers, inclusive corners in the image's pixels.
        """
        given, corners = as_image(image), torch.from_numpy(as_boxes(boxes, "boxes"))
        prepared = self.prepare(given)
        data = network_input([given], [prepared], padding_stride(self.cfg), self.device).data
        rois = rois_of_boxes(corners.to(self.device), prepared.scale, 0)
        with self.products():
            return self.box_head.roi_features(self.features(data), rois)

    def detect_in_rois(
        self, features: Features, rois: ImageRois, image_size: tuple[int, int], scale: float
    ) -> Detections:
        """Both passes of the second stage: boxes from the RoIs of one image, then what is made of the boxes that stay.

        Args:
            features: of the batch.
            rois: of one image.
            image_size: (height, width) of the image as it was read.
            scale: network pixels per image pixel.
        """
        found = select_detections(*self.scored_boxes(features, rois, image_size, scale), self.cfg)
        index = int(rois.rois[0, 0]) if len(rois.rois) else 0
        mask_probs = heatmaps = None
        if self.mask_head is not None:
            mask_probs = self.soft_masks(features, found.boxes, found.classes, scale, image_index=index)
        if self.keypoint_head is not None:
            heatmaps = self.heatmaps(features, found.boxes, scale, image_index=index)
        return Detections.from_tensors(*found, mask_probs, image_size, self.cfg, heatmaps)

    def scored_boxes(
        self, features: Features, rois: ImageRois, image_size: tuple[int, int], scale: float
    ) -> tuple[Tensor, Tensor]:
        """The first pass: scores `[P, K]` of P proposals, and boxes `[P, 4K]` in image pixels, none selected yet."""
        with self.products():
            cls_score, bbox_pred = self.box_head.outputs(features, rois.rois)
        boxes = class_boxes(rois.in_image(scale), bbox_pred.float(), 1.0, image_size, self.cfg)
        return rois.restored(cls_score.float().softmax(dim=1)), rois.restored(boxes)

    def soft_masks(
        self, features: Features, boxes: Tensor, classes: Tensor, scale: float, image_index: int
    ) -> Tensor:
        """Soft masks `[D, M, M]` of `[D, 4]` boxes in image pixels, for the class of each; a second pass."""
        assert self.mask_head is not None
        with self.products():
            return self.mask_head.probabilities(features, rois_of_boxes(boxes, scale, image_index), classes)

    def heatmaps(self, features: Features, boxes: Tensor, scale: float, image_index: int) -> Tensor:
        """Heatmaps of keypoints `[D, K, M, M]` of `[D, 4]` boxes in image pixels; a second pass."""
        assert self.keypoint_head is not None
        with self.products():
            return self.keypoint_head.outputs(features, rois_of_boxes(boxes, scale, image_index)).float()

    def static_outputs(self, data: Tensor, scales: Tensor, image_sizes: Tensor) -> StaticDetections:
        """The detections of a batch and their soft masks, without the host looking at any number."""
        cfg = self.cfg
        assert self.rpn is not None
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

        Without an RPN the minibatch brings its proposals.
        """
        refuse_training(self.cfg)
        if self.rpn is None:
            self.check_proposals(minibatch.proposals is not None)
        outputs: dict[str, Tensor] = {}
        with self.products():
            features = self.features(minibatch.data.to(self.device, non_blocking=True))
            proposals = None
            if self.rpn is not None:
                # Boxes and losses are in float32 whatever the network computed in.
                rpn_outputs = [(logits.float(), deltas.float()) for logits, deltas in self.rpn(features)]
                outputs |= self.rpn.losses(rpn_outputs, sampler.anchors(self.rpn.training_anchors(), minibatch))
                proposals = self.rpn.training_rois(rpn_outputs, features.strides, minibatch.im_info)
            with torch.no_grad():
                sample = sampler.rois(proposals, minibatch)
            maps = self.box_head.trunk(self.box_head.roi_features(features, sample.rois))
            outputs |= self.box_head.losses(maps, sample)
            if self.mask_head is not None:
                outputs |= self.mask_head.losses(features, sample, maps)
            if self.keypoint_head is not None:
                outputs |= self.keypoint_head.losses(features, sample)
        return outputs
