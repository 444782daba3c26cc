"""How the cost of CPU inference grows: with the picture, the RoIs, the detections, the batch and the threads.

    python -m benchmarks.growth [--config NAME] [--rounds 3] [--picture growth.svg] [--json FILE]

Random weights. From 480 x 720 pixels, 1000 RoIs, 100 detections and a batch of one, one of them is changed at a time,
with one thread and with two. Prints a table; `--picture` draws a plot (with matplotlib) too.
"""

import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import common
from benchmarks.common import Seconds, seconds
from benchmarks.inference_cpu import random_model, spread_scores
from detectron_gn.mrcnn.config import with_values
from detectron_gn.mrcnn.detectors import GeneralizedRCNN
from detectron_gn.mrcnn.memory import keep_freed_memory

# What grows -> values of it.
SWEEPS = {
    "megapixels": (0.06, 0.24, 0.54, 0.96),
    "RoIs": (250, 500, 1000, 2000),
    "detections": (1, 50, 100, 200),
    "pictures per batch": (1, 2, 4),
}


def main() -> None:
    parser = common.options(__doc__)
    parser.set_defaults(rounds=3, threads=min(2, os.cpu_count() or 1))
    parser.add_argument("--picture", type=Path, help="write a plot here, as SVG")
    args = parser.parse_args()
    keep_freed_memory()
    model = random_model(args.config)
    model.cfg = with_values(model.cfg, {"TEST.DETECTIONS_PER_IM": 200})
    spread_scores(model, common.picture(480, 720))
    cases = [(sweep, value) for sweep, values in SWEEPS.items() for value in values]
    runs = {case: detection(model, *case) for case in cases}
    times: dict[tuple[str, float], Seconds] = {case: {} for case in cases}
    for threads in range(1, args.threads + 1):
        torch.set_num_threads(threads)
        for _ in range(args.rounds):
            for case, run in runs.items():
                times[case].setdefault(str(threads), []).append(seconds(run))
    print(f"{args.config}, ms per picture, medians of {args.rounds}")
    header = [f"{threads} thread{'s' * (threads > 1)}" for threads in range(1, args.threads + 1)]
    print(f"{'':28}" + "".join(f"{name:>12}" for name in header))
    medians = {}
    for case, of_case in times.items():
        pictures = case[1] if case[0] == "pictures per batch" else 1
        medians[case] = [1e3 * statistics.median(values) / pictures for values in of_case.values()]
        print(f"{case[1]:8g} {case[0]:19}" + "".join(f"{value:12.0f}" for value in medians[case]))
    if args.picture is not None:
        draw(medians, header, args.picture)
    if args.json is not None:
        args.json.write_text(json.dumps([{"what": what, "value": v, "ms": ms} for (what, v), ms in medians.items()]))


def detection(model: GeneralizedRCNN, what: str, value: float) -> Callable[[], object]:
    """A function that runs a network of its own configuration on its own picture, pasting included."""
    height, width, pictures, settings = 480, 720, 1, {"TEST.DETECTIONS_PER_IM": 100}
    if what == "megapixels":
        height, width = round(value**0.5 * 816.5), round(value**0.5 * 1224.7)
    elif what == "RoIs":
        settings |= {"TEST.RPN_POST_NMS_TOP_N": int(value), "TEST.RPN_PRE_NMS_TOP_N": 2 * int(value)}
    elif what == "detections":
        settings = {"TEST.DETECTIONS_PER_IM": int(value)}
    else:
        pictures = int(value)
    sizes = {"TEST.SCALE": height, "TEST.MAX_SIZE": width}
    own = GeneralizedRCNN(with_values(model.cfg, sizes | settings)).eval().to(memory_format=torch.channels_last)
    for parameter, shared in zip(own.parameters(), model.parameters(), strict=True):
        parameter.data = shared.data
    image = common.picture(height, width)
    return lambda: [found.rles() for found in own.detect_batch([image] * pictures)]


def draw(medians: dict[tuple[str, float], list[float]], lines: list[str], path: Path) -> None:
    """One panel for each thing that grows, a line for each number of threads, from 0 up."""
    import matplotlib
    from matplotlib.figure import Figure

    # Text stays text and ids do not change from run to run: the picture is kept in git.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "growth"}):
        figure = Figure(figsize=(12, 3.4), layout="constrained")
        for axes, (what, values) in zip(figure.subplots(1, len(SWEEPS)), SWEEPS.items(), strict=True):
            for line, name in enumerate(lines):
                axes.plot(values, [medians[what, value][line] for value in values], marker="o", label=name)
            axes.set(xlabel=what, xticks=values, xlim=(0, 1.05 * max(values)))
            axes.set_ylim(bottom=0)
            axes.tick_params("x", labelsize=8)
            axes.spines[["top", "right"]].set_visible(False)
        figure.axes[0].set_ylabel("ms per picture")
        figure.axes[0].legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
