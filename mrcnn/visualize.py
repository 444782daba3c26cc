"""Pictures of detections: masks, boxes, skeletons and labels over the image; answers to Detectron utils/vis.py.

Nothing here has an influence on results. Everything is drawn in proportion to the picture, and a small picture is
enlarged first, so that labels can be read and outlines do not hide what they surround. `drawn_labels.py` places labels.
"""

import colorsys
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.drawn_labels import Colour, Corners, Label, draw_labels, grey
from detectron_gn.mrcnn.ops.boxes import after, xywh_to_xyxy
from detectron_gn.mrcnn.ops.keypoints import KEYPOINT_NAMES
from detectron_gn.mrcnn.ops.paste import Patch, rle_patch
from detectron_gn.mrcnn.structures import Detections

Bitmap = npt.NDArray[np.bool_]

# The sides that a picture is enlarged to at least, in pixels, by a whole factor: the longer, and the shorter as far as
# the longer does not become larger than the last number.
_SMALLEST_SIDE, _SMALLEST_SHORT_SIDE, _LARGEST_OF_A_STRIP = 640, 64, 4000
# Lines and letters grow with the side of a square of the picture's area, which for 640 x 480 pixels is this one. They
# grow a little less than it: who looks at a large picture sees it on a larger screen, or only a part of it.
_UNIT_SIDE, _GROWTH = 554.0, 0.85
# Enough to see which object it is of, and little enough to see what colour the object has.
_MASK_OPACITY = 0.25
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
_EDGE = (40, 40, 40)
# A line that is lighter than this has an edge of its own colour, so much darker.
_LOST_ON_WHITE, _EDGE_SHARE = 150, 0.5
# A person whose box is a square of this side has lines of the picture's width; smaller ones have thinner lines.
_SKELETON_SIDE = 140.0

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
        mask=None if segmentation is None else partial(rle_patch, segmentation),
        label=label,
        colour=colour,
        keypoints=keypoints,
    )


def draw_objects(image: Image, objects: Sequence[DrawnObject], letters: float = 1.0) -> Image:
    """A picture of an image with objects, the large ones beneath the small ones.

    Args:
        letters: how much larger than usual they are, for a picture that will be shown small.

    Labels of the objects that come first have the first choice of where to stand; one that could only stand over
    another is left out.
    """
    factor = _enlargement(*image.shape[:2])
    canvas: Image = image.copy()
    if factor > 1:
        canvas = np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC))
    unit = max(1.0, math.sqrt(canvas.shape[0] * canvas.shape[1]) / _UNIT_SIDE) ** _GROWTH
    for item in sorted(objects, key=lambda item: -_area(item.box)):
        if item.mask is not None:
            _draw_mask(canvas, item.mask(), item.colour, factor, unit)
        left, top, right, bottom = _corners(item.box, factor)
        for colour, width in _strokes(item.colour, max(1, round(0.8 * unit)), unit):
            cv2.rectangle(canvas, (left, top), (right, bottom), colour, width)
        if item.keypoints is not None:
            _draw_skeleton(canvas, item.keypoints, factor, _skeleton_unit(item.box, factor, unit))
    labelled = [item for item in objects if item.label]
    draw_labels(
        canvas,
        [Label(_corners(item.box, factor), item.label, item.colour) for item in labelled],
        [_corners(item.box, factor) for item in objects],
        unit * letters,
    )
    return canvas


def _enlargement(height: int, width: int) -> int:
    """The whole factor that a picture is enlarged by."""
    shorter, longer = sorted((height, width))
    wanted = max(math.ceil(_SMALLEST_SIDE / longer), math.ceil(_SMALLEST_SHORT_SIDE / shorter))
    return max(1, min(wanted, max(_LARGEST_OF_A_STRIP, _SMALLEST_SIDE) // longer))


def _skeleton_unit(box: tuple[float, float, float, float], factor: int, unit: float) -> float:
    """The width of a person's lines: that of the picture's, or less for a small person, whose face would be hidden."""
    return min(unit, math.sqrt(max(_area(box), 0)) * factor / _SKELETON_SIDE)


def _draw_skeleton(canvas: Image, keypoints: npt.NDArray[np.float32], factor: int, unit: float) -> None:
    """Of a person the limbs whose two ends are seen, and all keypoints that are, on a dark edge that tells them apart.

    A keypoint is a place within a pixel, whose middle is at half.
    """
    seen = keypoints[2] > _LEAST_LOGIT
    places = [(round(float(x) * factor), round(float(y) * factor)) for x, y in keypoints[:2].T]
    width, edge = max(1, round(2 * unit)), max(1, round(unit))
    limbs = [
        (places[first], places[second], class_colour(number))
        for number, (first, second) in enumerate(_LIMBS if len(places) == len(KEYPOINT_NAMES) else (), 1)
        if seen[first] and seen[second]
    ]
    dots = [place for place, is_seen in zip(places, seen, strict=True) if is_seen]
    for begin, end, _ in limbs:
        cv2.line(canvas, begin, end, _EDGE, width + 2 * edge, cv2.LINE_AA)
    for begin, end, colour in limbs:
        cv2.line(canvas, begin, end, colour, width, cv2.LINE_AA)
    for place in dots:
        cv2.circle(canvas, place, width, _EDGE, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(canvas, place, max(1, width - edge), (255, 255, 255), cv2.FILLED, cv2.LINE_AA)


def class_colour(label: int) -> Colour:
    """A bright BGR colour for class `label` (from 1 on), always the same."""
    hue = (_FIRST_HUE + (label - 1) * _GOLDEN_SECTION) % 1.0
    # Every second round of the circle is paler, so that near hues of distant classes differ as well.
    saturation = (0.75, 0.5)[(label - 1) // 8 % 2]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, 1.0)
    return round(255 * blue), round(255 * green), round(255 * red)


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
    for stroke, thickness in _strokes(colour, max(1, round(unit)), unit):
        cv2.drawContours(canvas, contours, -1, stroke, thickness, cv2.LINE_AA)


def _strokes(colour: Colour, width: int, unit: float) -> Iterator[tuple[Colour, int]]:
    """What a line is drawn with: a light one first with a dark edge, without which it is lost on a light ground."""
    if grey(colour) > _LOST_ON_WHITE:
        blue, green, red = (round(_EDGE_SHARE * value) for value in colour)
        yield (blue, green, red), 2 * (width // 2 + max(1, round(0.4 * unit)))  # OpenCV draws 1, 3, 3, 5, 5, ... pixels
    yield colour, width


def _corners(box: tuple[float, float, float, float], factor: int) -> Corners:
    """The outermost pixels of a box in the enlarged picture; its corners are pixels, so the last one counts whole."""
    x1, y1, x2, y2 = box
    return round(x1 * factor), round(y1 * factor), round(after(x2) * factor) - 1, round(after(y2) * factor) - 1


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
