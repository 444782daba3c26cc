"""What an evaluation costs apart from the network: pasting, run lengths and COCO's evaluation, beside Detectron's way.

    python -m benchmarks.evaluation_overhead --annotations instances_val2017.json --images val2017

Each photo gets 100 detections with the boxes and classes of its own annotations, moved and scaled at random, and round
soft masks. Detectron's way (core/test.py:segm_results) resizes each mask into a bitmap of the whole image and encodes
that; it is written here as it is there, with numpy, cv2 and pycocotools. Both sides give the same run lengths, which is
checked. Times are medians in milliseconds per image, on one thread; the ratio of one run is what counts.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectron_gn.mrcnn.data.coco import quiet, read_annotations
from detectron_gn.mrcnn.data.image_files import image_files
from detectron_gn.mrcnn.data.read_image import read_image
from detectron_gn.mrcnn.evaluation.ap import score_checked
from detectron_gn.mrcnn.evaluation.coco_results import coco_results, image_results
from detectron_gn.mrcnn.ops.boxes import expand_boxes
from detectron_gn.mrcnn.structures import Detections

RESOLUTION = 28


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--detections", type=int, default=100, help="of each image (default 100)")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    coco = read_annotations(args.annotations)
    sizes = {key: read_image(path).shape[:2] for key, path in image_files(coco, args.images).items()}
    found = {key: some_detections(coco, key, size, args.detections) for key, size in sizes.items()}
    categories = coco.getCatIds()
    count = len(found)

    ours = [image_results(key, each, categories) for key, each in found.items()]
    results = coco_results(ours, with_masks=True)
    boxes, segms = results["bbox"], results["segm"]
    for each in found.values():
        assert [rle["counts"].encode() for rle in each.rles()] == [rle["counts"] for rle in detectron_rles(each)]

    timed = {
        "paste and run lengths": (
            lambda: [each.rles() for each in found.values()],
            lambda: [detectron_rles(each) for each in found.values()],
        ),
        "COCO evaluation, boxes": (
            lambda: score_checked(boxes, coco, "bbox"),
            lambda: detectron_score(boxes, coco, "bbox"),
        ),
        "COCO evaluation, masks": (
            lambda: score_checked(segms, coco, "segm"),
            lambda: detectron_score(segms, coco, "segm"),
        ),
    }
    print(f"{count} photos, {args.detections} detections each; median of {args.repeats} in ms per image\n")
    print(f"{'':<26}{'ours':>8}{'Detectron':>11}{'ratio':>8}")
    totals = [0.0, 0.0]
    for name, sides in timed.items():
        mine, theirs = alternate(*sides, repeats=args.repeats)
        totals[0] += mine
        totals[1] += theirs
        print(f"{name:<26}{mine / count:>8.2f}{theirs / count:>11.2f}{mine / theirs:>8.2f}")
    print(f"{'together':<26}{totals[0] / count:>8.2f}{totals[1] / count:>11.2f}{totals[0] / totals[1]:>8.2f}")


def some_detections(coco: COCO, image_id: int, size: tuple[int, int], count: int) -> Detections:
    """Detections near the objects of an image, ordered by class as the network orders them."""
    generator = np.random.default_rng(image_id)
    height, width = size
    rows = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
    chosen = [rows[place] for place in generator.integers(len(rows), size=count)]
    x, y, w, h = np.array([row["bbox"] for row in chosen], dtype=np.float64).T
    w, h = w * generator.uniform(0.7, 1.4, count) + 2, h * generator.uniform(0.7, 1.4, count) + 2
    x, y = x + generator.normal(0, 0.1, count) * w, y + generator.normal(0, 0.1, count) * h
    corners = np.stack([x, y, x + w, y + h], axis=1).clip(0, [width - 1, height - 1, width - 1, height - 1])
    classes = np.sort(np.array([coco.getCatIds().index(row["category_id"]) + 1 for row in chosen]))
    grid = np.linspace(-1, 1, RESOLUTION)
    radius = generator.uniform(0.6, 1.2, (count, 1, 1))
    distance = np.hypot(grid[None, :, None], grid[None, None, :]) + generator.normal(0, 0.05, (count, 28, 28))
    masks = 1 / (1 + np.exp((distance - radius) * 12))
    scores = generator.uniform(0.05, 1, count)
    return Detections(
        boxes=corners.astype(np.float32),
        scores=scores.astype(np.float32),
        classes=classes,
        image_size=size,
        mask_probs=masks.astype(np.float32),
        mask_threshold=0.5,
    )


def detectron_rles(detections: Detections) -> list[dict[str, object]]:
    """Run lengths the way Detectron makes them: one bitmap of the whole image a detection."""
    height, width = detections.image_size
    scale = (RESOLUTION + 2.0) / RESOLUTION
    boxes = expand_boxes(torch.from_numpy(detections.boxes), scale).numpy().astype(np.int32)
    padded = np.zeros((RESOLUTION + 2, RESOLUTION + 2), dtype=np.float32)
    rles = []
    for probabilities, (x1, y1, x2, y2) in zip(detections.mask_probs, boxes.tolist(), strict=True):
        padded[1:-1, 1:-1] = probabilities
        resized = cv2.resize(padded, (max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)))
        mask = np.array(resized > detections.mask_threshold, dtype=np.uint8)
        bitmap = np.zeros((height, width), dtype=np.uint8)
        left, right, top, bottom = max(x1, 0), min(x2 + 1, width), max(y1, 0), min(y2 + 1, height)
        bitmap[top:bottom, left:right] = mask[top - y1 : bottom - y1, left - x1 : right - x1]
        rles.append(pycocotools.mask.encode(np.asfortranarray(bitmap[:, :, None]))[0])
    return rles


def detectron_score(rows: list[dict[str, object]], coco: COCO, iou_type: str) -> float:
    """AP the way Detectron has it made: pycocotools on the rows as they are."""
    with quiet():
        evaluation = COCOeval(coco, coco.loadRes([dict(row) for row in rows]), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def alternate(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median milliseconds of two functions that take turns, so that both meet the same machine."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for side, function in zip(times, (ours, theirs), strict=True):
            start = time.perf_counter()
            function()
            side.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[0]), statistics.median(times[1])


if __name__ == "__main__":
    main()
