"""How far CPU inference is from the time of its bare convolutions and matrix products.

Usage: python benchmarks/inference_cpu.py [--config NAME] [--rounds 7] [--threads 2] [--keep-memory] [--json FILE]

One synthetic 800 x 1200 picture through a network of full width with random weights: 1000 proposals, 100 detections.
The floor is the same process running every convolution and matrix product of that run again, on inputs of the same
shapes in channels-last memory, and nothing else. Model and floor take turns, so that a ratio compares seconds of the
same minute. `--keep-memory` tells the C library not to give freed memory back, as a program that detects in many
images may do: it spares both sides the first touch of every page.
"""

import argparse
import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mrcnn.image import Image  # noqa: E402
from mrcnn.model import MaskRCNN  # noqa: E402
from port.detectron_yaml import bundled_config  # noqa: E402

PRODUCTS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD = -4, -1, -2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="e2e_mask_rcnn_R-50-FPN_2x_gn")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep-memory", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.keep_memory:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_MAX, 0), libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1), libc.mallopt(M_TOP_PAD, 2**28)

    image = picture()
    model = random_model(args.config)
    products = recorded_products(model, image)
    found = model.detect(image)
    times: dict[str, list[float]] = {"model": [], "floor": []}
    stages: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        times["floor"].append(seconds(lambda: replay(products)))
        with timed_stages(model, stages):
            times["model"].append(seconds(lambda: model.detect(image)))
    ratio = statistics.median(model / floor for model, floor in zip(times["model"], times["floor"], strict=True))
    print(f"{args.config}, {args.threads} threads, {len(found)} detections, {len(products)} products")
    for name, values in times.items():
        print(f"{name:24} {1e3 * statistics.median(values):8.0f} ms  (from {1e3 * min(values):.0f})")
    print(f"{'model / floor':24} {ratio:8.3f}     (median of {args.rounds} pairs)")
    for name, values in stages.items():
        print(f"  {name:22} {1e3 * statistics.median(values):8.0f} ms")
    if args.json is not None:
        args.json.write_text(json.dumps({"ratio": ratio, "seconds": times, "stages": stages}, indent=1))


def picture() -> Image:
    """A synthetic 800 x 1200 picture that needs no scaling: coloured noise at several scales."""
    rng = np.random.default_rng(0)
    layers = [
        cv2.resize(rng.uniform(0, 255, (800 // size, 1200 // size, 3)), (1200, 800), interpolation=cv2.INTER_CUBIC)
        for size in (10, 40, 100)
    ]
    return np.clip(sum(layers) / len(layers), 0, 255).astype(np.uint8)


def random_model(config: str) -> MaskRCNN:
    """A network as Caffe2 fills it, its class scores spread out until a hundred detections stay."""
    torch.manual_seed(0)
    model = MaskRCNN(bundled_config(config)).eval().to(memory_format=torch.channels_last)
    image = picture()
    while len(model.detect(image)) < model.cfg.TEST.DETECTIONS_PER_IM:
        with torch.no_grad():
            model.box_head.cls_score.weight.mul_(1.5)
    return model


def recorded_products(model: MaskRCNN, image: Image) -> list[tuple[nn.Module, Tensor]]:
    """Each convolution and matrix product of one run, with an input of the shape that it had."""
    calls: list[tuple[nn.Module, torch.Size]] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, _output: calls.append((module, inputs[0].shape)))
        for module in model.modules()
        if isinstance(module, PRODUCTS)
    ]
    model.detect(image)
    for hook in hooks:
        hook.remove()
    inputs: dict[torch.Size, Tensor] = {}
    for _, shape in calls:
        if shape not in inputs:
            value = torch.randn(shape)
            inputs[shape] = value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
    return [(module, inputs[shape]) for module, shape in calls]


@torch.inference_mode()
def replay(products: list[tuple[nn.Module, Tensor]]) -> None:
    for module, value in products:
        module(value)


@contextmanager
def timed_stages(model: MaskRCNN, stages: dict[str, list[float]]) -> Iterator[None]:
    """Time the parts of a run by wrapping them for as long as the context is open."""

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            stages[name][-1] += time.perf_counter() - start
            return result

        return call

    parts = {"backbone": (model.backbone, "forward"), "FPN": (model.fpn, "forward"), "RPN head": (model.rpn, "forward")}
    parts |= {"proposals": (model, "image_proposals"), "box head with RoIAlign": (model, "box_outputs")}
    parts |= {"mask head with RoIAlign": (model, "mask_outputs"), "image": (model, "prepare")}
    for name, (owner, attribute) in parts.items():
        stages.setdefault(name, []).append(0.0)
        setattr(owner, attribute, timed(name, getattr(owner, attribute)))
    try:
        yield
    finally:
        for owner, attribute in parts.values():
            delattr(owner, attribute)


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
