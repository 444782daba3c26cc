"""Where the labels of a picture stand: at their boxes, none over another, as little as may be over small objects."""

import math
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.data.image_blob import Image

Colour = tuple[int, int, int]
"""BGR."""
Corners = tuple[int, int, int, int]
"""Left, top, right and bottom of a box, in pixels of the picture."""
Boxes = npt.NDArray[np.int64]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
# An object is hidden by a label if it is not many times as large.
_HIDDEN = 6
# Labels that would take more than this share of the picture are written smaller, as far as they can be read.
_CROWDED = 0.15
# On what is lighter than this, black is read better than white.
_LIGHT = 110
# Steps in which a label moves along the edge of its box.
_STEPS = (0.0, 1.0, 0.25, 0.5, 0.75)


class Label(NamedTuple):
    """A text, the box that it is of, and the colour of both."""

    box: Corners
    text: str
    colour: Colour


class _Metrics(NamedTuple):
    """What letters of one size take: `scale` and `thickness` are OpenCV's."""

    scale: float
    thickness: int
    margin: int

    def size(self, text: str) -> tuple[int, int, int]:
        """Width and height of a label, and the height of its letters."""
        (width, ascent), descent = cv2.getTextSize(text, _FONT, self.scale, self.thickness)
        return width + 2 * self.margin, ascent + descent + self.margin, ascent


def draw_labels(canvas: Image, labels: Sequence[Label], boxes: Sequence[Corners], unit: float) -> None:
    """Write labels into a picture; those that come first have the first choice of where to stand.

    A label stands above its box, in it or below it, where it hides the least of small objects; one that could only
    stand over another is left out.

    Args:
        canvas: `[H, W, 3]` uint8 BGR, which is drawn into.
        boxes: of all objects, labelled or not.
        unit: the size of everything that is drawn; 1 suits a picture of 640 x 480 pixels.
    """
    height, width = canvas.shape[:2]
    metrics = _metrics(unit)
    texts = [_ascii(label.text) for label in labels]
    crowded = sum(wide * high for wide, high, _ in map(metrics.size, texts)) / (_CROWDED * width * height)
    if crowded > 1:
        metrics = _metrics(max(1.0, unit / math.sqrt(crowded)))
    objects = np.array(boxes, dtype=np.int64).reshape(-1, 4)
    placed: Boxes = np.zeros((0, 4), dtype=np.int64)
    for label, text in zip(labels, texts, strict=True):
        wide, high, ascent = metrics.size(text)
        places = np.array(list(_places(label.box, wide, high, width, height)), dtype=np.int64)
        free = places[_shared(places, placed).sum(axis=1) == 0]
        if not len(free):
            continue
        others = objects[(objects != np.array(label.box)).any(axis=1)]
        small = others[_areas(others) < _HIDDEN * wide * high]
        place = free[np.argmin(_shared(free, small).sum(axis=1))]
        placed = np.concatenate([placed, place[None]])
        _write(canvas, text, place.tolist(), label.colour, metrics, ascent)


def _ascii(text: str) -> str:
    """A text in OpenCV's letters: without accents, and ? for what has no such letter.

    A character that has no UTF-8 would end the process.
    """
    letters = (each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each))
    return "".join(letters).encode("ascii", "replace").decode()


def grey(colour: Colour) -> float:
    """How light a colour is, from 0 to 255."""
    blue, green, red = colour
    return 0.114 * blue + 0.587 * green + 0.299 * red


def _metrics(unit: float) -> _Metrics:
    return _Metrics(0.4 * unit, max(1, round(unit)), max(2, round(3 * unit)))


def _places(box: Corners, wide: int, high: int, width: int, height: int) -> Iterator[Corners]:
    """Where a label may stand, the best first, inside of the picture as far as it has room."""
    left, top, right, bottom = box
    lowest, rightmost = max(height - high, 0), max(width - wide, 0)
    for y in (top - high, top, bottom + 1, bottom + 1 - high):
        y = min(max(y, 0), lowest)
        for step in _STEPS:
            x = min(max(round(left + step * (right + 1 - wide - left)), 0), rightmost)
            yield x, y, x + wide, y + high


def _areas(boxes: Boxes) -> npt.NDArray[np.int64]:
    areas: npt.NDArray[np.int64] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas


def _shared(some: Boxes, others: Boxes) -> npt.NDArray[np.int64]:
    """`[N, M]`: the pixels that each of N boxes shares with each of M others."""
    first = np.maximum(some[:, None, :2], others[None, :, :2])
    last = np.minimum(some[:, None, 2:], others[None, :, 2:])
    shared: npt.NDArray[np.int64] = np.prod(np.maximum(last - first, 0), axis=2)
    return shared


def _write(canvas: Image, text: str, place: Any, colour: Colour, metrics: _Metrics, ascent: int) -> None:
    left, top, right, bottom = place
    cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), colour, cv2.FILLED)
    ink = (0, 0, 0) if grey(colour) > _LIGHT else (255, 255, 255)
    baseline = (left + metrics.margin, top + ascent + metrics.margin // 2)
    cv2.putText(canvas, text, baseline, _FONT, metrics.scale, ink, metrics.thickness, cv2.LINE_AA)
