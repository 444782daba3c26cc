"""`detectron-gn score` on a made data set of any size, beside pycocotools on what it can: seconds and memory.

    python -m benchmarks.scored_images [--images 100000] [--beside 2000 10000] [--detections 100] [--seed 0]
        [--json FILE]

Images have about 7 objects of 80 categories, as COCO's; of the detections of an image some lie near its objects, the
others anywhere. Each side is a process of its own and reads the same two files of boxes. Memory is the most that was
resident. Where both sides score the same images, their numbers must be the same to the last digit.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.help_text import FoldedHelp

OURS = "ours"
THEIRS = "pycocotools"
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
# A reader of pycocotools as its users write it.
PYCOCOTOOLS = """
import json, sys
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
coco = COCO(sys.argv[2])
evaluation = COCOeval(coco, coco.loadRes(sys.argv[1]), "bbox")
evaluation.evaluate()
evaluation.accumulate()
evaluation.summarize()
json.dump({"x": {"box": dict(zip(("AP", "AP50", "AP75", "APs", "APm", "APl"), evaluation.stats.tolist()))}},
          open(sys.argv[3], "w"))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=FoldedHelp)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--beside", type=int, nargs="*", default=(2_000, 10_000), help="images for both sides")
    parser.add_argument("--detections", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write every measured value here")
    args = parser.parse_args()
    rows, same = [], True
    for count in sorted({*args.beside, args.images}):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_data(folder, count, args.detections, args.seed)
            sides = [OURS, THEIRS] if count in args.beside else [OURS]
            found = {side: measured(side, folder) for side in sides}
        numbers = [each.pop("numbers") for each in found.values()]
        same &= all(each == numbers[0] for each in numbers)
        for side, values in found.items():
            rows.append({"images": count, "side": side, **values})
            print(
                f"{count:8,} images, {count * args.detections:12,} detections, {side:12}"
                f"{values['seconds']:8.0f} s {values['cpu']:8.0f} s of processor {values['mib']:8.0f} MiB", flush=True
            )  # fmt: skip
    print(f"the same numbers to the last digit: {same}")
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=1))
    return 0 if same else 1


def measured(side: str, folder: Path) -> dict[str, Any]:
    """What a process of one side takes, and its numbers."""
    results, annotations, document = (str(folder / name) for name in ("bbox.json", "a.json", "ap.json"))
    command = [sys.executable, "-c", PYCOCOTOOLS, results, annotations, document]
    if side == OURS:
        options = ["--annotations", annotations, "--json", document]
        command = [sys.executable, "-m", "detectron_gn", "score", results, *options]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{side} failed")
    (kinds,) = json.loads(Path(document).read_text()).values()
    return {
        "seconds": time.perf_counter() - start,
        "cpu": usage.ru_utime + usage.ru_stime,
        "mib": usage.ru_maxrss / 1024,
        "numbers": [kinds["box"][metric] for metric in METRICS],
    }


def write_data(folder: Path, images: int, detections: int, seed: int) -> None:
    """`a.json` and `bbox.json`, written image by image."""
    rng = np.random.default_rng(seed)
    # A few categories have most of the objects.
    shares = 1 / np.arange(1, 81)
    shares /= shares.sum()
    number = 0
    with (folder / "a.json").open("w") as truth, (folder / "bbox.json").open("w") as found:
        listed = [
            {"id": each, "file_name": f"{each:012}.jpg", "height": 480, "width": 640} for each in range(1, images + 1)
        ]
        named = [{"id": each, "name": f"category {each}"} for each in range(1, 81)]
        truth.write(f'{{"images": {json.dumps(listed)}, "categories": {json.dumps(named)}, "annotations": [')
        found.write("[")
        for image in range(1, images + 1):
            count = 1 + int(rng.poisson(6))
            boxes, labels = made_boxes(rng, count), rng.choice(80, count, p=shares) + 1
            crowds = (rng.random(count) < 0.01).astype(int)
            objects = []
            for box, label, crowd in zip(boxes.tolist(), labels.tolist(), crowds.tolist()):
                number += 1
                objects.append(
                    {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3],
                     "iscrowd": crowd}
                )  # fmt: skip
            near = np.minimum(detections, 5 * count)
            of = rng.integers(0, count, near)
            shifted = boxes[of] + rng.normal(0, 0.08, (near, 4)) * boxes[of][:, [2, 3, 2, 3]]
            shifted[:, 2:] = np.maximum(shifted[:, 2:], 1)
            places = np.concatenate([shifted, made_boxes(rng, detections - near)]).astype(np.float32)
            classes = np.concatenate([labels[of], rng.choice(80, detections - near, p=shares) + 1])
            scores = rng.random(detections).astype(np.float32)
            rows = [
                {"image_id": image, "category_id": label, "bbox": box, "score": score}
                for label, box, score in zip(classes.tolist(), places.tolist(), scores.tolist())
            ]
            truth.write((", " if image > 1 else "") + json.dumps(objects)[1:-1])
            found.write((", " if image > 1 else "") + json.dumps(rows)[1:-1])
        truth.write("]}")
        found.write("]")


def made_boxes(rng: np.random.Generator, count: int) -> Any:
    """`[N, 4]` float64 (x, y, width, height) of all sizes."""
    sides = np.exp(rng.uniform(np.log(8), np.log(300), (count, 2)))
    return np.concatenate([rng.uniform(0, (480, 300), (count, 2)), sides], axis=1).round(2)


if __name__ == "__main__":
    sys.exit(main())
