"""The report's plots as inline SVG, coloured by the page's style sheet."""

import itertools
import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from detectron_gn.verify.diagnosis.flow import in_flow, step_of
from detectron_gn.verify.parity.blobs import ImageParity, limit_of

Point = tuple[float, float]

_SCORE_AXIS = "score of the reference"
_DEPTH_LABEL = "Relative error of each blob over depth"

# What stands beside the plot over depth: several steps of the flow have too few blobs for a name of their own.
_PARTS = {
    "stem": ("input", "stem"),
    "VGG": ("VGG",),
    "res2": ("res2",),
    "res3": ("res3",),
    "res4": ("res4",),
    "res5": ("res5",),
    "pyramid": ("pyramid",),
    "RPN": ("RPN",),
    "RetinaNet": ("RetinaNet",),
    "RoIs": ("proposals", "levels"),
    "boxes": ("box features", "box head", "boxes", "detections"),
    "masks": ("mask levels", "mask features", "mask head"),
    "keypoints": ("keypoint levels", "keypoint features", "keypoint head"),
}
_PART_OF = {step: part for part, steps in _PARTS.items() for step in steps}
# The powers of ten that errors are shown at.
_LOWEST, _HIGHEST = -8, 0


class _DrawnBlob(NamedTuple):
    """A blob of the plot over depth: what it is called, where it stands, and whether it is in tolerance.

    `height` is 0 for the smallest error that is told apart, 1 for an error as large as the largest value.
    """

    part: str
    height: float
    holds: bool
    title: str


def depth_plot(parities: Sequence[ImageParity], tolerance: float) -> str:
    """The relative error of every blob, the largest of all images, in the order in which data flows: left to right."""
    blobs = _drawn_blobs(parities, tolerance)
    width, height, left, right, top, bottom = 1000, 440, 62, 10, 14, 44
    step = (width - left - right) / max(len(blobs), 1)

    def y(share: float) -> float:
        return top + (1 - share) * (height - top - bottom)

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{_DEPTH_LABEL}">']
    end_of_last = 0.0
    for number, (name, first, count) in enumerate(_parts_of(blobs)):
        x, wide = left + first * step, count * step
        if number % 2 == 0:
            parts.append(f'<rect class="band" x="{x:.1f}" y="{top}" width="{wide:.1f}" height="{y(0) - top:.1f}"/>')
        # Names of narrow parts stand in a second row where the last one would be beneath them.
        half = 4.2 * len(name)
        is_lower = x + wide / 2 - half < end_of_last
        end_of_last = 0.0 if is_lower else x + wide / 2 + half
        parts.append(_text(x + wide / 2, height - (6 if is_lower else 24), name, "middle"))
    for power in range(_LOWEST, _HIGHEST + 1, 2):
        at = y(_share_of(10.0**power))
        parts.append(f'<line class="axis" x1="{left}" x2="{width - right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(_text(left - 8, at + 5, _power(power, _LOWEST), "end"))
    limit = y(_share_of(tolerance))
    parts.append(f'<line class="limit" x1="{left}" x2="{width - right}" y1="{limit:.1f}" y2="{limit:.1f}"/>')
    parts += [_dot(left + (place + 0.5) * step, y(blob.height), blob, 3.4) for place, blob in enumerate(blobs)]
    # Over the dots, or those that are out of tolerance would hide it.
    parts.append(_text(width - right, limit - 7, f"tolerance {tolerance:g}", "end"))
    return "".join([*parts, "</svg>"])


def depth_plot_downwards(parities: Sequence[ImageParity], tolerance: float) -> str:
    """`depth_plot` for a narrow screen: the data flows from top to bottom, and letters are as large as the page's."""
    blobs = _drawn_blobs(parities, tolerance)
    width, left, right, top, bottom = 340, 76, 14, 44, 10
    # A part of few blobs has room for its name, and one of many no more than it needs.
    step = min(max(700 / max(len(blobs), 1), 2.2), 12.0)
    places, bands, at = [], [], float(top)
    for name, _, count in _parts_of(blobs):
        high = max(count * step, 20.0)
        bands.append((name, at, high))
        places += [at + (high - count * step) / 2 + (row + 0.5) * step for row in range(count)]
        at += high
    height = round(at + bottom)

    def x(share: float) -> float:
        return left + share * (width - left - right)

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{_DEPTH_LABEL}">']
    for number, (name, begin, high) in enumerate(bands):
        if number % 2 == 0:
            parts.append(
                f'<rect class="band" x="{left}" y="{begin:.1f}" width="{width - left - right}" height="{high:.1f}"/>'
            )
        parts.append(_text(left - 8, begin + high / 2 + 5, name, "end"))
    for power in range(_LOWEST, _HIGHEST + 1, 2):
        place = x(_share_of(10.0**power))
        parts.append(f'<line class="axis" x1="{place:.1f}" x2="{place:.1f}" y1="{top}" y2="{height - bottom}"/>')
        parts.append(_text(place, top - 8, _power(power, _LOWEST), "middle"))
    limit = x(_share_of(tolerance))
    parts.append(f'<line class="limit" x1="{limit:.1f}" x2="{limit:.1f}" y1="{top}" y2="{height - bottom}"/>')
    parts.append(_text(limit, 14, f"tolerance {tolerance:g}", "middle"))
    parts += [_dot(x(blob.height), place, blob, 3) for place, blob in zip(places, blobs, strict=True)]
    return "".join([*parts, "</svg>"])


def _drawn_blobs(parities: Sequence[ImageParity], tolerance: float) -> list[_DrawnBlob]:
    """The blobs of all images, each with its largest error, in the order in which data flows."""
    worst: dict[str, float] = {}
    faults: dict[str, str] = {}
    for parity in parities:
        for row in parity.blobs:
            worst[row.blob] = max(worst.get(row.blob, 0.0), row.relative_error)
            faults |= {row.blob: row.fault} if row.fault else {}
    of_step = in_flow([row for parity in parities for row in parity.blobs])
    names = dict.fromkeys(row.blob for rows in of_step.values() for row in rows)
    return [
        _DrawnBlob(
            _PART_OF.get(step_of(name), "other"),
            _share_of(worst[name]),
            worst[name] <= limit_of(name, tolerance),
            f"{name}: {faults.get(name, f'{worst[name]:.1e}')}",
        )
        for name in names
    ]


def _parts_of(blobs: Sequence[_DrawnBlob]) -> list[tuple[str, int, int]]:
    """The parts of the network, each with the place of its first blob and the number of its blobs."""
    parts, first = [], 0
    for name, group in itertools.groupby(blobs, lambda blob: blob.part):
        count = len(list(group))
        parts.append((name, first, count))
        first += count
    return parts


def _share_of(error: float) -> float:
    """How high an error stands, from 0 to 1; what is smaller or larger than what is shown stands at the edge."""
    power = min(max(math.log10(max(error, 1e-300)), _LOWEST), _HIGHEST)
    return (power - _LOWEST) / (_HIGHEST - _LOWEST)


def _dot(x: float, y: float, blob: _DrawnBlob, radius: float) -> str:
    kind = "dot" if blob.holds else "dot out"
    title = f"<title>{escape(blob.title)}</title>"
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">{title}</circle>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def score_plot(scores: Sequence[Point]) -> str:
    """Our score over the reference's, of each pair of detections; equal ones lie on the diagonal."""
    size, left, bottom, top = 440, 46, 48, 10
    span = size - left - 10
    height = top + span * 0.66 + bottom

    def at(point: Point) -> Point:
        return left + point[0] * span, top + (1 - point[1]) * span * 0.66

    parts = [f'<svg viewBox="0 0 {size} {height:.0f}" role="img" aria-label="Our scores over the reference\'s">']
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        (x, _), (_, y) = at((tick, 0)), at((0, tick))
        parts.append(f'<line class="axis" x1="{left}" x2="{left + span}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 7}" y="{y + 5:.1f}" text-anchor="end">{tick:g}</text>')
        parts.append(f'<text x="{x:.1f}" y="{height - 28:.1f}" text-anchor="middle">{tick:g}</text>')
    (x1, y1), (x2, y2) = at((0, 0)), at((1, 1))
    parts.append(f'<line class="diagonal" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')
    for point in scores:
        x, y = at(point)
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>')
    parts.append(f'<text x="{left + span / 2:.0f}" y="{height - 6:.0f}" text-anchor="middle">{_SCORE_AXIS}</text>')
    return "".join([*parts, "</svg>"])


def box_plot(points: Sequence[Point]) -> str:
    """The largest difference of each pair's boxes in pixels, over the reference's score."""
    size, left, bottom, top = 440, 58, 48, 10
    span, lowest, highest = size - left - 10, -7, 1
    height = top + span * 0.66 + bottom

    def at(score: float, pixels: float) -> Point:
        power = min(max(math.log10(max(pixels, 1e-300)), lowest), highest)
        return left + score * span, top + (highest - power) / (highest - lowest) * span * 0.66

    parts = [f'<svg viewBox="0 0 {size} {height:.0f}" role="img" aria-label="Differences of boxes in pixels">']
    for power in range(lowest, highest + 1, 2):
        _, y = at(0, 10.0**power)
        parts.append(f'<line class="axis" x1="{left}" x2="{left + span}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 7}" y="{y + 5:.1f}" text-anchor="end">{_power(power, lowest)}</text>')
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, _ = at(tick, 1)
        parts.append(f'<text x="{x:.1f}" y="{height - 28:.1f}" text-anchor="middle">{tick:g}</text>')
    for score, pixels in points:
        x, y = at(score, pixels)
        kind = "dot" if pixels < 0.5 else "dot out"
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>')
    parts.append(f'<text x="{left + span / 2:.0f}" y="{height - 6:.0f}" text-anchor="middle">{_SCORE_AXIS}</text>')
    return "".join([*parts, "</svg>"])


def _power(power: int, lowest: int) -> str:
    """10 to a power, as text; what is smaller than the lowest stands there too."""
    digits = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    text = "1" if power == 0 else f"10{str(power).translate(digits)}"
    return f"≤ {text}" if power == lowest else text
