"""An image in whatever form a caller has it: a file, its bytes, an array, a PIL image, a tensor."""

from os import PathLike
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.data.read_image import decode_image, read_image
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.tracing import refuse_export

# A path, the bytes of an image file, an array `[H, W, 3]` uint8 BGR, a PIL image, or a tensor `[3, H, W]` RGB, uint8 or
# floats from 0 to 1.
AnyImage: TypeAlias = Any

_FORMS = (
    "give a path, the bytes of an image file, an array [H, W, 3] uint8 in BGR as cv2.imread gives it, a PIL image, or "
    "a tensor [3, H, W] in RGB, uint8 or floats from 0 to 1"
)


def as_image(image: AnyImage) -> Image:
    """An image as `[H, W, 3]` uint8 BGR, which is what the networks were trained on.

    Arrays are BGR, as OpenCV has them; PIL images and tensors are RGB, as PIL and torchvision have them. Floats are
    multiplied by 255 and rounded. Bytes are those of an image file, and checked as files are. Raises InputError for
    anything else, and what `read_image` and `decode_image` raise.
    """
    if isinstance(image, str | PathLike):
        return read_image(image)  # type: ignore[arg-type]
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_image(bytes(image))
    if isinstance(image, Tensor):
        return _of_tensor(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise InputError(f"an array of shape {list(image.shape)} and type {image.dtype} is no image: {_FORMS}")
        return image
    if hasattr(image, "convert") and hasattr(image, "size"):
        if str(getattr(image, "mode", "")).startswith(("I", "F")):
            raise InputError(
                f"a PIL image of mode {image.mode} has more than 8 bits, and PIL would cut them off: give its path, or "
                "an array [H, W, 3] uint8"
            )
        return np.ascontiguousarray(np.asarray(image.convert("RGB"), dtype=np.uint8)[:, :, ::-1])
    raise InputError(f"{type(image).__name__} is no image: {_FORMS}")


def _of_tensor(image: Tensor) -> Image:
    refuse_export("an image is scaled")
    values = image.detach().cpu()
    if values.dim() != 3 or values.shape[0] != 3 or 0 in values.shape:
        raise InputError(f"a tensor of shape {list(image.shape)} is no image: {_FORMS}")
    if values.is_floating_point():
        if not (values.isfinite().all() and values.min() >= 0 and values.max() <= 1):
            raise InputError(f"a tensor of floats beyond 0 to 1 is no image: {_FORMS}")
        values = (values.double() * 255).round().byte()
    if values.numpy().dtype != np.uint8:
        raise InputError(f"a tensor of type {image.dtype} is no image: {_FORMS}")
    return np.ascontiguousarray(values.permute(1, 2, 0).numpy()[:, :, ::-1])
