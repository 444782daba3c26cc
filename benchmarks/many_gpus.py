"""What N GPUs give before money is spent: hours, efficiency and what limits it, from constants that were measured.

    python -m benchmarks.many_gpus [--config NAME] [--gpus 1 2 4 ... 512] [--gpus-per-host 8] [--network GBIT]
    python -m benchmarks.many_gpus --config NAME --step SECONDS --images-per-gpu 2 [...]
    python -m benchmarks.many_gpus --plot benchmarks/many_gpus.svg

Without `--step`, the GPU is the P100 of which Detectron published seconds per iteration, on one machine of eight: its
step is chosen so that the row of 8 GPUs takes what was published, the exchange of gradients included. With `--step`, it
is yours: the seconds that it needs by itself for one minibatch (`python -m benchmarks.train_gpu`). Nothing is run: the
arithmetic is that of `benchmarks.scaling_model`, which `benchmarks.gradient_exchange hosts` checks.

Every row has its own schedule, by the linear rule: images and learning rate grow with the GPUs, and iterations shrink.
"""

import argparse
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.scaling_model import (
    Cluster,
    Extras,
    Gpu,
    Row,
    calibrated,
    efficiency,
    iterations_of,
    loader_threads,
    run_on,
)
from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.mrcnn.tables import text_table
from detectron_gn.mrcnn.training.schedule import scaled_schedule
from detectron_gn.port.config.read import bundled_config

GIGABIT = 1e9 / 8


class Published(NamedTuple):
    """Of a model in Detectron's tables: seconds per iteration on 8 P100, images of a GPU, seconds of detection."""

    label: str
    iteration: float
    images: int
    detection: float


# Detectron MODEL_ZOO.md and projects/GN/README.md. Detection is the GPU's part and the processor's.
PUBLISHED = {
    "e2e_mask_rcnn_R-50-FPN_2x": Published("R-50-FPN", 0.897, 2, 0.099 + 0.018),
    "e2e_mask_rcnn_R-101-FPN_2x": Published("R-101-FPN", 0.993, 2, 0.126 + 0.017),
    "e2e_mask_rcnn_X-101-64x4d-FPN_2x": Published("X-101-64x4d-FPN", 1.210, 1, 0.309 + 0.015),
    "e2e_mask_rcnn_X-101-32x8d-FPN_2x": Published("X-101-32x8d-FPN", 0.975, 1, 0.240 + 0.016),
    "e2e_mask_rcnn_R-50-FPN_2x_gn": Published("R-50-FPN GN", 1.017, 2, 0.146 + 0.017),
    "e2e_mask_rcnn_R-101-FPN_2x_gn": Published("R-101-FPN GN", 1.151, 2, 0.180 + 0.015),
    "scratch_e2e_mask_rcnn_R-50-FPN_3x_gn": Published("R-50-FPN GN from scratch", 1.087, 2, 0.140 + 0.019),
    "scratch_e2e_mask_rcnn_R-101-FPN_3x_gn": Published("R-101-FPN GN from scratch", 1.243, 2, 0.177 + 0.019),
    "e2e_faster_rcnn_R-50-FPN_2x": Published("Faster R-50-FPN", 0.546, 2, 0.092 + 0.004),
    "retinanet_R-50-FPN_2x": Published("RetinaNet R-50-FPN", 0.482, 2, 0.127),
}
PUBLISHED_ON = 8
# The schedule that the efficiency and the hours are of; 3 is beside it.
SCHEDULE = 2

# When R-50's gradients come in a step: (share of the step, share of their bytes), `gradient_exchange order`.
PROGRESS = (
    (0.36, 0.0), (0.505, 0.05), (0.527, 0.10), (0.53, 0.30), (0.559, 0.35), (0.654, 0.40), (0.768, 0.45),
    (0.805, 0.70), (0.829, 0.80), (0.853, 0.85), (0.879, 0.90), (0.912, 0.95), (0.997, 1.0),
)  # fmt: skip
# The share of a step that grows with the pixels (`gradient_exchange order`), and the padded areas of minibatches of
# two, by their mean, in twenty equal parts: from the sizes of 192 images of COCO, at 800/1333.
PIXELS_SHARE = 0.53
AREAS = (
    0.881, 0.91, 0.91, 0.91, 0.91, 0.968, 1.017, 1.017, 1.017, 1.017, 1.017, 1.017, 1.017, 1.017, 1.017, 1.017, 1.028,
    1.066, 1.12, 1.124,
)  # fmt: skip
# `benchmarks.loader`: pictures a second of one thread. `benchmarks.large_dataset`: a start from the cache.
LOADED, START = 199.0, 11.0
# Seconds for a checkpoint of R-50 with momentum (365 MB). `benchmarks.evaluation_overhead`: boxes and masks.
CHECKPOINT, SCORING = 1.5, 0.0092
# Gbit a second between GPUs of a machine and between machines, and seconds of a message: assumed, for nobody published
# them. Measure your own.
INSIDE, NETWORK, LATENCY = 80.0, 25.0, 20e-6

# Images of an iteration up to which the linear rule is known to hold, and what is known beyond.
RULE = (
    (16, "tested",
     "Mask R-CNN had the same AP with 2, 4, 8 and 16 images (Goyal et al. 2017, arXiv 1706.02677); Detectron's own "
     "schedules are of 8 and 16"),
    (256, "with more",
     "MegDet trained a detector with 256 images, with another policy for the rate and with normalisation over all GPUs "
     "(Peng et al. 2017, arXiv 1711.07240), neither of which is here"),
    (math.inf, "unknown",
     "for ImageNet classification the rule is known to hold up to 8192 images (Goyal et al.); a Faster R-CNN of 1536 "
     "was trained by an algorithm made for that (Xue et al. 2022, arXiv 2210.11078)"),
)  # fmt: skip


def main() -> None:
    args = options()
    cfg = bundled_config(args.config)
    gpu, cluster, extras = setting(args, cfg)
    rows = [run_on(gpus, SCHEDULE, gpu, cluster, extras) for gpus in args.gpus]
    print(constants(args, gpu, cluster, extras))
    print()
    print(table(rows, run_on(1, SCHEDULE, gpu, cluster, extras), gpu, cfg, PUBLISHED_ON if args.step is None else 1))
    print()
    for _, word, meaning in RULE:
        print(f"{word}: {meaning}")
    print(f"A GPU of this step needs --workers {loader_threads(gpu.step, gpu.images, cluster.loaded)} or more.")
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    if args.plot is not None:
        draw(args, args.plot)


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", default="e2e_mask_rcnn_R-50-FPN_2x", help="of yaml_configs/ (default %(default)s)")
    add("--gpus", type=int, nargs="+", default=[2**power for power in range(10)])
    add("--step", type=float, help="seconds that your GPU needs for its minibatch, by itself")
    add("--images-per-gpu", type=int, help="of such a minibatch (default: the configuration's)")
    add("--gpus-per-host", type=int, default=8)
    add("--network", type=float, default=NETWORK, help="Gbit/s that leave a host (default %(default)g)")
    add("--inside", type=float, default=INSIDE, help="Gbit/s between GPUs of a host (default %(default)g)")
    add("--latency", type=float, default=LATENCY, help="seconds of a message (default %(default)g)")
    add("--pictures-per-second", type=float, default=LOADED, help="of a loading thread (benchmarks.loader)")
    add("--workers", type=int, default=2, help="loading threads of each GPU, as of train (default 2)")
    add("--start", type=float, default=START, help="seconds to the first iteration (default %(default)g)")
    add("--checkpoint", type=float, default=CHECKPOINT, help="seconds to write one (default %(default)g)")
    add("--evaluated-images", type=int, default=5000, help="at each checkpoint; 0 for none (default 5000)")
    add("--detection", type=float, help="seconds of a GPU for one of them (default: as published)")
    add("--scoring", type=float, default=SCORING, help="seconds of the first process for one of them")
    add("--plot", type=Path, help="write hours and efficiency of the published models here, as SVG")
    add("--json", type=Path, help="write the rows here")
    args = parser.parse_args()
    if args.step is None and args.config not in PUBLISHED:
        parser.error(f"nothing is published of {args.config}: pass --step, or one of {', '.join(PUBLISHED)}")
    if args.step is None and args.images_per_gpu not in (None, PUBLISHED[args.config].images):
        parser.error(f"what is published is of {PUBLISHED[args.config].images} images a GPU: pass --step for others")
    if args.step is not None and args.detection is None and args.evaluated_images:
        parser.error("with --step pass --detection, the seconds of your GPU for an image, or --evaluated-images 0")
    return args


def setting(args: argparse.Namespace, cfg: Config) -> tuple[Gpu, Cluster, Extras]:
    """The GPU, what it stands in, and what a run does beside its iterations."""
    images = args.images_per_gpu or cfg.TRAIN.IMS_PER_BATCH
    cluster = Cluster(
        args.gpus_per_host, args.network * GIGABIT, args.inside * GIGABIT, args.latency,
        args.pictures_per_second, args.workers,
    )  # fmt: skip
    known = PUBLISHED.get(args.config)
    gpu = Gpu(args.step or 0.0, images, trained_bytes(cfg), PROGRESS, minibatch_costs())
    if args.step is None:
        assert known is not None and images == known.images
        # As it was measured: on one machine of eight.
        gpu = calibrated(known.iteration, gpu, PUBLISHED_ON, replace(cluster, gpus_per_host=PUBLISHED_ON))
    detection = args.detection if args.detection is not None else known.detection if known else 0.0
    checkpoints = math.ceil(iterations_of(SCHEDULE, 1) / images / cfg.TRAIN.SNAPSHOT_ITERS)
    extras = Extras(args.start, checkpoints, args.checkpoint, args.evaluated_images, detection, args.scoring)
    return gpu, cluster, extras


def trained_bytes(cfg: Config) -> int:
    """Bytes of the gradients of a model, float32."""
    with torch.device("meta"):
        model = build_detector(cfg)
    return sum(4 * each.numel() for each in model.parameters() if each.requires_grad)


def minibatch_costs() -> list[float]:
    """What minibatches cost, by their mean, as their padded areas make it."""
    return [1 - PIXELS_SHARE + PIXELS_SHARE * area for area in AREAS]


def rule(images: int) -> str:
    """What is known of the linear rule with so many images in an iteration, in a word."""
    return next(word for most, word, _ in RULE if images <= most)


def constants(args: argparse.Namespace, gpu: Gpu, cluster: Cluster, extras: Extras) -> str:
    """What goes in, and where it is from."""
    own = "given"
    if args.step is None:
        own = f"published: {PUBLISHED[args.config].iteration} s on {PUBLISHED_ON} GPUs"
    rows = [
        ["step of one GPU by itself", f"{gpu.step:.3f} s", own],
        ["gradients", f"{gpu.gradient_bytes / 1e6:.0f} MB", "counted: 4 bytes for each parameter that is trained"],
        ["network, inside a host", f"{args.network:g}, {args.inside:g} Gbit/s", "assumed, or given"],
        ["loader", f"{cluster.threads} x {cluster.loaded:g} images/s", "measured: benchmarks.loader"],
        ["start", f"{extras.start:g} s", "measured: benchmarks.large_dataset, from the cache"],
        ["checkpoints", f"{extras.checkpoints} of {extras.checkpoint:g} s", "TRAIN.SNAPSHOT_ITERS; measured"],
        ["detection", f"{extras.evaluated_images} x {extras.detection:.3f} s", "published, or given"],
        ["scoring", f"{extras.evaluated_images} x {extras.scoring:g} s", "measured: benchmarks.evaluation_overhead"],
    ]
    return text_table(["constant", "value", "from"], rows, left=3)


def table(rows: list[Row], alone: Row, gpu: Gpu, cfg: Config, known: int) -> str:
    """One line for each number of GPUs; the seconds of `known` GPUs are not computed, but published or given."""
    header = ["GPUs", "images", "rate", "warm-up", "2x", "3x", "s/iter", "2x h", "3x h", "all 2x h", "GPU h",
              "efficiency", "limit", "s/iter is", "linear rule"]  # fmt: skip
    whence = {known: "published" if known == PUBLISHED_ON else "given"}
    return text_table(
        header, [cells(row, alone, gpu, cfg, whence.get(row.gpus, "computed")) for row in rows], left=0
    )


def cells(row: Row, alone: Row, gpu: Gpu, cfg: Config, whence: str) -> list[str]:
    """A row of the table."""
    solver = scaled_schedule(cfg, row.gpus).SOLVER
    # The configuration's rate is for its own images of a GPU.
    rate = solver.BASE_LR * gpu.images / cfg.TRAIN.IMS_PER_BATCH
    longer = iterations_of(3, row.images)
    return [
        str(row.gpus), str(row.images), f"{rate:.4g}", f"{solver.WARM_UP_ITERS / row.iterations:.1%}",
        str(row.iterations), str(longer), f"{row.iteration:.3f}", f"{row.training / 3600:.2f}",
        f"{longer * row.iteration / 3600:.2f}", f"{row.total / 3600:.2f}", f"{row.gpus * row.total / 3600:.0f}",
        f"{efficiency(row, alone):.0%}", row.limit, whence, rule(row.images),
    ]  # fmt: skip


def draw(args: argparse.Namespace, path: Path) -> None:
    """Hours of the published models, and efficiency at several speeds of the network, against the number of GPUs."""
    import matplotlib
    from matplotlib.figure import Figure

    # Text stays text and ids do not change from run to run: the picture is kept in git.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "many_gpus"}):
        figure = Figure(figsize=(13, 4), layout="constrained")
        hours, published, fast = figure.subplots(1, 3)
        for name in ("e2e_mask_rcnn_R-50-FPN_2x", "e2e_mask_rcnn_R-101-FPN_2x", "e2e_mask_rcnn_R-50-FPN_2x_gn"):
            rows = runs(args, name, args.network)
            hours.plot(args.gpus, [row.total / 3600 for row in rows], marker="o", label=PUBLISHED[name].label)
            measured = PUBLISHED[name].iteration * iterations_of(SCHEDULE, 16) / 3600
            hours.plot([PUBLISHED_ON], [measured], marker="x", color="black", linestyle="")
        hours.set(yscale="log", ylabel="hours of 2x, evaluations included", title="P100 (x: as published)")
        known = PUBLISHED["e2e_mask_rcnn_R-50-FPN_2x"]
        for gbit in (1, 10, 25, 100):
            for axes, step, detection in ((published, None, None), (fast, known.iteration / 10, known.detection / 10)):
                rows = runs(args, "e2e_mask_rcnn_R-50-FPN_2x", gbit, step, detection)
                shares = [efficiency(row, rows[0]) for row in rows]
                axes.plot(args.gpus, shares, marker="o", label=f"{gbit} Gbit/s")
        published.set(title="R-50-FPN on P100", ylabel="efficiency")
        fast.set(title="the same on a GPU ten times as fast (made up)")
        for axes in (published, fast):
            axes.set_ylim(0, 1.05)
        for axes in figure.axes:
            axes.set(xscale="log", xlabel="GPUs")
            axes.set_xticks(args.gpus, list(map(str, args.gpus)))
            axes.minorticks_off()
            axes.spines[["top", "right"]].set_visible(False)
            for gpus, grey in ((8, "0.6"), (128, "0.3")):
                axes.axvline(gpus, color=grey, linewidth=0.8, linestyle=":")
            axes.legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})


def runs(
    args: argparse.Namespace, name: str, gbit: float, step: float | None = None, detection: float | None = None
) -> list[Row]:
    """The rows of a published model, or of one with another step, at a speed of the network."""
    given = argparse.Namespace(**{**vars(args), "config": name, "network": gbit, "step": step, "detection": detection})
    gpu, cluster, extras = setting(given, bundled_config(name))
    return [run_on(gpus, SCHEDULE, gpu, cluster, extras) for gpus in args.gpus]


if __name__ == "__main__":
    main()
