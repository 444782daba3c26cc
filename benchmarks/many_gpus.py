"""What N GPUs give before money is spent: hours, efficiency and what limits it, from constants that were measured.

    python -m benchmarks.many_gpus [--config NAME] [--gpus 1 2 4 ... 512] [--gpus-per-host 8] [--network GBIT]
    python -m benchmarks.many_gpus --config NAME --step SECONDS --images-per-gpu 2 [...]
    python -m benchmarks.many_gpus --plot benchmarks/many_gpus.svg

Without `--step`, the GPU is the P100 of which Detectron published seconds per iteration, on one machine of eight
(`weights/catalog.yaml`): its step is chosen so that the row of 8 GPUs takes what was published, the exchange of
gradients included. With `--step`, it
is yours: the seconds that it needs by itself for one minibatch (`python -m benchmarks.train_gpu`). Nothing is run: the
arithmetic is that of `benchmarks.scaling_model`, which `benchmarks.gradient_exchange hosts` checks.

Every row has the configuration's schedule by the linear rule: images and learning rate grow with the GPUs, and
iterations shrink.
"""

import argparse
import json
import math
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path

import torch

from benchmarks.help_text import FoldedHelp
from benchmarks.scaling_model import (
    IMAGES_OF_1X,
    Cluster,
    Extras,
    Gpu,
    Row,
    calibrated,
    efficiency,
    iteration_parts,
    iterations_of,
    loader_threads,
    run_on,
)
from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.tables import text_table
from detectron_gn.mrcnn.training.schedule import scaled_schedule
from detectron_gn.port.config.read import bundled_config
from detectron_gn.weights.catalog import CatalogEntry, catalog
from detectron_gn.weights.command_line import at_least, between

GIGABIT = 1e9 / 8


PUBLISHED_ON = 8
# Detectron's longest schedule, whose hours stand beside those of the configuration's own.
LONGEST = 3

# When R-50 GN's gradients come in a step: (share of the step, share of their bytes), `gradient_exchange order`. They
# stand for every model's.
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
    parser = options()
    args = parser.parse_args()
    try:
        check(args)
        cfg = bundled_config(args.config)
        gpu, cluster, extras = setting(args, cfg)
        schedule = schedule_of(cfg)
        rows = [run_on(gpus, schedule, gpu, cluster, extras) for gpus in args.gpus]
        if args.json is not None:
            args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
        if args.plot is not None:
            draw(args, args.plot)
    except InputError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"{error.filename} cannot be written: {error.strerror}")
    print(constants(args, gpu, cluster, extras))
    print()
    print(table(rows, run_on(1, schedule, gpu, cluster, extras), gpu, cfg, known_row(args)))
    print()
    for _, word, meaning in RULE:
        print(f"{word}: {meaning}")
    print(f"A GPU of this step needs --workers {loader_threads(gpu.step, gpu.images, cluster.loaded)} or more.")


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=FoldedHelp)
    add, some, any_time = parser.add_argument, between(1e-6, 1e6), between(0, 1e6)
    add("--config", default="e2e_mask_rcnn_R-50-FPN_2x", help="of yaml_configs/ (default %(default)s)")
    add("--gpus", type=at_least(1), nargs="+", default=[2**power for power in range(10)])
    add("--step", type=some, help="seconds that your GPU needs for its minibatch, by itself")
    add("--images-per-gpu", type=at_least(1), help="of such a minibatch (default: the configuration's)")
    add("--gpus-per-host", type=at_least(1), default=8)
    add("--network", type=some, default=NETWORK, help="Gbit/s that leave a host (default %(default)g)")
    add("--inside", type=some, default=INSIDE, help="Gbit/s between GPUs of a host (default %(default)g)")
    add("--latency", type=any_time, default=LATENCY, help="seconds of a message (default %(default)g)")
    add("--pictures-per-second", type=some, default=LOADED, help="of a loading thread (benchmarks.loader)")
    add("--workers", type=at_least(1), default=2, help="loading threads of each GPU, as of train (default 2)")
    add("--start", type=any_time, default=START, help="seconds to the first iteration (default %(default)g)")
    add("--checkpoint", type=any_time, default=CHECKPOINT, help="seconds to write one (default %(default)g)")
    add("--evaluated-images", type=at_least(0), default=5000, help="at each checkpoint; 0 for none (default 5000)")
    add("--detection", type=any_time, help="seconds of a GPU for one of them (default: as published)")
    add("--scoring", type=any_time, default=SCORING, help="seconds of the first process for one of them")
    add("--plot", type=Path, help="write hours and efficiency of the published models here, as SVG")
    add("--json", type=Path, help="write the rows here")
    return parser


def check(args: argparse.Namespace) -> None:
    """Raise InputError where options do not go together."""
    if args.step is None:
        images = published(args.config).images_per_gpu
        if args.images_per_gpu not in (None, images):
            raise InputError(f"what is published is of {images} images a GPU: pass --step for others")
    elif args.detection is None and args.evaluated_images:
        raise InputError("with --step pass --detection, the seconds of your GPU for an image, or --evaluated-images 0")


def published(name: str) -> CatalogEntry:
    """What Detectron published of a configuration's training; InputError where that is nothing."""
    bundled_config(name)  # names what is no configuration, with the nearest ones
    wanted = name.removeprefix("yaml_configs/").removesuffix(".yaml") + ".yaml"
    for entry in catalog().entries:
        known = entry.config if entry.train_seconds_per_iteration is not None else None
        if known is not None and wanted in (known, known.rpartition("/")[2]):
            return entry
    raise InputError(f"Detectron published no time of training for {name}: pass --step, the seconds of your GPU")


def detection_seconds(entry: CatalogEntry) -> float:
    """Seconds of a P100 and its processor for an image, as published: `0.099 + 0.018`."""
    assert entry.inference_seconds_per_image is not None
    return sum(map(float, entry.inference_seconds_per_image.split("+")))


def schedule_of(cfg: Config) -> Fraction:
    """The configuration's schedule: 2 where it is Detectron's 2x."""
    return Fraction(cfg.SOLVER.MAX_ITER * cfg.NUM_GPUS * cfg.TRAIN.IMS_PER_BATCH, IMAGES_OF_1X)


def setting(args: argparse.Namespace, cfg: Config) -> tuple[Gpu, Cluster, Extras]:
    """The GPU, what it stands in, and what a run does beside its iterations.

    Raises InputError where no GPU would take the published seconds with such a loader, or links within the host.
    """
    images = args.images_per_gpu or cfg.TRAIN.IMS_PER_BATCH
    cluster = Cluster(
        args.gpus_per_host, args.network * GIGABIT, args.inside * GIGABIT, args.latency,
        args.pictures_per_second, args.workers,
    )  # fmt: skip
    gpu = Gpu(args.step or 0.0, images, trained_bytes(cfg), PROGRESS, minibatch_costs())
    detection = args.detection
    if args.step is None:
        entry = published(args.config)
        assert entry.train_seconds_per_iteration is not None
        # As it was measured: on one machine of eight.
        alone = replace(cluster, gpus_per_host=PUBLISHED_ON)
        gpu = calibrated(entry.train_seconds_per_iteration, gpu, PUBLISHED_ON, alone)
        least = sum(iteration_parts(gpu, PUBLISHED_ON, alone).values())
        if not math.isclose(least, entry.train_seconds_per_iteration, rel_tol=1e-6):
            raise InputError(
                f"{PUBLISHED_ON} GPUs took {entry.train_seconds_per_iteration} s for an iteration, and {least:.3g} s "
                "go into loading or the exchange with these --pictures-per-second, --workers, --inside and --latency: "
                "give faster ones, or --step"
            )
        detection = detection_seconds(entry) if detection is None else detection
    checkpoints = math.ceil(iterations_of(schedule_of(cfg), images) / cfg.TRAIN.SNAPSHOT_ITERS)
    extras = Extras(args.start, checkpoints, args.checkpoint, args.evaluated_images, detection or 0.0, args.scoring)
    return gpu, cluster, extras


def known_row(args: argparse.Namespace) -> tuple[int, float, str]:
    """Of how many GPUs the seconds of an iteration are known and not computed, which they are, and by whom."""
    if args.step is not None:
        return 1, args.step, "given"
    seconds = published(args.config).train_seconds_per_iteration
    assert seconds is not None
    return PUBLISHED_ON, seconds, "published"


def trained_bytes(cfg: Config) -> int:
    """Bytes of the gradients of a model, float32."""
    with torch.device("meta"):
        model = build_detector(cfg)
    return sum(4 * each.numel() for each in model.parameters() if each.requires_grad)


def minibatch_costs() -> list[float]:
    """What minibatches cost, by their mean, as their padded areas make it."""
    return [1 - PIXELS_SHARE + PIXELS_SHARE * area for area in AREAS]


def rule(row: Row, cfg: Config) -> str:
    """What is known of the linear rule with so many images in an iteration, in a word or two."""
    if row.iterations < cfg.SOLVER.WARM_UP_ITERS:
        return "none: warm-up is longer than the schedule"
    return next(word for most, word, _ in RULE if row.images <= most)


def constants(args: argparse.Namespace, gpu: Gpu, cluster: Cluster, extras: Extras) -> str:
    """What goes in, and where it is from."""
    own = "given"
    if args.step is None:
        own = f"published: {published(args.config).train_seconds_per_iteration} s on {PUBLISHED_ON} GPUs"
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


def table(rows: list[Row], alone: Row, gpu: Gpu, cfg: Config, known: tuple[int, float, str]) -> str:
    """One line for each number of GPUs; a row that takes the `known_row`'s seconds is not called computed."""
    own, longest = f"{float(schedule_of(cfg)):.3g}x", f"{LONGEST}x"
    header = ["GPUs", "images", "rate", "warm-up", own, longest, "s/iter", f"{own} h", f"{longest} h", f"all {own} h",
              "GPU h", "efficiency", "limit", "s/iter is", "linear rule"]  # fmt: skip
    # Of a 3x schedule 3x stands there once.
    places = [place for place, title in enumerate(header) if title not in header[:place]]
    gpus, seconds, word = known
    lines = []
    for row in rows:
        is_known = row.gpus == gpus and math.isclose(row.iteration, seconds, rel_tol=1e-6)
        found = cells(row, alone, gpu, cfg, word if is_known else "computed")
        lines.append([found[place] for place in places])
    return text_table([header[place] for place in places], lines, left=0)


def cells(row: Row, alone: Row, gpu: Gpu, cfg: Config, whence: str) -> list[str]:
    """A row of the table."""
    solver = scaled_schedule(cfg, row.gpus).SOLVER
    # The configuration's rate is for its own images of a GPU.
    rate = solver.BASE_LR * gpu.images / cfg.TRAIN.IMS_PER_BATCH
    longer = iterations_of(LONGEST, row.images)
    return [
        str(row.gpus), str(row.images), f"{rate:.4g}", f"{solver.WARM_UP_ITERS / row.iterations:.1%}",
        str(row.iterations), str(longer), f"{row.iteration:.3f}", f"{row.training / 3600:.2f}",
        f"{longer * row.iteration / 3600:.2f}", f"{row.total / 3600:.2f}", f"{row.gpus * row.total / 3600:.0f}",
        f"{efficiency(row, alone):.0%}", row.limit, whence, rule(row, cfg),
    ]  # fmt: skip


def draw(args: argparse.Namespace, path: Path) -> None:
    """Hours of the published models, and efficiency at several speeds of the network, against the number of GPUs."""
    import matplotlib
    from matplotlib.figure import Figure

    # Text stays text and ids do not change from run to run: the picture is kept in git.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "many_gpus"}):
        figure = Figure(figsize=(13, 4), layout="constrained")
        hours, as_published, fast = figure.subplots(1, 3)
        for name in ("e2e_mask_rcnn_R-50-FPN_2x", "e2e_mask_rcnn_R-101-FPN_2x", "e2e_mask_rcnn_R-50-FPN_2x_gn"):
            rows, known = runs(args, name, args.network), published(name)
            label = known.backbone + (" GN" if known.norm == "GN" else "")
            hours.plot(args.gpus, [row.total / 3600 for row in rows], marker="o", label=label)
            hours.plot([PUBLISHED_ON], [known.train_hours], marker="x", color="black", linestyle="")
        hours.set(yscale="log", ylabel="hours of 2x, evaluations included", title="P100 (x: as published)")
        known = published("e2e_mask_rcnn_R-50-FPN_2x")
        assert known.train_seconds_per_iteration is not None
        tenth = (known.train_seconds_per_iteration / 10, detection_seconds(known) / 10)
        for gbit in (1, 10, 25, 100):
            for axes, step, detection in ((as_published, None, None), (fast, *tenth)):
                rows = runs(args, "e2e_mask_rcnn_R-50-FPN_2x", gbit, step, detection)
                shares = [efficiency(row, rows[0]) for row in rows]
                axes.plot(args.gpus, shares, marker="o", label=f"{gbit} Gbit/s")
        as_published.set(title="R-50-FPN on P100", ylabel="efficiency")
        fast.set(title="the same on a GPU ten times as fast (made up)")
        for axes in (as_published, fast):
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
    cfg = bundled_config(name)
    gpu, cluster, extras = setting(given, cfg)
    return [run_on(gpus, schedule_of(cfg), gpu, cluster, extras) for gpus in args.gpus]


if __name__ == "__main__":
    main()
