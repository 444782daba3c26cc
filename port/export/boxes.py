"""Box arithmetic and suppression as nodes of an ONNX graph; what `mrcnn.ops.boxes` and `mrcnn.ops.nms` compute."""

import numpy as np

from detectron_gn.mrcnn.ops.boxes import BBOX_XFORM_CLIP, BoxWeights, after, side
from detectron_gn.port.export.graph import FLOAT, INT, Number, Value
from detectron_gn.port.export.tensors import columns, concat, gather, part, reversed_along, size, squeeze, unsqueeze


def decode(boxes: Value, deltas: Value, weights: BoxWeights) -> Value:
    """`mrcnn.ops.boxes.decode_boxes` of `[..., 4]` boxes and as many deltas, or what broadcasts to them."""
    x1, y1, x2, y2 = columns(boxes)
    widths, heights = side(x1, x2), side(y1, y2)
    dx, dy, dw, dh = (delta / weight for delta, weight in zip(columns(deltas), weights, strict=True))
    x, y = dx * widths + (x1 + widths * 0.5), dy * heights + (y1 + heights * 0.5)
    half_width, half_height = (
        boxes.graph.op("Exp", delta.at_most(BBOX_XFORM_CLIP)) * length * 0.5
        for delta, length in ((dw, widths), (dh, heights))
    )
    return concat([x - half_width, y - half_height, x + half_width - 1, y + half_height - 1], -1)


def clip(boxes: Value, height: Value, width: Value) -> Value:
    """`mrcnn.ops.boxes.clip_boxes` of `[..., 4]` boxes; the sides are `[]` float32."""
    x1, y1, x2, y2 = columns(boxes)
    right, bottom = width - 1, height - 1
    clipped = [each.at_most(end) for each, end in zip((x1, y1, x2, y2), (right, bottom, right, bottom))]
    return concat(clipped, -1).at_least(0)


def areas(boxes: Value) -> Value:
    """Areas `[..., 1]` of `[..., 4]` boxes."""
    x1, y1, x2, y2 = columns(boxes)
    return side(x1, x2) * side(y1, y2)


def overlaps(boxes: Value, others: Value) -> Value:
    """Intersection over union `[..., N]` of one box `[..., 1, 4]` with `[..., N, 4]` others."""
    ours, theirs = columns(boxes), columns(others)
    width, height = (
        side(ours[near].at_least(theirs[near]), ours[far].at_most(theirs[far])).at_least(0)
        for near, far in ((0, 2), (1, 3))
    )
    shared = width * height
    return squeeze(shared / (areas(boxes) + areas(others) - shared), -1)


def suppressed(
    boxes: Value, scores: Value, threshold: float, above: Number, most: Value | None = None
) -> tuple[Value, Value]:
    """Greedy suppression within each of B lists of boxes; what stays, in no order of its own.

    Args:
        boxes: `[B, N, 4]`.
        scores: `[B, N]`.
        threshold: intersection over union; equality suppresses.
        above: what takes part scores more than this.
        most: how many of a list stay at most, `[1]` int64, the best.

    Returns:
        List and place of each, `[K]` int64.

    ONNX's operator suppresses above a threshold: the next smaller number is given. Of equal scores it takes the first,
    and Detectron the last: it is given all in reversed order.
    """
    graph = boxes.graph
    count = size(boxes, 1)
    x1, y1, x2, y2 = columns(boxes)
    # ONNX's operator measures `x2 - x1`, and the corners are inclusive.
    boxes = concat([x1, y1, after(x2), after(y2)], -1)
    found = graph.op(
        "NonMaxSuppression",
        reversed_along(boxes, 1),
        unsqueeze(reversed_along(scores, 1), 1),
        count if most is None else most.at_most(count),
        graph.const([float(np.nextafter(np.float32(threshold), np.float32(0)))], FLOAT),
        graph.const([above], FLOAT),
        dtype=INT,
    )
    which, place = (squeeze(part(found, 1, column, column + 1), 1) for column in (0, 2))
    return which, count - 1 - place


def by_index(values: Value, *index: Value) -> Value:
    """`values[index0, index1, ...]` of `[K]` indices."""
    if len(index) == 1:
        return gather(values, index[0])
    return values.graph.op("GatherND", values, concat([unsqueeze(each, 1) for each in index], 1))
