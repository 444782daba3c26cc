"""Pictures of toys with COCO annotations, for docs/finetune.md: 30 to train on and 15 to evaluate on.

    python examples/draw_toys.py toys

Arrows, crosses and hearts, drawn on a shaded ground. `annotate` shows what a COCO file must hold of each object.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np

ARROW = [(-1, -0.3), (0.1, -0.3), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.3), (-1, 0.3)]
CROSS = [(-1, -0.35), (-0.35, -0.35), (-0.35, -1), (0.35, -1), (0.35, -0.35), (1, -0.35)]
CROSS += [(-x, -y) for x, y in CROSS]
TURN = np.linspace(0, 2 * np.pi, 40, endpoint=False)
HEART_Y = -(13 * np.cos(TURN) - 5 * np.cos(2 * TURN) - 2 * np.cos(3 * TURN) - np.cos(4 * TURN)) / 16
HEART = np.stack([np.sin(TURN) ** 3, HEART_Y], axis=1)
OUTLINES = {"arrow": np.array(ARROW), "cross": np.array(CROSS), "heart": HEART}
SETS = {"train": (30, 1), "val": (15, 2)}


def draw_picture(rng):
    """A picture `[H, W, 3]` uint8, and its objects as (name, outline `[P, 2]` in pixels)."""
    height, width = rng.integers(150, 230), rng.integers(180, 260)
    corners = rng.integers(30, 150, (2, 2, 3)).astype(np.float32)
    picture = cv2.resize(corners, (int(width), int(height))) + rng.normal(0, 6, (height, width, 3))
    picture = np.ascontiguousarray(picture.clip(0, 255).astype(np.uint8))
    objects = []
    # One toy at most in each of six places, so that none covers another.
    for place in rng.permutation(6)[: rng.integers(1, 5)]:
        name = str(rng.choice(list(OUTLINES)))
        cell = np.array([width / 3, height / 2])
        size = rng.uniform(0.2, 0.42) * cell.min()
        angle = rng.uniform(-0.4, 0.4) + np.pi * (name == "arrow") * rng.integers(2)
        turned = OUTLINES[name] @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        outline = turned * size + cell * (place % 3 + 0.5, place // 3 + 0.5)
        cv2.fillPoly(picture, [outline.round().astype(np.int32)], rng.integers(150, 256, 3).tolist(), cv2.LINE_AA)
        objects.append((name, outline.round(1)))
    return picture, objects


def annotate(number, image_id, name, outline):
    """What a COCO file says of an object: whose it is, its box as x, y, width and height, its outline."""
    x, y = outline.min(axis=0).tolist()
    width, height = np.ptp(outline, axis=0).round(1).tolist()
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1 + list(OUTLINES).index(name),
        "bbox": [x, y, width, height],
        "segmentation": [outline.reshape(-1).tolist()],
        "area": cv2.contourArea(outline.astype(np.float32)),
        "iscrowd": 0,
    }


def draw_set(out, name, pictures, seed):
    """Write the pictures into `out/name/` and their annotations into `out/name.json`."""
    (out / name).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for image_id in range(1, pictures + 1):
        picture, objects = draw_picture(rng)
        file_name = f"toys_{image_id:02}.png"
        cv2.imwrite(str(out / name / file_name), picture)
        height, width = picture.shape[:2]
        images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        annotations += [annotate(len(annotations) + n, image_id, *one) for n, one in enumerate(objects, start=1)]
    categories = [{"id": number, "name": name} for number, name in enumerate(OUTLINES, start=1)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (out / f"{name}.json").write_text(json.dumps(document))


if __name__ == "__main__":
    for name, (pictures, seed) in SETS.items():
        draw_set(Path(sys.argv[1]), name, pictures, seed)
