"""Files for benchmarks.fuzz_weights: sound ones of every kind, put together at random, and damaged where it hurts.

Most damage that is done byte by byte ends in the first check of a reader. So a pickle is changed opcode by opcode, a
zip archive member by member, a safetensors header field by field; only a part of the files is damaged blindly.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import pickletools
import random
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import torch
from safetensors.numpy import save as save_safetensors

OPCODES = b"(.02IJKLMNRSTUVXabcdeghijlopqrstu}]Q\x80\x81\x85\x86\x87\x8a\x8b\x8c\x8d\x93\x94\x95\x96"
WORDS = (
    b"PK\x01\x02 PK\x03\x04 PK\x05\x06 TREE SNOD HEAP cos\nsystem\n cnumpy\ndtype\n cnumpy\nndarray\n q\0h\0 K\0\x85 "
    b'f4 O8 data.pkl "shape":[ "dtype":"F64" 18446744073709551615 \xff\xff\xff\xff \x7f\xff\xff\xff \0\0\0\0\0\0\0\0'
)
TOKENS = [*(bytes([code]) for code in OPCODES), *WORDS.split(b" "), b"\xff" * 8]
"""What has a meaning in one of the formats."""

DTYPES = ("b1", "i1", "<i2", ">i4", "<i8", "u1", ">u2", "<u4", "<f2", "<f4", ">f4", "<f8", ">f8")
NUMBERS = (0, 1, -1, 2, 7, 255, 256, 2**31 - 1, 2**31, 2**32, 2**60, 2**63 - 1, 2**63, 2**64 - 1, 10**30)
_PLACES = (
    b"K\x00", b"K\x01", b"K\x03", b"M\x00\x01", b"J\xff\xff\xff\xff", b"\x8a\x01\x07", b"N", b"\x88", b"\x89", b")",
    b"}", b"]", b"(", b"t", b"\x85", b"\x86", b"\x87", b"R", b"b", b"s", b"u", b"a", b"e", b"0", b"2", b"l", b"d",
    b"U\x01<", b"U\x01>", b"U\x02f4", b"U\x03>f4", b"X\x03\0\0\0neg", b"X\x01\0\0\0F", b"C\x04\0\0\x80?", b"h\x00",
    b"h\x01", b"q\x01", b"\x94", b"ccollections\nOrderedDict\n", b"cnumpy\ndtype\n", b"cos\nsystem\n", b"V\\ud800\n",
    b"I01\n", b"L5L\n", b"F1.5\n", b"S'a'\n", b"ctorch\nFloatStorage\n", b"Q", b".",
)  # fmt: skip


def pickles(chance: random.Random) -> bytes:
    """A pickle of a dictionary of arrays, of any protocol."""
    content = pickle.dumps(_dictionary(chance, _array), chance.randrange(6))
    return damaged(chance, content, lambda: changed_opcodes(chance, content))


def torch_files(chance: random.Random) -> bytes:
    """A `.pth` of a dictionary of tensors: views, slices, negative ones, parameters, tied ones."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(_dictionary(chance, _tensor), buffer)
    return damaged(chance, buffer.getvalue(), lambda: _changed_archive(chance, buffer.getvalue()))


def safetensors_files(chance: random.Random) -> bytes:
    """A safetensors file."""
    blobs = {name: np.ascontiguousarray(array) for name, array in _blobs(chance, _array).items() if array.shape}
    blobs = {name: array.astype(array.dtype.newbyteorder("<")) for name, array in blobs.items()}
    content = save_safetensors(blobs, {"cfg": "a: 1", "iteration": str(chance.choice(NUMBERS))})
    return damaged(chance, content, lambda: _changed_header(chance, content))


def hdf5_files(chance: random.Random) -> bytes:
    """An HDF5 file as h5py writes it, with more than arrays in it now and then."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=chance.choice([None, "earliest", "latest"])) as file:
        for name, array in _blobs(chance, _array).items():
            chunks = True if array.size and array.shape and chance.random() < 0.05 else None
            file.create_dataset(name.replace("/", "%2F"), data=array, chunks=chunks)
        file.attrs["iteration"] = chance.choice([np.int64(7), np.int64(-1), np.uint64(2**64 - 1), "7", 1.5])
        file.attrs["cfg"] = chance.choice(["a: 1", np.bytes_("a: 1"), np.bytes_(b"a: \xff"), 5])
        if chance.random() < 0.1:
            file["link"] = chance.choice([h5py.SoftLink("/w0"), h5py.ExternalLink("/dev/zero", "/")])
    return damaged(chance, buffer.getvalue(), lambda: _changed_numbers(chance, buffer.getvalue()))


def damage(content: bytes, chance: random.Random) -> bytes:
    """One to eight changes: bits, bytes, tokens, numbers, moved and lost pieces, a cut."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 3, 8])):
        at = chance.randrange(len(data) + 1)
        size = chance.choice([1, 1, 2, 4, 8, 40])
        match chance.randrange(8):
            case 0 | 1:
                data[min(at, len(data) - 1)] ^= 1 << chance.randrange(8)
            case 2:
                data[at : at + size] = chance.randbytes(size)
            case 3:
                token = chance.choice(TOKENS)
                data[at : at + chance.choice([0, len(token)])] = token
            case 4:
                data[at : at + size] = b""
            case 5:
                other = chance.randrange(len(data) + 1)
                data[at:at] = data[other : other + size * 4]
            case 6:
                number = chance.choice([0, 1, 255, 2**31 - 1, 2**31, 2**63, 2**64 - 1, len(data)])
                width = chance.choice([1, 2, 4, 8])
                data[at : at + width] = (number % 256**width).to_bytes(width, "little")
            case 7:
                del data[at:]
        if not data:
            data = bytearray(b"\x80")
    return bytes(data)


def changed_opcodes(chance: random.Random, content: bytes) -> bytes:
    """A pickle with opcodes lost, doubled, moved, replaced or put in; without frames, which would only be torn."""
    places = [(opcode.name, at) for opcode, _, at in pickletools.genops(content)]
    ends = [at for _, at in places[1:]] + [len(content)]
    pieces = [content[at:end] for (name, at), end in zip(places, ends, strict=True) if name != "FRAME"]
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        at, other = chance.randrange(len(pieces)), chance.randrange(len(pieces))
        match chance.randrange(6):
            case 0:
                del pieces[at]
            case 1:
                pieces.insert(at, pieces[other])
            case 2:
                pieces[at], pieces[other] = pieces[other], pieces[at]
            case 3:
                pieces[at] = chance.choice(_PLACES)
            case 4:
                pieces.insert(at, chance.choice(_PLACES))
            case 5:
                pieces[at] = damage(pieces[at], chance)
        pieces = pieces or [b"."]
    return b"".join(pieces)


def damaged(chance: random.Random, content: bytes, change: Callable[[], bytes]) -> bytes:
    """One file in four as it is, two changed in their structure, one damaged blindly."""
    return [lambda: content, change, change, lambda: damage(content, chance)][chance.randrange(4)]()


def _dictionary(chance: random.Random, array: Callable[[random.Random], Any]) -> dict[Any, Any]:
    blobs: dict[Any, Any] = _blobs(chance, array)
    if chance.random() < 0.2:
        blobs["tied"] = next(iter(blobs.values()))
    if chance.random() < 0.2:
        blobs["beside"] = chance.choice([None, 1, "text", (1, 2), [1.5], {"a": 1}])
    if chance.random() < 0.2:
        blobs = OrderedDict(blobs)
    if chance.random() < 0.3:
        return blobs
    cfg = chance.choice(["a: 1\n", "a: \u00e9\n", b"a: 1", {"a": 1}, None])
    return {"blobs": blobs, "cfg": cfg, "iteration": chance.choice(NUMBERS)}


def _blobs(chance: random.Random, array: Callable[[random.Random], Any]) -> dict[str, Any]:
    names = ["w0", "res2_0_branch2a_w", "conv1_gn_s_momentum", "a/b", "\u00e9\u4e00", "_[mask]_w", "cfg2"]
    return {name: array(chance) for name in chance.sample(names, chance.randrange(1, 4))}


def _array(chance: random.Random) -> np.ndarray:
    shape = tuple(chance.choice([0, 1, 1, 2, 3]) for _ in range(chance.randrange(5)))
    values = np.frombuffer(chance.randbytes(math.prod(shape)), np.uint8)
    array = values.reshape(shape).astype(chance.choice(DTYPES))
    if array.ndim > 2 and chance.random() < 0.3:
        return np.moveaxis(array, 0, 1)
    return np.asfortranarray(array) if chance.random() < 0.2 else array


def _tensor(chance: random.Random) -> torch.Tensor:
    array = np.array(_array(chance))
    tensor = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    match chance.randrange(8):
        case 0 if tensor.dim():
            tensor = tensor.transpose(0, -1)
        case 1 if tensor.dim():
            tensor = tensor[tensor.shape[0] // 2 :]
        case 2 if tensor.dtype.is_floating_point:
            tensor = tensor._neg_view()
        case 3 if tensor.dtype.is_floating_point:
            tensor = torch.nn.Parameter(tensor)
        case 4:
            tensor = tensor.unsqueeze(0).expand(2, *tensor.shape)
        case 5 if tensor.dtype.is_floating_point:
            tensor = torch.complex(tensor.float(), tensor.float()).conj().imag
    return tensor


def _changed_archive(chance: random.Random, content: bytes) -> bytes:
    """A `.pth` whose pickle is changed opcode by opcode, or a member of which is lost, doubled, renamed or cut."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at = chance.randrange(len(members))
    name, member = members[at]
    match chance.randrange(8):
        case 0:
            del members[at]
        case 1:
            other = chance.choice(["data.pkl", "x/data.pkl", "archive/DATA.PKL", "archive/xdata.pkl", "../data.pkl"])
            members.insert(chance.randrange(len(members)), (other, chance.choice(members)[1]))
        case 2:
            members[at] = name, member[: len(member) // 2]
        case 3:
            chance.shuffle(members)
        case _:
            members = [
                (name, changed_opcodes(chance, member) if name.endswith("/data.pkl") else member)
                for name, member in members
            ]
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")
        for name, member in members:
            archive.writestr(name, member)
    return buffer.getvalue()


def _changed_header(chance: random.Random, content: bytes) -> bytes:
    """A safetensors file with another field, or a field of another value, in its header."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    entry = header[chance.choice(sorted(header))]
    key = chance.choice([*sorted(entry), "more"])
    values = [*NUMBERS, "F32", "BF16", "C64", "I8", [], [1], [0, 4], [2**62, 4], [-1, 0], None, {}, "\ud800", 1.5]
    entry[key] = chance.choice(values)
    if chance.random() < 0.2:
        header[chance.choice(["w0", "__metadata__", "", "\u0000"])] = chance.choice([entry, {}, [], "x"])
    text = json.dumps(header).encode()
    length = chance.choice([len(text)] * 9 + [len(text) + 1, 2**63])
    return length.to_bytes(8, "little") + text + content[end:]


def _changed_numbers(chance: random.Random, content: bytes) -> bytes:
    """An HDF5 file of whose structures a number is another: they are made of little-endian 2, 4 and 8 byte numbers."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 2])):
        width = chance.choice([1, 2, 4, 8])
        at = chance.randrange(0, min(len(data), 4096) - width, width)
        old = int.from_bytes(data[at : at + width], "little")
        new = chance.choice([old + 1, old - 1, old + 8, old ^ 1, 0, 1, 2**63, len(data), chance.randrange(len(data))])
        data[at : at + width] = (new % 256**width).to_bytes(width, "little")
    return bytes(data)
