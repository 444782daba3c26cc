"""Pictures of detections side by side: the reference's on the left, ours on the right, differences in red."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycocotools.mask
from pycocotools.coco import COCO

from mrcnn.image import Image, read_image
from mrcnn.visualize import DrawnObject, class_colour, draw_objects
from verify.coco_files import ResultRow
from verify.detections import match_detections

SHOWN_SCORE = 0.5
_DIFFERENT = (0, 0, 255)


@dataclass(frozen=True)
class Side:
    """What one side found: rows of boxes and masks, row for row the same detections."""

    title: str
    boxes: Sequence[ResultRow]
    segms: Sequence[ResultRow]


@dataclass(frozen=True)
class Pair:
    """One image as both sides see it."""

    name: str
    left: Image
    right: Image
    left_title: str
    right_title: str
    caption: str


def result_pairs(coco: COCO, files: dict[int, Path], reference: Side, ours: Side, count: int) -> list[Pair]:
    """The images furthest apart, then those with most objects, each with the detections of both sides."""
    parity = match_detections(ours.boxes, reference.boxes, "bbox")
    worst = [image.image_id for image in parity.worst if image.unmatched]
    by_objects = sorted(coco.imgs, key=lambda image_id: (-len(coco.getAnnIds(imgIds=image_id)), image_id))
    chosen = list(dict.fromkeys([*worst, *by_objects]))[:count]
    partners = {(0, int(row)) for row in parity.partners[:, 1]} | {(1, int(row)) for row in parity.partners[:, 0]}
    other = {int(row): int(partner) for row, partner in parity.partners}
    pairs = []
    for image_id in chosen:
        image = read_image(files[image_id])
        shown = [_shown(side, image_id) for side in (reference, ours)]
        sides = [
            draw_objects(image, [_drawn(coco, side, row, (place, row) in partners) for row in rows])
            for place, (side, rows) in enumerate(zip((reference, ours), shown, strict=True))
        ]
        both = [(ours.segms[row], reference.segms[other[row]]) for row in shown[1] if row in other]
        pixels = sum(_different_pixels(mine, theirs) for mine, theirs in both)
        lonely = sum((place, row) not in partners for place, rows in enumerate(shown) for row in rows)
        caption = f"{len(shown[1])} objects that score {SHOWN_SCORE:g} or more"
        caption += f", {lonely} of them on one side alone (red)" if lonely else ", every one on both sides"
        caption += f"; {pixels} mask pixels differ" if pixels else "; masks equal to the pixel"
        name = str(coco.imgs[image_id].get("file_name", image_id))
        pairs.append(Pair(name, sides[0], sides[1], reference.title, ours.title, caption))
    return pairs


def annotation_pairs(coco: COCO, files: dict[int, Path], ours: Side, count: int) -> list[Pair]:
    """The images with most objects, the annotated ones on the left and the detected ones on the right."""
    by_objects = sorted(coco.imgs, key=lambda image_id: (-len(coco.getAnnIds(imgIds=image_id)), image_id))
    pairs = []
    for image_id in by_objects[:count]:
        image = read_image(files[image_id])
        annotations = [row for row in coco.loadAnns(coco.getAnnIds(imgIds=image_id)) if not row["iscrowd"]]
        rows = _shown(ours, image_id)
        left = draw_objects(image, [_annotated(coco, row) for row in annotations])
        right = draw_objects(image, [_drawn(coco, ours, row, True) for row in rows])
        caption = f"{len(annotations)} objects annotated, {len(rows)} found that score {SHOWN_SCORE:g} or more"
        name = str(coco.imgs[image_id].get("file_name", image_id))
        pairs.append(Pair(name, left, right, "annotations", ours.title, caption))
    return pairs


def side_by_side(pair: Pair) -> Image:
    """A pair as one picture, each side under its title."""
    left, right = _titled(pair.left, pair.left_title), _titled(pair.right, pair.right_title)
    gap = np.full((len(left), 12, 3), 255, dtype=np.uint8)
    return np.concatenate([left, gap, right], axis=1)


def _shown(side: Side, image_id: Any) -> list[int]:
    """The rows of an image that are drawn."""
    return [
        number
        for number, row in enumerate(side.boxes)
        if row["image_id"] == image_id and row["score"] >= SHOWN_SCORE
    ]


def _drawn(coco: COCO, side: Side, row: int, has_partner: bool) -> DrawnObject:
    box, segm = side.boxes[row], side.segms[row]
    x, y, width, height = box["bbox"]
    return DrawnObject(
        box=(x, y, x + width - 1, y + height - 1),
        mask=pycocotools.mask.decode(segm["segmentation"]).astype(bool),
        label=f"{_class_name(coco, box)} {box['score']:.2f}",
        colour=_colour(coco, box) if has_partner else _DIFFERENT,
    )


def _annotated(coco: COCO, row: dict[str, Any]) -> DrawnObject:
    x, y, width, height = row["bbox"]
    return DrawnObject(
        box=(x, y, x + width - 1, y + height - 1),
        mask=coco.annToMask(row).astype(bool),
        label=_class_name(coco, row),
        colour=_colour(coco, row),
    )


def _class_name(coco: COCO, row: ResultRow) -> str:
    return str(coco.cats[row["category_id"]].get("name", row["category_id"]))


def _colour(coco: COCO, row: ResultRow) -> tuple[int, int, int]:
    return class_colour(coco.getCatIds().index(row["category_id"]) + 1)


def _different_pixels(a: ResultRow, b: ResultRow) -> int:
    if a["segmentation"] == b["segmentation"]:
        return 0
    masks = [pycocotools.mask.decode(row["segmentation"]) for row in (a, b)]
    return int((masks[0] != masks[1]).sum())


def _titled(picture: Image, title: str) -> Image:
    """A picture under a white strip with its title."""
    strip = np.full((28, picture.shape[1], 3), 255, dtype=np.uint8)
    cv2.putText(strip, title, (4, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([strip, picture])
