"""Boxes in whatever form a caller has them: an array, a list, a tensor."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from detectron_gn.mrcnn.errors import InputError

# `[R, 4]` numbers: an array, a tensor, or a list of lists.
AnyBoxes: TypeAlias = Any

# Corners beyond this are of no image, and their areas are still finite in float32.
_FARTHEST = 1e9


def as_boxes(boxes: AnyBoxes, name: str) -> npt.NDArray[np.float32]:
    """`[R, 4]` float32, corners x1, y1, x2, y2 in pixels of the image; R may be 0.

    Args:
        name: what a sentence calls them.

    Raises InputError for anything else: other shapes, text, what is not finite or lies beyond any image.
    """
    wanted = f"{name} must be [R, 4] finite numbers (x1, y1, x2, y2 in pixels of the image)"
    try:
        array = boxes.detach().cpu().numpy() if isinstance(boxes, Tensor) else np.asarray(boxes)
    except (TypeError, ValueError):  # rows of several lengths; a type that numpy does not have
        raise InputError(f"{wanted}, which {type(boxes).__name__} of other contents is not") from None
    if not array.size and array.dtype.kind == "f" and array.shape in ((0,), (0, 4)):
        return np.zeros((0, 4), np.float32)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{wanted}, not {type(boxes).__name__}")
    if array.ndim != 2 or array.shape[1] != 4:
        raise InputError(f"{wanted}, not {list(array.shape)}")
    # NaN is not below it either.
    if not (np.abs(array.astype(np.float64)) <= _FARTHEST).all():
        raise InputError(f"{wanted}: these hold NaN, infinity or places beyond any image")
    return np.ascontiguousarray(array, np.float32)
