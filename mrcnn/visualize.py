"""Pictures of detections: masks, boxes, skeletons and labels over the image; answers to Detectron utils/vis.py.

Nothing here has an influence on results. Everything is drawn in proportion to the picture, and a small picture is
enlarged first, so that labels can be read and outlines do not hide what they surround.
"""

import colorsys
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pycocotools.mask

from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.ops.boxes import after, xywh_to_xyxy
from detectron_gn.mrcnn.ops.keypoints import KEYPOINT_NAMES
from detectron_gn.mrcnn.ops.paste import Patch
from detectron_gn.mrcnn.structures import Detections

Colour = tuple[int, int, int]
Bitmap = npt.NDArray[np.bool_]

# The longer side that a picture is enlarged to at least, in pixels, by a whole factor.
_SMALLEST_SIDE = 640
_MASK_OPACITY = 0.4
# A keypoint is drawn above this logit, as in Detectron's pictures (utils/vis.py: kp_thresh).
_LEAST_LOGIT = 2.0
_LIMBS = tuple(
    (KEYPOINT_NAMES.index(first), KEYPOINT_NAMES.index(second))
    for first, second in (
        ("left_eye", "right_eye"), ("left_eye", "nose"), ("right_eye", "nose"), ("right_eye", "right_ear"),
        ("left_eye", "left_ear"), ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"),
        ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"), ("right_hip", "right_knee"),
        ("right_knee", "right_ankle"), ("left_hip", "left_knee"), ("left_knee", "left_ankle"),
        ("right_shoulder", "left_shoulder"), ("right_hip", "left_hip"), ("right_shoulder", "right_hip"),
        ("left_shoulder", "left_hip"),
    )
)  # fmt: skip
_FONT = cv2.FONT_HERSHEY_SIMPLEX

# Each class's hue lies the golden section of the circle after the one before, which keeps neighbours far apart.
_FIRST_HUE = 0.56
_GOLDEN_SECTION = 0.618034


class DrawnObject(NamedTuple):
    """What is drawn of one object.

    Attributes:
        box: (x1, y1, x2, y2) in pixels, inclusive corners.
        mask: gives its mask when it is drawn, so that only one is held at a time; None draws the box only.
        label: text at the box; may be empty.
        colour: BGR.
        keypoints: `[4, K]`, rows x, y, logit, probability; a person's 17 are drawn with limbs; None draws nothing.
    """

    box: tuple[float, float, float, float]
    mask: Callable[[], Patch] | None
    label: str
    colour: Colour
    keypoints: npt.NDArray[np.float32] | None = None


def draw_detections(image: Image, detections: Detections, class_names: Sequence[str], min_score: float = 0.5) -> Image:
    """A picture of an image with the detections that score at least `min_score`.

    Args:
        image: `[H, W, 3]` uint8 BGR; it stays as it is.
        class_names: of classes 1, 2, ...

    Returns:
        `[kH, kW, 3]` uint8 BGR, where k is 1 but for small images.
    """
    shown = [row for row in np.argsort(-detections.scores, kind="stable") if detections.scores[row] >= min_score]
    objects = [
        DrawnObject(
            box=tuple(detections.boxes[row].tolist()),
            mask=None if detections.mask_probs is None else partial(_only_patch, detections.row(row)),
            label=f"{class_names[detections.classes[row] - 1]} {detections.scores[row]:.2f}",
            colour=class_colour(int(detections.classes[row])),
            keypoints=None if detections.keypoints is None else detections.keypoints[row],
        )
        for row in shown
    ]
    return draw_objects(image, objects)


def row_object(row: Mapping[str, Any], label: str, colour: Colour) -> DrawnObject:
    """What is drawn of a row of COCO results: its box and, as it has them, its mask and keypoints.

    Rows have no logits of keypoints unless somebody has put them there as `keypoint_logits`; without, all keypoints
    whose visibility is not 0 are drawn.
    """
    keypoints = None
    if "keypoints" in row:
        x, y, visibility = np.asarray(row["keypoints"], dtype=np.float32).reshape(-1, 3).T
        logits = row.get("keypoint_logits")
        seen = np.where(visibility > 0, np.inf, -np.inf) if logits is None else np.asarray(logits)
        keypoints = np.stack([x, y, seen, np.ones_like(x)]).astype(np.float32)
    segmentation = row.get("segmentation")
    return DrawnObject(
        box=xywh_to_xyxy(*row["bbox"]),
        mask=None if segmentation is None else partial(_decoded, segmentation),
        label=label,
        colour=colour,
        keypoints=keypoints,
    )


def draw_objects(image: Image, objects: Sequence[DrawnObject]) -> Image:
    """A picture of an image with objects, the large ones beneath the small ones.

    Labels of the objects that come first have the first choice of where to stand; one that could only stand over
    another is left out.
    """
    factor = max(1, math.ceil(_SMALLEST_SIDE / max(image.shape[:2])))
    canvas: Image = image.copy()
    if factor > 1:
        canvas = np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC))
    unit = max(canvas.shape[:2]) / _SMALLEST_SIDE
    for item in sorted(objects, key=lambda item: -_area(item.box)):
        if item.mask is not None:
            _draw_mask(canvas, item.mask(), item.colour, factor, unit)
        left, top, right, bottom = _corners(item.box, factor)
        cv2.rectangle(canvas, (left, top), (right, bottom), item.colour, max(1, round(0.8 * unit)))
        if item.keypoints is not None:
            _draw_skeleton(canvas, item.keypoints, factor, unit)
    placed: list[tuple[int, int, int, int]] = []
    for item in objects:
        if item.label:
            placed += _draw_label(canvas, item, _corners(item.box, factor), placed, unit)
    return canvas


def _draw_skeleton(canvas: Image, keypoints: npt.NDArray[np.float32], factor: int, unit: float) -> None:
    """Of a person the limbs whose two ends are seen, and all keypoints that are."""
    seen = keypoints[2] > _LEAST_LOGIT
    # A keypoint is a place within a pixel, whose middle is at half.
    places = [(round(float(x) * factor), round(float(y) * factor)) for x, y in keypoints[:2].T]
    width = max(1, round(1.5 * unit))
    limbs = _LIMBS if len(places) == len(KEYPOINT_NAMES) else ()
    for number, (first, second) in enumerate(limbs):
        if seen[first] and seen[second]:
            cv2.line(canvas, places[first], places[second], class_colour(number + 1), width, cv2.LINE_AA)
    for place, is_seen in zip(places, seen, strict=True):
        if is_seen:
            cv2.circle(canvas, place, width + 1, (255, 255, 255), cv2.FILLED, cv2.LINE_AA)


def class_colour(label: int) -> Colour:
    """A bright BGR colour for class `label` (from 1 on), always the same."""
    hue = (_FIRST_HUE + (label - 1) * _GOLDEN_SECTION) % 1.0
    # Every second round of the circle is paler, so that near hues of distant classes differ as well.
    saturation = (0.75, 0.5)[(label - 1) // 8 % 2]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, 1.0)
    return round(255 * blue), round(255 * green), round(255 * red)


def _decoded(segmentation: Any) -> Patch:
    return Patch(pycocotools.mask.decode(segmentation).astype(bool), 0, 0)


def _only_patch(detection: Detections) -> Patch:
    (patch,) = detection.patches()
    return patch


def _draw_mask(canvas: Image, patch: Patch, colour: Colour, factor: int, unit: float) -> None:
    mask = patch.pixels
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    # One empty pixel around, so that the enlarged outline is closed; it may lie outside of the image.
    inside = np.pad(mask[top:bottom, left:right], 1).astype(np.uint8)
    if factor > 1:
        soft = cv2.resize(
            inside.astype(np.float32), None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR
        )
        inside = (np.asarray(soft) > 0.5).astype(np.uint8)
    x, y = int(patch.x + left - 1) * factor, int(patch.y + top - 1) * factor
    height, width = canvas.shape[:2]
    visible = inside[max(-y, 0) : height - y, max(-x, 0) : width - x].astype(bool)
    region = canvas[max(y, 0) : y + inside.shape[0], max(x, 0) : x + inside.shape[1]]
    values = (1 - _MASK_OPACITY) * np.arange(256)[:, None] + _MASK_OPACITY * np.array(colour)
    np.copyto(region, cv2.LUT(region, values.astype(np.uint8)[None]), where=visible[:, :, None])
    contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(x, y))
    cv2.drawContours(canvas, contours, -1, colour, max(1, round(1.5 * unit)), cv2.LINE_AA)


def _draw_label(
    canvas: Image,
    item: DrawnObject,
    corners: tuple[int, int, int, int],
    placed: list[tuple[int, int, int, int]],
    unit: float,
) -> list[tuple[int, int, int, int]]:
    """Write the label where no other stands: above the box, in it, below it. Returns the place it takes, if any."""
    scale, thickness, margin = 0.4 * unit, max(1, round(unit)), max(2, round(3 * unit))
    # OpenCV's letters are ASCII; a character that has no UTF-8 would end the process.
    label = item.label.encode("ascii", "replace").decode()
    (width, ascent), descent = cv2.getTextSize(label, _FONT, scale, thickness)
    width, height = width + 2 * margin, ascent + descent + margin
    left, top, _, bottom = corners
    left = min(max(left, 0), max(canvas.shape[1] - width, 0))
    lowest = max(canvas.shape[0] - height, 0)
    tops = [min(max(y, 0), lowest) for y in (top - height, top, bottom, bottom - height)]
    places = [(left, y, left + width, y + height) for y in tops]
    free = [place for place in places if not any(_overlap(place, other) for other in placed)]
    if not free:
        return []
    place = free[0]
    cv2.rectangle(canvas, place[:2], (place[2] - 1, place[3] - 1), item.colour, cv2.FILLED)
    blue, green, red = item.colour
    ink = (0, 0, 0) if 0.114 * blue + 0.587 * green + 0.299 * red > 110 else (255, 255, 255)
    baseline = (place[0] + margin, place[1] + ascent + margin // 2)
    cv2.putText(canvas, label, baseline, _FONT, scale, ink, thickness, cv2.LINE_AA)
    return [place]


def _corners(box: tuple[float, float, float, float], factor: int) -> tuple[int, int, int, int]:
    """The outermost pixels of a box in the enlarged picture; its corners are pixels, so the last one counts whole."""
    x1, y1, x2, y2 = box
    return round(x1 * factor), round(y1 * factor), round(after(x2) * factor) - 1, round(after(y2) * factor) - 1


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
