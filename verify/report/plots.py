"""The report's plots as inline SVG, coloured by the page's style sheet."""

import math
from collections.abc import Sequence
from html import escape

from detectron_gn.verify.diagnosis.flow import FLOW, step_of
from detectron_gn.verify.parity.blobs import ImageParity, limit_of

Point = tuple[float, float]

_SCORE_AXIS = "score of the reference"

# What stands below the plot over depth: several steps of the flow have too few blobs for a name of their own.
_PARTS = {
    "stem": ("input", "stem"),
    "res2": ("res2",),
    "res3": ("res3",),
    "res4": ("res4",),
    "res5": ("res5",),
    "pyramid": ("pyramid",),
    "RPN": ("RPN",),
    "RoIs": ("proposals", "levels"),
    "boxes": ("box features", "box head", "boxes"),
    "masks": ("detections", "mask levels", "mask features", "mask head"),
}


def depth_plot(parities: Sequence[ImageParity], tolerance: float) -> str:
    """The relative error of every blob, the largest of all images, in the order in which data flows."""
    worst: dict[str, float] = {}
    faults: dict[str, str] = {}
    for parity in parities:
        for row in parity.blobs:
            worst[row.blob] = max(worst.get(row.blob, 0.0), row.relative_error)
            faults |= {row.blob: row.fault} if row.fault else {}
    order = {step: place for place, (step, _) in enumerate(FLOW)}
    blobs = sorted(worst, key=lambda blob: order.get(step_of(blob), len(order)))
    width, height, left, right, top, bottom = 1000, 300, 58, 8, 12, 30
    lowest, highest = -8, 0
    step_width = (width - left - right) / max(len(blobs), 1)

    def y(error: float) -> float:
        power = min(max(math.log10(max(error, 1e-300)), lowest), highest)
        return top + (highest - power) / (highest - lowest) * (height - top - bottom)

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Relative error of each blob over depth">']
    parts += _bands(blobs, left, step_width, top, height - bottom)
    for power in range(lowest, highest + 1, 2):
        at = y(10.0**power)
        parts.append(f'<line class="axis" x1="{left}" x2="{width - right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{_power(power, lowest)}</text>')
    limit = y(tolerance)
    parts.append(f'<line class="limit" x1="{left}" x2="{width - right}" y1="{limit:.1f}" y2="{limit:.1f}"/>')
    for place, blob in enumerate(blobs):
        kind = "dot" if worst[blob] <= limit_of(blob, tolerance) else "dot out"
        x = left + (place + 0.5) * step_width
        title = f"<title>{escape(blob)}: {escape(faults.get(blob, f'{worst[blob]:.1e}'))}</title>"
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y(worst[blob]):.1f}" r="3">{title}</circle>')
    # Over the dots, or those that are out of tolerance would hide it.
    parts.append(f'<text x="{width - right}" y="{limit - 5:.1f}" text-anchor="end">tolerance {tolerance:g}</text>')
    return "".join([*parts, "</svg>"])


def score_plot(scores: Sequence[Point]) -> str:
    """Our score over the reference's, of each pair of detections; equal ones lie on the diagonal."""
    size, left, bottom, top = 440, 40, 40, 8
    span = size - left - 10
    height = top + span * 0.66 + bottom

    def at(point: Point) -> Point:
        return left + point[0] * span, top + (1 - point[1]) * span * 0.66

    parts = [f'<svg viewBox="0 0 {size} {height:.0f}" role="img" aria-label="Our scores over the reference\'s">']
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        (x, _), (_, y) = at((tick, 0)), at((0, tick))
        parts.append(f'<line class="axis" x1="{left}" x2="{left + span}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 7}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
        parts.append(f'<text x="{x:.1f}" y="{height - 24:.1f}" text-anchor="middle">{tick:g}</text>')
    (x1, y1), (x2, y2) = at((0, 0)), at((1, 1))
    parts.append(f'<line class="diagonal" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')
    for point in scores:
        x, y = at(point)
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>')
    parts.append(f'<text x="{left + span / 2:.0f}" y="{height - 6:.0f}" text-anchor="middle">{_SCORE_AXIS}</text>')
    return "".join([*parts, "</svg>"])


def box_plot(points: Sequence[Point]) -> str:
    """The largest difference of each pair's boxes in pixels, over the reference's score."""
    size, left, bottom, top = 440, 48, 40, 8
    span, lowest, highest = size - left - 10, -7, 1
    height = top + span * 0.66 + bottom

    def at(score: float, pixels: float) -> Point:
        power = min(max(math.log10(max(pixels, 1e-300)), lowest), highest)
        return left + score * span, top + (highest - power) / (highest - lowest) * span * 0.66

    parts = [f'<svg viewBox="0 0 {size} {height:.0f}" role="img" aria-label="Differences of boxes in pixels">']
    for power in range(lowest, highest + 1, 2):
        _, y = at(0, 10.0**power)
        parts.append(f'<line class="axis" x1="{left}" x2="{left + span}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 7}" y="{y + 4:.1f}" text-anchor="end">{_power(power, lowest)}</text>')
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, _ = at(tick, 1)
        parts.append(f'<text x="{x:.1f}" y="{height - 24:.1f}" text-anchor="middle">{tick:g}</text>')
    for score, pixels in points:
        x, y = at(score, pixels)
        kind = "dot" if pixels < 0.5 else "dot out"
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>')
    parts.append(f'<text x="{left + span / 2:.0f}" y="{height - 6:.0f}" text-anchor="middle">{_SCORE_AXIS}</text>')
    return "".join([*parts, "</svg>"])


def _bands(blobs: Sequence[str], left: float, step_width: float, top: float, bottom: float) -> list[str]:
    """Every other part of the network as a shaded band, its name below."""
    parts = []
    start = 0
    for number, (name, steps) in enumerate(_PARTS.items()):
        count = sum(step_of(blob) in steps for blob in blobs)
        x, width = left + start * step_width, count * step_width
        if count and number % 2 == 0:
            parts.append(f'<rect class="band" x="{x:.1f}" y="{top}" width="{width:.1f}" height="{bottom - top}"/>')
        if count:
            parts.append(f'<text x="{x + width / 2:.1f}" y="{bottom + 18}" text-anchor="middle">{name}</text>')
        start += count
    return parts


def _power(power: int, lowest: int) -> str:
    """10 to a power, as text; what is smaller than the lowest stands there too."""
    digits = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    text = "1" if power == 0 else f"10{str(power).translate(digits)}"
    return f"≤ {text}" if power == lowest else text
