"""Weights as PyTorch's `.pth`: written by `torch.save`, read without torch by the data-only pickle machine.

The archive's `data.pkl` names tensors and where they lie; the members `data/N` hold their bytes. Nothing is
handed to `torch.load`, so that reading is as safe under any installed torch. What is written,
`torch.load(path, weights_only=True)` opens: `{'blobs': {name: tensor}, 'cfg': text, 'iteration': int}`.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from detectron_gn.weights.errors import (
    FileError,
    ForbiddenContent,
    MalformedFile,
    OverBudget,
    TruncatedFile,
    UnsupportedArray,
)
from detectron_gn.weights.files.atomic import replacing
from detectron_gn.weights.files.mapped_file import MappedFile
from detectron_gn.weights.formats.checkpoint_dict import sort_out
from detectron_gn.weights.formats.pickle_values import Symbol, Text, Value, describe
from detectron_gn.weights.formats.pickle_vm import PickleVM
from detectron_gn.weights.formats.zip_members import zip_members
from detectron_gn.weights.weights_file import (
    Array,
    WeightsFile,
    array_bytes,
    check_total_bytes,
    element_type,
)

_STORAGES = {
    "BoolStorage": "b1", "CharStorage": "i1", "ShortStorage": "i2", "IntStorage": "i4", "LongStorage": "i8",
    "ByteStorage": "u1", "HalfStorage": "f2", "FloatStorage": "f4", "DoubleStorage": "f8",
    "BFloat16Storage": "bfloat16",
}  # fmt: skip
_DTYPES = {"uint16": "u2", "uint32": "u4", "uint64": "u8"}


def write_torch(path: Path, weights: WeightsFile) -> None:
    """Write `weights` to `path`; raises WriteFailed, with nothing left behind, where that is not possible."""
    import torch  # here, not above: only writing needs it, and it takes a second to import

    # PyTorch warns of arrays that may not be written to, so those are copied.
    writable = {name: np.require(array, None, "W") for name, array in weights.blobs.items()}
    content: dict[str, object] = {"blobs": {name: torch.from_numpy(writable[name]) for name in writable}}
    if weights.cfg is not None:
        content["cfg"] = weights.cfg
    if weights.iteration is not None:
        content["iteration"] = weights.iteration
    with replacing(path) as temporary, open(temporary, "wb") as handle:
        try:
            torch.save(content, handle)
        except RuntimeError as error:
            # A write that the system refuses leaves torch's archive at an unexpected place, which it reports instead.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def read_torch(file: MappedFile) -> WeightsFile:
    """The weights in a `.pth` of `{'blobs': ...}` or of a plain dictionary of tensors.

    Raises a `weights.errors.FileError` for everything else.
    """
    archive = _Archive(file)
    machine = PickleVM(archive.read("data.pkl").tobytes(), f"{file.source}, data.pkl", _TorchGrammar())
    layout = sort_out(machine.run(), _Tensor, machine)
    total = 0
    for name, tensor in layout.arrays.items():
        _check_bounds(tensor, name, file.source)
        total += array_bytes(tensor.size, int(tensor.code[-1]), name, file.source)
    check_total_bytes(total, file.size, file.source)
    storages: dict[str, NDArray[np.uint8]] = {}
    blobs: dict[str, Array] = {}
    for name, tensor in layout.arrays.items():
        dtype = element_type(tensor.code, name, file.source)
        key = tensor.storage.key
        if key not in storages:
            storages[key] = archive.read(f"data/{key}")
        if storages[key].size != tensor.storage.count * tensor.storage.item_size:
            raise MalformedFile(file.source, f"the member data/{key} is not of the size of {name}")
        elements = storages[key].view(dtype)[tensor.offset :]
        strides = tuple(step * dtype.itemsize for step in tensor.stride)
        strided = np.lib.stride_tricks.as_strided(elements, tensor.size, strides)
        blobs[name] = np.require(strided, requirements="C")
    return WeightsFile(blobs, layout.cfg, layout.iteration, file.source, "pth", layout.left_out)


@dataclass(frozen=True)
class _Storage:
    """`count` elements in the member `data/<key>`; `code` None means untyped, counted in bytes."""

    key: str
    count: int
    code: str | None

    @property
    def item_size(self) -> int:
        return 1 if self.code is None else int(self.code[-1])


@dataclass(frozen=True)
class _Tensor:
    """A strided view of a storage: `offset` and `stride` in elements."""

    storage: _Storage
    code: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _TorchGrammar:
    """How torch.save writes tensors, parameters and state dictionaries."""

    symbols: ClassVar[Mapping[tuple[str, str], str]] = {
        ("torch._utils", "_rebuild_tensor_v2"): "torch _rebuild_tensor_v2",
        ("torch._utils", "_rebuild_tensor_v3"): "torch _rebuild_tensor_v3",
        ("torch._utils", "_rebuild_parameter"): "torch _rebuild_parameter",
        ("torch.storage", "UntypedStorage"): "UntypedStorage",
        ("collections", "OrderedDict"): "OrderedDict",
        **{("torch", name): name for name in (*_STORAGES, *_DTYPES)},
    }

    def reduce(self, machine: PickleVM, symbol: Symbol, arguments: tuple[Value, ...]) -> Value:
        match symbol.name, arguments:
            case "OrderedDict", ():
                return {}
            case "torch _rebuild_parameter", (_Tensor() as tensor, bool(), {}):
                return tensor
            case "torch _rebuild_tensor_v2", (
                _Storage(code=str() as code) as storage,
                int() as offset,
                tuple() as size,
                tuple() as stride,
                *rest,
            ) if _harmless(rest):
                return self._tensor(machine, storage, code, offset, size, stride)
            case "torch _rebuild_tensor_v3", (
                _Storage(code=None) as storage,
                int() as offset,
                tuple() as size,
                tuple() as stride,
                bool(),
                {},
                Symbol(name),
            ) if name in _DTYPES:
                return self._tensor(machine, storage, _DTYPES[name], offset, size, stride)
        given = ", ".join(describe(argument) for argument in arguments[:8])
        raise machine.error(ForbiddenContent, f"calls {symbol.name} with ({given}), not as torch.save does")

    def build(self, machine: PickleVM, value: Value, state: Value) -> None:
        match value, state:
            case dict(), {"_metadata": dict()} if isinstance(state, dict) and len(state) == 1:
                return  # the version numbers that nn.Module.state_dict() carries along
        raise machine.error(ForbiddenContent, f"sets the state of {describe(value)}")

    def persistent(self, machine: PickleVM, identifier: Value) -> Value:
        match identifier:
            case (Text() as word, Symbol(name), Text() as key, Text(), int() as count) if (
                machine.text(word) == "storage" and 0 <= count < 2**62
            ):
                if name == "UntypedStorage" or name in _STORAGES:
                    return _Storage(machine.text(key), count, _STORAGES.get(name))
        raise machine.error(ForbiddenContent, "refers to an object that is not a tensor's storage")

    def _tensor(
        self, machine: PickleVM, storage: _Storage, code: str, offset: int, size: Value, stride: Value
    ) -> _Tensor:
        try:
            dtype = element_type(code, "a tensor", machine.source)
            assert isinstance(size, tuple) and isinstance(stride, tuple)
            array_bytes(size, dtype.itemsize, "a tensor", machine.source)
            array_bytes(stride, 1, "the strides of a tensor", machine.source)
        except FileError as error:
            raise machine.error(type(error), error.cause) from None
        return _Tensor(storage, code, offset, size, stride)


def _harmless(rest: list[Value]) -> bool:
    """requires_grad, no backward hooks, and, from newer versions, None for metadata."""
    match rest:
        case (bool(), {}) | (bool(), {}, None | {}):
            return rest[1] == {}
    return False


def _check_bounds(tensor: _Tensor, name: str, source: str) -> None:
    """A tensor's last element must lie within its storage."""
    item_size = int(tensor.code[-1])
    available = tensor.storage.count * tensor.storage.item_size // item_size
    reach = sum((size - 1) * step for size, step in zip(tensor.size, tensor.stride, strict=False))
    if len(tensor.size) != len(tensor.stride) or tensor.offset < 0:
        raise UnsupportedArray(source, f"{name} has strides that do not fit its shape")
    if (0 not in tensor.size and tensor.offset + reach >= available) or tensor.offset > available:
        raise UnsupportedArray(source, f"{name} reaches beyond the end of its storage")


class _Archive:
    """The members of PyTorch's zip file: stored without compression, each once, none encrypted.

    Raises MalformedFile, TruncatedFile, OverBudget or ForbiddenContent for every other kind of zip file.
    """

    def __init__(self, file: MappedFile) -> None:
        self._file = file
        members = zip_members(file)
        if sum(member.file_size for member in members) > file.size:
            raise OverBudget(file.source, "its members claim to be larger than it (a zip bomb)")
        names = [member.filename for member in members]
        folder = next((name[: -len("data.pkl")] for name in names if name.endswith("data.pkl")), "")
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in members:
            name = member.filename.removeprefix(folder)
            if ".." in name.split("/") or name.startswith("/"):
                raise ForbiddenContent(file.source, f"has a member that points elsewhere: {ascii(name)[:80]}")
            if name in self._members:
                raise MalformedFile(file.source, f"has two members named {ascii(name)[:80]}")
            if member.flag_bits & 1 or member.compress_type != zipfile.ZIP_STORED:
                raise MalformedFile(file.source, f"its member {ascii(name)[:80]} is encrypted or compressed")
            self._members[name] = member
        if "byteorder" in self._members and self.read("byteorder").tobytes() != b"little":
            raise UnsupportedArray(file.source, "was written on a big-endian machine")

    def read(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a member, `[N]` uint8, after its checksum was found right."""
        file = self._file
        member = self._members.get(name)
        if member is None:
            raise MalformedFile(file.source, f"has no member {ascii(name)[:80]}")
        header = bytes(file.map[member.header_offset : member.header_offset + 30])
        name_size, extra_size = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        name_start = member.header_offset + 30
        start = name_start + name_size + extra_size
        stored_name = bytes(file.map[name_start : name_start + name_size])
        if header[:4] != b"PK\x03\x04" or stored_name != member.orig_filename.encode():
            raise MalformedFile(file.source, f"its directory is wrong about {ascii(name)[:80]}")
        if start + member.file_size > file.size or member.file_size != member.compress_size:
            raise TruncatedFile(file.source, f"its member {ascii(name)[:80]} runs past the end of the file")
        content = file.array(start, member.file_size)
        if zlib.crc32(content.data) != member.CRC:
            raise MalformedFile(file.source, f"the checksum of {ascii(name)[:80]} is wrong; copy it again")
        return content
