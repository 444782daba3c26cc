"""Keypoints from heatmaps, their similarity, and suppression by it; answers to Detectron utils/keypoints.py."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detectron_gn.mrcnn.ops.boxes import side

Floats = npt.NDArray[np.float32]

# What COCO calls the keypoints of a person, in the order of a model's heatmaps.
KEYPOINT_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip


def mirrored_places(names: Sequence[str]) -> tuple[int, ...] | None:
    """For each named keypoint, the one that is in its place in a mirrored object; None where it is not among them.

    What `left` is in a name is `right` in the name of that one.
    """
    others = [name.replace("left", "right") if "left" in name else name.replace("right", "left") for name in names]
    return tuple(map(list(names).index, others)) if set(others) <= set(names) else None


# For each of a person's keypoints, the one that is in its place in a mirrored person.
MIRRORED = tuple(mirrored_places(KEYPOINT_NAMES) or ())

# How far annotators are apart, as a share of an object's size.
OKS_SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000

# From this similarity on one person's keypoints suppress another's (Detectron core/test.py:keypoint_results).
NMS_OKS_THRESHOLD = 0.3

# A keypoint is where a heatmap, enlarged to its box, is largest. Where two places are nearly as large, rounding
# decides, which happens to at most this share of them.
MOST_MOVED_KEYPOINTS = 1 / 500


# That OpenCV resizes at once: 512 in its version 4, 128 in 5.
_MOST_CHANNELS = 128


def decode_heatmaps(heatmaps: Floats, boxes: Floats, min_size: int) -> Floats:
    """Where the keypoints of each box are: `[D, 4, K]` float32, rows x, y (image pixels), logit, probability.

    Args:
        heatmaps: `[D, K, M, M]` float32, logits.
        boxes: `[D, 4]` float32, corners in image pixels.
        min_size: least side of what a heatmap is enlarged to, in pixels; 0 for none (`cfg.KRCNN.INFERENCE_MIN_SIZE`).

    A heatmap is enlarged bicubically to its box's size, `x2 - x1` without + 1, at least 1, rounded up; the keypoint is
    in the middle of its largest position. The probability is that of a softmax over all positions of the enlarged map
    (Detectron utils/keypoints.py:heatmaps_to_keypoints).
    """
    points = np.zeros((len(boxes), 4, heatmaps.shape[1]), np.float32)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], np.float32(1))
    for number, (box, lengths) in enumerate(zip(boxes, sides)):
        width, height = (max(int(np.ceil(length)), min_size) for length in lengths)
        enlarged = _enlarged(heatmaps[number], width, height)
        place = enlarged.argmax(axis=1)
        logits = enlarged[np.arange(len(enlarged)), place]
        factors = lengths.astype(np.float64) / (width, height)
        if min_size <= 0:
            # Detectron divides float32 by float32 there, and by a whole number otherwise, which makes it float64.
            factors = factors.astype(np.float32).astype(np.float64)
        points[number, 0] = (place % width + 0.5) * factors[0] + box[0]
        points[number, 1] = (place // width + 0.5) * factors[1] + box[1]
        points[number, 2] = logits
        points[number, 3] = 1 / np.exp(enlarged - logits[:, None]).sum(axis=1)
    return points


def _enlarged(heatmaps: Floats, width: int, height: int) -> Floats:
    """`[K, M, M]` heatmaps at another size, `[K, height * width]`."""
    channels = heatmaps.transpose(1, 2, 0)
    parts = [
        cv2.resize(channels[:, :, first : first + _MOST_CHANNELS], (width, height), interpolation=cv2.INTER_CUBIC)
        for first in range(0, len(heatmaps), _MOST_CHANNELS)
    ]
    rows = [np.asarray(part, np.float32).reshape(height * width, -1) for part in parts]
    enlarged: Floats = (rows[0] if len(rows) == 1 else np.concatenate(rows, axis=1)).T
    return enlarged


def flip_heatmaps(heatmaps: Tensor) -> Tensor:
    """Heatmaps `[D, 17, M, M]` of mirrored people as those of the people: mirrored back, left and right changed over.

    Detectron utils/keypoints.py:flip_heatmaps.
    """
    return heatmaps[:, list(MIRRORED)].flip(-1)


def flip_keypoints(
    keypoints: npt.NDArray[np.int32], width: int, mirrored: Sequence[int] = MIRRORED
) -> npt.NDArray[np.int32]:
    """Keypoints `[G, 3, K]` of the mirrored objects, rows x, y and visibility, in an image `width` pixels wide.

    Left and right change over, as `mirrored` has them. Of a keypoint that is not labelled x stays 0
    (Detectron utils/keypoints.py:flip_keypoints).
    """
    flipped = keypoints[:, :, list(mirrored)]
    flipped[:, 0] = np.where(flipped[:, 2] == 0, 0, width - flipped[:, 0] - 1)
    return flipped


def encode_keypoints(keypoints: Tensor, boxes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Where the keypoints of each box lie in its heatmap: positions `[Q, K]` int64, row by row, and which are there.

    Args:
        keypoints: `[Q, 3, K]`, rows x, y (pixels) and visibility.
        boxes: `[Q, 4]` float32, same pixels.
        size: positions per side of a heatmap.

    The range from x1 up to x2, without + 1, is cut into `size` positions; a keypoint on x2 itself belongs to the last
    one, and likewise y. What is outside of the box, or has a visibility of 0, is not there: position 0
    (Detectron utils/keypoints.py:keypoints_to_heatmap_labels).
    """
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
    column = _position(keypoints[:, 0].to(boxes.dtype), x1, x2, size)
    row = _position(keypoints[:, 1].to(boxes.dtype), y1, y2, size)
    inside = (column >= 0) & (row >= 0) & (column < size) & (row < size)
    is_there = inside & (keypoints[:, 2] > 0)
    return torch.where(is_there, row * size + column, 0).long(), is_there


def _position(coordinate: Tensor, first: Tensor, last: Tensor, size: int) -> Tensor:
    # A number divided by a tensor would be its reciprocal times the number, which is rounded twice.
    scale = torch.full_like(first, size) / (last - first)
    return torch.where(coordinate == last, size - 1, ((coordinate - first) * scale).floor())


def nms_oks(keypoints: Floats, boxes: Floats, threshold: float = NMS_OKS_THRESHOLD) -> npt.NDArray[np.int64]:
    """Greedy suppression by similarity: indices `[N]` of the people that stay, best mean logit first.

    Args:
        keypoints: `[D, 4, K]` as `decode_heatmaps` gives them.
        boxes: `[D, 4]` float32.

    A person goes whose similarity with one that stays is *above* the threshold
    (Detectron utils/keypoints.py:nms_oks).
    """
    order = keypoints[:, 2].mean(axis=1).argsort()[::-1]
    kept = []
    while len(order):
        first, rest = order[0], order[1:]
        kept.append(first)
        order = rest[object_keypoint_similarity(keypoints[first], boxes[first], keypoints[rest]) <= threshold]
    return np.array(kept, np.int64)


def object_keypoint_similarity(person: Floats, box: Floats, others: Floats) -> npt.NDArray[np.float64]:
    """Similarity `[N]`, 0 to 1, of a person `[4, K]` in a box `[4]` with others `[N, 4, K]`; all keypoints count.

    The area is that of the person's box, with + 1 (Detectron utils/keypoints.py:compute_oks).
    """
    variances = (OKS_SIGMAS * 2) ** 2
    x1, y1, x2, y2 = box.astype(np.float64)
    area = side(x1, x2) * side(y1, y2)
    distances = (others[:, 0] - person[0]) ** 2 + (others[:, 1] - person[1]) ** 2
    similarity: npt.NDArray[np.float64] = np.exp(-distances / variances / (area + np.spacing(1)) / 2).mean(axis=1)
    return similarity
