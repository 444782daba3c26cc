"""Mask R-CNN on a feature pyramid: which parts there are and how data flows through them at test time.

Answers to Detectron modeling/model_builder.py:build_generic_detection_model and core/test.py:im_detect_all.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from detectron_gn.mrcnn.backbones.fpn import FPN
from detectron_gn.mrcnn.backbones.resnet import ResNet
from detectron_gn.mrcnn.config import Config, check_config
from detectron_gn.mrcnn.config.schema import FastRcnn, Mrcnn
from detectron_gn.mrcnn.data.image_blob import Image, PreparedImage, image_blob, padded_size, prepare_image
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.heads.box import BoxHead
from detectron_gn.mrcnn.heads.mask import MaskHead
from detectron_gn.mrcnn.heads.rpn import RPN
from detectron_gn.mrcnn.inference.dynamic import Detected, class_boxes, select_detections
from detectron_gn.mrcnn.inference.static_shapes import (
    FixedDetections,
    fixed_detections,
    fixed_proposals,
    shapes_are_fixed,
)
from detectron_gn.mrcnn.ops.anchors import pyramid_anchors
from detectron_gn.mrcnn.ops.proposals import ImInfo, ProposalLimits, Proposals, collect_proposals, level_proposals
from detectron_gn.mrcnn.ops.roi_align import pyramid_roi_align
from detectron_gn.mrcnn.precision import ROUNDED, Precision, allow_tf32, round_products
from detectron_gn.mrcnn.structures import Detections

ROIS_AT_ONCE = 64


class NetworkInput(NamedTuple):
    """A batch as the network takes it.

    Attributes:
        data: `[N, 3, H, W]` float32 on the network's device.
        im_info: of each image.
        image_sizes: (height, width) of each image as it was read.
    """

    data: Tensor
    im_info: list[ImInfo]
    image_sizes: list[tuple[int, int]]


class FixedNetwork(Protocol):
    """`MaskRCNN.fixed_outputs`, or what does the same faster."""

    def __call__(self, data: Tensor, scales: Tensor, image_sizes: Tensor) -> tuple[FixedDetections, Tensor]: ...


class MaskRCNN(nn.Module):
    """The network of one configuration, filled as Caffe2 fills it; `detect` runs it on images.

    Raises InputError where the configuration asks for something that the port does not serve.
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        check_config(cfg)
        self.cfg = cfg
        self.use_precision("fp32")
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
        """Detect in fewer bits from now on; a new network computes in float32, with TF32 off.

        Args:
            precision: `tf32` lets all models of the process use TF32 on GPUs that have it; `bf16` and `fp16` round the
                weights of this one to bfloat16 or float16, for good. Normalisation, boxes and scores stay in float32
                always.
        """
        self.precision: Precision = precision
        allow_tf32(precision == "tf32")
        if precision in ROUNDED:
            round_products(self, ROUNDED[precision])

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
        data = image_blob([image.pixels for image in prepared], stride)
        height, width = data.shape[2:]
        return NetworkInput(
            _to_device(data, self.device),
            [ImInfo(height, width, image.scale) for image in prepared],
            [(image.shape[0], image.shape[1]) for image in images],
        )

    def detect(self, image: Image) -> Detections:
        """Find the objects in one `[H, W, 3]` uint8 BGR image."""
        return self.detect_batch([image])[0]

    def detect_batch(self, images: Sequence[Image]) -> list[Detections]:
        """Find the objects in images that are padded to one and the same size; others raise InputError."""
        return self.start_batch(self.network_input(images))()

    @torch.inference_mode()
    def start_batch(self, batch: NetworkInput, network: FixedNetwork | None = None) -> Callable[[], list[Detections]]:
        """Begin to find the objects in a batch; what is returned waits for them, in any thread.

        Args:
            network: `fixed_outputs` or what does the same. Left out, it is `fixed_outputs` on a GPU, which is given
                everything at one go and computes while the host goes on, and none on a CPU, which takes as many boxes
                as there are and has finished on return.
        """
        if network is None and self.device.type != "cpu" and shapes_are_fixed(self.cfg):
            network = self.fixed_outputs
        if network is None:
            found = self._detect_as_many(batch)
            return lambda: found
        scales = torch.tensor([info.scale for info in batch.im_info], dtype=torch.float64)
        sizes = torch.tensor(batch.image_sizes, dtype=torch.float32)
        outputs, mask_probs = network(batch.data, _to_device(scales, self.device), _to_device(sizes, self.device))
        wait = _to_host((*outputs, mask_probs))

        def finish() -> list[Detections]:
            boxes, scores, classes, counts, complete, masks = wait()
            found = []
            for index, (count, size) in enumerate(zip(counts.tolist(), batch.image_sizes, strict=True)):
                if complete[index]:
                    # Copies of what there is: the tensors of the whole batch are larger, and of pinned memory.
                    own = (column[index, :count].clone() for column in (boxes, scores, classes))
                    found.append(_detections(Detected(*own), masks[index, :count].clone(), size, self.cfg))
                else:
                    part = slice(index, index + 1)
                    alone = NetworkInput(batch.data[part], batch.im_info[part], batch.image_sizes[part])
                    found += self._detect_as_many(alone)
            return found

        return finish

    def fixed_outputs(self, data: Tensor, scales: Tensor, image_sizes: Tensor) -> tuple[FixedDetections, Tensor]:
        """The detections of a batch and their soft masks `[N, D, M, M]`, without the host looking at any number.

        Args:
            data: `[N, 3, H, W]` as `network_input` gives it.
            scales: `[N]` float64, network pixels an image pixel.
            image_sizes: `[N, 2]` float32, (height, width) of the images as they were read.
        """
        levels, cfg = self.features(data), self.cfg
        numbers = range(cfg.FPN.RPN_MIN_LEVEL, cfg.FPN.RPN_MAX_LEVEL + 1)
        anchors = [self.get_buffer(f"anchors_fpn{number}") for number in numbers]
        network_size, rounded = (data.shape[2], data.shape[3]), scales.float()
        proposals = fixed_proposals(self.rpn(levels), anchors, [2**n for n in numbers], network_size, rounded, cfg)
        images, rois = proposals.valid.shape
        cls_score, bbox_pred = (
            output.float().view(images, rois, -1) for output in self.box_outputs(levels, proposals.rois.flatten(0, 1))
        )
        height, width = (side[:, None, None] for side in image_sizes.unbind(1))
        boxes = class_boxes(proposals.rois[:, :, 1:], bbox_pred, rounded[:, None, None], (height, width), cfg)
        found = fixed_detections(cls_score.softmax(dim=2), boxes, proposals, cfg)
        mask_boxes = (found.boxes.double() * scales[:, None, None]).float()
        mask_rois = torch.cat((proposals.rois[:, :1, :1].expand(-1, found.boxes.shape[1], 1), mask_boxes), dim=2)
        logits = self.mask_outputs(levels, mask_rois.flatten(0, 1), found.classes.flatten())
        return found, logits.float().sigmoid().view(*found.classes.shape, *logits.shape[1:])

    @torch.inference_mode()
    def _detect_as_many(self, batch: NetworkInput) -> list[Detections]:
        """The objects in a batch, step by step with as many boxes as there are."""
        levels = self.features(batch.data)
        rpn_outputs = self.rpn(levels)
        found = []
        for index, (size, info) in enumerate(zip(batch.image_sizes, batch.im_info, strict=True)):
            proposals = self.image_proposals(rpn_outputs, index, info, self.cfg.TEST)
            rois = collect_proposals(proposals, self.cfg.TEST.RPN_POST_NMS_TOP_N).rois
            found.append(self.detect_in_rois(levels, rois, size, info.scale))
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
        return _detections(detected, mask_probs, image_size, self.cfg)


def _detections(detected: Detected, mask_probs: Tensor, image_size: tuple[int, int], cfg: Config) -> Detections:
    return Detections(
        boxes=detected.boxes.cpu().numpy(),
        scores=detected.scores.cpu().numpy(),
        classes=detected.classes.cpu().numpy(),
        mask_probs=mask_probs.cpu().numpy(),
        image_size=image_size,
        mask_threshold=cfg.MRCNN.THRESH_BINARIZE,
    )


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A host's tensor on a device; the host does not wait for the copy to a GPU."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _to_host(tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
    """Begin to copy tensors to the host; what is returned waits for the copies."""
    if not tensors[0].is_cuda:
        return lambda: [tensor.cpu() for tensor in tensors]
    copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
    # Threads that wait for it sleep.
    copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    copied.record(torch.cuda.current_stream(tensors[0].device))

    def wait() -> list[Tensor]:
        copied.synchronize()
        return copies

    return wait


def _in_parts(rois: Tensor) -> list[Tensor]:
    """RoIs, or what belongs to each, in parts whose maps stay in a CPU's cache.

    All at once on other devices and where gradients are wanted.
    """
    whole = torch.is_grad_enabled() or rois.device.type != "cpu"
    step = max(len(rois), 1) if whole else ROIS_AT_ONCE
    return [rois[first : first + step] for first in range(0, max(len(rois), 1), step)]
