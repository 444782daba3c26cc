"""How far CPU inference is from the time of its bare convolutions and matrix products, and from detectron2.

    python -m benchmarks.inference_cpu [--precision bf16] [--config NAME] [--rounds 7] [--threads 2] [--peer]
        [--cpu-time] [--json FILE]

One synthetic 800 x 1200 picture, random weights, 1000 proposals, 100 detections. Ours is everything from the decoded
image to the run lengths of its masks and to its keypoints, whatever heads the configuration has. The floor is our
process running every convolution and matrix product of that run again by torch's own operators, on inputs of the same
shapes in channels-last memory, and nothing else.

Every side lives in a process of its own and they take turns, so that a ratio compares seconds of the same minute, and
each says how much memory it had at its peak: resident, beyond the interpreter with everything imported and the
weights. Ours keeps freed memory, as the commands of `detectron-gn` do. `--peer` lets detectron2 take part, everything
up to pasted masks or keypoints: once as it is, and once in a process that keeps freed memory too, which spares it
touching new pages.
`--precision bf16` rounds ours and its floor; detectron2 stays in float32.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import common
from benchmarks import detectron2_peer as peer
from benchmarks.common import Parts, Seconds, seconds, timed_parts
from detectron_gn.mrcnn import structures
from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.detectors import Detector, GeneralizedRCNN, build_detector
from detectron_gn.mrcnn.memory import keep_freed_memory
from detectron_gn.mrcnn.structures import Detections
from detectron_gn.port.config.read import bundled_config

PRODUCTS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
OURS, PEER, WARM_PEER = "ours", "detectron2", "detectron2, memory kept"


def main() -> None:
    parser = common.options(__doc__)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of ours (default fp32)")
    parser.add_argument("--cpu-time", action="store_true", help="count the processor's time; with --threads 1")
    parser.add_argument("--peer", action="store_true", help="run detectron2 too")
    parser.add_argument("--side", choices=(OURS, PEER, WARM_PEER), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side is not None:
        serve(args)
        return
    if args.peer and not peer.available():
        print(peer.HOW_TO_GET)
    names = (OURS, PEER, WARM_PEER) if args.peer and peer.available() else (OURS,)
    sides = {name: Side(name, args) for name in names}
    times: Seconds = {}
    stages: dict[str, Seconds] = {name: {} for name in names}
    for _ in common.turns(args.rounds):
        for name, side in sides.items():
            turn = side.ask("turn")
            for part, value in turn["stages"].items():
                stages[name].setdefault(part, []).append(value)
            for part, value in turn["seconds"].items():
                times.setdefault(part, []).append(value)
    memory = {name: side.ask("memory") for name, side in sides.items()}
    counts = {name: side.close() for name, side in sides.items()}
    assert len(set(counts.values())) == 1, f"numbers of detections differ: {counts}"

    print(f"{args.config}, {args.precision}, {args.threads} threads, {counts[OURS]} detections")
    common.print_medians(times)
    ratios = {"ours / floor": common.paired_ratio(times[OURS], times["floor"])}
    for name in names[1:]:
        ratios[f"{name} / ours"] = common.paired_ratio(times[name], times[OURS])
    for name, ratio in ratios.items():
        print(f"{name:32} {ratio:8.3f}     (median of {args.rounds} pairs)")
    for name, mib in memory.items():
        print(f"peak memory, {name:23} {mib['above']:5.0f} MiB above the weights, {mib['peak']:.0f} in total")
    for name in names:
        print(f"{name}, by stage:")
        common.print_medians(stages[name], "  ")
    if args.json is not None:
        args.json.write_text(json.dumps({"ratios": ratios, "memory": memory, "seconds": times, "stages": stages}))


class Side:
    """A process that runs one of the sides when it is asked to."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        command = [sys.executable, "-m", "benchmarks.inference_cpu", "--side", name, "--config", args.config]
        options = ["--precision", args.precision, "--threads", str(args.threads)] + ["--cpu-time"] * args.cpu_time
        self._process = subprocess.Popen(
            [*command, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._detections = self._answer()

    def ask(self, question: str) -> Any:
        """What it answers to `turn` or `memory`."""
        assert self._process.stdin is not None
        print(question, file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> int:
        """End the process; returns how many detections it found."""
        self._process.communicate()
        detections: int = self._detections
        return detections

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def serve(args: argparse.Namespace) -> None:
    """Be one side: a line with the number of detections, then an answer to each line of the input."""
    common.set_up(args)
    clock = time.process_time if args.cpu_time else time.perf_counter
    if args.side != PEER:
        keep_freed_memory()
    image = common.picture(800, 1200)
    weights_mib, peak_mib = 0.0, 0.0
    if args.side == OURS:
        model = random_model(args.config)
        weights_mib, _ = common.resident_mib()
        spread_scores(model, image)
        model.use_precision(args.precision)
        detect, parts = inference(model, image), inference_parts(model)
        detections = detect()
        _, peak_mib = common.resident_mib()
        products = recorded_products(model, image)
    else:
        peer_model = peer.network(configuration(args.config))
        weights_mib, _ = common.resident_mib()
        detect, parts = peer.inference(peer_model, image), peer.inference_parts(peer_model)
        detections = detect()
        _, peak_mib = common.resident_mib()
    print(detections, flush=True)
    for question in map(str.strip, sys.stdin):
        if question == "memory":
            print(json.dumps({"weights": weights_mib, "peak": peak_mib, "above": peak_mib - weights_mib}), flush=True)
            continue
        stages: Seconds = {}
        taken = {"floor": seconds(lambda: replay(products), clock)} if args.side == OURS else {}
        with timed_parts(parts, stages, clock=clock):
            taken[args.side] = seconds(detect, clock)
        print(json.dumps({"seconds": taken, "stages": {name: value for name, (value,) in stages.items()}}), flush=True)


def random_model(config: str) -> Detector:
    """A network as Caffe2 fills it, but for affine channels that hold its values down, as trained ones do."""
    torch.manual_seed(0)
    model = build_detector(configuration(config)).eval().to(memory_format=torch.channels_last)
    common.hold_down(model)
    return model


def configuration(name: str) -> Config:
    """Of `yaml_configs/`; without a pyramid the RPN's NMS leaves more boxes, so that there are 1000 of them."""
    cfg = bundled_config(name)
    return cfg if cfg.FPN.FPN_ON else with_values(cfg, {"TEST.RPN_NMS_THRESH": 0.95})


def spread_scores(model: Detector, image: Image) -> None:
    """Raise the weights of the class scores until as many detections stay as the configuration allows."""
    scores = {"box_head": "cls_score", "head": "cls_pred"}
    layer = next(getattr(getattr(model, head), name) for head, name in scores.items() if hasattr(model, head))
    while len(model.detect(image)) < model.cfg.TEST.DETECTIONS_PER_IM:
        with torch.no_grad():
            layer.weight.mul_(2)
    if isinstance(model, GeneralizedRCNN):
        wanted = model.cfg.TEST.RPN_POST_NMS_TOP_N

        def check_proposals(_module: nn.Module, inputs: tuple[Tensor]) -> None:
            assert len(inputs[0]) == wanted, f"{len(inputs[0])} proposals, not {wanted}"

        handle = layer.register_forward_pre_hook(check_proposals)
        model.detect(image)
        handle.remove()


def inference(model: Detector, image: Image) -> Callable[[], int]:
    """A function that detects, pastes the masks and encodes them, and gives the number of detections."""
    if model.cfg.MODEL.MASK_ON:
        return lambda: len(model.detect(image).rles())
    return lambda: len(model.detect(image))


def inference_parts(model: Detector) -> Parts:
    """The parts of a detection that a model has, for `timed_parts`."""
    parts: dict[str, tuple[str, str]] = {
        "image": ("", "prepare"),
        "ResNet": ("backbone.body", "forward"),
        "FPN": ("backbone.fpn", "forward"),
        "RPN head": ("rpn", "forward"),
        "proposals": ("rpn", "proposals"),
        "RetinaNet head": ("head", "forward"),
        "box RoIAlign and head": ("box_head", "outputs"),
        "mask RoIAlign and head": ("mask_head", "outputs"),
        "keypoint RoIAlign and head": ("keypoint_head", "outputs"),
    }
    modules = dict(model.named_modules())
    found: dict[str, tuple[Any, str]] = {
        name: (modules[path], attribute) for name, (path, attribute) in parts.items() if path in modules
    }
    if model.cfg.MODEL.MASK_ON:
        found["paste and run lengths"] = (Detections, "rles")
    if model.cfg.MODEL.KEYPOINTS_ON:
        found["keypoints off heatmaps"] = (structures, "decode_heatmaps")
    return found


def recorded_products(model: Detector, image: Image) -> list[tuple[nn.Module, Tensor]]:
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
    for module, shape in calls:
        if shape not in inputs:
            value = torch.randn(shape).to(module.weight.dtype)
            inputs[shape] = value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
    return [(module, inputs[shape]) for module, shape in calls]


@torch.inference_mode()
def replay(products: list[tuple[nn.Module, Tensor]]) -> None:
    """Run the products again, each by torch's own operator, and nothing else."""
    for module, value in products:
        operator = next(kind for kind in PRODUCTS if isinstance(module, kind))
        operator.forward(module, value)


if __name__ == "__main__":
    main()
