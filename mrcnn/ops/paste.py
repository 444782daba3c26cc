"""From soft masks to masks of the image and COCO's run lengths; answers to Detectron core/test.py:segm_results."""

from typing import NamedTuple, TypedDict

import cv2
import numpy as np
import numpy.typing as npt
import pycocotools.mask
import torch

from detectron_gn.mrcnn.data.run_lengths import decoded_runs, runs_bounds
from detectron_gn.mrcnn.ops.boxes import after, expand_boxes, side


class Rle(TypedDict):
    """A mask as COCO writes it: (height, width) and the compressed run lengths as text."""

    size: list[int]
    counts: str


class Patch(NamedTuple):
    """The part of an image a mask can cover: `[h, w]` bool pixels whose first one stands at (x, y) of the image."""

    pixels: npt.NDArray[np.bool_]
    x: int
    y: int

    def __repr__(self) -> str:
        """`<mask of [40, 31] at (12, 70)>`: its shape, and where it begins."""
        return f"<mask of {list(self.pixels.shape)} at ({self.x}, {self.y})>"


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
    size = (max(side(x1, x2), 1), max(side(y1, y2), 1))
    bins = len(probabilities) + 2
    padded = np.zeros((bins, bins), dtype=np.float32)
    padded[1:-1, 1:-1] = probabilities
    resized = cv2.resize(padded, size)
    left, right = max(x1, 0), min(after(x2), image_size[1])
    top, bottom = max(y1, 0), min(after(y2), image_size[0])
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

    Runs are counted down the columns of the image, so only the columns of the patch are encoded; what lies left and
    right of them lengthens the first and the last run.
    """
    height, width = image_size
    rows, columns = patch.pixels.shape
    if not patch.pixels.any():
        return {"size": [height, width], "counts": _run_text(height * width)}
    # One more column, where there is one, for the last run to be of background, as the ones right of it are.
    last = min(patch.x + columns + 1, width)
    bitmap = np.zeros((last - patch.x, height), dtype=np.uint8)
    bitmap[:columns, patch.y : patch.y + rows] = cv2.transpose(patch.pixels.view(np.uint8))
    text = pycocotools.mask.encode(bitmap.T)["counts"].decode("ascii")
    first_end = next(place for place, character in enumerate(text, 1) if not _goes_on(character))
    last_start = len(text) - 1
    while _goes_on(text[last_start - 1]):
        last_start -= 1
    left = _run_text(_run_of(text[:first_end]) + patch.x * height)
    right = text[last_start:] if last == width else _run_text(_run_of(text[last_start:]) + (width - last) * height)
    return {"size": [height, width], "counts": left + text[first_end:last_start] + right}


def rle_patch(rle: Rle) -> Patch:
    """The mask of run lengths, cut to what it covers: most of a large image is no part of it, and is never made.

    `counts` may be bytes, as pycocotools has them. Raises ValueError for what are no run lengths of an image.
    """
    text, (height, width) = rle["counts"], rle["size"]
    runs = decoded_runs(text.encode("ascii") if isinstance(text, str) else text)
    if runs is None or runs.min() < 0 or runs.sum() != height * width:
        raise ValueError(f"these are no run lengths of a mask of {height} x {width} pixels")
    left, top, right, foot = runs_bounds(runs, height) or (0, 0, 0, 0)
    ends = np.cumsum(runs).clip(left * height, right * height)
    columns = np.repeat(np.arange(len(ends)) % 2 == 1, np.diff(ends, prepend=left * height)).reshape(-1, height)
    return Patch(np.ascontiguousarray(columns[:, top:foot].T), left, top)


# COCO's coding of a run (pycocotools rleToString): a signed number in groups of five bits, lowest first, one per
# character from "0" on; bit 5 says that more follow. From the fourth run on it is the difference to the run two before.


def _goes_on(character: str) -> bool:
    return bool((ord(character) - 48) & 32)


def _run_of(text: str) -> int:
    codes = [ord(character) - 48 for character in text]
    value = sum((code & 31) << 5 * place for place, code in enumerate(codes))
    return value - (1 << 5 * len(codes)) if codes[-1] & 16 else value


def _run_text(value: int) -> str:
    text = ""
    while True:
        group, value = value & 31, value >> 5
        # The last group carries the sign in its highest bit, which must agree with what is left.
        ends = value == (-1 if group & 16 else 0)
        text += chr(48 + (group if ends else group | 32))
        if ends:
            return text
