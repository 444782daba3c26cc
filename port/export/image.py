"""From an image to the network's input, inside the graph; answers to Detectron utils/blob.py and OpenCV's resize."""

from typing import NamedTuple

import numpy as np

from detectron_gn.mrcnn.config import Config, padding_stride
from detectron_gn.port.export.graph import DOUBLE, FLOAT, INT, Graph, Value
from detectron_gn.port.export.tensors import (
    chosen,
    count_up,
    gather,
    ints,
    reshape,
    size,
    squeeze,
    transpose,
    unsqueeze,
)


class Prepared(NamedTuple):
    """The network's input and what boxes are scaled and clipped with.

    Attributes:
        data: `[1, 3, H, W]` float32.
        scale: `[]` float32, network pixels per image pixel.
        network_size: height and width that proposals are clipped to, `[]` float32 each.
        image_size: height and width of the image as it was read, `[]` float32 each.
    """

    data: Value
    scale: Value
    network_size: tuple[Value, Value]
    image_size: tuple[Value, Value]


def image_input(graph: Graph, cfg: Config) -> Prepared:
    """The input `image [height, width, 3]` uint8 BGR, prepared as `mrcnn.data.image_blob.prepare_image` does."""
    image = graph.input("image", np.dtype(np.uint8), ("height", "width", 3))
    with graph.stage("image"):
        return _prepared(image, cfg)


def _prepared(image: Value, cfg: Config) -> Prepared:
    height, width = (squeeze(size(image, axis), 0) for axis in (0, 1))
    scale = _scale(height.to(DOUBLE), width.to(DOUBLE), cfg.TEST.SCALE, cfg.TEST.MAX_SIZE)
    rows, row_weights = _samples(height, scale)
    across, across_weights = _samples(width, scale)
    # OpenCV mixes columns first, then rows.
    pixels = _mixed(_centered(image, cfg.PIXEL_MEANS), across, across_weights, axis=1)
    pixels = _mixed(pixels, rows, row_weights, axis=0)
    data = unsqueeze(transpose(pixels, 2, 0, 1), 0)
    data, sides = _padded(data, padding_stride(cfg))
    return Prepared(data, scale.to(FLOAT), sides, (height.to(FLOAT), width.to(FLOAT)))


def blob_input(graph: Graph) -> Prepared:
    """The inputs `data`, `im_info` and `image_size`, for those who prepare images themselves.

    `data [1, 3, H, W]` is the padded blob, `im_info [1, 3]` (height, width, scale) as Detectron's nets have it at test
    time: of the padded blob. `image_size [2]` is the image's own height and width; left out, or 0, it is what `im_info`
    makes of it, which is larger where the blob is padded.
    """
    data = graph.input("data", FLOAT, (1, 3, "height", "width"))
    im_info = graph.input("im_info", FLOAT, (1, 3))
    image_size = graph.optional_input("image_size", np.zeros(2, np.float32))
    height, width, scale = (gather(squeeze(im_info, 0), graph.const(number, INT)) for number in range(3))
    own = [gather(image_size, graph.const(number, INT)) for number in range(2)]
    sides = [chosen(given > 0, given, side / scale) for given, side in zip(own, (height, width), strict=True)]
    return Prepared(data, scale, (height, width), (sides[0], sides[1]))


def _scale(height: Value, width: Value, target: int, limit: int) -> Value:
    """`image_blob.image_scale` of float64 sides."""
    shorter, longer = height.at_most(width), height.at_least(width)
    scale = float(target) / shorter
    too_long = height.graph.op("Round", scale * longer) > float(limit)
    return chosen(too_long, float(limit) / longer, scale)


def _samples(length: Value, scale: Value) -> tuple[tuple[Value, Value], tuple[Value, Value]]:
    """Where each position of a scaled side reads the side: two places `[N]` int64, and their weights `[N]` float32.

    Args:
        length: `[]` int64, of the side in the image.
        scale: `[]` float64.
    """
    graph = length.graph
    count = graph.op("Round", length.to(DOUBLE) * scale).to(INT)
    where = (count_up(unsqueeze(count, 0), DOUBLE) + 0.5) * (1.0 / scale) - 0.5
    low = graph.op("Floor", where)
    # As in OpenCV, places are in float64 and only their weights in float32.
    weight = (where - low).to(FLOAT)
    first = low.to(INT)
    last = length - 1
    # Beyond the first and the last position there is nothing to mix with.
    outside = graph.op("Or", first < 0, first >= last)
    weight = chosen(outside, graph.const(0, FLOAT), weight)
    first = first.at_least(0).at_most(last)
    return (first, (first + 1).at_most(last)), (1.0 - weight, weight)


def _centered(image: Value, means: tuple[float, float, float]) -> Value:
    """`[H, W, 3]` uint8 to float32 without the mean colour, of a table with the 256 values of each channel."""
    graph = image.graph
    table = (np.arange(256, dtype=np.float64) - np.asarray(means)[:, None]).astype(np.float32)
    return gather(graph.const(table.reshape(-1), FLOAT), image.to(INT) + graph.const([0, 256, 512], INT))


def _mixed(pixels: Value, places: tuple[Value, Value], weights: tuple[Value, Value], axis: int) -> Value:
    """Weighted sums of two places of an axis, for each of the wanted ones."""
    shape = (-1, 1, 1) if axis == 0 else (-1, 1)
    near, far = (gather(pixels, place, axis) * reshape(weight, shape) for place, weight in zip(places, weights))
    return near + far


def _padded(data: Value, stride: int) -> tuple[Value, tuple[Value, Value]]:
    """`[1, 3, H, W]` with zeros to the right and below up to multiples of a stride, and its sides."""
    sides = [size(data, axis) for axis in (2, 3)]
    full = [(side + (stride - 1)) // stride * stride for side in sides]
    if stride > 1:
        missing = [end - side for end, side in zip(full, sides, strict=True)]
        data = data.graph.op("Pad", data, ints(data, [0, 0, 0, 0, 0, 0, *missing]))
    height, width = (squeeze(side, 0).to(FLOAT) for side in full)
    return data, (height, width)


