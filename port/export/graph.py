"""An ONNX graph in the making: nodes, constants and weights, and values that can be calculated with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

Number = int | float | bool
Array = npt.NDArray[Any]
Dim = str | int

# RoiAlign knows its half-pixel shift since 16; ONNX Runtime 1.13, OpenVINO 2023 and TensorRT 8.6 know all of 17.
OPSET = 17
IR_VERSION = 8

FLOAT, DOUBLE, INT, BOOL = (np.dtype(kind) for kind in (np.float32, np.float64, np.int64, np.bool_))


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the graph, of a type that is known; its shape is not.

    Arithmetic makes nodes. A number beside a value is a constant of the value's type.
    """

    graph: Graph
    name: str
    dtype: np.dtype[Any]

    def _with(self, kind: str, other: Value | Number, dtype: np.dtype[Any] | None = None) -> Value:
        return self.graph.op(kind, self, self.like(other), dtype=dtype)

    def _from(self, kind: str, other: Number) -> Value:
        return self.graph.op(kind, self.like(other), self)

    def like(self, other: Value | Number) -> Value:
        """A number as a constant of this type; a value as it is."""
        return other if isinstance(other, Value) else self.graph.const(other, self.dtype)

    def __add__(self, other: Value | Number) -> Value:
        return self._with("Add", other)

    def __sub__(self, other: Value | Number) -> Value:
        return self._with("Sub", other)

    def __rsub__(self, other: Number) -> Value:
        return self._from("Sub", other)

    def __mul__(self, other: Value | Number) -> Value:
        return self._with("Mul", other)

    def __truediv__(self, other: Value | Number) -> Value:
        return self._with("Div", other)

    def __rtruediv__(self, other: Number) -> Value:
        return self._from("Div", other)

    def __floordiv__(self, other: int) -> Value:
        """Of whole numbers that are not negative."""
        return self._with("Div", other)

    def __mod__(self, other: int) -> Value:
        """Of whole numbers that are not negative."""
        return self._with("Mod", other)

    def __neg__(self) -> Value:
        return self.graph.op("Neg", self)

    def __and__(self, other: Value) -> Value:
        return self._with("And", other)

    def __gt__(self, other: Value | Number) -> Value:
        return self._with("Greater", other, BOOL)

    def __ge__(self, other: Value | Number) -> Value:
        return self._with("GreaterOrEqual", other, BOOL)

    def __lt__(self, other: Value | Number) -> Value:
        return self._with("Less", other, BOOL)

    def equal(self, other: Value | Number) -> Value:
        """Where both are equal."""
        return self._with("Equal", other, BOOL)

    def at_least(self, other: Value | Number) -> Value:
        """The larger of both."""
        return self._with("Max", other)

    def at_most(self, other: Value | Number) -> Value:
        """The smaller of both."""
        return self._with("Min", other)

    def to(self, dtype: np.dtype[Any]) -> Value:
        """The same in another type."""
        if dtype == self.dtype:
            return self
        return self.graph.op("Cast", self, dtype=dtype, to=helper.np_dtype_to_tensor_dtype(dtype))


@dataclass(eq=False)
class Graph:
    """Nodes in the order in which they were asked for.

    Args:
        blobs: what a parameter is called in a Detectron file, by the `id` of the parameter.
    """

    blobs: Mapping[int, str] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    parent: Graph | None = None
    _count: int = 0
    _stage: str = ""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """While this context is open, nodes are called after a stage of the network, as profiles show them."""
        root = self.root
        around, root._stage = root._stage, f"{name}/"
        try:
            yield
        finally:
            root._stage = around

    def input(self, name: str, dtype: np.dtype[Any], shape: Sequence[Dim]) -> Value:
        """An input of the graph."""
        self.inputs.append(_described(name, dtype, shape))
        return Value(self, name, dtype)

    def optional_input(self, name: str, default: Array) -> Value:
        """An input that has a value where it is left out."""
        value = self.input(name, default.dtype, default.shape)
        self._initializer(default, name)
        return value

    def output(self, value: Value, name: str, shape: Sequence[Dim] | None) -> None:
        """Make a value an output of the graph, under a name."""
        self.op("Identity", value, name=name)
        self.outputs.append(_described(name, value.dtype, shape))

    def op(
        self,
        kind: str,
        *inputs: Value | None,
        dtype: np.dtype[Any] | None = None,
        name: str | None = None,
        **attributes: Any,
    ) -> Value:
        """A node of one output.

        Args:
            inputs: None for an input that is left out.
            dtype: of the output; that of the first input where left out.
            name: of the output.
        """
        (value,) = self.ops(kind, *inputs, dtypes=[dtype], names=[name], **attributes)
        return value

    def ops(
        self,
        kind: str,
        *inputs: Value | None,
        dtypes: Sequence[np.dtype[Any] | None],
        names: Sequence[str | None] | None = None,
        **attributes: Any,
    ) -> list[Value]:
        """A node of as many outputs as there are `dtypes`."""
        first = inputs[0]
        assert all(value is None or value.graph in self._seen() for value in inputs), "a value of a graph inside"
        made = [
            Value(self, name or self._unused(kind), dtype or cast(Value, first).dtype)
            for dtype, name in zip(dtypes, names or [None] * len(dtypes), strict=True)
        ]
        given = ["" if value is None else value.name for value in inputs]
        self.nodes.append(helper.make_node(kind, given, [value.name for value in made], made[0].name, **attributes))
        return made

    def const(self, value: Number | Sequence[Any] | Array, dtype: np.dtype[Any]) -> Value:
        """A constant; equal ones are one."""
        array = np.asarray(value, dtype=dtype)
        if self.parent is not None:
            return Value(self, self.root.const(array, dtype).name, dtype)
        name = f"const_{array.dtype}_{list(array.shape)}_{array.tobytes().hex()}" if array.size <= 8 else None
        return Value(self, self._initializer(array, name or self._unused("const")), dtype)

    def weight(self, tensor: Tensor, shape: Sequence[int] | None = None) -> Value:
        """A parameter under the name of its blob; in another shape under that name and the shape."""
        array = tensor.detach().cpu().float().numpy()
        name = self.root.blobs.get(id(tensor)) or self._unused("weight")
        if shape is not None and tuple(shape) != array.shape:
            array = array.reshape(shape)
            name = f"{name}:{'x'.join(map(str, shape))}"
        return Value(self, self.root._initializer(array, name), FLOAT)

    @property
    def root(self) -> Graph:
        """The graph of the model, which all weights and constants are kept in."""
        return self if self.parent is None else self.parent.root

    def loop(
        self,
        trips: Value,
        carried: Sequence[Value],
        body: Callable[[Graph, Value, list[Value]], tuple[Value | None, list[Value], list[Value]]],
    ) -> list[Value]:
        """Run a body until it says no more, or `trips []` int64 times.

        Args:
            carried: values at the beginning.
            body: from a graph of its own, the number of the trip and the carried values to: whether there is another
                trip (None: always), the carried values, and what is collected, one row a trip.

        Returns:
            The carried values at the end, then what was collected, `[trips, ...]` each.
        """
        inner = Graph(parent=self)
        number = inner.input(inner._unused("trip"), INT, ())
        goes_on = inner.input(inner._unused("goes_on"), BOOL, ())
        names = [inner._unused("carried") for _ in carried]
        begun = [Value(inner, name, value.dtype) for name, value in zip(names, carried, strict=True)]
        inner.inputs += [_described(value.name, value.dtype, None) for value in begun]
        again, ended, collected = body(inner, number, begun)
        results = [again or goes_on, *ended, *collected]
        for value in results:
            # An output may not be an input, nor a value of the outer graph.
            same = inner.op("Identity", value)
            inner.outputs.append(_described(same.name, same.dtype, None))
        made = helper.make_graph(inner.nodes, self._unused("body"), inner.inputs, inner.outputs)
        dtypes: list[np.dtype[Any] | None] = [value.dtype for value in results[1:]]
        return self.ops("Loop", trips, self.const(True, BOOL), *carried, dtypes=dtypes, body=made)

    def model(self, name: str, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """The graph as a file holds it."""
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, list(self.initializers.values()))
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        made.producer_name = "detectron-gn"
        helper.set_model_props(made, dict(metadata))
        return made

    def _seen(self) -> list[Graph]:
        """The graphs whose values can be read here: this one and those around it."""
        return [self] if self.parent is None else [self, *self.parent._seen()]

    def _initializer(self, array: Array, name: str) -> str:
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        return name

    def _unused(self, kind: str) -> str:
        root = self.root
        root._count += 1
        return f"{root._stage}{kind}_{root._count}"


def _described(name: str, dtype: np.dtype[Any], shape: Sequence[Dim] | None) -> onnx.ValueInfoProto:
    element = helper.np_dtype_to_tensor_dtype(dtype)
    assert element != TensorProto.UNDEFINED
    return helper.make_tensor_value_info(name, element, None if shape is None else list(shape))
