"""The demo's drawn shapes as COCO data sets: 400 pictures to train on and 40 to evaluate on.

    python -m benchmarks.drawn_shapes data

The pictures of `val` are those of the embedded demo, to the pixel. Each set has two annotation files for the same
pictures: `instances_*.json` tells four kinds of shapes apart by outline; `keypoints_*.json` has one category with the
shapes' corners as its keypoints. Detectron knows keypoints of a category called `person` only, and its left and right
by the names of COCO's seventeen keypoints, so these are the names here. A person faces the camera: what is called left
is on the right of the picture.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_masks

from benchmarks.help_text import FoldedHelp
from detectron_gn.mrcnn.ops.keypoints import KEYPOINT_NAMES
from detectron_gn.weights.files.json_file import write_json

Points = npt.NDArray[np.float64]


class Split(NamedTuple):
    """How many pictures a set has, and the seed that draws them."""

    pictures: int
    seed: int


SPLITS = {"train": Split(400, 1), "val": Split(40, 2)}


@dataclass(frozen=True)
class Shape:
    """A kind of shape: its category, its outline, and which of its corners are which keypoints.

    Attributes:
        angles: of the corners from the centre, in radians, clockwise in the picture from its right.
        radii: of the corners, as shares of the shape's size.
        keypoints: the corner, by the name of the keypoint. Those of left and right are each other's mirror images.
    """

    name: str
    category_id: int
    angles: Points
    radii: Points
    keypoints: dict[str, int]
    turns: bool = True

    def outline(self, x: float, y: float, size: float, turn: float) -> Points:
        """`[C, 2]` corners in pixels around (x, y), to a hundredth."""
        angles, radii = self.angles + turn, size * self.radii
        return np.round(np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1), 2)


UP = -np.pi / 2
SHAPES = (
    Shape(
        "circle",
        3,
        np.linspace(0, 2 * np.pi, 33)[:-1],
        np.ones(32),
        {"left_ear": 0, "right_ear": 16},
        turns=False,
    ),
    Shape(
        "square",
        17,
        np.arange(4) * np.pi / 2 + np.pi / 4,
        np.ones(4),
        {"left_elbow": 3, "right_elbow": 2, "left_wrist": 0, "right_wrist": 1},
    ),
    Shape(
        "triangle",
        44,
        np.arange(3) * 2 * np.pi / 3 + UP,
        np.ones(3),
        {"nose": 0, "left_knee": 1, "right_knee": 2},
    ),
    Shape(
        "star",
        62,
        np.arange(10) * np.pi / 5 + UP,
        np.where(np.arange(10) % 2 == 0, 1.0, 0.45),
        {"nose": 0}
        | {"left_eye": 1, "left_shoulder": 2, "left_hip": 3, "left_ankle": 4}
        | {"right_eye": 9, "right_shoulder": 8, "right_hip": 7, "right_ankle": 6},
    ),
)
_EDGES = ("eye", "shoulder"), ("shoulder", "hip"), ("hip", "ankle"), ("elbow", "wrist"), ("nose", "eye")


class Drawn(NamedTuple):
    """A picture and its objects as annotations of both files, without ids of their own."""

    picture: npt.NDArray[np.uint8]
    instances: list[dict[str, Any]]
    keypoints: list[dict[str, Any]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=FoldedHelp)
    parser.add_argument("out", type=Path, help="the folder that is written, where it is not there yet")
    draw_data_sets(parser.parse_args().out)
    return 0


def draw_data_sets(out: Path) -> None:
    """Write `train/`, `val/` and the four annotation files into `out`, but for those that are complete."""
    for name, split in SPLITS.items():
        # The annotations come last: where they are, the pictures are.
        if not (out / f"keypoints_{name}.json").is_file():
            draw_data_set(out, name, split)


def draw_data_set(out: Path, name: str, split: Split) -> None:
    """Write the pictures of a set into `out/name/`, and its `instances_` and `keypoints_` files into `out`."""
    rng = np.random.RandomState(split.seed)
    (out / name).mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    files: dict[str, list[dict[str, Any]]] = {"instances": [], "keypoints": []}
    for number in range(split.pictures):
        drawn = draw_picture(rng, with_crowd=number % 9 == 4)
        image_id = 100000 * (split.seed + 1) + number
        file_name = f"{image_id:012}.png"
        cv2.imwrite(str(out / name / file_name), drawn.picture)
        height, width = drawn.picture.shape[:2]
        images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        for kind, annotations in files.items():
            for annotation in getattr(drawn, kind):
                annotations.append({"id": len(annotations) + 1, "image_id": image_id, **annotation})
    for kind, annotations in files.items():
        document = {"info": {"description": "drawn shapes"}, "licenses": [], "images": images}
        document |= {"annotations": annotations, "categories": _categories(kind)}
        write_json(out / f"{kind}_{name}.json", document)


def draw_picture(rng: np.random.RandomState, with_crowd: bool) -> Drawn:
    """One picture: a shaded ground with thin lines, one to six shapes, and perhaps a crowd of small circles."""
    height, width = int(rng.randint(140, 220)), int(rng.randint(140, 260))
    picture = _ground(rng, height, width)
    shapes, outlines = _draw_shapes(rng, picture)
    instances, keypoints = [], []
    for number, (shape, outline) in enumerate(zip(shapes, outlines, strict=True)):
        annotation = _annotation(outline, height, width)
        instances.append({"category_id": shape.category_id, **annotation})
        corners = _corners(shape, outline, outlines[number + 1 :])
        keypoints.append({"category_id": 1, **annotation, **corners})
    if with_crowd:
        annotation = _draw_crowd(rng, picture)
        instances.append({"category_id": 3, **annotation})
        no_corners = {"keypoints": [0] * 3 * len(KEYPOINT_NAMES), "num_keypoints": 0}
        keypoints.append({"category_id": 1, **annotation, **no_corners})
    return Drawn(picture, instances, keypoints)


def _ground(rng: np.random.RandomState, height: int, width: int) -> npt.NDArray[np.uint8]:
    rows, columns = np.mgrid[:height, :width]
    colours = rng.randint(0, 120, 3), rng.randint(0, 120, 3)
    shade = (columns * np.cos(rng.rand() * 6) + rows * np.sin(rng.rand() * 6)) / float(width + height)
    ground = colours[0] + (colours[1] - colours[0]) * (0.5 + shade[..., None])
    picture = np.ascontiguousarray(ground.clip(0, 160).astype(np.uint8))
    for _ in range(rng.randint(2, 6)):
        (x1, x2), (y1, y2) = rng.randint(0, width, 2).tolist(), rng.randint(0, height, 2).tolist()
        cv2.line(picture, (x1, y1), (x2, y2), rng.randint(0, 200, 3).tolist(), 1)
    return picture


def _draw_shapes(rng: np.random.RandomState, picture: npt.NDArray[np.uint8]) -> tuple[list[Shape], list[Points]]:
    """Shapes and their outlines within the picture, in the order of drawing: a later one may cover an earlier one."""
    height, width = picture.shape[:2]
    shapes: list[Shape] = []
    outlines: list[Points] = []
    places: list[tuple[float, float, int]] = []
    for _ in range(40):
        if len(shapes) >= 1 + rng.randint(0, 6):
            break
        size, shape = int(rng.randint(10, 50)), SHAPES[int(rng.randint(4))]
        if 2 * size >= min(height, width):
            continue
        x, y = rng.uniform(size, width - size), rng.uniform(size, height - size)
        if any(max(abs(x - x_), abs(y - y_)) < 0.75 * (size + size_) for x_, y_, size_ in places):
            continue
        outline = shape.outline(x, y, size, rng.uniform(-0.35, 0.35) if shape.turns else 0.0)
        outline = outline.clip(0, (width, height))
        cv2.fillPoly(picture, [np.round(outline).astype(np.int32)], rng.randint(120, 256, 3).tolist())
        shapes.append(shape)
        outlines.append(outline)
        places.append((x, y, size))
    return shapes, outlines


def _annotation(outline: Points, height: int, width: int) -> dict[str, Any]:
    outlines = [outline.reshape(-1).tolist()]
    area = coco_masks.area(coco_masks.merge(coco_masks.frPyObjects(outlines, height, width)))
    (x1, y1), (x2, y2) = outline.min(axis=0), outline.max(axis=0)
    box = [round(float(value), 2) for value in (x1, y1, x2 - x1, y2 - y1)]
    return {"iscrowd": 0, "area": float(area), "bbox": box, "segmentation": outlines}


def _corners(shape: Shape, outline: Points, later: list[Points]) -> dict[str, Any]:
    """COCO's fields of keypoints: a corner that a later shape covers is labelled but not visible (1).

    Corners are at pixels of the box, whose last column and row are one before its x + width and y + height; Detectron
    trains on no keypoints outside of it, and stops at a minibatch without keypoints.
    """
    values = np.zeros((len(KEYPOINT_NAMES), 3), int)
    first, last = np.ceil(outline.min(axis=0)), np.floor(outline.max(axis=0) - 1)
    for name, corner in shape.keypoints.items():
        x, y = np.round(outline[corner]).clip(first, last).astype(int).tolist()
        covered = any(cv2.pointPolygonTest(other.astype(np.float32), (x, y), False) >= 0 for other in later)
        values[KEYPOINT_NAMES.index(name)] = x, y, 1 if covered else 2
    return {"keypoints": values.reshape(-1).tolist(), "num_keypoints": len(shape.keypoints)}


def _draw_crowd(rng: np.random.RandomState, picture: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """Small circles along the bottom edge, annotated as one crowd."""
    height, width = picture.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    for x in range(8, min(width - 8, 100), 9):
        cv2.circle(mask, (x, height - 8), 4, 1, -1)
        cv2.circle(picture, (x, height - 8), 4, rng.randint(120, 256, 3).tolist(), -1)
    flat = np.concatenate([[0], mask.flatten(order="F"), [0]])
    changes = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()
    rows, columns = np.nonzero(mask)
    box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    return {
        "iscrowd": 1,
        "area": float(mask.sum()),
        "bbox": [float(value) for value in box],
        "segmentation": {"counts": counts[:-1] if counts[-1] == 0 else counts, "size": [height, width]},
    }


def _categories(kind: str) -> list[dict[str, Any]]:
    if kind == "instances":
        return [{"id": shape.category_id, "name": shape.name, "supercategory": "shape"} for shape in SHAPES]
    sides = [[_place(start, side), _place(end, side)] for start, end in _EDGES for side in ("left", "right")]
    across = [[_place(part, "left"), _place(part, "right")] for part in ("ear", "elbow", "wrist", "knee")]
    category = {"id": 1, "name": "person", "supercategory": "shape"}
    return [{**category, "keypoints": list(KEYPOINT_NAMES), "skeleton": sides + across}]


def _place(part: str, side: str) -> int:
    """Where a keypoint stands in COCO's skeleton, which counts from 1."""
    return 1 + KEYPOINT_NAMES.index(part if part == "nose" else f"{side}_{part}")


if __name__ == "__main__":
    sys.exit(main())
