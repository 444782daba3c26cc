"""What is done with tensors of an ONNX graph everywhere: parts, shapes, order; one function an operator."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from detectron_gn.port.export.graph import BOOL, FLOAT, INT, Value

_LAST = np.iinfo(np.int64).max


def ints(like: Value, values: Sequence[int | Value]) -> Value:
    """`[N]` int64 of numbers and of values of shape `[1]`."""
    graph = like.graph
    if all(isinstance(value, int) for value in values):
        return graph.const([int(value) for value in values if isinstance(value, int)], INT)
    parts = [graph.const([value], INT) if isinstance(value, int) else value for value in values]
    return concat(parts, 0)


def size(x: Value, axis: int) -> Value:
    """`[1]` int64: how long an axis is, counted from the first."""
    return x.graph.op("Shape", x, dtype=INT, start=axis, end=axis + 1)


def reshape(x: Value, dims: Sequence[int | Value]) -> Value:
    """In another shape: 0 keeps an axis as long as it was, -1 takes what is left."""
    return x.graph.op("Reshape", x, ints(x, dims))


def transpose(x: Value, *axes: int) -> Value:
    """Axes in another order."""
    return x.graph.op("Transpose", x, perm=list(axes))


def unsqueeze(x: Value, *axes: int) -> Value:
    """With new axes of length 1."""
    return x.graph.op("Unsqueeze", x, ints(x, axes))


def squeeze(x: Value, *axes: int) -> Value:
    """Without axes of length 1."""
    return x.graph.op("Squeeze", x, ints(x, axes))


def concat(parts: Sequence[Value], axis: int) -> Value:
    """One after another along an axis."""
    return parts[0].graph.op("Concat", *parts, axis=axis)


def split(x: Value, axis: int, lengths: Sequence[int]) -> list[Value]:
    """In parts along an axis."""
    return x.graph.ops("Split", x, ints(x, lengths), dtypes=[None] * len(lengths), axis=axis)


def columns(x: Value) -> list[Value]:
    """The four coordinates of `[..., 4]` boxes, `[..., 1]` each."""
    return split(x, -1, (1, 1, 1, 1))


def part(x: Value, axis: int, start: int | Value, stop: int | Value) -> Value:
    """From `start` up to `stop` along an axis."""
    return x.graph.op("Slice", x, ints(x, [start]), ints(x, [stop]), ints(x, [axis]))


def reversed_along(x: Value, axis: int) -> Value:
    """The last first."""
    return x.graph.op("Slice", x, ints(x, [-1]), ints(x, [-_LAST]), ints(x, [axis]), ints(x, [-1]))


def gather(x: Value, index: Value, axis: int = 0) -> Value:
    """What stands at `index`, of any shape, along an axis."""
    return x.graph.op("Gather", x, index, axis=axis)


def gather_rows(x: Value, index: Value) -> Value:
    """`x[index[:, 0], index[:, 1], ...]` of an `[N, D]` index."""
    return x.graph.op("GatherND", x, index)


def where_true(mask: Value) -> Value:
    """`[N]` int64: where an `[M]` mask is true."""
    return squeeze(mask.graph.op("NonZero", mask, dtype=INT), 0)


def chosen(mask: Value, yes: Value, no: Value) -> Value:
    """`yes` where the mask is true, else `no`."""
    return mask.graph.op("Where", mask, yes, no, dtype=yes.dtype)


def top(x: Value, count: Value, largest: bool = True) -> tuple[Value, Value]:
    """The `count [1]` largest of `[N]`, or smallest, in order, and where they stand; of equal ones the first first."""
    values, index = x.graph.ops("TopK", x, count, dtypes=[None, INT], axis=0, largest=int(largest), sorted=1)
    return values, index


def ascending(x: Value) -> Value:
    """`[N]` int64: where the values of `[N]` stand, the smallest first."""
    return top(x, size(x, 0), largest=False)[1]


def largest_of(x: Value, axis: int, keep: bool = True) -> Value:
    """The largest along an axis."""
    return x.graph.op("ReduceMax", x, axes=[axis], keepdims=int(keep))


def smallest_of(x: Value, axis: int, keep: bool = True) -> Value:
    """The smallest along an axis."""
    return x.graph.op("ReduceMin", x, axes=[axis], keepdims=int(keep))


def total(x: Value, axis: int, keep: bool = True) -> Value:
    """The sum along an axis."""
    return x.graph.op("ReduceSum", x, ints(x, [axis]), keepdims=int(keep))


def mean(x: Value, axis: int, keep: bool = True) -> Value:
    """The mean along an axis."""
    return x.graph.op("ReduceMean", x, axes=[axis], keepdims=int(keep))


def count_up(length: Value, dtype: np.dtype[Any] = INT) -> Value:
    """`[length]`: 0, 1, 2, ...; `length` is `[1]` int64."""
    graph = length.graph
    return graph.op("Range", graph.const(0, INT), squeeze(length, 0), graph.const(1, INT)).to(dtype)


def filled(length: Value, value: float, dtype: np.dtype[Any] = FLOAT) -> Value:
    """`[length]` of one value; `length` is `[1]` int64."""
    return length.graph.op("Expand", length.graph.const([value], dtype), length, dtype=dtype)


def negated(mask: Value) -> Value:
    """True where the mask is not."""
    return mask.graph.op("Not", mask, dtype=BOOL)
