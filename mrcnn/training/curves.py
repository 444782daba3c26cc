"""The picture of a training run: losses and learning rate over the iterations, drawn with OpenCV."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from mrcnn.errors import InputError

Canvas = npt.NDArray[np.uint8]
Series = Mapping[str, Sequence[float]]

PANEL = (900, 420)  # width and height
MARGIN = (70, 20, 40, 40)  # left, right, top, bottom
INK, GRID = (40, 40, 40), (225, 225, 225)
# Distinct in hue and in lightness, BGR.
COLOURS = ((180, 119, 31), (14, 127, 255), (44, 160, 44), (40, 39, 214), (189, 103, 148), (75, 86, 140), (34, 189, 188))


def draw_curves(iterations: Sequence[int], panels: Mapping[str, Series], path: Path) -> None:
    """Draw one panel under another and write them as a PNG.

    Args:
        iterations: `[N]`, the horizontal axis of all.
        panels: title -> name -> `[N]` values; values that are not finite leave a gap.

    Raises InputError where the file cannot be written.
    """
    picture = np.concatenate([_panel(title, iterations, series) for title, series in panels.items()])
    written, encoded = cv2.imencode(".png", picture)
    try:
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def _panel(title: str, iterations: Sequence[int], series: Series) -> Canvas:
    width, height = PANEL
    left, right, top, bottom = MARGIN
    canvas: Canvas = np.full((height, width, 3), 255, dtype=np.uint8)
    values = np.array([series[name] for name in series], dtype=np.float64).reshape(len(series), -1)
    highest = float(np.max(values[np.isfinite(values)], initial=0.0)) * 1.05 or 1.0
    first, last = (iterations[0], max(iterations[-1], iterations[0] + 1)) if iterations else (0, 1)
    for tick in np.linspace(0, 1, 6):
        y = round(height - bottom - tick * (height - top - bottom))
        cv2.line(canvas, (left, y), (width - right, y), GRID, 1)
        _text(canvas, f"{tick * highest:.3g}", (8, y + 4))
        x = round(left + tick * (width - left - right))
        _text(canvas, f"{first + tick * (last - first):.0f}", (x - 14, height - bottom + 18))
    _text(canvas, title, (left, 24), scale=0.6)
    across = left + (np.asarray(iterations, dtype=np.float64) - first) / (last - first) * (width - left - right)
    legend = left + 150
    for colour, name, line in zip(COLOURS * (1 + len(series) // len(COLOURS)), series, values, strict=False):
        up = height - bottom - line / highest * (height - top - bottom)
        for run in np.split(np.arange(len(line)), np.flatnonzero(~np.isfinite(line))):
            points = np.stack([across[run], up[run]], axis=1)
            points = points[np.isfinite(points).all(axis=1)]
            cv2.polylines(canvas, [np.round(points).astype(np.int32)], False, colour, 2, cv2.LINE_AA)
        cv2.line(canvas, (legend, 20), (legend + 16, 20), colour, 3)
        _text(canvas, name, (legend + 20, 24))
        legend += 34 + 8 * len(name)
    return canvas


def _text(canvas: Canvas, text: str, where: tuple[int, int], scale: float = 0.42) -> None:
    cv2.putText(canvas, text, where, cv2.FONT_HERSHEY_SIMPLEX, scale, INK, 1, cv2.LINE_AA)
