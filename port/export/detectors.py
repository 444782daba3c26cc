"""Whole detectors as ONNX graphs, from the image to its detections; answers to `mrcnn.detectors`."""

from typing import NamedTuple

from detectron_gn.mrcnn.config import Config, num_box_classes
from detectron_gn.mrcnn.detectors import Detector, GeneralizedRCNN, ProposalNetwork, RetinaNet
from detectron_gn.port.export.boxes import clip, decode
from detectron_gn.port.export.dense import dense_detections
from detectron_gn.port.export.graph import FLOAT, INT, Value
from detectron_gn.port.export.heads import box_outputs, mask_probabilities
from detectron_gn.port.export.image import Prepared
from detectron_gn.port.export.keypoints import dissimilar, keypoints
from detectron_gn.port.export.layers import maps
from detectron_gn.port.export.pooling import RoiFeatures
from detectron_gn.port.export.proposals import proposed
from detectron_gn.port.export.selection import Found, select
from detectron_gn.port.export.tensors import (
    columns,
    concat,
    count_up,
    filled,
    gather,
    part,
    reshape,
    size,
    transpose,
    unsqueeze,
)


class Outputs(NamedTuple):
    """What is found in an image; masks and keypoints as there are heads for them."""

    found: Found
    mask_probs: Value | None = None
    keypoints: Value | None = None


def detections(model: Detector, prepared: Prepared, proposals: Value | None = None) -> Outputs:
    """What a detector finds in one image.

    Args:
        proposals: `[P, 4]` in image pixels, for a network that takes them.
    """
    graph = prepared.data.graph
    with graph.stage("backbone"):
        features = maps(model.backbone, prepared.data)
    strides = model.backbone.strides
    if isinstance(model, RetinaNet):
        return Outputs(dense_detections(model, features, prepared))
    if isinstance(model, ProposalNetwork):
        boxes, scores = proposed(model.rpn, features, strides, prepared, model.cfg)
        return Outputs(Found(boxes / prepared.scale, scores, filled(size(scores, 0), 1, INT)))
    assert isinstance(model, GeneralizedRCNN)
    return _two_stage(model, RoiFeatures(features, strides, model.cfg), features, prepared, proposals)


def _two_stage(
    model: GeneralizedRCNN,
    pooled: RoiFeatures,
    features: list[Value],
    prepared: Prepared,
    proposals: Value | None,
) -> Outputs:
    cfg = model.cfg
    if model.rpn is not None:
        rois = proposed(model.rpn, features, model.backbone.strides, prepared, cfg).boxes
        boxes = rois / prepared.scale
    else:
        assert proposals is not None
        rois, boxes = _given(proposals, prepared, cfg.DEDUP_BOXES)
    graph = rois.graph
    with graph.stage("box_head"):
        cls_score, bbox_pred = box_outputs(model.box_head, pooled, rois)
    with graph.stage("detections"):
        scores = graph.op("Softmax", cls_score, axis=1)
        of_classes = _class_boxes(boxes, bbox_pred, prepared, cfg)
        found = select(scores, of_classes, cfg)
    mask_probs = points = None
    own_rois = found.boxes * prepared.scale
    if model.mask_head is not None:
        with graph.stage("mask_head"):
            mask_probs = mask_probabilities(model.mask_head, pooled, own_rois, found.classes)
    if model.keypoint_head is not None:
        with graph.stage("keypoint_head"):
            points = keypoints(model.keypoint_head, pooled, own_rois, found.boxes)
        if cfg.KRCNN.NMS_OKS:
            return Outputs(*_at(dissimilar(points, found.boxes), found, mask_probs, points))
    return Outputs(found, mask_probs, points)


def _at(index: Value, found: Found, mask_probs: Value | None, points: Value) -> tuple[Found, Value | None, Value]:
    """Some of the detections, in the order of `index [N]`."""
    return found.at(index), None if mask_probs is None else gather(mask_probs, index), gather(points, index)


def _class_boxes(boxes: Value, bbox_pred: Value, prepared: Prepared, cfg: Config) -> Value:
    """`inference.dynamic.class_boxes`: `[R, K, 4]` in image pixels."""
    classes = cfg.MODEL.NUM_CLASSES
    given = unsqueeze(boxes, 1)
    if cfg.TEST.BBOX_REG:
        # Of no proposals too, so that nothing may be inferred.
        deltas = reshape(bbox_pred, (0, num_box_classes(cfg), 4))
        if cfg.MODEL.CLS_AGNOSTIC_BBOX_REG:
            deltas = part(deltas, 1, 1, 2)
        given = clip(decode(given, deltas, cfg.MODEL.BBOX_REG_WEIGHTS), *prepared.image_size)
        if not cfg.MODEL.CLS_AGNOSTIC_BBOX_REG:
            return given
    return concat([given] * classes, 1)


def _given(proposals: Value, prepared: Prepared, dedup: float) -> tuple[Value, Value]:
    """`inference.rois.given_rois`: RoIs in network pixels, and their boxes in image pixels, one for each proposal.

    Those that count as equal all become the first of them, which gives each of them what Detectron's one RoI gives.
    """
    rois = proposals * prepared.scale
    if dedup <= 0:
        return rois, proposals
    graph = proposals.graph
    columns_of = columns(graph.op("Round", rois * dedup))
    equal = [column.equal(transpose(column, 1, 0)) for column in columns_of]
    alike = equal[0] & equal[1] & equal[2] & equal[3]
    # The first counts most, since runtimes differ in which of equal ones is the largest.
    count = size(proposals, 0)
    weights = count.to(FLOAT) - count_up(count, FLOAT)
    first = graph.op("ArgMax", alike.to(FLOAT) * weights, dtype=INT, axis=1, keepdims=0)
    return gather(rois, first), gather(proposals, first)
