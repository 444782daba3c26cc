"""How far CPU inference is from the time of its bare convolutions and matrix products, and from detectron2.

    python benchmarks/inference_cpu.py [--config NAME] [--rounds 7] [--threads 2] [--keep-memory] [--peer] [--json FILE]

One synthetic 800 x 1200 picture, random weights, 1000 proposals, 100 detections. The floor is the same process running
every convolution and matrix product of that run again, on inputs of the same shapes in channels-last memory, and
nothing else. Model and floor take turns, so that a ratio compares seconds of the same minute. `--keep-memory` has freed
memory kept, as the commands of `detectron-gn` have it: it spares every side the first touch of every page.

`--peer` lets detectron2, where it is importable, take its turn too: everything up to pasted masks on its side, and run
lengths of the pasted masks on ours. The peak memory of each is then measured in a process of its own, over the runs
that spread the class scores and two more: resident, beyond the interpreter with everything imported and the weights.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import common  # noqa: E402
from benchmarks import detectron2_peer as peer  # noqa: E402
from benchmarks.common import Parts, Seconds, seconds, timed_parts  # noqa: E402
from mrcnn.image import Image  # noqa: E402
from mrcnn.model import MaskRCNN  # noqa: E402
from mrcnn.results import Detections  # noqa: E402
from port.detectron_yaml import bundled_config  # noqa: E402

PRODUCTS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def main() -> None:
    parser = common.options(__doc__)
    parser.add_argument("--peer", action="store_true", help="run detectron2 too, and measure the memory of each")
    parser.add_argument("--memory-of", choices=("ours", "detectron2"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    common.set_up(args)
    image = common.picture(800, 1200)
    if args.memory_of is not None:
        print(json.dumps(measured_memory(args.memory_of, args.config, image)))
        return
    compare = args.peer and peer.available()

    model = random_model(args.config)
    spread_scores(model, image)
    products = recorded_products(model, image)
    detect_ours = inference(model, image)
    if compare:
        torch.manual_seed(0)
        peer_model = peer.network(model.cfg)
        detect_theirs = peer.inference(peer_model, image)
        assert detect_theirs() == detect_ours()
    times: Seconds = {"floor": [], "model": []}
    stages: dict[str, Seconds] = {"ours": {}, "detectron2": {}}
    for _ in range(args.rounds):
        times["floor"].append(seconds(lambda: replay(products)))
        found: list[Detections] = []
        with timed_parts(inference_parts(model), stages["ours"]):
            times["model"].append(seconds(lambda: found.append(model.detect(image))))  # noqa: B023
        if compare:
            times.setdefault("paste and run lengths", []).append(seconds(found[0].rles))
            with timed_parts(peer.inference_parts(peer_model), stages["detectron2"]):
                times.setdefault("detectron2", []).append(seconds(detect_theirs))

    proposals = next(len(value) for module, value in products if module is model.box_head.cls_score)
    print(f"{args.config}, {args.threads} threads, {proposals} proposals, {detect_ours()} detections")
    common.print_medians(times)
    results: dict[str, Any] = {"ratio": common.paired_ratio(times["model"], times["floor"])}
    print(f"{'model / floor':28} {results['ratio']:8.3f}     (median of {args.rounds} pairs)")
    if compare:
        whole = [sum(parts) for parts in zip(times["model"], times["paste and run lengths"], strict=True)]
        results["peer_ratio"] = common.paired_ratio(times["detectron2"], whole)
        print(f"{'detectron2 / ours with paste':28} {results['peer_ratio']:8.3f}     (median of {args.rounds} pairs)")
        results["memory"] = {side: memory_in_own_process(side, args) for side in ("ours", "detectron2")}
        for side, memory in results["memory"].items():
            print(f"peak memory, {side:15} {memory['above']:8.0f} MiB above the weights, {memory['peak']:.0f} in all")
    elif args.peer:
        print(peer.HOW_TO_GET)
    for side in ("ours", "detectron2") if compare else ("ours",):
        print(f"{side}, by stage:")
        common.print_medians(stages[side], "  ")
    if args.json is not None:
        args.json.write_text(json.dumps({**results, "seconds": times, "stages": stages}, indent=1))


def random_model(config: str) -> MaskRCNN:
    """A network as Caffe2 fills it."""
    torch.manual_seed(0)
    return MaskRCNN(bundled_config(config)).eval().to(memory_format=torch.channels_last)


def spread_scores(model: MaskRCNN, image: Image) -> None:
    """Raise the weights of the class scores until as many detections stay as the configuration allows."""
    while len(model.detect(image)) < model.cfg.TEST.DETECTIONS_PER_IM:
        with torch.no_grad():
            model.box_head.cls_score.weight.mul_(2)


def inference(model: MaskRCNN, image: Image) -> Callable[[], int]:
    """A function that detects, pastes the masks and encodes them, and gives the number of detections."""
    return lambda: len(model.detect(image).rles())


def inference_parts(model: MaskRCNN) -> Parts:
    """The parts of a detection, for `timed_parts`."""
    return {
        "image": (model, "prepare"),
        "ResNet": (model.backbone, "forward"),
        "FPN": (model.fpn, "forward"),
        "RPN head": (model.rpn, "forward"),
        "proposals": (model, "image_proposals"),
        "box RoIAlign and head": (model, "box_outputs"),
        "mask RoIAlign and head": (model, "mask_outputs"),
    }


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
    """Run the products again, each by torch's own operator, and nothing else."""
    for module, value in products:
        operator = next(kind for kind in PRODUCTS if isinstance(module, kind))
        operator.forward(module, value)


def memory_in_own_process(side: str, args: argparse.Namespace) -> dict[str, float]:
    """What `measured_memory` gives in a fresh process with the same options."""
    command = [sys.executable, __file__, "--memory-of", side, "--config", args.config, "--threads", str(args.threads)]
    command += ["--keep-memory"] if args.keep_memory else []
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    memory: dict[str, float] = json.loads(output.splitlines()[-1])
    return memory


def measured_memory(side: str, config: str, image: Image) -> dict[str, float]:
    """Resident MiB of this process: with the weights, at its peak of several detections, and the difference."""
    if side == "ours":
        model = random_model(config)
        weights, _ = common.resident_mib()
        spread_scores(model, image)
        detect = inference(model, image)
    else:
        peer_model = peer.network(bundled_config(config))
        weights, _ = common.resident_mib()
        detect = peer.inference(peer_model, image)
    for _ in range(2):
        detect()
    _, peak = common.resident_mib()
    return {"weights": weights, "peak": peak, "above": peak - weights}


if __name__ == "__main__":
    main()
