"""From the RPN's maps to RoIs, as nodes of an ONNX graph; what `mrcnn.ops.proposals` computes."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.heads.rpn import RPN
from detectron_gn.mrcnn.ops.boxes import after, side
from detectron_gn.mrcnn.ops.proposals import RPN_BOX_WEIGHTS
from detectron_gn.port.export.boxes import clip, decode, suppressed
from detectron_gn.port.export.graph import FLOAT, Value
from detectron_gn.port.export.image import Prepared
from detectron_gn.port.export.layers import layer, relu
from detectron_gn.port.export.tensors import (
    ascending,
    chosen,
    columns,
    concat,
    gather,
    ints,
    reshape,
    size,
    smallest_of,
    squeeze,
    top,
    transpose,
    unsqueeze,
    where_true,
)


class Proposed(NamedTuple):
    """Boxes `[R, 4]` in network pixels, and their objectness `[R]`."""

    boxes: Value
    scores: Value


def proposed(rpn: RPN, maps: Sequence[Value], strides: Sequence[int], prepared: Prepared, cfg: Config) -> Proposed:
    """The proposals of one image, best first, as `RPN.collected` gives them."""
    with maps[0].graph.stage("proposals"):
        return _collected(rpn, maps, strides, prepared, cfg)


def _collected(rpn: RPN, maps: Sequence[Value], strides: Sequence[int], prepared: Prepared, cfg: Config) -> Proposed:
    levels = [
        _of_level(rpn, level, anchors, stride, prepared, cfg)
        for level, anchors, stride in zip(maps, rpn.anchors, strides)
    ]
    if not cfg.FPN.FPN_ON:
        return levels[0]
    boxes, scores = (concat(list(column), 0) for column in zip(*levels, strict=True))
    best, index = top(scores, _at_most(cfg.TEST.RPN_POST_NMS_TOP_N, size(scores, 0)))
    return Proposed(gather(boxes, index), best)


def _of_level(
    rpn: RPN, level: Value, base_anchors: Tensor, stride: int, prepared: Prepared, cfg: Config
) -> Proposed:
    limits, graph = cfg.TEST, level.graph
    with graph.stage("rpn_head"):
        hidden = relu(layer(rpn.conv, level))
        logits, bbox_pred = layer(rpn.cls_logits, hidden), layer(rpn.bbox_pred, hidden)
    scores = reshape(transpose(graph.op("Sigmoid", logits), 0, 2, 3, 1), (-1,))
    deltas = reshape(transpose(bbox_pred, 0, 2, 3, 1), (-1, 4))
    scores, index = top(scores, _at_most(limits.RPN_PRE_NMS_TOP_N, size(scores, 0)))
    anchors = anchors_at(index, base_anchors, stride, squeeze(size(level, 3), 0))
    boxes = clip(decode(anchors, gather(deltas, index), RPN_BOX_WEIGHTS), *prepared.network_size)
    large = _large_enough(boxes, prepared, limits.RPN_MIN_SIZE)
    if limits.RPN_NMS_THRESH <= 0:
        kept = where_true(large)
    else:
        # Objectness is not below 0; what is too small is.
        ranked = chosen(large, scores, graph.const(-1, FLOAT))
        most = limits.RPN_POST_NMS_TOP_N
        _, place = suppressed(
            unsqueeze(boxes, 0),
            unsqueeze(ranked, 0),
            limits.RPN_NMS_THRESH,
            above=-0.5,
            most=ints(scores, [most]) if most > 0 else None,
        )
        kept = gather(place, ascending(place))
    return Proposed(gather(boxes, kept), gather(scores, kept))


def anchors_at(index: Value, base_anchors: Tensor, stride: int, width: Value) -> Value:
    """Anchors `[N, 4]` by their index `[N]` in the order (y, x, anchor); the map is `width []` int64 wide."""
    graph = index.graph
    position, anchor = index // len(base_anchors), index % len(base_anchors)
    x, y = graph.op("Mod", position, width), graph.op("Div", position, width)
    shifts = concat([unsqueeze(each, 1) for each in (x, y, x, y)], 1).to(FLOAT) * stride
    return gather(graph.const(base_anchors.cpu().float().numpy(), FLOAT), anchor) + shifts


def _at_most(limit: int, available: Value) -> Value:
    """`[1]` int64: the limit, or what there is; 0 and less are no limit."""
    return available if limit <= 0 else available.at_most(limit)


def _large_enough(boxes: Value, prepared: Prepared, min_size: float) -> Value:
    """`mrcnn.ops.proposals.large_enough` of `[N, 4]` boxes, `[N]`."""
    x1, y1, x2, y2 = columns(boxes)
    height, width = prepared.network_size
    least = max(min_size, 1)
    original = concat([after((x2 - x1) / prepared.scale), after((y2 - y1) / prepared.scale)], 1)
    inside = (x1 + side(x1, x2) * 0.5 < width) & (y1 + side(y1, y2) * 0.5 < height)
    return (smallest_of(original, 1, keep=False) >= least) & squeeze(inside, 1)


