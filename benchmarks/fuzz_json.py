"""Annotation and results files for benchmarks.fuzz_data, and what is wrong with them: JSON changed value by value."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask

from benchmarks.fuzz_files import NUMBERS, damaged

_NAMES = ("cat", "dog", "\u732b", "__background__", "", " cat", "a\x1b[2Jb", "cat")
_VALUES: tuple[Any, ...] = (
    *NUMBERS, None, True, False, 0.5, -0.5, 177.0, 1e300, -1e300, float("nan"), float("inf"), 10**400, "", "7",
    "\ud800", "\0", "../x.jpg", "x" * 5000, [], {}, [[]], [[[]]], [1], [1, 2, 3, 4], [[1, 2]], {"x": 1, "y": 2},
    [{"x": 1, "y": 2}], {"size": [1, 1], "counts": "0"}, {"size": [5, 5], "counts": [25]}, [[0, 0, 9, 0, 9, 9]],
    [[0, 0, 1e9, 0, 0, 1e9]], [[float("nan")] * 6], [0, 0, 0, 0], [1, 1, -5, 5],
)  # fmt: skip
_TEXTS = ("{", "}", "[", "]", ",", ":", '"', "\\u", "1e999", "-", "NaN", "[" * 3000, "9" * 5000, "\ufeff", "//", "null")
_ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32")


def annotation_files(chance: random.Random) -> bytes:
    """An annotation file of a few images with polygons, crowds and boxes alone."""
    return _file(chance, annotations(chance))


def results_files(chance: random.Random) -> bytes:
    """A results file of boxes or masks for `fixed_truth()`."""
    truth = fixed_truth()
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    masks, rows = chance.random() < 0.5, []
    for _ in range(chance.choice([0, 1, 2, 3, 5, 10])):
        near = chance.choice(truth["annotations"])
        size = sizes[near["image_id"]]
        row = {
            "image_id": near["image_id"],
            "category_id": chance.choice([near, *truth["annotations"]])["category_id"],
            "score": chance.choice([0.5, 0.9, 1, 0, -1.5, chance.random()]),
        }
        if masks:
            row["segmentation"] = _run_lengths(chance, *size)
        if not masks or chance.random() < 0.3:
            row["bbox"] = chance.choice([near["bbox"], [chance.uniform(0, 50) for _ in range(4)]])
        rows.append(row)
    return _file(chance, rows)


def fixed_truth() -> dict[str, Any]:
    """The annotations that `results_files` are for: all objects have outlines, which pycocotools needs for masks."""
    truth = annotations(random.Random(6))
    truth["annotations"] = [each for each in truth["annotations"] if each["segmentation"]]
    return truth


def annotations(chance: random.Random) -> dict[str, Any]:
    """The content of a sound annotation file."""
    categories = [
        {"id": number, "name": f"{chance.choice(('cat', 'dog', chr(0x732B)))} {number}"}
        for number in chance.sample(range(1, 100), chance.randrange(1, 4))
    ]
    images = []
    for number in chance.sample(range(1, 10**6), chance.randrange(1, 4)):
        height, width = (chance.choice([1, 2, 17, 60, 200]) for _ in range(2))
        images.append({"id": number, "file_name": f"{number}.jpg", "height": height, "width": width})
    return {
        "info": {"year": 2014},
        "images": images,
        "categories": categories,
        "annotations": [
            _annotation(chance, number, chance.choice(images), chance.choice(categories)["id"])
            for number in range(1, chance.randrange(2, 8))
        ],
    }


def _annotation(chance: random.Random, number: int, image: dict[str, Any], category: int) -> dict[str, Any]:
    height, width = image["height"], image["width"]
    kind = chance.randrange(5)
    segmentation: Any = []
    box = [chance.uniform(0, width), chance.uniform(0, height), chance.uniform(0, width), chance.uniform(0, height)]
    if kind < 3:
        segmentation = [_polygon(chance, height, width) for _ in range(chance.choice([1, 1, 2]))]
        xs, ys = (sum((polygon[axis::2] for polygon in segmentation), []) for axis in (0, 1))
        box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    elif kind == 3:
        segmentation = _run_lengths(chance, height, width)
        box = coco_mask.toBbox({**segmentation, "counts": segmentation["counts"].encode()}).tolist()
        if chance.random() < 0.5:
            segmentation = {"size": [height, width], "counts": _plain_runs(segmentation)}
    return {
        "id": number,
        "image_id": image["id"],
        "category_id": category,
        "segmentation": segmentation,
        "bbox": [round(side, 2) for side in box],
        "area": round(box[2] * box[3] * chance.random(), 2),
        "iscrowd": int(kind == 3 and chance.random() < 0.5),
    }


def _polygon(chance: random.Random, height: int, width: int) -> list[float]:
    points = chance.choice([3, 4, 4, 7, 2 if chance.random() < 0.1 else 5])
    form = chance.choice([int, lambda side: round(side, 2)])
    return [form(chance.uniform(-1, side + 1)) for _ in range(points) for side in (width, height)]


def _run_lengths(chance: random.Random, height: int, width: int) -> dict[str, Any]:
    mask = np.zeros((height, width), np.uint8, order="F")
    for _ in range(chance.randrange(3)):
        top, left = chance.randrange(height), chance.randrange(width)
        mask[top : top + chance.randrange(1, height + 1), left : left + chance.randrange(1, width + 1)] = 1
    encoded = coco_mask.encode(mask)
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def _plain_runs(encoded: dict[str, Any]) -> list[int]:
    pixels = coco_mask.decode({**encoded, "counts": encoded["counts"].encode()}).flatten(order="F")
    changes = np.flatnonzero(np.diff(pixels)) + 1
    ends = [*([0] if pixels[0] else []), *changes.tolist(), len(pixels)]
    return np.diff([0, *ends]).tolist()


def _file(chance: random.Random, content: Any) -> bytes:
    text = json.dumps(content)

    def change() -> bytes:
        changed = copy.deepcopy(content)
        for _ in range(chance.choice([1, 1, 1, 2, 3])):
            _change_a_value(chance, changed)
        written = json.dumps(changed)
        if chance.random() < 0.15:
            at = chance.randrange(len(written) + 1)
            written = written[:at] + chance.choice(_TEXTS) + written[at + chance.choice([0, 0, 1, 5]) :]
        return written.encode(chance.choice(_ENCODINGS), "surrogatepass")

    return damaged(chance, text.encode(), change)


def _change_a_value(chance: random.Random, content: Any) -> None:
    """Replace, lose, double or exchange one value of a nest of lists and objects; in runs and polygons a number."""
    places: list[tuple[Any, Any]] = []
    waiting = [content]
    while waiting:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        places += [(holder, key) for key in keys]
        waiting += [holder[key] for key in keys if isinstance(holder[key], dict | list)]
    if not places:
        return
    holder, key = chance.choice(places)
    old = holder[key]
    match chance.randrange(8):
        case 0:
            del holder[key]
        case 1:
            other, place = chance.choice(places)
            holder[key] = copy.deepcopy(other[place]) if len(json.dumps(other[place])) < 10_000 else None
        case 2 if isinstance(holder, list):
            holder.insert(key, copy.deepcopy(old))
        case 3 if isinstance(old, str) and old:
            at = chance.randrange(len(old))
            holder[key] = old[:at] + chance.choice(["0", "o", "P", "\x7f", "\ud800", ""]) + old[at + 1 :]
        case 4 if isinstance(old, int | float) and abs(old) < 1e300:
            holder[key] = chance.choice([-old, old + 1, old - 1, old * 2, float(old), str(old), old + 0.5, old * 1e6])
        case 5 if key == "name":
            holder[key] = chance.choice(_NAMES)
        case 6 if isinstance(old, list):
            holder[key] = chance.choice([[old], old * 2, old[::-1], old[: len(old) // 2]])
        case _:
            holder[key] = copy.deepcopy(chance.choice(_VALUES))
