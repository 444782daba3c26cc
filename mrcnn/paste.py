"""From soft masks to masks of the image and COCO's run lengths; answers to Detectron core/test.py:segm_results."""

from typing import NamedTuple, TypedDict

import cv2
import numpy as np
import numpy.typing as npt
import pycocotools.mask
import torch

from mrcnn.boxes import expand_boxes


class Rle(TypedDict):
    """A mask as COCO writes it: (height, width) and the compressed run lengths as text."""

    size: list[int]
    counts: str


class Patch(NamedTuple):
    """The part of an image a mask can cover: `[h, w]` bool pixels whose first one stands at (x, y) of the image."""

    pixels: npt.NDArray[np.bool_]
    x: int
    y: int


def paste_boxes(boxes: npt.NDArray[np.float32], resolution: int) -> npt.NDArray[np.int32]:
    """The integer boxes `[D, 4]` that masks padded by one bin are resized to.

    They are grown by (resolution + 2) / resolution and truncated *toward zero*, which moves negative corners to the
    right (Detectron core/test.py:segm_results, `astype(np.int32)`).
    """
    grown: npt.NDArray[np.float64] = expand_boxes(torch.from_numpy(boxes), (resolution + 2.0) / resolution).numpy()
    return grown.astype(np.int32)


def paste_mask(
    probabilities: npt.NDArray[np.float32], box: npt.NDArray[np.int32], image_size: tuple[int, int], threshold: float
) -> Patch:
    """Resize one soft mask to its box, threshold it, and cut off what lies outside of the image.

    Args:
        probabilities: `[M, M]` float32; padded here with one zero bin all around.
        box: `[4]` int32, a row of `paste_boxes`.
        image_size: (height, width).
        threshold: `cfg.MRCNN.THRESH_BINARIZE`; a pixel must exceed it.
    """
    x1, y1, x2, y2 = (int(corner) for corner in box)
    size = (max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1))
    resized = cv2.resize(np.pad(probabilities, 1), size)
    left, right = max(x1, 0), min(x2 + 1, image_size[1])
    top, bottom = max(y1, 0), min(y2 + 1, image_size[0])
    visible = resized[top - y1 : max(bottom, top) - y1, left - x1 : max(right, left) - x1]
    return Patch(visible > threshold, left, top)


def patch_bitmap(patch: Patch, image_size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The mask as an `[height, width]` bool picture of the whole image."""
    bitmap = np.zeros(image_size, dtype=bool)
    height, width = patch.pixels.shape
    bitmap[patch.y : patch.y + height, patch.x : patch.x + width] = patch.pixels
    return bitmap


def patch_rle(patch: Patch, image_size: tuple[int, int]) -> Rle:
    """The mask in COCO's compressed run lengths, the same text as from a bitmap of the whole image, without one.

    Runs are counted down the columns of the image. A run that ends at the bottom of one column and goes on at the
    top of the next is one run.
    """
    height, width = image_size
    columns = np.pad(patch.pixels.T, ((0, 0), (1, 1))).view(np.int8)
    step = np.diff(columns, axis=1)
    offset = patch.x * height + patch.y
    column, row = np.nonzero(step == 1)
    starts = column * height + row + offset
    column, row = np.nonzero(step == -1)
    ends = column * height + row + offset
    positions, times = np.unique(np.concatenate((starts, ends)), return_counts=True)
    borders = positions[times == 1]
    counts = np.diff(np.concatenate(([0], borders, [height * width])))
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    rle = pycocotools.mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}
