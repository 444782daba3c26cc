"""Detection in tensors whose shapes the configuration fixes, for devices that must not wait for the host.

The other way, of `dynamic.py`, takes as many boxes as there are: the host has to know how many before it can ask for
the next step. Here there are always as many as there can be, and masks say which of them count. So a GPU runs the whole
network at one go, and that can be recorded as a CUDA graph. The numbers are the same. Where the places do not suffice,
`StaticDetections.complete` says so, and the image has to go the other way.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from detectron_gn.mrcnn.config import Config, pooling_sections
from detectron_gn.mrcnn.inference.network_input import NetworkInput, to_host
from detectron_gn.mrcnn.inference.tta import is_augmented
from detectron_gn.mrcnn.ops.boxes import clip_boxes, decode_boxes
from detectron_gn.mrcnn.ops.nms import nms_in_rounds
from detectron_gn.mrcnn.ops.proposals import RPN_BOX_WEIGHTS, anchors_at, large_enough
from detectron_gn.mrcnn.structures import Detections
from detectron_gn.mrcnn.tracing import is_jit_traced, is_traced, refuse_export

# Chains of suppression among proposals of the demo's model take up to 32 rounds, among those of random weights 10.
NMS_ROUNDS = 64
# Candidates for detections: (RoI, class) with a score above TEST.SCORE_THRESH.
MAX_CANDIDATES = 2048


class StaticProposals(NamedTuple):
    """RoIs of a batch, best first.

    Attributes:
        rois: `[N, R, 5]` float32, (index of the image, x1, y1, x2, y2) in network pixels.
        valid: `[N, R]` bool, which of them there are.
        complete: `[N]` bool, whether these are the image's proposals.
    """

    rois: Tensor
    valid: Tensor
    complete: Tensor


class StaticDetections(NamedTuple):
    """Detections of a batch, ordered by class and RoI, in D = `cfg.TEST.DETECTIONS_PER_IM` places.

    Attributes:
        boxes: `[N, D, 4]` float32 in image pixels.
        scores: `[N, D]` float32.
        classes: `[N, D]` int64.
        counts: `[N]` int64, how many places hold a detection, the first.
        complete: `[N]` bool, whether these are the image's detections.
        mask_probs: `[N, D, M, M]` float32; None where the model has no mask head.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    counts: Tensor
    complete: Tensor
    mask_probs: Tensor | None = None


class StaticNetwork(Protocol):
    """`Detector.static_outputs`, or what does the same faster."""

    def __call__(self, data: Tensor, scales: Tensor, image_sizes: Tensor) -> StaticDetections: ...


def begin_static(
    outputs: StaticDetections,
    batch: NetworkInput,
    cfg: Config,
    detect_dynamic: Callable[[NetworkInput], list[Detections]],
) -> Callable[[], list[Detections]]:
    """Begin to bring the outputs of a batch to the host; what is returned waits for them.

    Args:
        detect_dynamic: the other way, for images that are not complete.
    """
    wait = to_host([column for column in outputs if column is not None])

    def finish() -> list[Detections]:
        boxes, scores, classes, counts, complete, *masks = wait()
        found = []
        for index, (count, size) in enumerate(zip(counts.tolist(), batch.image_sizes, strict=True)):
            if complete[index]:
                # Copies of what there is: the tensors of the whole batch are larger, and of pinned memory.
                own = [column[index, :count].clone() for column in (boxes, scores, classes, *masks)]
                mask_probs = own[3] if masks else None
                found.append(Detections.from_tensors(own[0], own[1], own[2], mask_probs, size, cfg))
            else:
                found += detect_dynamic(batch.image(index))
        return found

    return finish


def supports_static_shapes(cfg: Config) -> bool:
    """Whether this module supports the configuration.

    Of the published ones it supports the end-to-end Faster and Mask R-CNNs on a feature pyramid.
    """
    test, model = cfg.TEST, cfg.MODEL
    return (
        model.FASTER_RCNN
        and cfg.FPN.FPN_ON
        and not (cfg.RETINANET.RETINANET_ON or model.RPN_ONLY or model.KEYPOINTS_ON or is_augmented(cfg))
        and test.RPN_NMS_THRESH > 0
        and min(test.RPN_PRE_NMS_TOP_N, test.RPN_POST_NMS_TOP_N, test.DETECTIONS_PER_IM) > 0
        and all(
            pooling.ROI_XFORM_SAMPLING_RATIO > 0 and pooling.ROI_XFORM_METHOD == "RoIAlign"
            for pooling in pooling_sections(cfg).values()
        )
        and not test.SOFT_NMS.ENABLED
        and not test.BBOX_VOTE.ENABLED
    )


def static_proposals(
    rpn_outputs: Sequence[tuple[Tensor, Tensor]],
    base_anchors: Sequence[Tensor],
    strides: Sequence[int],
    network_size: tuple[int, int],
    scales: Tensor,
    cfg: Config,
) -> StaticProposals:
    """`proposals.level_proposals` of all levels and images, and `collect_proposals` of each image.

    Args:
        rpn_outputs: logits `[N, A, H, W]` and deltas `[N, 4A, H, W]` of each level.
        base_anchors, strides: of each level.
        network_size: (height, width) of the padded batch.
        scales: `[N]` float32, network pixels per image pixel.
    """
    if is_jit_traced():
        # torch.export knows sizes as symbols, or holds a network to the ones that it saw.
        refuse_export("the number of candidates is limited")
    limits, (height, width) = cfg.TEST, network_size
    count = limits.RPN_PRE_NMS_TOP_N
    level_boxes, level_scores = [], []
    for (logits, deltas), anchors, stride in zip(rpn_outputs, base_anchors, strides, strict=True):
        scores = logits.float().sigmoid().permute(0, 2, 3, 1).flatten(1)
        scores, index = _best_places(scores, count)
        of_index = deltas.float().permute(0, 2, 3, 1).reshape(len(deltas), -1, 4)
        index = index.clamp(max=of_index.shape[1] - 1)
        of_index = of_index.gather(1, _of_four(index))
        boxes = decode_boxes(anchors_at(index, anchors, stride, logits.shape[3]), of_index, RPN_BOX_WEIGHTS)
        level_boxes.append(clip_boxes(boxes, height, width))
        level_scores.append(scores)
    boxes, scores = torch.stack(level_boxes, dim=1), torch.stack(level_scores, dim=1)
    valid = large_enough(boxes, height, width, scales[:, None, None, None], limits.RPN_MIN_SIZE)
    valid &= scores > -torch.inf
    images, levels = valid.shape[:2]
    kept, settled = _kept_by_nms(boxes.flatten(0, 1), scores.flatten(0, 1), valid.flatten(0, 1), limits.RPN_NMS_THRESH)
    kept = kept.view(images, levels, count)
    kept &= kept.cumsum(dim=2) <= limits.RPN_POST_NMS_TOP_N

    order = scores.masked_fill(~kept, -torch.inf).flatten(1).sort(dim=1, descending=True, stable=True).indices
    order = order[:, : limits.RPN_POST_NMS_TOP_N]
    valid = kept.flatten(1).gather(1, order)
    # What does not count is a box all the same, and may not be one of infinity or NaN.
    boxes = boxes.flatten(1, 2).gather(1, _of_four(order)).masked_fill(~valid[:, :, None], 0)
    index = torch.arange(images, device=boxes.device, dtype=boxes.dtype)[:, None, None]
    rois = torch.cat((index.expand(-1, order.shape[1], 1), boxes), dim=2)
    return StaticProposals(rois, valid, settled.view(images, levels).all(dim=1))


def _best_places(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` best of `[N, S]` scores and their indices, `[N, count]` each; -inf where there are fewer."""
    if is_traced():
        # S may be a symbol, of which nothing is to be assumed.
        return F.pad(scores, (0, count), value=-torch.inf).topk(count)
    available = min(count, scores.shape[1])
    best, index = scores.topk(available)
    return F.pad(best, (0, count - available), value=-torch.inf), F.pad(index, (0, count - available))


def _kept_by_nms(boxes: Tensor, scores: Tensor, valid: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Which of `[B, N]` boxes, best first, `nms` keeps, and which of the B lists are settled.

    Of equal scores the later one goes first, as in `nms`.
    """
    order = _best_and_later_first(scores)
    kept, settled = nms_in_rounds(
        boxes.gather(1, _of_four(order)), valid.gather(1, order)[:, :, None], threshold, NMS_ROUNDS
    )
    return torch.zeros_like(kept).scatter(1, order, kept) & valid, settled


def _best_and_later_first(scores: Tensor) -> Tensor:
    """Indices `[B, N]` of scores `[B, N]`, best first and of equal ones the last first."""
    return scores.shape[1] - 1 - scores.flip(1).sort(dim=1, descending=True, stable=True).indices


def _of_four(index: Tensor) -> Tensor:
    """`[B, N]` indices of boxes as `gather` wants them for their `[B, N, 4]` coordinates."""
    return index[:, :, None].expand(-1, -1, 4)


def static_detections(scores: Tensor, boxes: Tensor, proposals: StaticProposals, cfg: Config) -> StaticDetections:
    """`dynamic.select_detections` of the RoIs of each image.

    Args:
        scores: `[N, R, K]` float32 class probabilities; class 0 is the background.
        boxes: `[N, R, 4K]` float32 in image pixels.
        proposals: the RoIs.
    """
    images, rois, classes = scores.shape
    candidates = (scores[:, :, 1:] > cfg.TEST.SCORE_THRESH) & proposals.valid[:, :, None]
    # By class, then RoI; and of equal scores the later one goes first through NMS, as in `nms`.
    every = scores[:, :, 1:].masked_fill(~candidates, -1).mT.flatten(1)
    count = min(MAX_CANDIDATES, every.shape[1])
    place = _best_and_later_first(every)[:, :count]
    best = every.gather(1, place)
    label, roi = place // rois + 1, place % rois
    best_boxes = boxes.view(images, rois * classes, 4).gather(1, _of_four(roi * classes + label))
    valid = best > -1
    of_one_class = (label[:, :, None] == label[:, None, :]) & valid[:, :, None]
    kept, settled = nms_in_rounds(best_boxes, of_one_class, cfg.TEST.NMS, NMS_ROUNDS)
    kept &= valid

    limit = min(cfg.TEST.DETECTIONS_PER_IM, count)
    least = best.masked_fill(~(kept & (kept.cumsum(dim=1) <= limit)), torch.inf).amin(dim=1, keepdim=True)
    kept &= best >= least
    counts = kept.sum(dim=1)
    # The places that are kept in their order, then all others, whose boxes may not be of infinity or NaN.
    order = place.masked_fill(~kept, every.shape[1]).sort(dim=1).indices[:, :limit]
    return StaticDetections(
        boxes=best_boxes.masked_fill(~kept[:, :, None], 0).gather(1, _of_four(order)),
        scores=best.gather(1, order),
        classes=label.gather(1, order),
        counts=counts,
        complete=proposals.complete & settled & (counts <= limit) & (candidates.flatten(1).sum(dim=1) <= count),
    )
