"""RetinaNet's head and its detections as nodes of an ONNX graph; what `mrcnn.inference.dense_detections` computes."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from detectron_gn.mrcnn.detectors import RetinaNet
from detectron_gn.mrcnn.ops.anchors import retinanet_anchors
from detectron_gn.mrcnn.ops.proposals import RPN_BOX_WEIGHTS
from detectron_gn.port.export.boxes import clip, decode
from detectron_gn.port.export.graph import FLOAT, INT, Value
from detectron_gn.port.export.image import Prepared
from detectron_gn.port.export.layers import layer
from detectron_gn.port.export.selection import Found, suppress
from detectron_gn.port.export.tensors import (
    ascending,
    chosen,
    concat,
    count_up,
    gather,
    ints,
    part,
    reshape,
    size,
    squeeze,
    top,
    transpose,
    unsqueeze,
    where_true,
)


def dense_detections(model: RetinaNet, features: Sequence[Value], prepared: Prepared) -> Found:
    """What a RetinaNet finds, by class, and within one the best first."""
    with features[0].graph.stage("detections"):
        return _detections(model, features, prepared)


def _detections(model: RetinaNet, features: Sequence[Value], prepared: Prepared) -> Found:
    cfg, graph = model.cfg, features[0].graph
    levels = [
        _level_candidates(model, level, stride, anchors, is_last, prepared)
        for level, stride, anchors, is_last in zip(
            features,
            model.backbone.strides,
            retinanet_anchors(cfg),
            [number == model.levels[-1] for number in model.levels],
        )
    ]
    candidates = Found(*(concat(list(column), 0) for column in zip(*levels, strict=True)))
    # A list for each class, in which the others do not take part.
    labels = graph.const(np.arange(1, cfg.MODEL.NUM_CLASSES)[:, None], INT)
    of_class = unsqueeze(candidates.classes, 0).equal(labels)
    scores = chosen(of_class, unsqueeze(candidates.scores, 0), graph.const(-1, FLOAT))
    lists = ints(labels, [cfg.MODEL.NUM_CLASSES - 1, 1, 1])
    boxes = graph.op("Expand", unsqueeze(candidates.boxes, 0), lists)
    kept = suppress(boxes, scores, 0.0, cfg)
    found = Found(gather(candidates.boxes, kept.place), kept.scores, kept.which + 1)
    found = found.at(ascending(kept.which * size(scores, 1) + kept.order))
    count = size(found.scores, 0)
    limit = cfg.TEST.DETECTIONS_PER_IM
    _, best = top(found.scores, count.at_most(limit))
    found = found.at(best)
    return found.at(ascending(found.classes * (limit + 1) + count_up(size(best, 0))))


def _level_candidates(
    model: RetinaNet, level: Value, stride: int, anchors: Tensor, is_last: bool, prepared: Prepared
) -> Found:
    """`inference.dense_detections.level_candidates` of a level; the coarsest one takes every score above 0."""
    head, cfg, graph = model.head, model.cfg, level.graph
    classes = cfg.MODEL.NUM_CLASSES - 1
    with graph.stage("retinanet_head"):
        of_classes = layer(head.cls_convs, level)
        of_boxes = of_classes if head.bbox_convs is None else layer(head.bbox_convs, level)
        cls_pred, bbox_pred = layer(head.cls_pred, of_classes), layer(head.bbox_pred, of_boxes)
    flat = reshape(_probabilities(model, cls_pred), (-1,))
    above = where_true(flat > (0.0 if is_last else cfg.RETINANET.INFERENCE_TH))
    limit, available = cfg.RETINANET.PRE_NMS_TOP_N, size(above, 0)
    scores, place = top(gather(flat, above), available.at_most(limit) if limit > 0 else available)
    index = gather(above, place)

    width = squeeze(size(level, 3), 0)
    positions = squeeze(size(level, 2), 0) * width
    position, channel = graph.op("Mod", index, positions), graph.op("Div", index, positions)
    x, y = graph.op("Mod", position, width), graph.op("Div", position, width)
    anchor, label = channel // classes, channel % classes
    shifts = concat([unsqueeze(each, 1) for each in (x, y, x, y)], 1).to(FLOAT) * stride
    boxes = gather(graph.const(anchors.cpu().float().numpy(), FLOAT), anchor) + shifts
    if cfg.TEST.BBOX_REG:
        kinds = classes if cfg.RETINANET.CLASS_SPECIFIC_BBOX else 1
        own = anchor * kinds + (label if kinds > 1 else 0)
        maps = reshape(bbox_pred, (head.num_anchors * kinds, 4, -1))
        deltas = gather(reshape(transpose(maps, 0, 2, 1), (-1, 4)), own * positions + position)
        boxes = decode(boxes, deltas, RPN_BOX_WEIGHTS)
    return Found(clip(boxes / prepared.scale, *prepared.image_size), scores, label + 1)


def _probabilities(model: RetinaNet, cls_pred: Value) -> Value:
    """Class logits of a level to `[A, K, H * W]` probabilities of the classes without the background."""
    head = model.head
    if not head.softmax:
        return cls_pred.graph.op("Sigmoid", cls_pred)
    by_anchor = reshape(cls_pred, (head.num_anchors, model.cfg.MODEL.NUM_CLASSES, -1))
    return part(cls_pred.graph.op("Softmax", by_anchor, axis=1), 1, 1, model.cfg.MODEL.NUM_CLASSES)
