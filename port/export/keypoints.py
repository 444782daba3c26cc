"""The keypoint head, and keypoints from heatmaps, as nodes of an ONNX graph; what `mrcnn.ops.keypoints` computes."""

import numpy as np

from detectron_gn.mrcnn.heads.keypoint import KeypointHead
from detectron_gn.mrcnn.ops.keypoints import NMS_OKS_THRESHOLD, OKS_SIGMAS
from detectron_gn.port.export.boxes import areas
from detectron_gn.port.export.graph import BOOL, DOUBLE, FLOAT, INT, Graph, Value
from detectron_gn.port.export.heads import one_more, without_last
from detectron_gn.port.export.layers import layer, relu
from detectron_gn.port.export.pooling import RoiFeatures
from detectron_gn.port.export.tensors import (
    ascending,
    chosen,
    columns,
    concat,
    count_up,
    gather,
    largest_of,
    mean,
    negated,
    part,
    reshape,
    reversed_along,
    size,
    squeeze,
    total,
    transpose,
    unsqueeze,
    where_true,
)


def keypoints(head: KeypointHead, features: RoiFeatures, rois: Value, boxes: Value) -> Value:
    """Keypoints `[D, 17, 3]` of `[D, 4]` RoIs in network pixels, whose boxes in image pixels are given: x, y, logit."""
    x = features.pooled(one_more(rois), head.cfg.KRCNN, head.cfg.KRCNN.ROI_XFORM_RESOLUTION)
    x = layer(head.res5 or head.convs, x)
    if head.kps_deconv is not None:
        x = relu(layer(head.kps_deconv, x))
    x = layer(head.score, x)
    heatmaps = x if head.upsample is None else layer(head.upsample, x)
    count = head.cfg.KRCNN.NUM_KEYPOINTS
    points = _decoded(heatmaps, one_more(boxes), head.cfg.KRCNN.HEATMAP_SIZE, head.cfg.KRCNN.INFERENCE_MIN_SIZE)
    return without_last(reshape(points, (-1, count, 3)))


def dissimilar(points: Value, boxes: Value) -> Value:
    """`mrcnn.ops.keypoints.nms_oks`: numbers `[N]` of the people that stay, best mean logit first.

    Args:
        points: `[D, 17, 3]`, whose last column is the logit.
        boxes: `[D, 4]`.
    """
    graph = points.graph
    means = squeeze(mean(part(points, 2, 2, 3), 1), 1, 2)
    # Of equal ones the last is first.
    order = reversed_along(ascending(means), 0)
    points, boxes = gather(points, order), gather(boxes, order)
    distances = part(unsqueeze(points, 0), 3, 0, 2) - part(unsqueeze(points, 1), 3, 0, 2)
    squared = squeeze(total(distances * distances, 3), 3)
    variances = graph.const((OKS_SIGMAS * 2) ** 2 * 2, FLOAT)
    similarity = graph.op("Exp", -(squared / variances / unsqueeze(areas(boxes), 1)))
    too_similar = squeeze(mean(similarity, 2), 2) > NMS_OKS_THRESHOLD
    numbers = count_up(size(means, 0))

    def settle(body: Graph, number: Value, carried: list[Value]) -> tuple[None, list[Value], list[Value]]:
        (stays,) = carried
        later = body.op("Less", number, numbers, dtype=BOOL)
        goes = body.op("And", body.op("Gather", too_similar, number), body.op("Gather", stays, number)) & later
        return None, [stays & negated(goes)], []

    (stays,) = graph.loop(squeeze(size(means, 0), 0), [numbers >= 0], settle)
    return gather(order, where_true(stays))


def _decoded(heatmaps: Value, boxes: Value, side: int, min_size: int) -> Value:
    """`mrcnn.ops.keypoints.decode_heatmaps`, one person a trip of a loop: `[D, K, 3]`."""
    graph = heatmaps.graph

    def one(body: Graph, number: Value, _carried: list[Value]) -> tuple[None, list[Value], list[Value]]:
        heatmap, box = (body.op("Gather", column, number) for column in (heatmaps, boxes))
        x1, y1, x2, y2 = columns(box)
        lengths = [(x2 - x1).at_least(1), (y2 - y1).at_least(1)]
        pixels = [body.op("Ceil", length).at_least(min_size) for length in lengths]
        across, down = (_cubic(length, side) for length in pixels)
        enlarged = body.op("MatMul", body.op("MatMul", down, heatmap), transpose(across, 1, 0))
        flat = reshape(enlarged, (0, -1))
        logit = largest_of(flat, 1)
        place = body.op("ArgMax", flat, dtype=INT, axis=1, keepdims=1)
        width = pixels[0].to(INT)
        x, y = body.op("Mod", place, width), body.op("Div", place, width)
        places = [
            (at.to(FLOAT) + 0.5) * (length / many) + corner
            for at, length, many, corner in zip((x, y), lengths, pixels, (x1, y1))
        ]
        return None, [], [concat([*places, logit], 1)]

    (points,) = graph.loop(graph.op("Gather", graph.op("Shape", boxes, dtype=INT), graph.const(0, INT)), [], one)
    return points


def _cubic(length: Value, side: int) -> Value:
    """What enlarges `side` positions to `length [1]` as OpenCV's bicubic resize does: weights `[length, side]`.

    The cubic has the parameter -0.75, and the first and last position count for what lies beyond them.
    """
    graph = length.graph
    where = (count_up(length.to(INT), DOUBLE) + 0.5) * (float(side) / length.to(DOUBLE)) - 0.5
    low = graph.op("Floor", where)
    t, a = (where - low).to(FLOAT), -0.75
    u = 1.0 - t
    weights = [
        (((t + 1) * a - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a,
        ((t * (a + 2)) - (a + 3)) * t * t + 1,
        ((u * (a + 2)) - (a + 3)) * u * u + 1,
    ]
    weights.append(1.0 - weights[0] - weights[1] - weights[2])
    positions = unsqueeze(graph.op("Identity", graph.const(np.arange(side), FLOAT)), 0)
    placed = []
    for offset, weight in enumerate(weights, -1):
        at = (low.to(FLOAT) + offset).at_least(0).at_most(side - 1)
        placed.append(chosen(unsqueeze(at, 1).equal(positions), unsqueeze(weight, 1), graph.const(0, FLOAT)))
    return placed[0] + placed[1] + placed[2] + placed[3]
