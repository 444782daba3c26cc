"""Which objects of an image are trained on, and their boxes; answers to Detectron datasets/json_dataset.py."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.annotations.ragged import BoolArray, IntArray, NumberArray
from detectron_gn.mrcnn.ops.boxes import xywh_to_xyxy


def clean_boxes(boxes: NumberArray, heights: IntArray, widths: IntArray) -> NumberArray:
    """Boxes `[A, 4]` (x, y, width, height) of annotations as inclusive corners, clipped to their images.

    Sides under a pixel become a pixel, whose corners coincide (Detectron utils/boxes.py:xywh_to_xyxy,
    clip_xyxy_to_image).

    Args:
        heights, widths: `[A]` or one for all, of the images.
    """
    x1, y1, x2, y2 = xywh_to_xyxy(*boxes.T)
    across, down = ([np.minimum(size - 1.0, np.maximum(0.0, each)) for each in ends]
                    for size, ends in ((widths, (x1, x2)), (heights, (y1, y2))))  # fmt: skip
    return np.stack((across[0], down[0], across[1], down[1]), axis=1)


def reasons_to_drop(
    boxes: NumberArray, areas: NumberArray, is_ignored: BoolArray, cfg: Config
) -> Sequence[tuple[BoolArray, str]]:
    """Why Detectron leaves annotations out of training: of each reason, `[A]`, whom it meets, and its words.

    The first reason that meets an annotation counts; `{area}` in the words stands for its area
    (datasets/json_dataset.py:_add_gt_annotations).

    Args:
        boxes: `[A, 4]`, clean.
    """
    x1, y1, x2, y2 = boxes.T
    return (
        (areas < cfg.TRAIN.GT_MIN_AREA, f"area {{area:g}} is under TRAIN.GT_MIN_AREA {cfg.TRAIN.GT_MIN_AREA:g}"),
        (is_ignored, "ignore is set"),
        (~(areas > 0), "area is 0"),
        (~((x2 > x1) & (y2 > y1)), "bbox is a pixel or less wide or high within the image"),
    )


def are_trained(boxes: NumberArray, areas: NumberArray, is_ignored: BoolArray, cfg: Config) -> BoolArray:
    """Of annotations with these clean boxes `[A, 4]`, which Detectron trains on."""
    return ~is_any([met for met, _ in reasons_to_drop(boxes, areas, is_ignored, cfg)])


def is_any(conditions: Sequence[BoolArray]) -> BoolArray:
    """Where at least one of some conditions `[A]` holds."""
    found: BoolArray = np.logical_or.reduce(conditions)
    return found


def count_for_training(overlaps: npt.NDArray[np.floating[Any]], cfg: Config) -> BoolArray:
    """Of boxes with these overlaps with an object, which count as foreground or as background.

    An object overlaps itself by 1, and a crowd counts as -1 (Detectron datasets/roidb.py:filter_for_training).
    """
    foreground = overlaps >= cfg.TRAIN.FG_THRESH
    background = (overlaps < cfg.TRAIN.BG_THRESH_HI) & (overlaps >= cfg.TRAIN.BG_THRESH_LO)
    return foreground | background
