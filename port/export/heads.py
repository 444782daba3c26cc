"""The heads of boxes and masks as nodes of an ONNX graph; answers to `mrcnn.heads`.

Every head is run on one RoI more than there are and its output thrown away, so that no tensor is ever empty: runtimes
differ in what they do with convolutions of nothing.
"""

from detectron_gn.mrcnn.heads.box import BoxHead
from detectron_gn.mrcnn.heads.mask import MaskHead
from detectron_gn.mrcnn.layers import FilledLinear
from detectron_gn.port.export.graph import FLOAT, INT, Value
from detectron_gn.port.export.layers import layer, relu
from detectron_gn.port.export.pooling import RoiFeatures
from detectron_gn.port.export.tensors import (
    concat,
    gather,
    part,
    reshape,
    unsqueeze,
)


def box_outputs(head: BoxHead, features: RoiFeatures, rois: Value) -> tuple[Value, Value]:
    """Class logits `[R, K]` and box deltas `[R, 4B]` of `[R, 4]` RoIs in network pixels."""
    x = features.pooled(one_more(rois), head.cfg.FAST_RCNN, head.side)
    if head.res5 is not None:
        x = layer(head.res5, x)
        x = x.graph.op("AveragePool", x, kernel_shape=[7, 7])
    else:
        x = layer(head.convs, x)
    x = x.graph.op("Flatten", x)
    for connected in (head.fc6, head.fc7):
        if connected is not None:
            x = relu(layer(connected, x))
    return without_last(layer(head.cls_score, x)), without_last(layer(head.bbox_pred, x))


def mask_probabilities(head: MaskHead, features: RoiFeatures, rois: Value, classes: Value) -> Value:
    """Soft masks `[D, M, M]` of `[D, 4]` RoIs in network pixels, for the class `[D]` of each."""
    x = features.pooled(one_more(rois), head.cfg.MRCNN, head.cfg.MRCNN.ROI_XFORM_RESOLUTION)
    x = relu(layer(head.conv5_mask, layer(head.trunk, x)))
    graph, side = x.graph, head.cfg.MRCNN.RESOLUTION
    channels = concat([classes, graph.const([0], INT)], 0).at_most(head.num_classes - 1)
    last = head.mask_fcn_logits
    if isinstance(last, FilledLinear):
        every = reshape(layer(last, graph.op("Flatten", x)), (-1, head.num_classes, side, side))
        logits = _of_channels(every, channels)
    elif head.mask_fcn_logits_up is not None:
        logits = _of_channels(layer(head.mask_fcn_logits_up, layer(last, x)), channels)
    else:
        # Of all classes' maps only the one is computed: its row of the weight times all positions.
        assert last.bias is not None
        weight = gather(graph.weight(last.weight, (head.num_classes, 1, last.in_channels)), channels)
        bias = gather(graph.weight(last.bias, (head.num_classes, 1, 1)), channels)
        rows = graph.op("MatMul", weight, reshape(x, (0, 0, -1))) + bias
        logits = reshape(rows, (-1, side, side))
    return without_last(graph.op("Sigmoid", logits))


def _of_channels(every: Value, channels: Value) -> Value:
    """The one map `[R, M, M]` of `[R, K, M, M]` that `channels [R]` says."""
    return every.graph.op("GatherND", every, unsqueeze(channels, 1), batch_dims=1)


def one_more(boxes: Value) -> Value:
    """`[R, 4]` boxes and one that is not looked at."""
    return concat([boxes, boxes.graph.const([[0, 0, 1, 1]], FLOAT)], 0)


def without_last(x: Value) -> Value:
    """What was made of `one_more`, for the boxes that there are."""
    return part(x, 0, 0, -1)
