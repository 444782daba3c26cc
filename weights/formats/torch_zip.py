"""Weights as PyTorch's `.pth`: written by `torch.save`, read without torch by the data-only pickle machine.

The archive's `data.pkl` names tensors and where they lie; the members `data/N` hold their bytes. Nothing is
handed to `torch.load`, so that reading is as safe under any installed torch. What is written,
`torch.load(path, weights_only=True)` opens: `{'blobs': {name: tensor}, 'cfg': text, 'iteration': int,
'categories': text}`.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectron_gn.weights.categories import CATEGORIES, categories_text
from detectron_gn.weights.errors import (
    ForbiddenContent,
    MalformedFile,
    OverBudget,
    TruncatedFile,
    UnsupportedArray,
)
from detectron_gn.weights.files.atomic import replacing
from detectron_gn.weights.files.mapped_file import MappedFile
from detectron_gn.weights.formats.checkpoint_dict import sort_out
from detectron_gn.weights.formats.pickle_vm import PickleVM
from detectron_gn.weights.formats.torch_grammar import Tensor, TorchGrammar
from detectron_gn.weights.formats.zip_members import zip_members
from detectron_gn.weights.weights_file import (
    Array,
    WeightsFile,
    array_bytes,
    check_arrays,
)


def write_torch(path: Path, weights: WeightsFile) -> None:
    """Write `weights` to `path`; raises WriteFailed, with nothing left behind, where that is not possible."""
    content: dict[str, object] = {"blobs": _tensors(weights.blobs)}
    if weights.cfg is not None:
        content["cfg"] = weights.cfg
    if weights.iteration is not None:
        content["iteration"] = weights.iteration
    if weights.categories is not None:
        content[CATEGORIES] = categories_text(weights.categories)
    _save(path, content)


def write_state_dict(path: Path, weights: WeightsFile) -> None:
    """Write the arrays of `weights` as tensors and nothing besides, as `torch.save(model.state_dict(), path)` does.

    Raises what `write_torch` raises.
    """
    _save(path, _tensors(weights.blobs))


def _tensors(arrays: dict[str, Array]) -> dict[str, object]:
    import torch  # here, not above: only writing needs it, and it takes a second to import

    # PyTorch warns of arrays that may not be written to, so those are copied.
    return {name: torch.from_numpy(np.require(array, None, "W")) for name, array in arrays.items()}


def _save(path: Path, content: dict[str, object]) -> None:
    import torch

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
    machine = PickleVM(archive.read("data.pkl").tobytes(), f"{file.source}, data.pkl", TorchGrammar())
    layout = sort_out(machine.run(), Tensor, machine, under_any_name=True)
    for name, tensor in layout.arrays.items():
        _check_bounds(tensor, name, file.source)
    sizes = {name: (tensor, _nbytes(tensor, name, file.source)) for name, tensor in layout.arrays.items()}
    check_arrays(sizes, file.size, file.source)
    storages: dict[str, NDArray[np.uint8]] = {}
    arrays: dict[Tensor, Array] = {}
    for name, tensor in layout.arrays.items():
        if tensor in arrays:
            continue
        key = tensor.storage.key
        if key not in storages:
            storages[key] = archive.read(f"data/{key}")
        if storages[key].size != tensor.storage.nbytes:
            raise MalformedFile(file.source, f"the member data/{key} is not of the size of {name}")
        arrays[tensor] = _array(storages[key], tensor)
    blobs = {name: arrays[tensor] for name, tensor in layout.arrays.items()}
    return WeightsFile(blobs, layout.cfg, layout.iteration, file.source, "pth", layout.left_out, layout.categories)


def _nbytes(tensor: Tensor, name: str, source: str) -> int:
    return array_bytes(tensor.size, int(tensor.code[-1]), name, source)


def _check_bounds(tensor: Tensor, name: str, source: str) -> None:
    """A tensor's last element must lie within its storage; one without elements lies anywhere."""
    available = tensor.storage.nbytes // int(tensor.code[-1])
    reach = sum((size - 1) * step for size, step in zip(tensor.size, tensor.stride, strict=True))
    if 0 not in tensor.size and tensor.offset + reach >= available:
        raise UnsupportedArray(source, f"{name} reaches beyond the end of its storage")


def _array(storage: NDArray[np.uint8], tensor: Tensor) -> Array:
    """The elements of a tensor that lies within `storage`, `[N]` uint8, in C order."""
    dtype: np.dtype[Any] = np.dtype(f"<{tensor.code}")
    if 0 in tensor.size:
        return np.empty(tensor.size, dtype)
    elements = storage[: storage.size - storage.size % dtype.itemsize].view(dtype)[tensor.offset :]
    # torch writes any stride where there is only one element, and numpy counts even that one's bytes.
    strides = [0 if size == 1 else step * dtype.itemsize for size, step in zip(tensor.size, tensor.stride, strict=True)]
    strided = np.lib.stride_tricks.as_strided(elements, tensor.size, strides)
    return np.require(np.negative(strided) if tensor.negative else strided, requirements="C")


class _Archive:
    """The members of PyTorch's zip file: stored without compression, each once, none encrypted.

    Raises MalformedFile, TruncatedFile, OverBudget or ForbiddenContent for every other kind of zip file.
    """

    def __init__(self, file: MappedFile) -> None:
        self._file = file
        members = zip_members(file)
        if sum(member.file_size for member in members) > file.size:
            raise OverBudget(file.source, "its members claim to be larger than it (a zip bomb)")
        tops = [member.filename for member in members if member.filename.rsplit("/", 1)[-1] == "data.pkl"]
        if len(tops) != 1:
            raise MalformedFile(file.source, f"has {len(tops)} members named data.pkl where one belongs")
        folder = tops[0].removesuffix("data.pkl")
        self._members: dict[str, zipfile.ZipInfo] = {}
        spellings: set[str] = set()
        for member in members:
            name = member.filename.removeprefix(folder)
            if ".." in name.split("/") or name.startswith("/"):
                raise ForbiddenContent(file.source, f"has a member that points elsewhere: {ascii(name)[:80]}")
            # torch looks for members without regard to case, and takes any of several.
            if name.lower() in spellings or member.filename != member.orig_filename:
                raise MalformedFile(file.source, f"has two members named {ascii(name)[:80]}, or one with two names")
            spellings.add(name.lower())
            if member.flag_bits & 1 or member.compress_type != zipfile.ZIP_STORED:
                raise MalformedFile(file.source, f"its member {ascii(name)[:80]} is encrypted or compressed")
            self._members[name] = member
        if "byteorder" in self._members and self.read("byteorder").tobytes() != b"little":
            raise UnsupportedArray(file.source, "was written on a big-endian machine")

    def read(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a member, `[N]` uint8, after its checksum was found right.

        A checksum of 0 was never computed: torch.serialization.set_crc32_options(False) writes that.
        """
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
        if member.CRC != 0 and zlib.crc32(content.data) != member.CRC:
            raise MalformedFile(file.source, f"the checksum of {ascii(name)[:80]} is wrong; copy it again")
        return content
