"""Images per second of inference on a GPU, stage by stage, beside torchvision's Mask R-CNN.

    python -m benchmarks.inference_gpu [--config NAME] [--precisions fp32 tf32 bf16 fp16] [--batches 1 2 4 8 16]
        [--rounds 7] [--seconds 2] [--profile] [--device cuda] [--json FILE]

One synthetic 800 x 1200 picture, as often as the batch is large, random weights, 1000 proposals and 100 detections an
image. Four sides take turns:

- ours: from the prepared batch on the GPU to boxes, scores and soft masks on the host, one batch begun before the last
  is waited for, as an evaluation does it;
- ours as CUDA graphs: the same;
- ours, whole: also what an evaluation does besides: threads that scale and copy the next images and
  threads that paste and encode the masks of the last; with CUDA graphs. This is the side to compare with
- torchvision's R-50-FPN (frozen batch normalisation, two fully connected layers, autocast for 16 bits; see
  torchvision_peer.py): from the images on the GPU to its detections on the host, scaling and pasting on the GPU.

The stages are those of ours without graphs, the GPU waited for after each. Memory is what torch took on the GPU for two
batches, beyond the weights. Without a GPU, `--device cpu --rounds 1 --batches 1 --seconds 0.1 --precisions fp32` shows
in two minutes that it runs.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import common
from benchmarks import torchvision_peer as peer
from benchmarks.inference_cpu import inference_parts, random_model, spread_scores
from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.detectors import GeneralizedRCNN
from detectron_gn.mrcnn.evaluation.evaluate import THREADS_BESIDE_A_GPU
from detectron_gn.mrcnn.inference.cuda_graphs import CudaGraphs
from detectron_gn.mrcnn.inference.network_input import NetworkInput
from detectron_gn.mrcnn.inference.static_shapes import StaticNetwork
from detectron_gn.mrcnn.precision import ROUNDED, tf32_products
from detectron_gn.mrcnn.prefetch import mapped_ahead

OURS, GRAPHS, WHOLE, PEER = "ours", "ours, CUDA graphs", "ours, whole", "torchvision"


def main() -> None:
    parser = common.gpu_options(__doc__, ("fp32", "tf32", "bf16", "fp16"), ["fp32", "bf16"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=2.0, help="of a measured turn, at least (default 2)")
    args = parser.parse_args()
    common.set_up(args)
    image = common.picture(800, 1200)
    if not peer.available():
        print(peer.HOW_TO_GET)
    print(f"{device_name(args.device)}, torch {torch.__version__}, {args.config}, medians of {args.rounds} turns")
    results: list[dict[str, Any]] = []
    for precision in args.precisions:
        model = random_model(args.config).to(args.device)
        spread_scores(model, image)
        model.use_precision(precision)
        for batch in args.batches:
            results.append(measure(model, precision, [image] * batch, args))
            print_result(results[-1])
        print_stages(stage_times(model, image, args))
        if args.profile:
            one = [model.network_input([image])]
            common.print_profile(partial(detect_ahead, model, model.static_outputs, one), args.device)
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1))


def measure(model: GeneralizedRCNN, precision: str, images: list[Image], args: argparse.Namespace) -> dict[str, Any]:
    """Images per second and memory of every side for one precision and batch."""
    batch = model.network_input(images)
    graphs = CudaGraphs(model) if args.device.startswith("cuda") else None
    network: StaticNetwork = model.static_outputs
    sides: dict[str, Callable[[int], None]] = {
        OURS: lambda turns: detect_ahead(model, network, [batch] * turns),
    }
    if graphs is not None:
        sides[GRAPHS] = lambda turns: detect_ahead(model, graphs, [batch] * turns)
        whole: StaticNetwork = CudaGraphs(model)
    else:
        whole = network
    sides[WHOLE] = lambda turns: detect_whole(model, whole, [images] * turns)
    if peer.available():
        detect = peer_inference(model, images, precision, args.device)

        def peers(turns: int) -> None:
            for _ in range(turns):
                detect()

        sides[PEER] = peers
    turns, memory = {}, {}
    for name, side in sides.items():
        memory[name] = taken_gib(lambda side=side: side(2), args.device)
        seconds = common.seconds(lambda side=side: side(2)) / 2
        turns[name] = max(2, round(args.seconds / seconds))
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, side in sides.items():
            seconds = common.seconds(lambda side=side, name=name: side(turns[name]))
            rates[name].append(turns[name] * len(images) / seconds)
    return {"precision": precision, "batch": len(images), "images/s": rates, "GiB": memory}


def detect_ahead(model: GeneralizedRCNN, network: StaticNetwork, batches: Iterable[NetworkInput]) -> None:
    """Detect in batches, each begun before the last one is waited for."""
    waiting = None
    for batch in batches:
        begun = model.start_batch(batch, network)
        if waiting is not None:
            waiting()
        waiting = begun
    assert waiting is not None and len(waiting()[0]) == model.cfg.TEST.DETECTIONS_PER_IM


def detect_whole(model: GeneralizedRCNN, network: StaticNetwork, batches: list[list[Image]]) -> None:
    """From decoded images to the run lengths of their masks, with threads before and after the network."""
    prepared = mapped_ahead(model.network_input, batches, THREADS_BESIDE_A_GPU)
    begun = (model.start_batch(batch, network) for batch in prepared)
    for _ in mapped_ahead(lambda wait: [found.rles() for found in wait()], begun, THREADS_BESIDE_A_GPU):
        pass


def peer_inference(model: GeneralizedRCNN, images: list[Image], precision: str, device: str) -> Callable[[], int]:
    """torchvision's model at work on the same images, with as many detections."""
    peer_model = peer.network(model.cfg, device)
    inputs: list[Tensor] = [peer.as_tensor(image, device) for image in images]
    detect = peer.inference(peer_model, inputs, ROUNDED.get(precision))  # type: ignore[call-overload]
    peer.spread_scores(peer_model, detect, model.cfg.TEST.DETECTIONS_PER_IM)

    def detect_in_precision() -> int:
        with tf32_products(precision == "tf32"):
            return detect()

    return detect_in_precision


def stage_times(model: GeneralizedRCNN, image: Image, args: argparse.Namespace) -> common.Seconds:
    """Seconds of each stage of one image, the GPU waited for before and after it."""
    import detectron_gn.mrcnn.detectors.generalized_rcnn as network_module

    parts = {
        **inference_parts(model),
        "image": (model, "network_input"),
        "proposals": (network_module, "static_proposals"),
        "choice of detections": (network_module, "static_detections"),
    }
    times: common.Seconds = {}
    wait = torch.cuda.synchronize if args.device.startswith("cuda") else None
    for _ in range(args.rounds + 1):
        with common.timed_parts(parts, times, wait):
            for found in model.start_batch(model.network_input([image]), model.static_outputs)():
                found.rles()
    return {name: values[1:] for name, values in times.items()}


def taken_gib(function: Callable[[], object], device: str) -> float | None:
    """The memory that torch took on a GPU for the first call of a side."""
    if not device.startswith("cuda"):
        function()
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_reserved(device)
    function()
    return (torch.cuda.max_memory_reserved(device) - before) / 2**30


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def print_result(result: dict[str, Any]) -> None:
    """A line per side: images per second and memory; for the whole also the ratio to torchvision in the same turns."""
    print(f"\n{result['precision']}, batch {result['batch']}:")
    for name, rates in result["images/s"].items():
        others = result["images/s"].get(PEER)
        memory = "" if result["GiB"][name] is None else f"{result['GiB'][name]:8.2f} GiB"
        ratio = f"{common.paired_ratio(rates, others):8.2f} x torchvision" if name == WHOLE and others else ""
        print(f"  {name:20} {statistics.median(rates):8.2f} images/s{memory}{ratio}")


def print_stages(times: common.Seconds) -> None:
    """The median milliseconds of each stage."""
    print("\nstages, batch 1, without graphs:")
    common.print_medians(times, "  ", digits=2)


if __name__ == "__main__":
    main()
