"""The formats of weights files: which there are, which one a file is, and how it is read and written."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from detectron_gn.weights.categories import category_fault
from detectron_gn.weights.errors import WriteFailed
from detectron_gn.weights.files.mapped_file import MappedFile
from detectron_gn.weights.formats.recognise import (
    is_hdf5,
    is_pickle,
    is_safetensors,
    is_torch,
    refuse_other_signatures,
    refuse_unrecognised,
)
from detectron_gn.weights.limits import MAX_ALL_DIMENSIONS, MAX_BLOBS, MAX_CFG_BYTES, MAX_ITERATION
from detectron_gn.weights.weights_file import (
    ELEMENT_TYPES,
    Array,
    WeightsFile,
    check_blob_name,
    is_not_unicode,
    valid_iteration,
)


@dataclass(frozen=True)
class Format:
    """A format of weights files.

    Attributes:
        name: what `WeightsFile.format` calls it.
        suffix: the end of its files' names.
        recognise: whether a file is of this format, by its content.
        reader, writer: `module.function` in this folder, imported at the first use: a pickle needs neither h5py nor
            safetensors.
        state_dict_writer: writes arrays as a `state_dict` that PyTorch loads without this project; None where the
            format is none of PyTorch's.
    """

    name: str
    suffix: str
    recognise: Callable[[MappedFile], bool]
    reader: str
    writer: str
    state_dict_writer: str | None = None

    @property
    def read(self) -> Callable[[MappedFile], WeightsFile]:
        """Reads a file that is known to be of this format."""
        function: Callable[[MappedFile], WeightsFile] = _function(self.reader)
        return function

    @property
    def write(self) -> Callable[[Path, WeightsFile], None]:
        """Writes a file whole, or not at all."""
        function: Callable[[Path, WeightsFile], None] = _function(self.writer)
        return function


FORMATS = (
    Format("pkl", ".pkl", is_pickle, "pickle_reader.read_pickle", "pickle_writer.write_pickle"),
    Format("h5", ".h5", is_hdf5, "hdf5.read_hdf5", "hdf5.write_hdf5"),
    Format(
        "safetensors",
        ".safetensors",
        is_safetensors,
        "safetensors.read_safetensors",
        "safetensors.write_safetensors",
        "safetensors.write_safetensors",
    ),
    Format(
        "pth", ".pth", is_torch, "torch_zip.read_torch", "torch_zip.write_torch", "torch_zip.write_state_dict"
    ),
)


def recognise(file: MappedFile) -> Format:
    """The format of a file, by its content.

    Raises WrongFormat, with a sentence that says what the file is, where it is of none; for a zip archive also what
    `zip_members` raises.
    """
    refuse_other_signatures(file)
    for row in FORMATS:
        if row.recognise(file):
            return row
    refuse_unrecognised(file)


def read_blobs(path: str | os.PathLike[str]) -> WeightsFile:
    """Read a weights file; what it is follows from its content, never from its name.

    Nothing in the file is imported, called or executed. Raises a `weights.errors.FileError` with one sentence where
    the file is something else, is damaged, or asks for more than weights need.
    """
    with MappedFile(path) as file:
        return read_mapped(file)


def read_mapped(file: MappedFile) -> WeightsFile:
    """`read_blobs` of a file that is open already."""
    return recognise(file).read(file)


def write_blobs(path: str | os.PathLike[str], weights: WeightsFile) -> None:
    """Write a weights file; the format follows from the suffix: `.pkl .h5 .safetensors .pth`.

    Raises WriteFailed, with nothing left behind and an existing file as it was, where that is not possible, and for
    what `read_blobs` would not read again.
    """
    path = Path(path)
    _write(path, weights, format_of_name(path).write)


def write_state_dict(path: str | os.PathLike[str], arrays: dict[str, Array], source: str) -> None:
    """Write arrays as a `state_dict` of tensors that PyTorch loads by itself, as `.pth` or `.safetensors`.

    Args:
        source: the file that they came from; a `.safetensors` tells its name.

    Raises WriteFailed, as `write_blobs` does, and for every other suffix.
    """
    path = Path(path)
    place = state_dict_writer_of_name(path)
    _write(path, WeightsFile(arrays, None, None, source, path.suffix[1:]), _function(place))


def state_dict_writer_of_name(path: Path) -> str:
    """What writes a `state_dict` under a name, `module.function`; WriteFailed where its suffix is not PyTorch's."""
    for row in FORMATS:
        if path.suffix == row.suffix and row.state_dict_writer is not None:
            return row.state_dict_writer
    raise WriteFailed(str(path), "the name of a file that PyTorch loads by itself must end in .pth or .safetensors")


def _write(path: Path, weights: WeightsFile, write: Callable[[Path, WeightsFile], None]) -> None:
    _check_readable(weights, str(path))
    fault = None if weights.categories is None else category_fault(weights.categories)
    if fault is not None:
        raise WriteFailed(str(path), f"could not be written: it {fault}")
    blobs = {name: _plain(name, array, str(path)) for name, array in weights.blobs.items()}
    write(path, replace(weights, blobs=blobs))


def format_of_name(path: Path) -> Format:
    """The format that a name asks for by its suffix; WriteFailed where it asks for none."""
    for row in FORMATS:
        if path.suffix == row.suffix:
            return row
    raise WriteFailed(str(path), "the name must end in .pkl, .h5, .safetensors or .pth")


def _function(place: str) -> Any:
    module, _, name = place.rpartition(".")
    return getattr(import_module(f"{__name__}.{module}"), name)


def _check_readable(weights: WeightsFile, path: str) -> None:
    """Refuse what no reader would read again, whatever the format."""
    dimensions = sum(array.ndim for array in weights.blobs.values())
    if not 0 < len(weights.blobs) <= MAX_BLOBS or dimensions > MAX_ALL_DIMENSIONS:
        raise WriteFailed(
            path, f"a weights file holds 1 to {MAX_BLOBS} arrays of together {MAX_ALL_DIMENSIONS} dimensions at most, "
            f"not {len(weights.blobs)} of {dimensions}",
        )  # fmt: skip
    if weights.cfg is not None and is_not_unicode(weights.cfg):
        raise WriteFailed(path, "the configuration is not valid Unicode")
    if weights.cfg is not None and len(weights.cfg.encode()) > MAX_CFG_BYTES:
        raise WriteFailed(path, f"the configuration is longer than {MAX_CFG_BYTES} bytes")
    if weights.iteration is not None and valid_iteration(weights.iteration) is None:
        raise WriteFailed(path, f"the iteration {weights.iteration} is no whole number from 0 to {MAX_ITERATION}")


def _plain(name: str, array: Array, path: str) -> Array:
    """`array` as every format holds it: little-endian plain numbers, C order; no copy where it is so."""
    check_blob_name(name, path)
    if f"{array.dtype.kind}{array.dtype.itemsize}" not in ELEMENT_TYPES:
        raise WriteFailed(path, f"{name} has elements of type {array.dtype}; only plain numbers are written")
    return np.require(array, array.dtype.newbyteorder("<"), "C")
