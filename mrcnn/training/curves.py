"""The picture of a training run: losses, AP and learning rate over the iterations, drawn with matplotlib."""

import importlib.util
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_INCHES = (8.0, 2.6)
# Inches around the curves of a panel; matplotlib would find them out, and draw twice as long.
LEFT, RIGHT, ABOVE, BELOW, LAST = 0.75, 0.12, 0.38, 0.32, 0.22  # LAST: below the last one, for the axis' name
DPI = 100  # so that a picture of 800 pixels shows letters of 11 points 15 pixels high
FONT_POINTS = 11
MARGIN = 0.02  # left and right of the iterations, so that the first and the last point show whole
MOST_MARKED = 30  # up to so many points are marked, as a curve of one point has no line
LEAST_SMOOTHED = 60  # a curve of so many points stands pale behind its running mean
SMOOTHED_SHARE = 0.05  # of its points that a running mean is of
MOST_VALUED = 3  # up to so many curves have their last value in the legend
INSTALL = "pip install matplotlib"
_STEPS = (1, 2, 2.5, 5, 10)
# Okabe and Ito's colours, which people who see colours otherwise tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")


@dataclass(frozen=True)
class Panel:
    """One diagram.

    Attributes:
        title: what its values are, with their unit.
        iterations: `[N]`, the horizontal axis.
        series: name -> `[N]` values; values that are not finite leave a gap.
        least_top: the vertical axis begins at 0 and reaches at least this value.
        is_line: the points are corners of a known line, and not measured: none is marked.
    """

    title: str
    iterations: Sequence[int]
    series: Mapping[str, Sequence[float]]
    least_top: float = 0.0
    is_line: bool = False


def can_draw() -> bool:
    """Whether matplotlib is installed; it is looked for, not imported."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_curves(panels: Sequence[Panel]) -> bytes:
    """Draw one panel below another, all over the same iterations; returns a PNG, 800 pixels wide and 260 per panel.

    Raises ModuleNotFoundError where matplotlib is not installed (the extra `plots`).
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = PANEL_INCHES
    iterations = [iteration for panel in panels for iteration in panel.iterations]
    first, last = min(iterations, default=0), max([1, *iterations])
    margin = MARGIN * (last - first or 1)
    png = io.BytesIO()
    with rc_context({"font.size": FONT_POINTS, "axes.titlesize": FONT_POINTS + 1, "axes.titleweight": "bold"}):
        total = height * len(panels)
        figure = Figure(figsize=(width, total), dpi=DPI)
        figure.subplots_adjust(
            left=LEFT / width, right=1 - RIGHT / width, top=1 - ABOVE / total, bottom=(BELOW + LAST) / total,
            hspace=(ABOVE + BELOW) / (height - ABOVE - BELOW),
        )  # fmt: skip
        for axes, panel in zip(figure.subplots(len(panels), squeeze=False).flat, panels, strict=True):
            _draw_panel(axes, panel)
            axes.set_xlim(first - margin, last + margin)
        axes.set_xlabel("iteration")
        FigureCanvasAgg(figure).print_png(png)  # type: ignore[no-untyped-call]
    return png.getvalue()


def _draw_panel(axes: "Axes", panel: Panel) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    highest = panel.least_top
    for number, (name, series) in enumerate(panel.series.items()):
        values = np.asarray(series, dtype=np.float64)
        finite = np.isfinite(values)
        highest = max(highest, float(np.max(values[finite], initial=0)))
        # Of two curves the first is wider, so that it shows beneath an equal second one.
        width = 3.6 if (number, len(panel.series)) == (0, 2) else 1.6
        colour = COLOURS[number % len(COLOURS)]
        is_marked = finite.sum() <= (1 if panel.is_line else MOST_MARKED)
        differs = len(np.unique(values[finite])) > 0.5 * finite.sum()
        is_noisy = not panel.is_line and finite.sum() >= LEAST_SMOOTHED and differs
        shown = np.where(finite, values, np.nan)
        if is_noisy:
            axes.plot(panel.iterations, shown, color=colour, linewidth=1, alpha=0.25)
            shown = _running_mean(shown)
        last = f" {values[finite][-1]:#.3g}" if finite.any() and len(panel.series) <= MOST_VALUED else ""
        axes.plot(
            panel.iterations, shown, color=colour, linewidth=width, markersize=width + 3,
            label=name + last, marker="o" if is_marked else "",
        )  # fmt: skip
    axes.set_ylim(0, highest * 1.05 or 1)
    axes.set_title(panel.title, loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, steps=_STEPS))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=_STEPS))
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.01, 0.99), ncols=max(1, len(panel.series)), frameon=False,
        handlelength=1.2, handletextpad=0.5, columnspacing=1.2, borderaxespad=0,
    )  # fmt: skip


def _running_mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean of each value and its neighbours; those that are no numbers do not count, and stay gaps."""
    window = np.ones(2 * max(1, round(SMOOTHED_SHARE * len(values) / 2)) + 1)
    finite = np.isfinite(values)
    total = np.convolve(np.where(finite, values, 0), window, mode="same")
    count = np.convolve(finite.astype(np.float64), window, mode="same")
    mean: npt.NDArray[np.float64] = np.where(finite, total / np.maximum(count, 1), np.nan)
    return mean
