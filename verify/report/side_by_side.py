"""Pictures of detections side by side: the reference's on the left, ours on the right, differences in red."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycocotools.mask
from pycocotools.coco import COCO

from detectron_gn.mrcnn.data.annotations.outlines import encoded_outline, has_outline
from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.data.read_image import AS_IMREAD, ImageReading, read_image
from detectron_gn.mrcnn.evaluation.results_files import ResultRow
from detectron_gn.mrcnn.ops.keypoints import KEYPOINT_NAMES
from detectron_gn.mrcnn.visualize import Bitmap, DrawnObject, class_colour, draw_objects, row_object
from detectron_gn.verify.parity.results import MOST_KEYPOINT_ERROR, match_detections

SHOWN_SCORE = 0.5
_DIFFERENT = (0, 0, 255)
# Two pictures share the width of the page, which may be that of a telephone.
_LETTERS = 2.2
# How high the letters of a title are, of the width of its picture.
_TITLE_SHARE = 0.045


@dataclass(frozen=True)
class Side:
    """What one side found: rows of boxes, masks and keypoints, row for row the same detections.

    There are no masks without a mask head, and no keypoints without a keypoint head.
    """

    title: str
    boxes: Sequence[ResultRow]
    segms: Sequence[ResultRow] | None
    keypoints: Sequence[ResultRow] | None = None

    def row(self, number: int) -> ResultRow:
        """A detection with all that was found of it."""
        row = dict(self.boxes[number])
        for key, rows in (("segmentation", self.segms), ("keypoints", self.keypoints)):
            if rows is not None:
                row[key] = rows[number][key]
        return row


@dataclass(frozen=True)
class Pair:
    """One image as both sides see it."""

    name: str
    left: Image
    right: Image
    left_title: str
    right_title: str
    caption: str


def result_pairs(
    coco: COCO, files: dict[int, Path], reference: Side, ours: Side, count: int, reading: ImageReading = AS_IMREAD
) -> list[Pair]:
    """The images furthest apart, then those with most objects, each with the detections of both sides.

    What differs is red: detections that the other side lacks or has out of tolerance, whatever they score, the pixels
    of masks, and a ring around keypoints that are elsewhere.
    """
    parities = [match_detections(ours.boxes, reference.boxes, "bbox")]
    if ours.segms is not None and reference.segms is not None:
        parities.append(match_detections(ours.segms, reference.segms, "segm"))
    if _are_people(ours.keypoints) and _are_people(reference.keypoints):
        parities.append(match_detections(ours.keypoints or [], reference.keypoints or [], "keypoints"))
    worst = [image.image_id for parity in parities for image in parity.worst if image.unmatched]
    found = Counter(row["image_id"] for row in reference.boxes)
    by_objects = sorted(
        coco.imgs, key=lambda image_id: (-len(coco.getAnnIds(imgIds=image_id)), -found[image_id], image_id)
    )
    different = [
        {int(row) for parity in parities for row in parity.different_reference},
        {int(row) for parity in parities for row in parity.different_ours},
    ]
    other = {int(row): int(partner) for row, partner in parities[0].partners}
    pairs = []
    for image_id in list(dict.fromkeys([*worst, *by_objects]))[:count]:
        image = read_image(files[image_id], reading)
        sides, shown = [], []
        for side, red in zip((reference, ours), different, strict=True):
            rows = _shown(side, image_id, red)
            sides.append(draw_objects(image, [_drawn(coco, side, row, row in red) for row in rows], _LETTERS))
            shown.append(rows)
        both = []
        if ours.segms is not None and reference.segms is not None:
            both = [(ours.segms[row], reference.segms[other[row]]) for row in shown[1] if row in other]
        pixels = _different_pixels(both, image.shape[:2])
        moved = _moved_keypoints(ours, reference, [(row, other[row]) for row in shown[1] if row in other])
        caption = _caption(ours, image_id, shown, different, int(pixels.sum()), len(moved[0]))
        name = str(coco.imgs[image_id].get("file_name", image_id))
        left, right = (
            _with_rings(_with_red_pixels(picture, pixels), places, image)
            for picture, places in zip(sides, moved, strict=True)
        )
        pairs.append(Pair(name, left, right, reference.title, ours.title, caption))
    return pairs


def annotation_pairs(
    coco: COCO, files: dict[int, Path], ours: Side, count: int, reading: ImageReading = AS_IMREAD
) -> list[Pair]:
    """The images with most objects, the annotated ones on the left and the detected ones on the right."""
    by_objects = sorted(coco.imgs, key=lambda image_id: (-len(coco.getAnnIds(imgIds=image_id)), image_id))
    pairs = []
    for image_id in by_objects[:count]:
        image = read_image(files[image_id], reading)
        annotations = [row for row in coco.loadAnns(coco.getAnnIds(imgIds=image_id)) if not row["iscrowd"]]
        rows = _shown(ours, image_id, set())
        left = draw_objects(image, [_annotated(coco, row) for row in annotations], _LETTERS)
        right = draw_objects(image, [_drawn(coco, ours, row, False) for row in rows], _LETTERS)
        caption = f"{len(annotations)} objects annotated, {len(rows)} found that score {SHOWN_SCORE:g} or more"
        name = str(coco.imgs[image_id].get("file_name", image_id))
        pairs.append(Pair(name, left, right, "annotations", ours.title, caption))
    return pairs


def side_by_side(pair: Pair) -> Image:
    """A pair as one picture, each side under its title."""
    left, right = _titled(pair.left, pair.left_title), _titled(pair.right, pair.right_title)
    gap = np.full((len(left), 12, 3), 255, dtype=np.uint8)
    return np.concatenate([left, gap, right], axis=1)


def _caption(
    ours: Side, image_id: Any, shown: list[list[int]], different: list[set[int]], pixels: int, keypoints: int
) -> str:
    """What is drawn, what of it differs, and how many detections are not drawn."""
    red = [sum(row in rows for row in side) for side, rows in zip(shown, different, strict=True)]
    drawn = set(shown[1])
    left_out = sum(row["image_id"] == image_id and number not in drawn for number, row in enumerate(ours.boxes))
    high = sum(ours.boxes[row]["score"] >= SHOWN_SCORE for row in shown[1])
    caption = f"{'1 object that scores' if high == 1 else f'{high} objects that score'} {SHOWN_SCORE:g} or more"
    if any(red):
        caption += f"; red: {red[0]} of the left and {red[1]} of the right that have no match on the other side"
    else:
        caption += ", every one on both sides"
    if ours.segms is not None:
        caption += f"; {pixels} mask pixels differ (red)" if pixels else "; masks equal to the pixel"
    if ours.keypoints is not None:
        told = f"{keypoints} keypoint{' is' if keypoints == 1 else 's are'} elsewhere (red rings)"
        caption += f"; {told if keypoints else 'all keypoints in place'}"
    return caption + (f"; not drawn: {left_out} of lower scores that match" if left_out else "")


def _shown(side: Side, image_id: Any, different: set[int]) -> list[int]:
    """The rows of an image that are drawn."""
    return [
        number
        for number, row in enumerate(side.boxes)
        if row["image_id"] == image_id and (row["score"] >= SHOWN_SCORE or number in different)
    ]


def _drawn(coco: COCO, side: Side, row: int, differs: bool) -> DrawnObject:
    found = side.row(row)
    label = f"{_class_name(coco, found)} {found['score']:.2f}"
    return row_object(found, label, _DIFFERENT if differs else _colour(coco, found))


def _annotated(coco: COCO, row: dict[str, Any]) -> DrawnObject:
    """An annotated object with its outline, and its keypoints if one of them is annotated."""
    image = coco.imgs[row["image_id"]]
    drawn: dict[str, Any] = {"bbox": row["bbox"]}
    if has_outline(row):
        drawn["segmentation"] = encoded_outline(row["segmentation"], image["height"], image["width"])
    if any((row.get("keypoints") or [])[2::3]):
        drawn["keypoints"] = row["keypoints"]
    return row_object(drawn, _class_name(coco, row), _colour(coco, row))


def _class_name(coco: COCO, row: ResultRow) -> str:
    return str(coco.cats[row["category_id"]].get("name", row["category_id"]))


def _colour(coco: COCO, row: ResultRow) -> tuple[int, int, int]:
    return class_colour(coco.getCatIds().index(row["category_id"]) + 1)


def _different_pixels(pairs: Sequence[tuple[ResultRow, ResultRow]], size: tuple[int, ...]) -> Bitmap:
    """`[height, width]` bool: where the masks of a pair differ."""
    pixels = np.zeros(size, dtype=np.bool_)
    for pair in pairs:
        mine, theirs = (row["segmentation"] for row in pair)
        if mine != theirs:
            pixels |= pycocotools.mask.decode(mine) != pycocotools.mask.decode(theirs)
    return pixels


def _are_people(rows: Sequence[ResultRow] | None) -> bool:
    """Whether there are keypoints that can be compared: those of a person."""
    return rows is not None and all(len(row["keypoints"]) == 3 * len(KEYPOINT_NAMES) for row in rows)


def _moved_keypoints(
    ours: Side, reference: Side, pairs: Sequence[tuple[int, int]]
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """The places (x, y), in the reference and in ours, of the keypoints of pairs that are not where the others are."""
    moved: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    if ours.keypoints is None or reference.keypoints is None:
        return moved
    for mine, theirs in pairs:
        sides = [
            np.asarray(rows[number]["keypoints"], dtype=np.float64).reshape(-1, 3)[:, :2]
            for rows, number in ((reference.keypoints, theirs), (ours.keypoints, mine))
        ]
        if len(sides[0]) == len(sides[1]):
            is_moved = np.abs(sides[0] - sides[1]).max(axis=1) > MOST_KEYPOINT_ERROR
            for places, of_side in zip(moved, sides, strict=True):
                places.extend((float(x), float(y)) for x, y in of_side[is_moved])
    return moved


def _with_rings(picture: Image, places: Sequence[tuple[float, float]], image: Image) -> Image:
    """A picture of an image, which may be enlarged by a whole factor, with red rings around places in the image."""
    factor = picture.shape[0] // image.shape[0]
    radius = max(6, round(0.012 * max(picture.shape)))
    for x, y in places:
        middle = (round(x * factor), round(y * factor))
        cv2.circle(picture, middle, radius, _DIFFERENT, max(2, radius // 4), cv2.LINE_AA)
    return picture


def _with_red_pixels(picture: Image, pixels: Bitmap) -> Image:
    """A picture, which may be enlarged by a whole factor, with pixels of the image painted over."""
    factor = picture.shape[0] // pixels.shape[0]
    marked = picture.copy()
    marked[pixels.repeat(factor, axis=0).repeat(factor, axis=1)] = _DIFFERENT
    return np.asarray(marked, dtype=np.uint8)


def _titled(picture: Image, title: str) -> Image:
    """A picture under a white strip with its title, in letters that can be read where the pair is shown small."""
    width = picture.shape[1]
    (at_one, _), _ = cv2.getTextSize(title, cv2.FONT_HERSHEY_SIMPLEX, 1, 2)
    scale = min(_TITLE_SHARE * width / 22, 0.95 * width / max(at_one, 1))  # at 1 capitals are 22 pixels high
    strip = np.full((round(2 * _TITLE_SHARE * width), width, 3), 255, dtype=np.uint8)
    place = round(0.02 * width), round(1.5 * _TITLE_SHARE * width)
    thickness = max(1, round(1.5 * scale))
    cv2.putText(strip, title, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), thickness, cv2.LINE_AA)
    return np.concatenate([strip, picture])
