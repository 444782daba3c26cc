"""How heads pool their RoIs, as nodes of an ONNX graph; what `mrcnn.ops.pool_rois` computes."""

import math
from collections.abc import Sequence

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.config.schema import FastRcnn, Krcnn, Mrcnn
from detectron_gn.port.export.boxes import areas
from detectron_gn.port.export.graph import INT, Value
from detectron_gn.port.export.tensors import ascending, concat, filled, gather, part, size, squeeze, where_true

Pooling = FastRcnn | Mrcnn | Krcnn


class RoiFeatures:
    """The feature maps that heads pool from.

    Args:
        maps: `[1, C, H, W]` each, finest first.
        strides: of each.
    """

    def __init__(self, maps: Sequence[Value], strides: Sequence[int], cfg: Config) -> None:
        self._maps, self._strides, self._cfg = list(maps), list(strides), cfg

    def pooled(self, boxes: Value, pooling: Pooling, resolution: int) -> Value:
        """The features `[R, C, S, S]` of `[R, 4]` boxes in network pixels."""
        if not self._cfg.FPN.FPN_ON:
            return _pooled(self._maps[0], self._strides[0], boxes, pooling, resolution)
        levels = roi_levels(boxes, self._cfg)
        parts, rows = [], []
        for number in range(self._cfg.FPN.ROI_MIN_LEVEL, self._cfg.FPN.ROI_MAX_LEVEL + 1):
            of_level = where_true(levels.equal(number))
            of_stride = self._maps[self._strides.index(2**number)]
            parts.append(_pooled(of_stride, 2**number, gather(boxes, of_level), pooling, resolution))
            rows.append(of_level)
        return gather(concat(parts, 0), ascending(concat(rows, 0)))


def roi_levels(boxes: Value, cfg: Config) -> Value:
    """`mrcnn.ops.roi_levels.roi_levels` of `[R, 4]` boxes: `[R]` int64."""
    graph, fpn = boxes.graph, cfg.FPN
    scale = graph.op("Sqrt", areas(boxes).at_least(0)) / fpn.ROI_CANONICAL_SCALE
    exact = graph.op("Log", scale + 1e-6) * (1 / math.log(2)) + fpn.ROI_CANONICAL_LEVEL
    levels = graph.op("Floor", exact).at_least(fpn.ROI_MIN_LEVEL).at_most(fpn.ROI_MAX_LEVEL)
    return squeeze(levels, 1).to(INT)


def _pooled(features: Value, stride: int, boxes: Value, pooling: Pooling, resolution: int) -> Value:
    """RoIAlign without the half-pixel shift, or max pooling, of RoIs on one map."""
    graph = features.graph
    if pooling.ROI_XFORM_METHOD == "RoIPoolF":
        rois = concat([_image_column(boxes), boxes], 1)
        return graph.op(
            "MaxRoiPool", features, rois, pooled_shape=[resolution, resolution], spatial_scale=1.0 / stride
        )
    return graph.op(
        "RoiAlign",
        features,
        boxes,
        filled(size(boxes, 0), 0, INT),
        coordinate_transformation_mode="output_half_pixel",
        mode="avg",
        output_height=resolution,
        output_width=resolution,
        sampling_ratio=pooling.ROI_XFORM_SAMPLING_RATIO,
        spatial_scale=1.0 / stride,
    )


def _image_column(boxes: Value) -> Value:
    """`[R, 1]` zeros: the image of each RoI."""
    return part(boxes, 1, 0, 1) * 0.0


