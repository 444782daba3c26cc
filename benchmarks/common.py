"""What the benchmarks of speed share: their options, a picture, taking turns, medians and memory."""

import argparse
import ctypes
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from benchmarks.help_text import FoldedHelp
from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.layers import AffineChannel
from detectron_gn.verify.training.progress import span

Seconds = dict[str, list[float]]
# `time.perf_counter`, or `time.process_time`, which other processes of a busy machine do not lengthen.
Clock = Callable[[], float]
# What is timed, by name: an object and the attribute of it that is called.
Parts = Mapping[str, tuple[Any, str]]


def options(description: str | None, config: str = "e2e_mask_rcnn_R-50-FPN_2x_gn") -> argparse.ArgumentParser:
    """A parser with the options that every benchmark of speed has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=FoldedHelp)
    parser.add_argument("--config", default=config, help=f"of yaml_configs/ (default {config})")
    parser.add_argument("--rounds", type=int, default=7, help="measured turns of each side (default 7)")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch and OpenCV (default 2)")
    parser.add_argument("--json", type=Path, help="write every measured value here")
    return parser


def gpu_options(description: str | None, precisions: Sequence[str], default: Sequence[str]) -> argparse.ArgumentParser:
    """`options`, and those of the benchmarks that are made for a GPU."""
    parser = options(description)
    parser.add_argument("--precisions", nargs="+", choices=precisions, default=default)
    parser.add_argument("--profile", action="store_true", help="list the operators that take longest")
    parser.add_argument("--device", type=_device, default="cuda", help="where it runs (default cuda)")
    return parser


def _device(name: str) -> str:
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("there is no NVIDIA GPU here: pass --device cpu to see that it runs")
    return name


def print_profile(function: Callable[[], object], device: str) -> None:
    """The operators that take longest in a call, on the GPU where it runs on one."""
    on_gpu = device.startswith("cuda")
    kinds = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.profiler.profile(activities=kinds) as profile:
        taken = seconds(function)
    print(f"\nprofile ({1e3 * taken:.1f} ms under the profiler):")
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    print(profile.key_averages().table(sort_by=key, row_limit=20, max_name_column_width=50))


def set_up(args: argparse.Namespace) -> None:
    """Apply `--threads` to this process."""
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)


def picture(height: int, width: int) -> Image:
    """A synthetic `[height, width, 3]` picture: coloured noise at several scales."""
    rng = np.random.default_rng(0)
    layers = [
        cv2.resize(
            rng.uniform(0, 255, (height // size, width // size, 3)), (width, height), interpolation=cv2.INTER_CUBIC
        )
        for size in (10, 40, 100)
    ]
    return np.clip(sum(layers) / len(layers), 0, 255).astype(np.uint8)


def affine_scale(ends_a_block: bool) -> float:
    """What an affine layer multiplies by in random networks: sums of blocks then grow as slowly as trained ones."""
    return 0.15 if ends_a_block else 0.6


def hold_down(model: nn.Module) -> None:
    """Let the affine layers of a random network keep its values down, as trained ones do."""
    for path, module in model.named_modules():
        if isinstance(module, AffineChannel):
            module.weight.data.fill_(affine_scale(path.removesuffix(".norm").endswith("branch2c")))


def seconds(function: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """How long a call takes."""
    start = clock()
    function()
    return clock() - start


def turns(count: int) -> Iterator[int]:
    """0, 1, ..., `count - 1`: turns of a benchmark. After the first, stderr says how long the others will take."""
    start = time.perf_counter()
    for turn in range(count):
        yield turn
        if turn == 0 and count > 1:
            taken = time.perf_counter() - start
            left = span(timedelta(seconds=taken * (count - 1)))
            print(f"turn 1 of {count} took {taken:.1f} s: about {left} left", file=sys.stderr, flush=True)


@contextmanager
def timed_parts(
    parts: Parts, times: Seconds, wait: Callable[[], object] | None = None, clock: Clock = time.perf_counter
) -> Iterator[None]:
    """Add to `times[name]` one value for each part: the seconds spent in it while the context was open.

    `wait` is called before either reading of the clock, for a device that has not finished when a call returns.
    """
    wait = wait or (lambda: None)

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            wait()
            start = clock()
            result = function(*args, **kwargs)
            wait()
            times[name][-1] += clock() - start
            return result

        return call

    own = {name: vars(owner).get(attribute) for name, (owner, attribute) in parts.items()}
    for name, (owner, attribute) in parts.items():
        times.setdefault(name, []).append(0.0)
        setattr(owner, attribute, timed(name, getattr(owner, attribute)))
    try:
        yield
    finally:
        for name, (owner, attribute) in parts.items():
            if own[name] is None:
                delattr(owner, attribute)
            else:
                setattr(owner, attribute, own[name])


def paired_ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """The median of `value / other` over turns of the same minute."""
    return statistics.median(value / other for value, other in zip(values, others, strict=True))


def print_medians(times: Seconds, indent: str = "", digits: int = 0) -> None:
    """A line for each name: the median in milliseconds and the least."""
    for name, values in times.items():
        median, least = 1e3 * statistics.median(values), 1e3 * min(values)
        print(f"{indent + name:28} {median:8.{digits}f} ms  (from {least:.{digits}f})")


def resident_mib() -> tuple[float, float]:
    """Resident memory of this process on Linux in MiB: now, with what was freed given back, and at its peak."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    now, peak = (int(fields[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
    return now, peak
