"""How `torch.save` pickles tensors, parameters and state dictionaries, and the plain values beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from detectron_gn.weights.errors import FileError, ForbiddenContent, MalformedFile, UnsupportedArray
from detectron_gn.weights.formats.pickle_reader import NumpyGrammar
from detectron_gn.weights.formats.pickle_values import Symbol, Text, Value, describe
from detectron_gn.weights.formats.pickle_vm import PickleVM
from detectron_gn.weights.weights_file import array_bytes, element_type

_STORAGES = {
    "BoolStorage": "b1", "CharStorage": "i1", "ShortStorage": "i2", "IntStorage": "i4", "LongStorage": "i8",
    "ByteStorage": "u1", "HalfStorage": "f2", "FloatStorage": "f4", "DoubleStorage": "f8",
    "BFloat16Storage": "bfloat16",
}  # fmt: skip
_DTYPES = {"uint16": "u2", "uint32": "u4", "uint64": "u8"}
_OTHER_DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "float16", "bfloat16", "float32", "float64", "complex64",
    "complex128",
)  # fmt: skip
_OF_NUMPY = ("numpy scalar", "numpy dtype", "_codecs encode")


@dataclass(frozen=True)
class Storage:
    """`count` elements in the member `data/<key>`; `code` None means untyped, counted in bytes."""

    key: str
    count: int
    code: str | None

    @property
    def nbytes(self) -> int:
        return self.count * (1 if self.code is None else int(self.code[-1]))


@dataclass(frozen=True)
class Tensor:
    """A strided view of a storage: `offset` and `stride` in elements; `negative`: its elements count negated."""

    storage: Storage
    code: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    negative: bool


class TorchGrammar:
    """How torch.save writes tensors, parameters and state dictionaries.

    Beside them may stand what training scripts put there: torch.Size, torch.device, a torch.dtype, a numpy scalar.
    """

    way_out: ClassVar[str] = (
        "do not open this file with pickle; of a model, save the state_dict: torch.save(model.state_dict(), FILE)"
    )
    symbols: ClassVar[Mapping[tuple[str, str], str]] = {
        ("torch._utils", "_rebuild_tensor_v2"): "torch _rebuild_tensor_v2",
        ("torch._utils", "_rebuild_tensor_v3"): "torch _rebuild_tensor_v3",
        ("torch._utils", "_rebuild_parameter"): "torch _rebuild_parameter",
        ("torch.storage", "UntypedStorage"): "UntypedStorage",
        ("collections", "OrderedDict"): "OrderedDict",
        ("torch", "Size"): "torch.Size",
        ("torch", "device"): "torch.device",
        **{("torch", name): name for name in (*_STORAGES, *_DTYPES, *_OTHER_DTYPES)},
        **{name: symbol for name, symbol in NumpyGrammar.symbols.items() if symbol in _OF_NUMPY},
    }

    def __init__(self) -> None:
        self._numpy = NumpyGrammar()
        self._storages: dict[str, Storage] = {}

    def reduce(self, machine: PickleVM, symbol: Symbol, arguments: tuple[Value, ...]) -> Value:
        # A pattern `{}` would match any dictionary.
        match symbol.name, arguments:
            case "OrderedDict", ():
                return {}
            case "torch.Size", (tuple() as size,):
                return size
            case "torch.device", (Text() as kind, *rest) if len(rest) <= 1:
                return kind
            case "torch _rebuild_parameter", (Tensor() as tensor, bool(), hooks) if hooks == {}:
                return tensor
            case "torch _rebuild_tensor_v2", (
                Storage(code=str() as code) as storage,
                int() as offset,
                tuple() as size,
                tuple() as stride,
                bool(),
                hooks,
                *flags,
            ) if hooks == {} and len(flags) <= 1:
                return _tensor(machine, storage, code, offset, size, stride, flags)
            case "torch _rebuild_tensor_v3", (
                Storage(code=None) as storage,
                int() as offset,
                tuple() as size,
                tuple() as stride,
                bool(),
                hooks,
                Symbol(name),
                *flags,
            ) if hooks == {} and name in _DTYPES and len(flags) <= 1:
                return _tensor(machine, storage, _DTYPES[name], offset, size, stride, flags)
        if symbol.name in _OF_NUMPY:
            value = self._numpy.reduce(machine, symbol, arguments)
            return Symbol("a numpy number") if symbol.name == "numpy scalar" else value
        given = ", ".join(describe(argument) for argument in arguments[:8])
        raise machine.error(ForbiddenContent, f"calls {symbol.name} with ({given}), not as torch.save does")

    def build(self, machine: PickleVM, value: Value, state: Value) -> None:
        match value, state:
            case dict(), {"_metadata": dict()} if isinstance(state, dict) and len(state) == 1:
                return  # the version numbers that nn.Module.state_dict() carries along
        self._numpy.build(machine, value, state)

    def persistent(self, machine: PickleVM, identifier: Value) -> Value:
        match identifier:
            case (Text() as word, Symbol(name), Text() as key, Text(), int() as count) if (
                machine.text(word) == "storage" and 0 <= count < 2**62
            ):
                if name == "UntypedStorage" or name in _STORAGES:
                    storage = Storage(machine.text(key), int(count), _STORAGES.get(name))
                    # torch takes the first of the two for both.
                    if self._storages.setdefault(storage.key, storage) != storage:
                        raise machine.error(MalformedFile, "gives a storage two sizes or two element types")
                    return storage
        raise machine.error(ForbiddenContent, "refers to an object that is not a tensor's storage")


def _tensor(
    machine: PickleVM,
    storage: Storage,
    code: str,
    offset: int,
    size: tuple[Value, ...],
    stride: tuple[Value, ...],
    flags: list[Value],
) -> Tensor:
    """A tensor whose shape makes sense; whether it lies within its storage is for the reader to see."""
    sizes, steps = _whole_numbers(size), _whole_numbers(stride)
    if not len(sizes) == len(size) == len(stride) == len(steps) or isinstance(offset, bool) or offset < 0:
        raise machine.error(UnsupportedArray, "a tensor with a shape, strides or an offset that make no sense")
    try:
        dtype = element_type(code, "a tensor", machine.source)
        array_bytes(sizes, dtype.itemsize, "a tensor", machine.source)
    except FileError as error:
        raise machine.error(type(error), error.cause) from None
    return Tensor(storage, code, offset, sizes, steps, _is_negative(machine, code, flags))


def _whole_numbers(values: tuple[Value, ...]) -> tuple[int, ...]:
    return tuple(value for value in values if isinstance(value, int) and not isinstance(value, bool) and value >= 0)


def _is_negative(machine: PickleVM, code: str, flags: list[Value]) -> bool:
    """Whether the flags of a tensor say that its elements count negated, as those of `z.conj().imag`.

    Answers to torch._utils.set_tensor_metadata, which sets every flag that is named, whatever its value.
    """
    match flags:
        case [] | [None]:
            return False
        case [named] if named == {}:
            return False
        case [named] if named == {"neg": True} and code[0] in "fi":
            return True
    raise machine.error(UnsupportedArray, "a tensor with flags that change its elements, and are not supported")
