"""Images per second of training on a GPU at 800 / 1333, and the memory it takes.

    python -m benchmarks.train_gpu [--config NAME] [--precisions fp32 tf32 bf16] [--images 2 16] [--rounds 10]
        [--profile] [--device cuda] [--json FILE]

The training loop as `detectron-gn train` runs it, on one synthetic picture with eight drawn objects, scaled to 800 x
1200: minibatches of two images, of which a step of 16 images has eight. Loading is left out: the minibatches lie on the
host. Memory is the peak of what torch took on the GPU, weights and momentum included. Without a GPU, `--device cpu
--scale 160 --rounds 1 --images 2 --precisions fp32` shows in a minute that it runs.
"""

import json
import statistics
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial

import torch

from benchmarks import common
from benchmarks.train_step import LEARNING_RATE, drawn_objects
from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.data.image_blob import image_blob, prepare_image
from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.mrcnn.distributed import Ranks
from detectron_gn.mrcnn.ops.proposals import ImInfo
from detectron_gn.mrcnn.training.loop import minibatch_numbers, train
from detectron_gn.mrcnn.training.solver import MomentumSGD
from detectron_gn.port.config.read import bundled_config

IMAGES_A_MINIBATCH = 2
WARM_UP_STEPS = 2


def main() -> None:
    precisions = ("fp32", "tf32", "bf16")
    parser = common.gpu_options(__doc__, precisions, precisions)
    parser.add_argument("--images", nargs="+", type=int, default=[2, 16], help="per step (default 2 16)")
    parser.add_argument("--scale", type=int, default=800, help="short side of the pictures (default 800)")
    args = parser.parse_args()
    common.set_up(args)
    device = torch.device(args.device)
    print(f"{args.config}, short side {args.scale}, torch {torch.__version__}, medians of {args.rounds} steps")
    results = []
    for precision in args.precisions:
        for images in args.images:
            if device.type == "cuda":
                # What the last model held was given back with it.
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
            cfg = configuration(args.config, images, WARM_UP_STEPS + args.rounds + args.profile)
            steps = training_steps(cfg, precision, device, args.scale)
            for _ in range(WARM_UP_STEPS):
                next(steps)
            seconds = [common.seconds(lambda steps=steps: next(steps)) for _ in range(args.rounds)]
            rate = images / statistics.median(seconds)
            gib = torch.cuda.max_memory_reserved(device) / 2**30 if device.type == "cuda" else None
            memory = "" if gib is None else f"{gib:8.1f} GiB"
            print(f"{precision}, {images:3} images per step: {rate:8.2f} images/s{memory}")
            results.append({"precision": precision, "images": images, "seconds": seconds, "GiB": gib})
            if args.profile:
                common.print_profile(lambda steps=steps: next(steps), args.device)
            del steps
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1))


def configuration(name: str, images: int, steps: int) -> Config:
    """The configuration with as many minibatches of two images per step, and a learning rate that changes nothing."""
    assert images % IMAGES_A_MINIBATCH == 0, f"{images} images do not make minibatches of {IMAGES_A_MINIBATCH}"
    return with_values(
        bundled_config(name),
        {
            "NUM_GPUS": images // IMAGES_A_MINIBATCH,
            "TRAIN.IMS_PER_BATCH": IMAGES_A_MINIBATCH,
            "SOLVER.MAX_ITER": steps,
            "SOLVER.BASE_LR": LEARNING_RATE,
        },
    )


def training_steps(cfg: Config, precision: str, device: torch.device, scale: int) -> Iterator[object]:
    """The training loop; every item it gives is a step, whose losses have come to the host."""
    torch.manual_seed(0)
    model = build_detector(cfg).train().to(device).to(memory_format=torch.channels_last)
    if precision == "tf32":
        model.use_precision("tf32")
    ranks = Ranks(0, 1, device)
    autocast = partial(torch.autocast, device.type, torch.bfloat16) if precision == "bf16" else nullcontext
    solver = MomentumSGD.from_config(model, cfg)
    return train(model, solver, synthetic_minibatches(cfg, ranks, scale), 0, ranks, forward_context=autocast)


def synthetic_minibatches(cfg: Config, ranks: Ranks, scale: int) -> Iterator[Minibatch]:
    """One and the same minibatch under every number."""
    image, objects = drawn_objects()
    prepared = prepare_image(image, cfg.PIXEL_MEANS, scale, cfg.TRAIN.MAX_SIZE)
    data = image_blob([prepared.pixels] * IMAGES_A_MINIBATCH, cfg.FPN.COARSEST_STRIDE)
    if ranks.device.type == "cuda":
        data = data.pin_memory()
    info = ImInfo(*prepared.pixels.shape[:2], prepared.scale)
    for number in minibatch_numbers(cfg, 0, ranks):
        yield Minibatch(
            number,
            data,
            [info] * IMAGES_A_MINIBATCH,
            [objects] * IMAGES_A_MINIBATCH,
            ["synthetic"] * IMAGES_A_MINIBATCH,
        )


if __name__ == "__main__":
    main()
