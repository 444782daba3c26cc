"""How the preparation of a network input differs from the reference's, told from its pixels.

The image file is turned some way (channels swapped, mirrored) and prepared anew, and ours = factor * theirs + offset is
fitted to every channel. A cause is named only where one such line explains every pixel that the reference has kept.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.verify.diagnosis.diagnosis import Diagnosis
from detectron_gn.verify.reference.reference_blob import ReferenceBlob

Array = npt.NDArray[np.float64]

# What a line may leave unexplained, as a share of the range of our values.
_RESIDUE = 1e-4

# Grey levels, and shares of 1, that are no difference: OpenCV's releases resize to within 1e-5 grey levels.
_SAME_LEVEL = 0.01
_SAME_FACTOR = 1e-3

_RESIZING = "resizing: cv2.resize in float by the exact factor, bilinear without smoothing; PIL's smooths"

_TURNS: dict[str, Callable[[Image], Image]] = {
    "": lambda image: image,
    "its channels are in the other order": lambda image: image[:, :, ::-1],
    "it is mirrored left to right": lambda image: image[:, ::-1],
    "it stands upside down": lambda image: image[::-1],
}


def explain_input(
    cfg: Config, prepare: Callable[[Image], Tensor], image: Image, size: tuple[int, int], reference: ReferenceBlob
) -> Diagnosis:
    """Why `data` differs.

    Args:
        prepare: makes our network input `[1, 3, H', W']` float32 of an image.
        image: `[H, W, 3]` uint8 BGR, as it was read.
        size: height and width of the picture in the input; what lies right of it and below is padding.
        reference: the reference's `data`.
    """
    data = prepare(image)
    if tuple(data.shape) != reference.shape:
        return Diagnosis(
            f"the network's input is {list(data.shape)}, the reference's {list(reference.shape)}",
            "the image's scale or its padding: TEST.SCALE, TEST.MAX_SIZE, FPN.COARSEST_STRIDE",
        )
    height, width = size
    inside = torch.zeros(data.shape)
    inside[:, :, :height, :width] = 1
    kept = reference.sample_of(inside) > 0
    channel = reference.sample_of(torch.arange(3.0)[None, :, None, None].expand(data.shape)).astype(np.int64)
    theirs = reference.doubles()
    means = np.array(cfg.PIXEL_MEANS)
    for told, turn in _TURNS.items():
        ours = reference.sample_of(prepare(np.ascontiguousarray(turn(image))))
        lines = _lines(ours[kept], theirs[kept], channel[kept])
        if lines is not None:
            factors, offsets = lines
            if told:
                return _turned(told, factors, offsets, means)
            return _same_picture(factors, offsets) or _padding(ours[~kept], theirs[~kept])
    difference = np.abs(theirs - reference.sample_of(data))[kept]
    return Diagnosis(
        f"{np.mean(difference > _SAME_LEVEL):.0%} of its pixels differ, by {difference.mean():.2g} grey levels on "
        "average, and neither other means, another scale of its values, nor channels or sides that changed places "
        "explain them",
        may_be=f"{_RESIZING}; or another picture",
    )


def _turned(told: str, factors: Array, offsets: Array, means: Array) -> Diagnosis:
    """A picture that agrees once it is turned."""
    if "channels" not in told:
        return Diagnosis(f"it agrees once that is undone: {told}", f"the picture as it is read: {told}")
    own_means = np.abs(offsets).max() < _SAME_LEVEL
    # Where the means were swapped with the channels, swapping the channels back leaves the means in the wrong order.
    swapped_means = np.abs(offsets - (means - means[::-1])).max() < _SAME_LEVEL
    if np.abs(factors - 1).max() < _SAME_FACTOR and (own_means or swapped_means):
        what = "the channels" if own_means else "the channels and their means"
        return Diagnosis(f"it agrees once {what} are in the other order", "RGB instead of BGR")
    return Diagnosis(
        f"{told}, and besides each is {_row(factors)} times the reference's with {_row(offsets)} added",
        "RGB instead of BGR, and means (or a division) other than PIXEL_MEANS alone",
    )


def _same_picture(factors: Array, offsets: Array) -> Diagnosis | None:
    """Values of the same picture that are stretched or moved, channel by channel; None where they agree."""
    if np.abs(factors - 1).max() >= _SAME_FACTOR:
        alike = np.ptp(factors) < _SAME_FACTOR * np.abs(factors).max()
        times = f"{factors.mean():.3g}" if alike else f"{_row(factors)} (B, G, R)"
        divided = "a division by a standard deviation or by 255: there is none"
        return Diagnosis(f"it is {times} times the reference", divided)
    if np.abs(offsets).max() >= _SAME_LEVEL:
        moved = ", ".join(f"{-offset:+.2f}" for offset in offsets)
        evidence = f"it is the same in every pixel but for {moved} in B, G, R"
        return Diagnosis(evidence, "the mean colour: PIXEL_MEANS, BGR")
    return None


def _padding(ours: Array, theirs: Array) -> Diagnosis:
    """The picture itself agrees."""
    if not len(ours) or not np.abs(ours - theirs).max() > 0:
        return Diagnosis("it differs by less than the picture's own rounding", may_be=_RESIZING)
    return Diagnosis(
        f"the picture agrees, and what it is padded with does not: up to {np.abs(ours).max():.4g}, the reference's up "
        f"to {np.abs(theirs).max():.4g}",
        "the padding: zeros, put there after the mean colour is taken off",
    )


def _lines(ours: Array, theirs: Array, channel: npt.NDArray[np.int64]) -> tuple[Array, Array] | None:
    """Factor and offset `[3]` of each channel in ours = factor * theirs + offset; None where no line fits."""
    fitted = []
    for number in range(3):
        mine, other = ours[channel == number], theirs[channel == number]
        # Two values always lie on a line, and equal ones tell no factor.
        if len(mine) < 10 or not np.ptp(other) > 1:
            return None
        factor, offset = np.polyfit(other, mine, 1)
        if not np.abs(factor * other + offset - mine).max() <= _RESIDUE * np.ptp(mine):
            return None
        fitted.append((factor, offset))
    factors, offsets = np.array(fitted).T
    return factors, offsets


def _row(values: Array) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
