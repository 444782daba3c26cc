"""The masks of an image as one picture of numbers, which every program reads without loss."""

import cv2
import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.structures import Detections

# What a pixel of 8 and of 16 bits can hold.
_MOST_IN_8, _MOST_IN_16 = 255, 65535


def mask_numbers(found: Detections) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """`[height, width]`: of each pixel the number of the detection that it belongs to, from 1 on; 0 of none.

    Where masks overlap, the detection that comes first has the pixel. 8 bits, or 16 of more than 255 detections; of
    more than 65,535 the others are left out.
    """
    numbers = np.zeros(found.image_size, dtype=np.uint16)
    for number, patch in enumerate(found[:_MOST_IN_16].patches(), 1):
        height, width = patch.pixels.shape
        region = numbers[patch.y : patch.y + height, patch.x : patch.x + width]
        region[patch.pixels & (region == 0)] = number
    return numbers if len(found) > _MOST_IN_8 else numbers.astype(np.uint8)


def mask_png(found: Detections) -> bytes:
    """`mask_numbers` as a PNG of one channel."""
    return cv2.imencode(".png", mask_numbers(found))[1].tobytes()
