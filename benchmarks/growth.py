"""How the cost of CPU inference grows: with the picture, the RoIs, the detections, the batch and the threads.

    python benchmarks/growth.py [--config NAME] [--rounds 3] [--picture growth.svg] [--json FILE]

Random weights. From 480 x 720 pixels, 1000 RoIs, 100 detections and a batch of one, one of them is changed at a time,
with one thread and with two. A table, and a plot if asked.
"""

import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import common  # noqa: E402
from benchmarks.common import Seconds, seconds  # noqa: E402
from benchmarks.inference_cpu import random_model, spread_scores  # noqa: E402
from detectron_gn.mrcnn.config import with_values  # noqa: E402
from detectron_gn.mrcnn.detectors.generalized_rcnn import MaskRCNN  # noqa: E402
from detectron_gn.mrcnn.memory import keep_freed_memory  # noqa: E402

# What grows -> values of it.
SWEEPS = {
    "megapixels": (0.06, 0.24, 0.54, 0.96),
    "RoIs": (250, 500, 1000, 2000),
    "detections": (1, 50, 100, 200),
    "pictures a batch": (1, 2, 4),
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
    print(f"{args.config}, ms a picture, medians of {args.rounds}")
    header = [f"{threads} thread{'s' * (threads > 1)}" for threads in range(1, args.threads + 1)]
    print(f"{'':28}" + "".join(f"{name:>12}" for name in header))
    medians = {}
    for case, of_case in times.items():
        pictures = case[1] if case[0] == "pictures a batch" else 1
        medians[case] = [1e3 * statistics.median(values) / pictures for values in of_case.values()]
        print(f"{case[1]:8g} {case[0]:19}" + "".join(f"{value:12.0f}" for value in medians[case]))
    if args.picture is not None:
        args.picture.write_text("\n".join(plot(medians, header)), encoding="utf-8")
    if args.json is not None:
        args.json.write_text(json.dumps([{"what": what, "value": v, "ms": ms} for (what, v), ms in medians.items()]))


def detection(model: MaskRCNN, what: str, value: float) -> Callable[[], object]:
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
    own = MaskRCNN(with_values(model.cfg, sizes | settings)).eval().to(memory_format=torch.channels_last)
    for parameter, shared in zip(own.parameters(), model.parameters(), strict=True):
        parameter.data = shared.data
    image = common.picture(height, width)
    return lambda: [found.rles() for found in own.detect_batch([image] * pictures)]


def plot(medians: dict[tuple[str, float], list[float]], lines: list[str]) -> Iterator[str]:
    """One panel for each thing that grows, a line for each number of threads, from 0 up."""
    side, margin, colours = 240, 50, ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3")
    width = len(SWEEPS) * (side + margin) + margin
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {side + 2 * margin}" font-family="sans-serif">'
    yield '<rect width="100%" height="100%" fill="white"/>'
    for panel, (what, values) in enumerate(SWEEPS.items()):
        left, bottom = margin + panel * (side + margin), margin + side
        most = max(value for v in values for value in medians[what, v])
        yield f'<path d="M{left} {margin}V{bottom}H{left + side}" fill="none" stroke="black"/>'
        yield f'<text x="{left + side / 2}" y="{bottom + 34}" text-anchor="middle" font-size="14">{what}</text>'
        yield f'<text x="{left + 4}" y="{margin - 6}" font-size="12">{most:.0f} ms a picture</text>'
        at = [(left + side * v / max(values), [bottom - side * ms / most for ms in medians[what, v]]) for v in values]
        for value, (x, _) in zip(values, at, strict=True):
            yield f'<text x="{x:.0f}" y="{bottom + 16}" text-anchor="middle" font-size="11">{value:g}</text>'
        for line, name in enumerate(lines):
            points = " ".join(f"{x:.0f},{ys[line]:.0f}" for x, ys in at)
            yield f'<polyline points="{points}" fill="none" stroke="{colours[line]}" stroke-width="2"/>'
            yield from (f'<circle cx="{x:.0f}" cy="{ys[line]:.0f}" r="3" fill="{colours[line]}"/>' for x, ys in at)
            if panel == 0:
                yield f'<text x="{left + 8}" y="{margin + 16 * (line + 1)}" fill="{colours[line]}">{name}</text>'
    yield "</svg>"


if __name__ == "__main__":
    main()
