"""Mask R-CNN on a feature pyramid: which parts there are and how data flows through them at test time.

Answers to Detectron modeling/model_builder.py:build_generic_detection_model and core/test.py:im_detect_all.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mrcnn.anchors import pyramid_anchors
from mrcnn.box_head import BoxHead
from mrcnn.config import Config, check_config
from mrcnn.config.sections import FastRcnn, Mrcnn
from mrcnn.detections import class_boxes, select_detections
from mrcnn.errors import InputError
from mrcnn.fpn import FPN
from mrcnn.image import Image, PreparedImage, image_blob, padded_size, prepare_image
from mrcnn.mask_head import MaskHead
from mrcnn.precision import Precision, allow_tf32, round_products
from mrcnn.proposals import ImInfo, ProposalLimits, Proposals, collect_proposals, level_proposals
from mrcnn.resnet import ResNet
from mrcnn.results import Detections
from mrcnn.roi_align import pyramid_roi_align
from mrcnn.rpn import RPN

ROIS_AT_ONCE = 64


class NetworkInput(NamedTuple):
    """A batch as the network takes it: `data` `[N, 3, H, W]` float32 on its device, and `im_info` of each image."""

    data: Tensor
    im_info: list[ImInfo]


class MaskRCNN(nn.Module):
    """The network of one configuration, filled as Caffe2 fills it; `detect` runs it on images.

    Raises InputError where the configuration asks for something that the port does not serve.
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        check_config(cfg)
        self.cfg = cfg
        self.precision: Precision = "fp32"
        self.backbone = ResNet(cfg)
        self.fpn = FPN(cfg)
        self.rpn = RPN(cfg)
        self.box_head = BoxHead(cfg)
        self.mask_head = MaskHead(cfg)
        # Constants of the configuration, not state: they follow the model's device, not its checkpoints.
        for level, anchors in enumerate(pyramid_anchors(cfg), cfg.FPN.RPN_MIN_LEVEL):
            self.register_buffer(f"anchors_fpn{level}", anchors, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.rpn.conv.weight.device

    def use_precision(self, precision: Precision) -> None:
        """Detect in fewer bits from now on.

        Args:
            precision: `tf32` lets all models of the process use TF32 on GPUs that have it; `bf16` rounds the weights
                of this one to bfloat16, for good. Normalisation, boxes and scores stay in float32 always.
        """
        self.precision = precision
        allow_tf32(precision == "tf32")
        if precision == "bf16":
            round_products(self, torch.bfloat16)

    def features(self, data: Tensor) -> list[Tensor]:
        """`[N, 3, H, W]` prepared images to the pyramid levels P2 to P6, `[N, C, H / 4, W / 4]` to `/ 64`."""
        levels: list[Tensor] = self.fpn(self.backbone(data.to(self.backbone.conv1.conv.weight.dtype)))
        return levels

    def image_proposals(
        self, rpn_outputs: Sequence[tuple[Tensor, Tensor]], image_index: int, im_info: ImInfo, limits: ProposalLimits
    ) -> list[Proposals]:
        """Proposals of one image of the batch, level by level, finest first.

        Args:
            rpn_outputs: what `self.rpn` gives: logits and deltas of the batch for each level.
            limits: `self.cfg.TEST` or `self.cfg.TRAIN`.
        """
        return [
            level_proposals(
                logits[image_index].float(),
                deltas[image_index].float(),
                self.get_buffer(f"anchors_fpn{level}"),
                2**level,
                image_index,
                im_info,
                limits,
            )
            for level, (logits, deltas) in enumerate(rpn_outputs, self.cfg.FPN.RPN_MIN_LEVEL)
        ]

    def box_outputs(self, levels: list[Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits `[R, K]` and box deltas `[R, 4K]` of `[R, 5]` RoIs."""
        parts = [
            self.box_head.conv_features(self._pooled(levels, part, self.cfg.FAST_RCNN)) for part in _in_parts(rois)
        ]
        return self.box_head.predict(torch.cat(parts))

    def mask_outputs(self, levels: list[Tensor], rois: Tensor, classes: Tensor) -> Tensor:
        """Mask logits `[R, M, M]` of `[R, 5]` RoIs, for the class of each in `classes [R]` int64."""
        return torch.cat(
            [
                self.mask_head.of_classes(self._pooled(levels, part, self.cfg.MRCNN), of_part)
                for part, of_part in zip(_in_parts(rois), _in_parts(classes), strict=True)
            ]
        )

    def mask_outputs_of_all_classes(self, levels: list[Tensor], rois: Tensor) -> Tensor:
        """Mask logits `[R, K, M, M]` of `[R, 5]` RoIs."""
        return torch.cat([self.mask_head(self._pooled(levels, part, self.cfg.MRCNN)) for part in _in_parts(rois)])

    def _pooled(self, levels: list[Tensor], rois: Tensor, pooling: FastRcnn | Mrcnn) -> Tensor:
        """The features of RoIs in the resolution that a head wants."""
        return pyramid_roi_align(levels, rois, self.cfg, pooling.ROI_XFORM_RESOLUTION, pooling.ROI_XFORM_SAMPLING_RATIO)

    def prepare(self, image: Image) -> PreparedImage:
        """Scale an `[H, W, 3]` uint8 BGR image for testing."""
        return prepare_image(image, self.cfg.PIXEL_MEANS, self.cfg.TEST.SCALE, self.cfg.TEST.MAX_SIZE)

    def network_input(self, images: Sequence[Image]) -> NetworkInput:
        """Scale and pad `[H, W, 3]` uint8 BGR images for testing; detection and the parity trace both begin here.

        Raises InputError for images that are not padded to one and the same size: GroupNorm's statistics cover the
        padding, so an image padded further than alone would come out otherwise.
        """
        prepared = [self.prepare(image) for image in images]
        stride = self.cfg.FPN.COARSEST_STRIDE
        sizes = {padded_size(image.pixels.shape[0], image.pixels.shape[1], stride) for image in prepared}
        if len(sizes) != 1:
            raise InputError(f"a batch must hold images of one padded size, not of {sorted(sizes)}: detect them apart")
        data = image_blob([image.pixels for image in prepared], stride).to(self.device)
        height, width = data.shape[2:]
        return NetworkInput(data, [ImInfo(height, width, image.scale) for image in prepared])

    def detect(self, image: Image) -> Detections:
        """Find the objects in one `[H, W, 3]` uint8 BGR image."""
        return self.detect_batch([image])[0]

    @torch.inference_mode()
    def detect_batch(self, images: Sequence[Image]) -> list[Detections]:
        """Find the objects in images that are padded to one and the same size; others raise InputError."""
        data, im_info = self.network_input(images)
        levels = self.features(data)
        rpn_outputs = self.rpn(levels)
        found = []
        for index, (image, info) in enumerate(zip(images, im_info, strict=True)):
            proposals = self.image_proposals(rpn_outputs, index, info, self.cfg.TEST)
            rois = collect_proposals(proposals, self.cfg.TEST.RPN_POST_NMS_TOP_N).rois
            found.append(self.detect_in_rois(levels, rois, (image.shape[0], image.shape[1]), info.scale))
        return found

    def detect_in_rois(
        self, levels: list[Tensor], rois: Tensor, image_size: tuple[int, int], scale: float
    ) -> Detections:
        """Both passes of the second stage: boxes from the RoIs of one image, then masks of the boxes that stay.

        Args:
            levels: features of the batch.
            rois: `[R, 5]` float32 in network pixels, all of one image.
            image_size: (height, width) of the image as it was read.
            scale: network pixels an image pixel.

        The mask RoIs are scaled in float64 and rounded to float32 afterwards (Detectron core/test.py:_project_im_rois).
        """
        cls_score, bbox_pred = self.box_outputs(levels, rois)
        boxes = class_boxes(rois[:, 1:], bbox_pred.float(), scale, image_size, self.cfg)
        detected = select_detections(cls_score.float().softmax(dim=1), boxes, self.cfg)
        if len(detected.boxes):
            image_index = rois[:1, :1].expand(len(detected.boxes), 1)
            mask_rois = torch.cat((image_index, (detected.boxes.double() * scale).float()), dim=1)
            mask_probs = self.mask_outputs(levels, mask_rois, detected.classes).float().sigmoid()
        else:
            resolution = self.cfg.MRCNN.RESOLUTION
            mask_probs = boxes.new_zeros((0, resolution, resolution))
        return Detections(
            boxes=detected.boxes.cpu().numpy(),
            scores=detected.scores.cpu().numpy(),
            classes=detected.classes.cpu().numpy(),
            mask_probs=mask_probs.cpu().numpy(),
            image_size=image_size,
            mask_threshold=self.cfg.MRCNN.THRESH_BINARIZE,
        )


def _in_parts(rois: Tensor) -> list[Tensor]:
    """RoIs, or what belongs to each, in parts whose maps stay in the cache; all at once where gradients are wanted."""
    step = max(len(rois), 1) if torch.is_grad_enabled() else ROIS_AT_ONCE
    return [rois[first : first + step] for first in range(0, max(len(rois), 1), step)]
