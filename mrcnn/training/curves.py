"""The picture of a training run: losses, AP and learning rate over the iterations, drawn with matplotlib."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_INCHES = (9.0, 4.2)
DPI = 100
MARGIN = 0.02  # left and right of the iterations, so that the first and the last point show whole
MOST_MARKED = 30  # up to so many points are marked, as a curve of one point has no line


@dataclass(frozen=True)
class Panel:
    """One diagram.

    Attributes:
        title: what its values are, with their unit.
        iterations: `[N]`, the horizontal axis.
        series: name -> `[N]` values; values that are not finite leave a gap.
        least_top: the vertical axis begins at 0 and reaches at least this value.
    """

    title: str
    iterations: Sequence[int]
    series: Mapping[str, Sequence[float]]
    least_top: float = 0.0


def draw_curves(panels: Sequence[Panel]) -> bytes:
    """Draw one panel below another, all over the same iterations; returns a PNG of 900 x 420 pixels per panel.

    Raises ModuleNotFoundError where matplotlib is not installed (the extra `plots`).
    """
    from matplotlib.figure import Figure

    width, height = PANEL_INCHES
    figure = Figure(figsize=(width, height * len(panels)), dpi=DPI, layout="constrained")
    iterations = [iteration for panel in panels for iteration in panel.iterations]
    first, last = min(iterations, default=0), max([1, *iterations])
    margin = MARGIN * (last - first or 1)
    for axes, panel in zip(figure.subplots(len(panels), squeeze=False).flat, panels, strict=True):
        _draw_panel(axes, panel)
        axes.set_xlim(first - margin, last + margin)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _draw_panel(axes: "Axes", panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    highest = panel.least_top
    for number, (name, series) in enumerate(panel.series.items()):
        values = np.asarray(series, dtype=np.float64)
        finite = np.isfinite(values)
        highest = max(highest, float(np.max(values[finite], initial=0)))
        # Of two curves the first is wider, so that it shows beneath an equal second one.
        width = 5 if (number, len(panel.series)) == (0, 2) else 2
        marker = "o" if finite.sum() <= MOST_MARKED else ""
        axes.plot(
            panel.iterations, np.where(finite, values, np.nan),
            label=name, linewidth=width, marker=marker, markersize=width + 3,
        )  # fmt: skip
    axes.set_ylim(0, highest * 1.05 or 1)
    axes.set_title(panel.title, loc="left")
    axes.set_xlabel("iteration")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=max(1, len(panel.series)), frameon=False)
