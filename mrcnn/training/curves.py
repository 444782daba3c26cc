"""The picture of a training run: losses, AP and learning rate over the iterations, drawn with OpenCV."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Canvas = npt.NDArray[np.uint8]

SIZE = (900, 420)  # width and height of a panel
MARGIN = (70, 30, 40, 50)  # left, right, top, bottom
ROOM = 12  # beyond the last iteration, for its mark
MOST_MARKED = 30  # up to so many points are marked, as a curve of one point has no line
INK, GRID = (40, 40, 40), (225, 225, 225)
# Distinct in hue and in lightness, BGR.
COLOURS = ((180, 119, 31), (14, 127, 255), (44, 160, 44), (40, 39, 214), (189, 103, 148), (75, 86, 140), (34, 189, 188))


@dataclass(frozen=True)
class Panel:
    """One diagram.

    Attributes:
        title: what its values are, with their unit.
        iterations: `[N]`, the horizontal axis.
        series: name -> `[N]` values; values that are not finite leave a gap.
        least_top: the vertical axis, which begins at 0, reaches at least so far.
    """

    title: str
    iterations: Sequence[int]
    series: Mapping[str, Sequence[float]]
    least_top: float = 0.0


def draw_curves(panels: Sequence[Panel]) -> bytes:
    """Draw one panel under another, over the same iterations; returns a PNG."""
    iterations = [iteration for panel in panels for iteration in panel.iterations]
    last = max([1, *iterations])
    picture = np.concatenate([_draw_panel(panel, min(iterations, default=0), last) for panel in panels])
    return cv2.imencode(".png", picture)[1].tobytes()


def round_ticks(first: float, last: float, most: int = 6) -> list[float]:
    """At most `most` multiples of 1, 2 or 5 times a power of ten, evenly apart, from `first` to `last`."""
    step = 10.0 ** math.floor(math.log10(last - first) - 1)
    factors = (factor * 10**power for power in range(3) for factor in (1, 2, 5))
    step *= next(f for f in factors if math.floor(last / step / f) - math.ceil(first / step / f) < most)
    return [step * n for n in range(math.ceil(first / step), math.floor(last / step) + 1)]


def _draw_panel(panel: Panel, first: int, last: int) -> Canvas:
    width, height = SIZE
    left, right, top, bottom = MARGIN
    canvas: Canvas = np.full((height, width, 3), 255, dtype=np.uint8)
    values = np.array(list(panel.series.values()), dtype=np.float64).reshape(len(panel.series), -1)
    highest = float(np.max(values[np.isfinite(values)], initial=panel.least_top)) * 1.05 or 1.0

    def across(iterations: npt.ArrayLike) -> npt.NDArray[np.float64]:
        share = (np.asarray(iterations, dtype=np.float64) - first) / max(last - first, 1)
        return left + share * (width - left - right - ROOM)

    def up(heights: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return height - bottom - np.asarray(heights, dtype=np.float64) / highest * (height - top - bottom)

    for tick in round_ticks(0, highest):
        y = round(float(up(tick)))
        cv2.line(canvas, (left, y), (width - right, y), GRID, 1)
        _text(canvas, f"{tick:.6g}", (left - 8, y + 4), align=1.0)
    for tick in round_ticks(first, max(last, first + 1)):
        if tick == int(tick):
            _text(canvas, f"{tick:.0f}", (round(float(across(tick))), height - bottom + 18), align=0.5)
    _text(canvas, "iteration", (width - right, height - 12), align=1.0)
    end = _text(canvas, panel.title, (left, 24), scale=0.6)
    for number, (name, line) in enumerate(zip(panel.series, values, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        # Of two the first is wider, so that it shows beneath an equal second one.
        thick = 5 if (number, len(values)) == (0, 2) else 2
        points = np.round(np.stack([across(panel.iterations), up(line)], axis=1) * 16)
        finite = np.isfinite(line)
        for run in np.split(np.arange(len(line)), np.flatnonzero(~finite)):
            run = run[finite[run]]
            cv2.polylines(canvas, [points[run].astype(np.int32)], False, colour, thick, cv2.LINE_AA, shift=4)
        for point in points[finite] if finite.sum() <= MOST_MARKED else ():
            cv2.circle(canvas, (int(point[0]), int(point[1])), (thick + 2) * 16, colour, -1, cv2.LINE_AA, shift=4)
        cv2.line(canvas, (end + 24, 20), (end + 40, 20), colour, 3)
        end = _text(canvas, name, (end + 46, 24))
    return canvas


def _text(canvas: Canvas, text: str, where: tuple[int, int], scale: float = 0.42, align: float = 0.0) -> int:
    """Write a text of which a share `align` lies left of `where`; returns where it ends."""
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    x = where[0] - round(align * width)
    cv2.putText(canvas, text, (x, where[1]), cv2.FONT_HERSHEY_SIMPLEX, scale, INK, 1, cv2.LINE_AA)
    return x + width
