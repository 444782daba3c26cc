"""Box arithmetic with inclusive corners; answers to Detectron utils/boxes.py and utils/cython_bbox.pyx.

A box is `(x1, y1, x2, y2)` in pixels and both corners belong to it, so its width is `x2 - x1 + 1`. The `+ 1` of
that convention is written only in this module. A shape that begins with `...` may have more dimensions there, mostly
that of a batch.
"""

import math
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Coordinate = TypeVar("Coordinate", bound=Any)
BoxWeights = tuple[float, float, float, float]

# The largest dw or dh that is exponentiated (Detectron core/config.py: BBOX_XFORM_CLIP).
BBOX_XFORM_CLIP = math.log(1000.0 / 16.0)


def side(first: Coordinate, last: Coordinate) -> Coordinate:
    """How long a range of pixels with inclusive ends is; of numbers, arrays or tensors, element by element."""
    length: Coordinate = last - first + 1
    return length


def after(last: Coordinate) -> Coordinate:
    """The end of a range of pixels with the inclusive end `last`, as slices write ends."""
    end: Coordinate = last + 1
    return end


def original_sides(boxes: Tensor, scale: float | Tensor) -> Tensor:
    """Widths and heights `[..., 2]` of `[..., 4]` network boxes in pixels of the original image.

    `scale` network pixels are one of the original image, and the `+ 1` is one of its pixels
    (Detectron ops/generate_proposals.py:_filter_boxes).
    """
    return (boxes[..., 2:] - boxes[..., :2]) / scale + 1


def box_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Widths and heights `[...]` of `[..., 4]` inclusive boxes."""
    return side(boxes[..., 0], boxes[..., 2]), side(boxes[..., 1], boxes[..., 3])


def box_areas(boxes: Tensor) -> Tensor:
    """Areas `[...]` of `[..., 4]` inclusive boxes."""
    widths, heights = box_sides(boxes)
    return widths * heights


def box_centers(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres `x1 + width / 2` and `y1 + height / 2` (`[...]` each), half a pixel right of the middle pixel.

    Detectron uses this centre both when it encodes and when it decodes (utils/boxes.py:bbox_transform).
    """
    widths, heights = box_sides(boxes)
    return boxes[..., 0] + 0.5 * widths, boxes[..., 1] + 0.5 * heights


def box_intersections(boxes: Tensor, others: Tensor) -> Tensor:
    """Areas `[..., N, M]` that `[..., N, 4]` and `[..., M, 4]` inclusive boxes share.

    Boxes that touch by a pixel share that pixel.
    """
    # Contiguous columns: strided ones are four times slower to compare.
    x1, y1, x2, y2 = boxes.mT.contiguous().unsqueeze(-1).unbind(-3)
    other_x1, other_y1, other_x2, other_y2 = others.mT.contiguous().unsqueeze(-2).unbind(-3)
    widths = _shared_side(x1, x2, other_x1, other_x2)
    return widths.mul_(_shared_side(y1, y2, other_y1, other_y2))


def _shared_side(first: Tensor, last: Tensor, other_first: Tensor, other_last: Tensor) -> Tensor:
    """How many pixels ranges `[..., N, 1]` and `[..., 1, M]` with inclusive ends share: `[..., N, M]`."""
    shared = torch.minimum(last, other_last)
    return shared.sub_(torch.maximum(first, other_first)).add_(1).clamp_(min=0)


def box_overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union `[N, M]` of `[N, 4]` and `[M, 4]` float32 inclusive boxes.

    The union is formed in float64, of the first boxes' exact areas and the second ones' rounded areas, and rounded
    once, as Cython compiles Detectron utils/cython_bbox.pyx:bbox_overlaps. Training compares overlaps for equality.
    """
    widths, heights = box_sides(boxes.double())
    shared = box_intersections(boxes, others)
    unions = (widths * heights)[:, None] + box_areas(others)[None, :].double() - shared.double()
    return shared / unions.to(shared.dtype)


def decode_boxes(boxes: Tensor, deltas: Tensor, weights: BoxWeights) -> Tensor:
    """Apply regression deltas to boxes, class by class.

    Args:
        boxes: `[..., 4]` float32, inclusive corners, in pixels.
        deltas: `[..., 4K]` float32, (dx, dy, dw, dh) for each of K classes.
        weights: what each of the four was multiplied by when it was encoded.

    Returns:
        `[..., 4K]` float32, same convention, not clipped.

    dw and dh are limited from above only, and the far corner is `centre + side / 2 - 1`
    (Detectron utils/boxes.py:bbox_transform).
    """
    widths, heights = (side[..., None] for side in box_sides(boxes))
    center_x, center_y = (center[..., None] for center in box_centers(boxes))
    dx, dy, dw, dh = (deltas[..., i::4] / weight for i, weight in enumerate(weights))
    x, y = dx * widths + center_x, dy * heights + center_y
    half_width = 0.5 * (torch.exp(dw.clamp(max=BBOX_XFORM_CLIP)) * widths)
    half_height = 0.5 * (torch.exp(dh.clamp(max=BBOX_XFORM_CLIP)) * heights)
    corners = (x - half_width, y - half_height, x + half_width - 1, y + half_height - 1)
    return torch.stack(corners, dim=-1).flatten(-2)


def encode_boxes(boxes: Tensor, gt_boxes: Tensor, weights: BoxWeights) -> Tensor:
    """Regression targets `[N, 4]` that carry each of `boxes [N, 4]` onto its row of `gt_boxes [N, 4]`.

    The inverse of `decode_boxes` for one class (Detectron utils/boxes.py:bbox_transform_inv).
    """
    widths, heights = box_sides(boxes)
    center_x, center_y = box_centers(boxes)
    gt_widths, gt_heights = box_sides(gt_boxes)
    gt_center_x, gt_center_y = box_centers(gt_boxes)
    wx, wy, ww, wh = weights
    targets = (
        wx * (gt_center_x - center_x) / widths,
        wy * (gt_center_y - center_y) / heights,
        ww * torch.log(gt_widths / widths),
        wh * torch.log(gt_heights / heights),
    )
    return torch.stack(targets, dim=1)


def clip_boxes(boxes: Tensor, height: float | Tensor, width: float | Tensor) -> Tensor:
    """Clip `[..., 4K]` boxes to the pixels of an image: x to `[0, width - 1]`, y to `[0, height - 1]`.

    Sizes that differ between the images of a batch are tensors that broadcast to the boxes' coordinates.
    """
    x, y = boxes[..., 0::2].clamp(max=width - 1), boxes[..., 1::2].clamp(max=height - 1)
    return torch.stack((x, y), dim=-1).flatten(-2).clamp_(min=0)


def flip_boxes(boxes: Tensor, width: int) -> Tensor:
    """Mirror `[..., 4K]` boxes left to right in an image `width` pixels wide (Detectron utils/boxes.py:flip_boxes)."""
    x1, y1, x2, y2 = (boxes[..., corner::4] for corner in range(4))
    return torch.stack((width - x2 - 1, y1, width - x1 - 1, y2), dim=-1).flatten(-2)


def stretch_boxes(boxes: Tensor, ratio: float) -> Tensor:
    """`[..., 4K]` boxes of an image whose width is multiplied by a ratio (Detectron utils/boxes.py:aspect_ratio).

    Inclusive corners are multiplied as they are, without the `+ 1`.
    """
    x, y = boxes[..., 0::2] * ratio, boxes[..., 1::2]
    return torch.stack((x, y), dim=-1).flatten(-2)


def xyxy_to_xywh(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`[N, 4]` inclusive corners to COCO's (x, y, width, height)."""
    return np.concatenate((boxes[:, :2], side(boxes[:, :2], boxes[:, 2:])), axis=1)


def xywh_to_xyxy(
    x: Coordinate, y: Coordinate, width: Coordinate, height: Coordinate
) -> tuple[Coordinate, Coordinate, Coordinate, Coordinate]:
    """COCO's (x, y, width, height) to inclusive corners, of numbers or arrays; sides under a pixel become a pixel.

    Detectron utils/boxes.py:xywh_to_xyxy.
    """
    return x, y, x + np.maximum(0.0, width - 1.0), y + np.maximum(0.0, height - 1.0)


def expand_boxes(boxes: Tensor, scale: float) -> Tensor:
    """Scale `[N, 4]` float32 boxes about their middle; returns float64.

    Here, and only here, Detectron takes `x2 - x1` for the width, without `+ 1`. It computes the half sides and the
    middle in float32 before it stores them as float64 (utils/boxes.py:expand_boxes).
    """
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5
    middle = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    half = half * scale
    return torch.cat((middle - half, middle + half), dim=1).double()
