"""From RetinaNet's maps to detections; answers to Detectron core/test_retinanet.py:im_detect_bbox."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.inference.dynamic import Detected, suppress
from detectron_gn.mrcnn.ops.boxes import BoxWeights, clip_boxes, decode_boxes
from detectron_gn.mrcnn.ops.numpy_ties import argpartition, argsort

_BOX_WEIGHTS: BoxWeights = (1.0, 1.0, 1.0, 1.0)


def level_candidates(
    probabilities: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    stride: int,
    scale: float,
    image_size: tuple[int, int],
    threshold: float,
    cfg: Config,
) -> Detected:
    """The candidates of one image on one level, as many as `cfg.RETINANET.PRE_NMS_TOP_N`, in no order of their own.

    Args:
        probabilities: `[A, K, H, W]` float32, of the K classes without the background.
        deltas: `[A, B, 4, H, W]` float32; B is 1, or K where each class has its own boxes.
        anchors: `[A, 4]` float64 at the level's first position.
        stride: network pixels per position.
        scale: network pixels per image pixel.
        image_size: (height, width) of the image as it was read.
        threshold: what a candidate scores more than.

    Boxes are decoded in network pixels and scaled afterwards, other than those of RoIs. Detectron's test code cannot
    read boxes of each class's own (its reshape fails): they are read where its training writes them, anchor by anchor
    and class by class (roi_data/retinanet.py:add_retinanet_blobs).
    """
    classes, height, width = probabilities.shape[1:]
    flat = probabilities.flatten()
    above = (flat > threshold).nonzero()[:, 0]
    top = argpartition(flat[above], min(cfg.RETINANET.PRE_NMS_TOP_N, len(above))) if len(above) else above
    index = above[top]
    anchor, label, y, x = torch.unravel_index(index, (len(anchors), classes, height, width))
    shifts = stride * torch.stack((x, y, x, y), dim=1).double()
    boxes = (shifts + anchors[anchor]).float()
    if cfg.TEST.BBOX_REG:
        own = label if cfg.RETINANET.CLASS_SPECIFIC_BBOX else torch.zeros_like(label)
        boxes = decode_boxes(boxes, deltas[anchor, own, :, y, x], _BOX_WEIGHTS)
    return Detected(clip_boxes(boxes / scale, *image_size), flat[index], label + 1)


def dense_detections(levels: Sequence[Detected], cfg: Config) -> Detected:
    """Non-maximum suppression of the candidates of all levels, class by class, and the limit over all classes.

    Args:
        levels: of `level_candidates`, finest first.

    Returns:
        Exactly the `cfg.TEST.DETECTIONS_PER_IM` best, ties or not, by class and within one best first. No
        `cfg.TEST.SCORE_THRESH` and no voting. Of equal scores, the class that has a candidate on a finer level is
        sorted before.
    """
    candidates = Detected(*(torch.cat(column) for column in zip(*levels, strict=True)))
    in_order = dict.fromkeys(label for level in levels for label in sorted(set(level.classes.tolist())))
    parts = []
    for label in in_order:
        chosen = candidates.classes == label
        boxes, scores = suppress(candidates.boxes[chosen], candidates.scores[chosen], cfg)
        parts.append(Detected(boxes, scores, torch.full_like(scores, label, dtype=torch.long)))
    if not parts:
        return candidates
    detected = Detected(*(torch.cat(column) for column in zip(*parts, strict=True)))
    best = argsort(-detected.scores)[: cfg.TEST.DETECTIONS_PER_IM]
    by_class = best[detected.classes[best].argsort(stable=True)]
    return Detected(*(column[by_class] for column in detected))
