"""From an image file to the network's input; answers to Detectron utils/blob.py."""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detectron_gn.mrcnn.errors import InputError

Image = npt.NDArray[np.uint8]
FloatImage = npt.NDArray[np.float32]


class PreparedImage(NamedTuple):
    """An image at the network's scale, mean colour subtracted: `[H, W, 3]` float32 BGR, and the scale factor."""

    pixels: FloatImage
    scale: float


def image_scale(height: int, width: int, target_size: int, max_size: int) -> float:
    """The factor that brings the short side to `target_size`, or the long one to `max_size` if it would be longer.

    The long side is rounded half to even before it is compared (Detectron utils/blob.py:prep_im_for_blob).
    """
    scale = float(target_size) / float(min(height, width))
    if np.round(scale * max(height, width)) > max_size:
        scale = float(max_size) / float(max(height, width))
    return scale


def scaling_fault(height: int, width: int, target_size: int, max_size: int) -> str | None:
    """Why an image of this size cannot be scaled by `image_scale`; None where it can."""
    if min(scaled_size(height, width, image_scale(height, width, target_size, max_size))) > 0:
        return None
    return (
        f"an image of {width} x {height} pixels (width x height) whose long side is scaled to {max_size} has no short "
        "side left: cut it into pieces"
    )


def prepare_image(
    image: Image, pixel_means: tuple[float, float, float], target_size: int, max_size: int
) -> PreparedImage:
    """Subtract the mean colour, then resize in float.

    Args:
        image: `[H, W, 3]` uint8 BGR.
        pixel_means: `cfg.PIXEL_MEANS`, BGR. Nothing is divided by a standard deviation.
        target_size: wanted length of the short side, in pixels.
        max_size: limit on the long side.

    OpenCV resizes by the exact factor, so that source positions follow the factor and not the rounded size.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(f"an image must be a [height, width, 3] uint8 array, not {type(image).__name__}: was it read?")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError(
            f"an image must be a [height, width, 3] uint8 array in BGR order, not {list(image.shape)} {image.dtype}"
        )
    # numpy subtracts the float64 means in float64 and rounds once; a table of the 256 values does just that.
    table = (np.arange(256, dtype=np.float64)[:, None] - np.asarray(pixel_means)).astype(np.float32)
    scale = image_scale(image.shape[0], image.shape[1], target_size, max_size)
    fault = scaling_fault(image.shape[0], image.shape[1], target_size, max_size)
    if fault is not None:
        raise InputError(fault)
    centered = cv2.LUT(image, table[None])
    resized = cv2.resize(centered, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    return PreparedImage(np.asarray(resized, dtype=np.float32), scale)


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Height and width of an image that `prepare_image` scaled: rounded half to even, as OpenCV does."""
    return round(height * scale), round(width * scale)


def padded_size(height: int, width: int, stride: int) -> tuple[int, int]:
    """Height and width rounded up to multiples of `stride` (`cfg.FPN.COARSEST_STRIDE`)."""
    return -(-height // stride) * stride, -(-width // stride) * stride


def image_blob(images: list[FloatImage], stride: int) -> Tensor:
    """Stack `[H, W, 3]` images into `[N, 3, H', W']` float32, zeros to the right and below, channels-last in memory.

    H' and W' hold the largest image and are multiples of `stride` (Detectron utils/blob.py:im_list_to_blob).
    """
    largest = (max(image.shape[0] for image in images), max(image.shape[1] for image in images))
    height, width = padded_size(*largest, stride)
    blob = np.zeros((len(images), height, width, 3), dtype=np.float32)
    for image, place in zip(images, blob, strict=True):
        place[: image.shape[0], : image.shape[1]] = image
    return torch.from_numpy(blob).permute(0, 3, 1, 2)
