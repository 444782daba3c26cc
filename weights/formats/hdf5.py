"""Weights as HDF5: one dataset per blob at the root; attributes `cfg`, `iteration`, `categories`,
`source`, `sha256`, `order`.

Written with h5py. Read here, as data, in the flat subset that h5py writes by default. Chunked and compressed datasets
are not read; the error gives the command that rewrites such a file.

Why no library reads them: the HDF5 library loops for ever or fills the memory on damaged files, and follows links and
plugins. pyfive 1.3.0, which is pure Python, never hung on 1,500 damaged files, but 7 of them made it ask for more than
3 GiB, and its errors are of ten kinds that do not say where. It also follows links within the file, and reads a dataset
whose bytes are in another file as zeros instead of refusing.

The structures are named as in the HDF5 File Format Specification, version 3.0, which says what each number below is.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from detectron_gn.weights.categories import CATEGORIES, categories_or_reason, categories_text
from detectron_gn.weights.errors import ForbiddenContent, MalformedFile, OverBudget, TruncatedFile, UnsupportedArray
from detectron_gn.weights.files.atomic import replacing
from detectron_gn.weights.files.mapped_file import MappedFile
from detectron_gn.weights.formats.hdf5_image import Hdf5Image, add_dataset
from detectron_gn.weights.limits import MAX_ATTRIBUTE_BYTES, MAX_BLOCKS, MAX_NAME_BYTES
from detectron_gn.weights.weights_file import (
    Array,
    WeightsFile,
    array_bytes,
    blobs_sha256,
    check_arrays,
    check_blob_name,
    element_type,
    source_name,
    valid_iteration,
)

_UNDEFINED = 2**64 - 1
_FLOATS = {
    2: (b"\x20\x0f\x00", bytes.fromhex("0000 1000 0a 05 00 0a 0f000000")),
    4: (b"\x20\x1f\x00", bytes.fromhex("0000 2000 17 08 00 17 7f000000")),
    8: (b"\x20\x3f\x00", bytes.fromhex("0000 4000 34 0b 00 34 ff030000")),
}
"""Size of an IEEE number -> its class bits (sign bit, normalised) and its properties (fields and bias)."""
_TRUTH_VALUES = b"FALSE\0\0\0TRUE\0\0\0\0\0\1"
"""The enumeration as which h5py writes a bool."""

_REWRITE = (
    "only plain contiguous datasets are read: rewrite the file with `h5repack -f NONE -l CONTI IN.h5 OUT.h5` or with "
    """`python -c "import h5py; i, o = h5py.File('IN.h5'), h5py.File('OUT.h5', 'w'); """
    """[o.create_dataset(n, data=i[n][()]) for n in i]; o.attrs.update(i.attrs)"`"""
)


def write_hdf5(path: Path, weights: WeightsFile) -> None:
    """Write `weights` to `path`; raises WriteFailed, with nothing left behind, where that is not possible."""
    image = Hdf5Image()
    arrays: dict[int, Array] = {}
    with replacing(path) as temporary:
        _lay_out(image, weights, arrays)
        image.write_to(temporary, arrays)


def _lay_out(image: Hdf5Image, weights: WeightsFile, arrays: dict[int, Array]) -> None:
    """Have the library make the file in `image`, and tell at which offsets it wants the arrays."""
    with h5py.File(image, "w", libver=("earliest", "v108")) as handle:
        for name, array in weights.blobs.items():
            offset = add_dataset(handle, _to_hdf5(name), array)
            if offset is not None:
                arrays[offset] = array
        if weights.cfg is not None:
            _write_text(handle, "cfg", weights.cfg)
        if weights.iteration is not None:
            handle.attrs["iteration"] = weights.iteration
        if weights.categories is not None:
            _write_text(handle, CATEGORIES, categories_text(weights.categories))
        _write_text(handle, "source", source_name(weights))
        _write_text(handle, "sha256", blobs_sha256(weights.blobs))
        for number, names in enumerate(_portions(weights.blobs)):
            _write_text(handle, _order(number), "\n".join(names))


def _portions(names: Iterable[str]) -> list[list[str]]:
    """The names of all blobs in their order, divided so that each portion fits into an attribute."""
    portions: list[list[str]] = []
    room = 0
    for name in names:
        size = len(name.encode()) + 1
        if size > room:
            portions.append([])
            room = MAX_ATTRIBUTE_BYTES
        portions[-1].append(name)
        room -= size
    return portions


def _order(number: int) -> str:
    """The attribute that holds a portion of the names: `order`, `order1`, `order2`, ..."""
    return f"order{number or ''}"


def _write_text(handle: h5py.File, name: str, text: str) -> None:
    content = text.encode()
    if len(content) > MAX_ATTRIBUTE_BYTES:
        raise OSError(f"{name} has {len(content)} bytes, an HDF5 attribute holds {MAX_ATTRIBUTE_BYTES}")
    if content.endswith(b"\0"):
        raise OSError(f"{name} ends in a zero byte, which an HDF5 text does not keep")
    handle.attrs.create(name, content, dtype=h5py.string_dtype("utf-8", max(1, len(content))))


def read_hdf5(file: MappedFile) -> WeightsFile:
    """The weights in an HDF5 file; raises a `weights.errors.FileError` for everything else."""
    reader = _Reader(file)
    attributes, names = reader.root()
    datasets = {name: reader.dataset(name, address) for name, address in names.items()}
    if not datasets:
        raise MalformedFile(file.source, "is an HDF5 file without any dataset")
    check_arrays({name: (name, dataset.nbytes) for name, dataset in datasets.items()}, file.size, file.source)
    order: list[str] = []
    for number in itertools.count():
        text = attributes.pop(_order(number), None)
        if not isinstance(text, str):
            break
        order += text.split("\n")
    if len(order) == len(datasets) and set(order) == set(datasets):
        datasets = {name: datasets[name] for name in order}
    blobs = {name: _read(file, dataset) for name, dataset in datasets.items()}
    expected = attributes.pop("sha256", None)
    if expected is not None and expected != blobs_sha256(blobs):
        raise MalformedFile(file.source, "its arrays do not have the sha256 beside them; copy it again")
    given = set(attributes)
    cfg, iteration = attributes.pop("cfg", None), attributes.pop("iteration", None)
    stored = attributes.pop(CATEGORIES, None)
    attributes.pop("source", None)
    left_out = dict.fromkeys(attributes, "is an attribute that no weights file has")
    if valid_iteration(iteration) is None and "iteration" in given:
        left_out["iteration"] = "is not a whole number from 0 up"
    categories, reason = categories_or_reason(stored) if isinstance(stored, str) else (None, {})
    left_out |= reason
    if CATEGORIES in given and not isinstance(stored, str):
        left_out[CATEGORIES] = "is not a text of fixed length"
    if "cfg" in given and not isinstance(cfg, str):
        left_out["cfg"] = "is not a text of fixed length"
    return WeightsFile(
        blobs,
        cfg if isinstance(cfg, str) else None,
        valid_iteration(iteration),
        file.source,
        "h5",
        left_out,
        categories,
    )


@dataclass(frozen=True)
class _Dataset:
    """Where a dataset's bytes lie, plainly, one after the other."""

    offset: int
    nbytes: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def _read(file: MappedFile, dataset: _Dataset) -> Array:
    stored = file.array(dataset.offset, dataset.nbytes)
    return stored.view(dataset.dtype).reshape(dataset.shape).astype(dataset.dtype.newbyteorder("<"), copy=False)


class _Reader:
    """Follows the few structures of a flat file; every block is visited once, every offset is checked."""

    def __init__(self, file: MappedFile) -> None:
        self._data = file.map
        self._size = file.size
        self._source = file.source
        self._visited: set[int] = set()
        self._budget = file.size

    def root(self) -> tuple[dict[str, Any], dict[str, int]]:
        """The root group's attributes, and its datasets' names with the addresses of their headers."""
        superblock = self._bytes(0, 96)
        if superblock[8] != 0 or superblock[13:15] != b"\x08\x08":
            raise UnsupportedArray(
                self._source,
                "is HDF5 of a newer layout; write it with h5py's defaults (no libver, no track_order)",
            )
        base, end, root = (int.from_bytes(superblock[at : at + 8], "little") for at in (24, 40, 64))
        if base != 0:
            raise UnsupportedArray(self._source, "is HDF5 with a user block, which no weights file has")
        if end > self._size:
            raise TruncatedFile(self._source, f"ends {end - self._size} bytes too early; copy it again")
        attributes: dict[str, Any] = {}
        names: dict[str, int] | None = None
        for kind, body in self._messages(root):
            if kind == 0x0C:
                name, value = self._attribute(body)
                attributes[name] = value
            elif kind == 0x11:
                names = dict(self._symbols(_number(body, 0), self._local_heap(_number(body, 8))))
            elif kind in (0x02, 0x06):
                raise ForbiddenContent(
                    self._source, "its names are links of HDF5's newer layout, which may lead to other files"
                )
        if names is None:
            raise MalformedFile(self._source, "is an HDF5 file whose root is not a group")
        return attributes, names

    def dataset(self, name: str, address: int) -> _Dataset:
        """The dataset whose header lies at `address`."""
        found: dict[int, bytes] = {}
        for kind, body in self._messages(address):
            if kind in (0x01, 0x03, 0x08):
                found[kind] = body
            elif kind == 0x07:
                raise ForbiddenContent(self._source, f"{name} keeps its bytes in another file")
            elif kind == 0x0B:
                raise UnsupportedArray(self._source, f"{name} is compressed; {_REWRITE}")
            elif kind in (0x02, 0x11):
                raise MalformedFile(
                    self._source,
                    f"{name} is a group, as in models of Keras and in references of dump_blobs.py; a weights file has "
                    "its arrays at the root",
                )
        if len(found) != 3:
            raise MalformedFile(self._source, f"{name} is no dataset; a weights file has its arrays at the root")
        dtype = self._number_type(found[0x03], name)
        shape = self._shape(found[0x01], name)
        nbytes = array_bytes(shape, dtype.itemsize, name, self._source)
        layout = found[0x08]
        if layout[0] != 3 or layout[1] != 1:
            raise UnsupportedArray(self._source, f"{name} is stored in chunks or not at all; {_REWRITE}")
        offset, stored = _number(layout, 2), _number(layout, 10)
        if nbytes == 0:
            return _Dataset(0, 0, shape, dtype)
        if stored != nbytes:
            raise MalformedFile(self._source, f"{name} takes {nbytes} bytes, but {stored} are stored")
        if offset == _UNDEFINED:
            raise UnsupportedArray(self._source, f"{name} was never written")
        if offset + nbytes > self._size:
            raise TruncatedFile(self._source, f"{name} runs past the end of the file")
        return _Dataset(offset, nbytes, shape, dtype)

    def _bytes(self, offset: int, count: int) -> bytes:
        if offset + count > self._size:
            raise TruncatedFile(self._source, "an HDF5 structure lies past the end of the file", offset)
        return bytes(self._data[offset : offset + count])

    def _visit(self, offset: int, count: int) -> None:
        """Allow each structure once, and all of them together no more bytes than the file has."""
        if offset in self._visited:
            raise MalformedFile(self._source, "an HDF5 structure is used twice", offset)
        self._visited.add(offset)
        self._budget -= count
        if self._budget < 0 or len(self._visited) > MAX_BLOCKS:
            raise OverBudget(self._source, "its HDF5 structures overlap or are too many", offset)

    def _messages(self, address: int) -> Iterator[tuple[int, bytes]]:
        """(type, body) of the messages of a version 1 object header, its continuation blocks included."""
        header = self._bytes(address, 16)
        if header[0] != 1:
            raise MalformedFile(self._source, "an HDF5 object header is damaged or of a newer layout", address)
        blocks = [(address + 16, _number(header, 8, 4))]
        while blocks:
            start, length = blocks.pop(0)
            self._visit(start, length)
            block = self._bytes(start, length)
            at = 0
            while at + 8 <= length:
                kind, size, flags = _number(block, at, 2), _number(block, at + 2, 2), block[at + 4]
                body = block[at + 8 : at + 8 + size]
                at += 8 + size
                if len(body) < size or size < _SMALLEST.get(kind, 0):
                    raise MalformedFile(self._source, "an HDF5 message is cut off", start)
                if kind in _SMALLEST and flags & 2:
                    raise UnsupportedArray(self._source, "an HDF5 message is shared with another object")
                if kind == 0x10:
                    blocks.append((_number(body, 0), _number(body, 8)))
                else:
                    yield kind, body

    def _local_heap(self, address: int) -> tuple[int, int]:
        """(offset, size) of the segment that holds a group's names."""
        header = self._bytes(address, 32)
        if header[:5] != b"HEAP\0":
            raise MalformedFile(self._source, "an HDF5 heap of names is damaged", address)
        size, segment = _number(header, 8), _number(header, 24)
        if segment + size > self._size:
            raise TruncatedFile(self._source, "an HDF5 heap of names runs past the end of the file", address)
        return segment, size

    def _symbols(self, root: int, heap: tuple[int, int]) -> Iterator[tuple[str, int]]:
        """(name, header address) of every object in a group: the leaves of its B-tree."""
        names: set[str] = set()
        nodes = [root]
        while nodes:
            address = nodes.pop(0)
            kind = self._bytes(address, 8)
            count = _number(kind, 6, 2)
            self._visit(address, 8 + 16 * count)
            if kind[:5] == b"TREE\0":
                keys_and_children = self._bytes(address + 24, 16 * count)
                nodes += [_number(keys_and_children, 16 * index + 8) for index in range(count)]
            elif kind[:5] == b"SNOD\1":
                entries = self._bytes(address + 8, 40 * count)
                for at in range(0, 40 * count, 40):
                    name = self._name(heap, _number(entries, at))
                    if _number(entries, at + 16, 4) == 2:
                        raise ForbiddenContent(self._source, f"{name} is a link to another name")
                    if name in names:
                        raise MalformedFile(self._source, f"the name {name} comes twice")
                    names.add(name)
                    yield name, _number(entries, at + 8)
            else:
                raise MalformedFile(self._source, "an HDF5 group is damaged", address)

    def _name(self, heap: tuple[int, int], offset: int) -> str:
        start, size = heap
        longest = start + min(size, offset + MAX_NAME_BYTES + 1)
        end = self._data.find(b"\0", start + offset, longest) if offset < size else -1
        if end < 0:
            raise MalformedFile(self._source, "an HDF5 name is not in its heap", start)
        try:
            stored = bytes(self._data[start + offset : end]).decode()
        except UnicodeDecodeError:
            raise MalformedFile(self._source, "an HDF5 name is not UTF-8", start + offset) from None
        return check_blob_name(_from_hdf5(stored), self._source)

    def _shape(self, dataspace: bytes, name: str) -> tuple[int, ...]:
        version, rank = dataspace[:2]
        start = {1: 8, 2: 4}.get(version)
        if start is None or len(dataspace) < start + 8 * rank or (version == 2 and dataspace[3] == 2):
            raise UnsupportedArray(self._source, f"{name} has no shape")
        return tuple(_number(dataspace, start + 8 * axis) for axis in range(rank))

    def _number_type(self, datatype: bytes, name: str) -> np.dtype[Any]:
        """The element type of a datatype message that describes a plain number, bit for bit."""
        kind, bits, size, properties = datatype[0] & 15, datatype[1:4], _number(datatype, 4, 4), datatype[8:]
        big_endian = bool(bits[0] & 1)
        plain = bytes([bits[0] & ~1]) + bits[1:]
        if kind == 0 and bits[0] & ~0b1001 == 0 and properties[:4] == bytes([0, 0, 8 * size & 255, 0]):
            code = f"{'i' if bits[0] & 8 else 'u'}{size}"
        elif kind == 1 and (plain, properties[:12]) == _FLOATS.get(size):
            code = f"f{size}"
        elif kind == 8 and bits[0] == 2 and size == 1 and properties[12:].startswith(_TRUTH_VALUES):
            code, big_endian = "b1", False
        else:
            raise UnsupportedArray(self._source, f"{name} does not hold plain numbers")
        dtype = element_type(code, name, self._source)
        return np.dtype(f">{code}") if big_endian else dtype

    def _attribute(self, body: bytes) -> tuple[str, str | int | None]:
        """A root attribute: a text of fixed length, a whole number, or None for everything else."""
        version = body[0]
        sizes = [_number(body, at, 2) for at in (2, 4, 6)]
        if version not in (1, 2, 3):
            raise MalformedFile(self._source, "an HDF5 attribute is damaged")
        at = 9 if version == 3 else 8
        parts = []
        for size in sizes:
            parts.append(body[at : at + size])
            at += -(-size // 8) * 8 if version == 1 else size
        name = check_blob_name(parts[0].rstrip(b"\0").decode("utf-8", "replace"), self._source)
        datatype, dataspace, content = parts[1], parts[2], body[at:]
        if len(datatype) < 8 or len(dataspace) < 4 or dataspace[1] != 0:
            return name, None
        kind, size = datatype[0] & 15, _number(datatype, 4, 4)
        content = content[:size]
        if kind == 3 and len(content) == size:
            return name, content.rstrip(b"\0").decode("utf-8", "replace")
        if kind == 0 and 0 < size <= 8 and len(content) == size:
            return name, int.from_bytes(
                content, "big" if datatype[1] & 1 else "little", signed=bool(datatype[1] & 8)
            )
        return name, None


_SMALLEST = {0x01: 4, 0x03: 8, 0x08: 18, 0x0C: 8, 0x10: 16, 0x11: 16}
"""The messages that are read -> the least bytes that such a message has."""


def _number(data: bytes, at: int, width: int = 8) -> int:
    return int.from_bytes(data[at : at + width], "little")


def _to_hdf5(name: str) -> str:
    """HDF5 takes `/` for a folder and `.` for this one; both are written as their code, `%2F` and `%2E`."""
    escaped = name.replace("%", "%25").replace("/", "%2F")
    return "%2E" if escaped == "." else escaped


def _from_hdf5(stored: str) -> str:
    codes = {"%25": "%", "%2F": "/", "%2E": "."}
    return re.sub("%(25|2F|2E)", lambda match: codes[match[0]], stored)
