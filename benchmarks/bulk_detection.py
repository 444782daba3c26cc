"""What `detectron-gn detect` costs around the network: pictures per second, and memory over very many of them.

    python -m benchmarks.bulk_detection rate [--pictures 300] [--size 480 640] [--workers 0 1 2] [--rounds 3]
    python -m benchmarks.bulk_detection many [--pictures 1000000] [--folder DIR] [--plot bulk_memory.svg] [--json FILE]

A stub takes the place of the network: it finds the same boxes in every picture and takes no time. All the rest is the
command itself: listing, reading, scaling to 800/1333, result rows, JSON lines.

`rate` compares it with bare `cv2.imdecode` and `cv2.resize` of the same pictures in one process, in the same turn:
processor time of all processes, which others on a busy machine do not lengthen, and pictures per second.

`many` makes links to a few small pictures, which are scaled to 64 pixels, kills the command with SIGKILL in the middle,
starts it again, and checks that every picture has one line. The memory is that of all processes (PSS). Linux only.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import common
from benchmarks.help_text import FoldedHelp
from detectron_gn import main as command_line
from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.data.categories import numbered
from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.inference.network_input import NetworkInput
from detectron_gn.mrcnn.inference.static_shapes import StaticNetwork
from detectron_gn.mrcnn.structures import Detections
from detectron_gn.mrcnn.training.samplers import Sampler
from detectron_gn.port.config.read import bundled_config
from detectron_gn.port.runs import load
from detectron_gn.port.runs.detection_lines import done_keys, line_files

ROOT = Path(__file__).resolve().parents[1]
# What a second start must find done, at least: the kill comes when half of the lines are there.
KILLED_AT = 0.5
FEW = 8


class Stub(Detector):
    """A network that finds `count` boxes in every image, at once."""

    def __init__(self, cfg: Config, count: int) -> None:
        super().__init__(cfg)
        self.place = nn.Parameter(torch.zeros(1))
        self.categories = numbered(cfg.MODEL.NUM_CLASSES - 1)
        corners = np.linspace(0, 30, count, dtype=np.float32)
        self.boxes = np.stack([corners, corners, corners + 20, corners + 25], axis=1)
        self.scores = np.linspace(0.99, 0.05, count, dtype=np.float32)
        self.labels = np.arange(count, dtype=np.int64) % (cfg.MODEL.NUM_CLASSES - 1) + 1

    def start_batch(
        self, batch: NetworkInput, network: StaticNetwork | None = None
    ) -> Callable[[], list[Detections]]:
        found = [Detections(self.boxes, self.scores, self.labels, size) for size in batch.image_sizes]
        return lambda: found

    def detect_dynamic(self, batch: NetworkInput) -> list[Detections]:
        return self.start_batch(batch)()

    def losses(self, minibatch: Minibatch, sampler: Sampler) -> dict[str, Tensor]:
        raise NotImplementedError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=FoldedHelp)
    parts = parser.add_subparsers(dest="part", required=True)
    rate = parts.add_parser("rate")
    rate.add_argument("--pictures", type=int, default=300)
    rate.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"))
    rate.add_argument("--workers", type=int, nargs="+", default=(0, 1, 2))
    rate.add_argument("--rounds", type=int, default=3)
    many = parts.add_parser("many")
    many.add_argument("--pictures", type=int, default=1_000_000)
    many.add_argument("--folder", type=Path, help="for links and results (default: a temporary one)")
    many.add_argument("--plot", type=Path, help="write a plot here, as SVG")
    many.add_argument("--json", type=Path, help="write every measured value here")
    many.add_argument("--workers", type=int, default=1)
    stub = parts.add_parser("stub", help="`detect` with the stub: what the others start")
    stub.add_argument("count", type=int)
    stub.add_argument("scale", type=int)
    stub.add_argument("options", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if args.part == "stub":
        return detect_with_stub(args.count, args.scale, args.options)
    return print_rates(args) if args.part == "rate" else print_many(args)


def detect_with_stub(count: int, scale: int, options: Sequence[str]) -> int:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    settings: dict[str, Any] = {} if scale == 800 else {"TEST.SCALE": scale, "TEST.MAX_SIZE": scale}
    cfg = with_values(bundled_config("e2e_faster_rcnn_R-50-FPN_1x"), settings)
    load.load_model = lambda *_args, **_kwargs: Stub(cfg, count)  # type: ignore[assignment]
    return command_line(["detect", "stub", *options])


def stub_command(images: Path, out: Path, count: int, scale: int, workers: int) -> list[str]:
    options = [str(images), "--out", str(out), "--device", "cpu", "--workers", str(workers)]
    return [sys.executable, "-m", "benchmarks.bulk_detection", "stub", str(count), str(scale), *options]


def print_rates(args: argparse.Namespace) -> int:
    height, width = args.size
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, few = folder / "images", folder / "few"
        content = jpeg(height, width)
        # What the start of all processes costs is seen in a few pictures, and taken off.
        for place, count in ((images, args.pictures + FEW), (few, FEW)):
            place.mkdir()
            for number in range(count):
                (place / f"{number:06}.jpg").write_bytes(content)
        wall: common.Seconds = {}
        processor: common.Seconds = {}
        for turn in range(args.rounds):
            taken = {"bare decoding and resizing": bare(sorted(images.iterdir())[FEW:])}
            for workers in args.workers:
                whole, start = (
                    timed_run(stub_command(place, folder / f"{place.name}_{turn}_{workers}", 100, 800, workers))
                    for place in (images, few)
                )
                taken[f"detect --workers {workers}"] = (whole[0] - start[0], whole[1] - start[1])
            for what, (seconds, of_processor) in taken.items():
                wall.setdefault(what, []).append(seconds)
                processor.setdefault(what, []).append(of_processor)
    print(f"{args.pictures} JPEGs of {height} x {width}, to 800/1333, 100 boxes each; medians of {args.rounds}")
    (_, base), *_ = processor.items()
    for what, values in processor.items():
        cost, rate = 1e3 * statistics.median(values) / args.pictures, args.pictures / statistics.median(wall[what])
        ratio = common.paired_ratio(values, base)
        print(f"{what:28} {cost:6.1f} ms of processor a picture, {ratio:5.2f} x bare; {rate:6.1f} pictures a second")
    return 0


def timed_run(command: list[str]) -> tuple[float, float]:
    """Seconds that a command takes, and those of a processor that it and its processes use."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit("detect failed")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


def bare(paths: Sequence[Path]) -> tuple[float, float]:
    """What decoding and resizing alone take, to the same size and type, as `timed_run` has it."""
    cv2.setNumThreads(1)
    start, of_processor = time.perf_counter(), time.process_time()
    for path in paths:
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
        factor = min(800 / min(pixels.shape[:2]), 1333 / max(pixels.shape[:2]))
        cv2.resize(pixels.astype(np.float32), None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    return time.perf_counter() - start, time.process_time() - of_processor


def jpeg(height: int, width: int) -> bytes:
    return bytes(cv2.imencode(".jpg", common.picture(height, width))[1])


def print_many(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        images, out = folder / "images", folder / "out"
        out.mkdir()
        link_pictures(images, args.pictures)
        samples: list[dict[str, float]] = []
        command = stub_command(images, out, 3, 64, args.workers)
        first = watch(command, out, samples, int(args.pictures * KILLED_AT), args.pictures)
        lines = out / "detections_0.jsonl"
        kept, torn = lines.stat().st_size, not lines.read_bytes()[-1:] == b"\n"
        second = watch(command, out, samples, None, args.pictures)
        keys = np.frombuffer(done_keys(line_files(out)), "S16")
        once = len(keys) == len(np.unique(keys)) == args.pictures
        size = lines.stat().st_size
    peak = max(sample["all"] for sample in samples)
    print(f"killed by SIGKILL after {first:.0f} s with {kept / size:.1%} of the lines, the last one torn: {torn}")
    print(f"went on for {second:.0f} s; {args.pictures:,} pictures, {len(keys):,} lines, each once: {once}")
    print(f"{args.pictures / (first + second):.0f} pictures a second; most memory of all processes: {peak:.0f} MiB")
    for start, end in ((0.1, 0.5), (0.6, 1.0)):
        part = [each for each in samples if start * size <= each["bytes"] <= end * size]
        low, high = (function(each["all"] for each in part) for function in (min, max))
        print(f"from {start:.0%} to {end:.0%} of the pictures: {low:.0f} to {high:.0f} MiB")
    if args.json is not None:
        args.json.write_text(json.dumps({"pictures": args.pictures, "bytes": size, "samples": samples}))
    if args.plot is not None:
        draw(samples, size, args.pictures, args.plot)
    return 0 if once else 1


def link_pictures(folder: Path, count: int) -> None:
    """Links to eight small pictures, a thousand in a folder, all names of one length."""
    folder.mkdir()
    pictures = []
    for number in range(8):
        picture = folder.parent / f"{number}.jpg"
        picture.write_bytes(jpeg(100 + number, 120))
        pictures.append(picture)
    for start in range(0, count, 1000):
        below = folder / f"{start // 1000:06}"
        below.mkdir()
        for number in range(start, min(start + 1000, count)):
            os.symlink(pictures[number % len(pictures)], below / f"{number:012}.jpg")


def watch(
    command: list[str], out: Path, samples: list[dict[str, float]], kill_at: int | None, pictures: int
) -> float:
    """Run a command; kill it when so many pictures are done. Adds a sample of memory now and then; seconds it took."""
    lines, start = out / "detections_0.jsonl", time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    line = 0
    while process.poll() is None:
        size = lines.stat().st_size if lines.exists() else 0
        if size and not line:
            with lines.open("rb") as file:
                line = len(file.readline())
        own = [memory(pid) for pid in (process.pid, *children(process.pid))]
        samples.append(
            {"run": float(kill_at is None), "seconds": time.perf_counter() - start, "bytes": size, "main": own[0],
             "all": sum(own)}
        )  # fmt: skip
        if kill_at is not None and line and size >= kill_at * line:
            workers = children(process.pid)
            process.send_signal(signal.SIGKILL)
            process.wait()
            time.sleep(2)
            assert not any(memory(pid) for pid in workers), "processes were left"
            return time.perf_counter() - start
        time.sleep(max(1.0, pictures / 400_000))
    if process.returncode:
        sys.exit("detect failed")
    return time.perf_counter() - start


def memory(pid: int) -> float:
    """MiB of a process, its part of what it shares with others; 0 where there is none."""
    try:
        fields = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in fields if line.startswith("Pss:")), 0.0)


def children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def draw(samples: Sequence[dict[str, float]], size: int, pictures: int, path: Path) -> None:
    """Memory against the pictures that are done, of both runs."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bulk"}):
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        axes = figure.subplots()
        for key, name, colour in (("all", "all processes", "C0"), ("main", "main process", "C1")):
            for run in (0.0, 1.0):
                part = [each for each in samples if each["run"] == run]
                done = [each["bytes"] / size * pictures / 1e6 for each in part]
                axes.plot(done, [each[key] for each in part], color=colour, label=None if run else name, lw=1)
        axes.axvline(KILLED_AT * pictures / 1e6, color="0.5", ls=":", lw=1)
        axes.annotate("killed, started again", (KILLED_AT * pictures / 1e6, 5), fontsize=8, color="0.4")
        axes.set(xlabel="million pictures done", ylabel="MiB (PSS)")
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right")
        figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
