"""From the RPN's outputs to RoIs; answers to Detectron ops/generate_proposals.py, ops/collect_and_distribute_*.py."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detectron_gn.mrcnn.ops.boxes import box_centers, clip_boxes, decode_boxes, original_sides
from detectron_gn.mrcnn.ops.nms import nms
from detectron_gn.mrcnn.ops.numpy_ties import argsort, argtop
from detectron_gn.mrcnn.structures import Proposals

RPN_BOX_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


class ImInfo(NamedTuple):
    """The size that proposals of an image are clipped to, in pixels of the network's input, and the image's scale.

    At test time the size is that of the *padded* blob (Detectron utils/blob.py:get_image_blob), in training that of
    the scaled image (roi_data/rpn.py:add_rpn_blobs).
    """

    height: float
    width: float
    scale: float


class ProposalLimits(Protocol):
    """The keys that `cfg.TEST` and `cfg.TRAIN` share for proposals."""

    @property
    def RPN_PRE_NMS_TOP_N(self) -> int: ...
    @property
    def RPN_POST_NMS_TOP_N(self) -> int: ...
    @property
    def RPN_NMS_THRESH(self) -> float: ...
    @property
    def RPN_MIN_SIZE(self) -> float: ...


def level_proposals(
    logits: Tensor,
    deltas: Tensor,
    base_anchors: Tensor,
    stride: int,
    image_index: int,
    im_info: ImInfo,
    limits: ProposalLimits,
) -> Proposals:
    """Proposals of one image on one pyramid level, best first.

    Args:
        logits: `[A, H, W]` objectness before the sigmoid.
        deltas: `[4A, H, W]` box deltas.
        base_anchors: `[A, 4]` of the level.
        stride: pixels of the network's input per position.
        image_index: written into column 0 of the RoIs.
    """
    return scored_proposals(logits.sigmoid(), deltas, base_anchors, stride, image_index, im_info, limits)


def scored_proposals(
    probabilities: Tensor,
    deltas: Tensor,
    base_anchors: Tensor,
    stride: int,
    image_index: int,
    im_info: ImInfo,
    limits: ProposalLimits,
) -> Proposals:
    """`level_proposals` from `[A, H, W]` objectness after the sigmoid, which is where Detectron's operator begins.

    Top `RPN_PRE_NMS_TOP_N` by score, decode, clip, drop what is too small, NMS, top `RPN_POST_NMS_TOP_N`
    (Detectron ops/generate_proposals.py:proposals_for_one_image).
    """
    scores = probabilities.permute(1, 2, 0).reshape(-1)
    index = argtop(scores, limits.RPN_PRE_NMS_TOP_N)
    scores = scores[index]
    anchors = anchors_at(index, base_anchors, stride, probabilities.shape[2])
    boxes = decode_boxes(anchors, deltas.permute(1, 2, 0).reshape(-1, 4)[index], RPN_BOX_WEIGHTS)
    boxes = clip_boxes(boxes, im_info.height, im_info.width)
    large = large_enough(boxes, im_info.height, im_info.width, im_info.scale, limits.RPN_MIN_SIZE)
    boxes, scores = boxes[large], scores[large]
    if limits.RPN_NMS_THRESH > 0:
        kept = nms(boxes, scores, limits.RPN_NMS_THRESH, limits.RPN_POST_NMS_TOP_N)
        boxes, scores = boxes[kept], scores[kept]
    return Proposals(torch.cat((boxes.new_full((len(boxes), 1), image_index), boxes), dim=1), scores)


def anchors_at(index: Tensor, base_anchors: Tensor, stride: int, width: int) -> Tensor:
    """Anchors `[..., 4]` of a level by their `index [...]` in the order (y, x, anchor) of `[H, width, A]`."""
    num_anchors = len(base_anchors)
    position, anchor = index // num_anchors, index % num_anchors
    shifts = torch.stack((position % width, position // width), dim=-1).to(base_anchors.dtype) * stride
    return base_anchors[anchor] + torch.cat((shifts, shifts), dim=-1)


def large_enough(boxes: Tensor, height: float, width: float, scale: float | Tensor, min_size: float) -> Tensor:
    """Which `[..., 4]` clipped boxes have sides of at least `min_size`, and of one pixel, of the *original* image.

    Their centre must lie in the image too: height x width pixels of the network's input, `scale` of them per pixel of
    the original image (Detectron ops/generate_proposals.py:_filter_boxes).
    """
    center_x, center_y = box_centers(boxes)
    inside = (center_x < width) & (center_y < height)
    return (original_sides(boxes, scale) >= max(min_size, 1)).all(dim=-1) & inside


def collect_proposals(parts: list[Proposals], top_n: int) -> Proposals:
    """The best `top_n` proposals of several levels together, best first.

    In training Detectron collects over all images of a GPU's minibatch as well, so that one image may take more than
    its share; at test time a minibatch is one image (ops/collect_and_distribute_fpn_rpn_proposals.py:collect).
    """
    scores = torch.cat([part.scores for part in parts])
    best = argsort(-scores)[:top_n]
    return Proposals(torch.cat([part.rois for part in parts])[best], scores[best])


def first_of_equal(
    boxes: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The first of each kind of `[R, N]` rows that round to the same numbers, and for each row its kind.

    The kinds are in the order of Detectron's hash: the last column counts most
    (Detectron utils/boxes.py:unique_boxes, core/test.py:im_detect_bbox).
    """
    hashes = np.round(boxes).dot(1e3 ** np.arange(boxes.shape[1]))
    _, index, kind = np.unique(hashes, return_index=True, return_inverse=True)
    return index, kind
