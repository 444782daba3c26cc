"""Pictures a second that one process reads for training, beside OpenCV's decoding and scaling of the same files.

    python -m benchmarks.loader DIR [--rounds 7] [--step SECONDS] [--images-per-step 2]

At 800/1333, on one thread, in processor time, taking turns. `OpenCV` is `cv2.imdecode`, the mean subtracted in float32
and `cv2.resize`: the least that Detectron's arithmetic needs; `OpenCV, 8 bits` scales without the mean, as other
trainers do, and is what the aim was set against. `ours` reads, checks, scales and stacks as training does. `--step`
tells how many threads keep a GPU busy that needs so many seconds for a step.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.help_text import FoldedHelp
from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.image_blob import image_blob, image_scale, prepare_image
from detectron_gn.mrcnn.data.read_image import read_training_image
from detectron_gn.mrcnn.memory import keep_freed_memory
from detectron_gn.mrcnn.tables import text_table

SIZE, MOST = 800, 1333
MEANS = Config().PIXEL_MEANS


def bare(path: Path) -> object:
    """Decode, subtract the mean, scale."""
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    scale = image_scale(*image.shape[:2], SIZE, MOST)
    return cv2.resize(image.astype(np.float32) - np.array(MEANS, np.float32), None, fx=scale, fy=scale)


def bare_bytes(path: Path) -> object:
    """Decode, scale."""
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    scale = image_scale(*image.shape[:2], SIZE, MOST)
    return cv2.resize(image, None, fx=scale, fy=scale)


def ours(path: Path) -> object:
    """What `mrcnn.data.minibatch.load_minibatch` does with the pixels of one picture."""
    return image_blob([prepare_image(read_training_image(path).pixels, MEANS, SIZE, MOST).pixels], 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=FoldedHelp)
    parser.add_argument("folder", type=Path, help="of photographs")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--limit", type=int, default=100, help="pictures (default 100)")
    parser.add_argument("--step", type=float, help="seconds that a GPU needs for a step")
    parser.add_argument("--images-per-step", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write every measured value here")
    args = parser.parse_args()
    keep_freed_memory()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    files = sorted(args.folder.iterdir())[: args.limit]
    sides = {"OpenCV": bare, "OpenCV, 8 bits": bare_bytes, "ours": ours}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(args.rounds + 1):
        for name, side in sides.items():
            start = time.process_time()
            for path in files:
                side(path)
            if turn:  # the first reads the disk
                times[name].append((time.process_time() - start) / len(files))
    medians = {name: statistics.median(values) for name, values in times.items()}
    rows = [
        [name, f"{1e3 * each:.2f}", f"{1 / each:.0f}"]
        + [f"{each / medians[other]:.2f}" for other in ("OpenCV", "OpenCV, 8 bits")]
        for name, each in medians.items()
    ]
    print(text_table(["", "ms a picture", "pictures a second", "of OpenCV's time", "of OpenCV's, 8 bits"], rows))
    if args.step is not None:
        threads = math.ceil(args.images_per_step * medians["ours"] / args.step)
        print(f"a GPU that takes {args.step:g} s for {args.images_per_step} pictures needs --workers {threads}")
    if args.json is not None:
        args.json.write_text(json.dumps(times))


if __name__ == "__main__":
    main()
