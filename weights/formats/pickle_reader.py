"""Reads a Detectron pickle without unpickling it: numpy's arrays, recognised by how numpy pickles them.

Answers to Detectron utils/io.py:load_object. Reads what Python 2 wrote with protocol 2 (every published file)
and what Python 2 or 3 write with protocols 0 to 5, numpy 1 or 2.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from detectron_gn.weights.errors import FileError, ForbiddenContent, MalformedFile, UnsupportedArray
from detectron_gn.weights.files.mapped_file import MappedFile
from detectron_gn.weights.formats.checkpoint_dict import sort_out
from detectron_gn.weights.formats.pickle_values import Symbol, Text, Value, describe, unescape
from detectron_gn.weights.formats.pickle_vm import PickleVM
from detectron_gn.weights.weights_file import (
    Array,
    WeightsFile,
    array_bytes,
    check_arrays,
    element_type,
    iteration_from_name,
)


@dataclass
class _Dtype:
    """An element type; `complete` once it was given a state or an array: numpy itself would change that array too.

    `shared` is numpy's own instance, asked for with `copy` 0: it ignores a state.
    """

    code: str
    byte_order: str = "<"
    shared: bool = False
    complete: bool = False


@dataclass(eq=False)
class PickledArray:
    """An array as the pickle tells it; `content` says where its bytes are, and is None until BUILD.

    `axes`: the order in which the axes of `shape` come in the array, where it is another.
    """

    dtype: np.dtype[Any] | None = None
    big_endian: bool = False
    shape: tuple[int, ...] = ()
    fortran: bool = False
    axes: tuple[Any, ...] | None = None
    content: Text | None = None
    offset: int = 0


_EMPTY_BYTES = Text(0, 0, "plain", "bytes")


class NumpyGrammar:
    """How numpy 1 and 2 pickle arrays, dtypes and scalars, under Python 2 and 3."""

    way_out: ClassVar[str] = "do not open this file with pickle"
    symbols: ClassVar[Mapping[tuple[str, str], str]] = {
        ("numpy.core.multiarray", "_reconstruct"): "numpy _reconstruct",
        ("numpy._core.multiarray", "_reconstruct"): "numpy _reconstruct",
        ("numpy.core.multiarray", "scalar"): "numpy scalar",
        ("numpy._core.multiarray", "scalar"): "numpy scalar",
        ("numpy.core.numeric", "_frombuffer"): "numpy _frombuffer",
        ("numpy._core.numeric", "_frombuffer"): "numpy _frombuffer",
        ("numpy", "ndarray"): "numpy ndarray",
        ("numpy", "dtype"): "numpy dtype",
        ("_codecs", "encode"): "_codecs encode",
        ("__builtin__", "bytes"): "bytes",
        ("builtins", "bytes"): "bytes",
        ("collections", "OrderedDict"): "OrderedDict",
    }

    def reduce(self, machine: PickleVM, symbol: Symbol, arguments: tuple[Value, ...]) -> Value:
        match symbol.name, arguments:
            case "numpy _reconstruct", (Symbol("numpy ndarray"), (0,), Text(length=1)):
                return PickledArray(offset=machine.start_of_opcode)
            case "numpy dtype", (Text() as code, 0 | False, 0 | 1 | False | True as copy):
                return _dtype(machine.text(code), bool(copy))
            case "_codecs encode", (Text(kind="text") as text, Text() as encoding):
                if machine.text(encoding) in ("latin1", "latin-1"):
                    return Text(text.offset, text.length, text.written, "bytes")
            case "bytes", ():
                return _EMPTY_BYTES
            case "OrderedDict", ():
                return {}
            case "OrderedDict", (list() as pairs,):
                ordered: dict[str | int, Value] = {}
                machine.fill(ordered, [_pair(machine, pair) for pair in pairs])
                return ordered
            case "numpy scalar", (_Dtype() as dtype, content):
                return _array(machine, PickledArray(), (), dtype, False, content)
            case "numpy _frombuffer", (content, _Dtype() as dtype, shape, Text() as order) if (
                machine.text(order) in ("C", "F")
            ):
                return _array(machine, PickledArray(), shape, dtype, machine.text(order) == "F", content)
            case "numpy _frombuffer", (
                content,
                _Dtype() as dtype,
                tuple() as shape,
                Text() as order,
                tuple() as axes,
            ) if machine.text(order) == "K" and _is_order_of(axes, len(shape)):
                return _array(machine, PickledArray(axes=axes), shape, dtype, False, content)
        given = ", ".join(describe(argument) for argument in arguments[:8])
        raise machine.error(ForbiddenContent, f"calls {symbol.name} with ({given}), as no array is written")

    def build(self, machine: PickleVM, value: Value, state: Value) -> None:
        match value, state:
            case _Dtype(complete=False), (3, Text() as order, None, None, None, -1, -1, 0):
                if machine.text(order) not in ("<", ">", "|", "="):
                    raise machine.error(UnsupportedArray, "an element type with an unknown byte order")
                if not value.shared:
                    value.byte_order = machine.text(order)
                value.complete = True
            case PickledArray(content=None), (1, shape, _Dtype() as dtype, bool() | 0 | 1 as fortran, content):
                _array(machine, value, shape, dtype, bool(fortran), content)
            case _Dtype(), _:
                raise machine.error(UnsupportedArray, "an element type that is not a plain number")
            case _:
                raise machine.error(ForbiddenContent, f"sets the state of {describe(value)}")

    def persistent(self, machine: PickleVM, identifier: Value) -> Value:
        raise machine.error(ForbiddenContent, "refers to an object outside the file")


def read_pickle(file: MappedFile) -> WeightsFile:
    """The weights in a pickle. Arrays are new memory, little-endian, C order.

    Raises a `weights.errors.FileError` for everything that is not a dictionary of arrays of plain numbers.
    """
    machine = PickleVM(file.map, file.source, NumpyGrammar())
    layout = sort_out(machine.run(), PickledArray, machine)
    sizes = {}
    for name, array in layout.arrays.items():
        if array.dtype is None:
            raise MalformedFile(file.source, f"{name} is an array without content", array.offset)
        sizes[name] = array, array_bytes(array.shape, array.dtype.itemsize, name, file.source)
    check_arrays(sizes, file.size, file.source)
    names = {array: name for name, array in layout.arrays.items()}
    read = {array: read_array(file, name, array) for array, name in names.items()}
    blobs = {name: read[array] for name, array in layout.arrays.items()}
    iteration = layout.iteration if layout.iteration is not None else iteration_from_name(file.path.name)
    return WeightsFile(blobs, layout.cfg, iteration, file.source, "pkl", layout.left_out, layout.categories)


def _is_order_of(axes: tuple[Value, ...], count: int) -> bool:
    """Whether each of `count` axes is named once."""
    return len(axes) == count and all(type(axis) is int for axis in axes) and set(axes) == set(range(count))


def _pair(machine: PickleVM, value: Value) -> tuple[Value, Value]:
    if isinstance(value, list | tuple) and len(value) == 2:
        return value[0], value[1]
    raise machine.error(MalformedFile, "an OrderedDict of something else than pairs")


def _dtype(code: str, copy: bool) -> _Dtype:
    """`f4`, or `<f4` with the byte order in front; numpy shares an instance of its own unless it is big-endian."""
    order = code[:1] if code[:1] in ("<", ">", "|", "=") else ""
    return _Dtype(code.removeprefix(order), order or "<", shared=not copy and order != ">")


def _array(
    machine: PickleVM, array: PickledArray, shape: Value, dtype: _Dtype, fortran: bool, content: Value
) -> PickledArray:
    """Complete `array`, after checking that its shape takes exactly as many bytes as there are."""
    if not isinstance(shape, tuple):
        raise machine.error(UnsupportedArray, f"an array whose shape is {describe(shape)}")
    if not isinstance(content, Text) or content.kind == "text":
        raise machine.error(UnsupportedArray, f"an array whose content is {describe(content)}, not bytes")
    try:
        array.dtype = element_type(dtype.code, "an array", machine.source)
        declared = array_bytes(shape, array.dtype.itemsize, "an array", machine.source)
    except FileError as error:
        raise machine.error(type(error), error.cause) from None
    # Escapes only make content longer in the file, so what a decoder yields can never exceed `length`.
    if declared > content.length or (content.written == "plain" and declared != content.length):
        raise machine.error(
            UnsupportedArray, f"an array of shape {shape} takes {declared} bytes, but has {content.length}"
        )
    dtype.complete = True
    array.big_endian = dtype.byte_order == ">"
    array.shape, array.fortran, array.content = shape, fortran, content
    array.offset = machine.start_of_opcode
    return array


def read_array(file: MappedFile, name: str, array: PickledArray) -> Array:
    """Bring an array's bytes from the file into memory.

    Args:
        name: what messages call the array.
    """
    assert array.dtype is not None and array.content is not None
    wanted = array_bytes(array.shape, array.dtype.itemsize, name, file.source)
    if array.content.written == "plain":
        stored = file.array(array.content.offset, wanted)
    else:
        stored = np.empty(wanted, np.uint8)
        filled = 0
        for piece in _decoded(file, name, array.content):
            if filled + len(piece) > wanted:
                filled += len(piece)
                break
            stored[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
            filled += len(piece)
        if filled != wanted:
            raise UnsupportedArray(
                file.source, f"{name} of shape {array.shape} does not have the {wanted} bytes that takes",
                array.offset,
            )  # fmt: skip
    typed = stored.view(array.dtype.newbyteorder(">") if array.big_endian else array.dtype)
    shaped = typed.reshape(array.shape, order="F" if array.fortran else "C")
    if array.axes is not None:
        shaped = shaped.transpose(array.axes)
    return np.ascontiguousarray(shaped.astype(array.dtype, copy=False)).reshape(shaped.shape)


def _decoded(file: MappedFile, name: str, content: Text) -> Iterator[bytes]:
    """The bytes that an escaped or UTF-8 run stands for, piece by piece so that no second copy is held."""
    try:
        if content.written == "string-escape":
            rest = b""
            for chunk in file.chunks(content.offset, content.length):
                whole, rest = _split_after_escape(rest + chunk)
                yield unescape(whole)
            yield unescape(rest)
        else:
            decoder = codecs.getincrementaldecoder(content.written)()
            for chunk in file.chunks(content.offset, content.length):
                yield decoder.decode(chunk).encode("latin-1")
            yield decoder.decode(b"", final=True).encode("latin-1")
    except ValueError as error:
        cause = f"the bytes of {name} cannot be decoded: {error}"
        raise MalformedFile(file.source, cause, content.offset) from None


def _split_after_escape(text: bytes) -> tuple[bytes, bytes]:
    """Cut where no escape (`\\\\`, `\\n`, `\\xff`: up to 4 bytes) is torn in two."""
    last = text.rfind(b"\\", max(0, len(text) - 4))
    if last < 0:
        return text, b""
    run = last + 1 - len(text[: last + 1].rstrip(b"\\"))
    return (text[:last], text[last:]) if run % 2 else (text, b"")
