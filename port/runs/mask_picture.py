"""The masks of an image as one picture of numbers, which every program reads without loss."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.ops.paste import Rle, rle_patch

# What a pixel of 8 and of 16 bits can hold.
_MOST_IN_8, _MOST_IN_16 = 255, 65535


def mask_numbers(masks: Sequence[Rle], size: tuple[int, int]) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """`[height, width]`: of each pixel the number of the mask that it belongs to, from 1 on; 0 where there is none.

    Where masks overlap, the one that comes first has the pixel. 8 bits, or 16 of more than 255 masks; of more than
    65,535 the others are left out.
    """
    numbers = np.zeros(size, dtype=np.uint16)
    for number, mask in enumerate(masks[:_MOST_IN_16], 1):
        patch = rle_patch(mask)
        height, width = patch.pixels.shape
        region = numbers[patch.y : patch.y + height, patch.x : patch.x + width]
        region[patch.pixels & (region == 0)] = number
    return numbers if len(masks) > _MOST_IN_8 else numbers.astype(np.uint8)


def mask_png(masks: Sequence[Rle], size: tuple[int, int]) -> bytes:
    """`mask_numbers` as a PNG of one channel."""
    return cv2.imencode(".png", mask_numbers(masks, size))[1].tobytes()
