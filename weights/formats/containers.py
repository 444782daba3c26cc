"""Recognises what a weights file is, reads it, writes it, and turns one container into another."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from detectron_gn.weights.errors import WriteFailed
from detectron_gn.weights.files.mapped_file import ByteFile
from detectron_gn.weights.formats.pickle_reader import read_pickle
from detectron_gn.weights.formats.pickle_writer import write_pickle
from detectron_gn.weights.formats.recognise import Container, recognise
from detectron_gn.weights.weights_file import ELEMENT_TYPES, Array, WeightsFile, check_blob_name, iteration_from_name

__all__ = ["Conversion", "WeightsFile", "convert", "read_blobs", "write_blobs"]


def read_blobs(path: str | os.PathLike[str]) -> WeightsFile:
    """Read a weights file; what it is follows from its content, never from its name.

    Nothing in the file is imported, called or executed. Raises a `weights.errors.FileError` with one sentence
    where the file is something else, is damaged, or asks for more than weights need.
    """
    with ByteFile(path) as file:
        return _reader(recognise(file))(file)


def write_blobs(path: str | os.PathLike[str], weights: WeightsFile) -> None:
    """Write a weights file; the container follows from the suffix: `.pkl .h5 .safetensors .pth`.

    Raises WriteFailed, with nothing left behind and an existing file as it was, where that is not possible.
    """
    path = Path(path)
    write = _writer(path)
    blobs = {name: _plain(name, array, str(path)) for name, array in weights.blobs.items()}
    write(path, replace(weights, blobs=blobs))


@dataclass(frozen=True)
class Conversion:
    """What `convert` did: the weights it moved, and in words what the new container could not keep.

    The arrays are views of the file that was read: to be looked at, not to be trained.
    """

    weights: WeightsFile
    out: Path
    not_kept: tuple[str, ...]


def convert(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> Conversion:
    """Read `path` and write the same blobs, configuration and iteration to `out`.

    Raises what `read_blobs` and `write_blobs` raise; an unknown suffix before anything is read.
    """
    out = Path(out)
    _writer(out)
    with ByteFile(path, keep_mapped=True) as file:
        weights = _reader(recognise(file))(file)
    write_blobs(out, weights)
    not_kept = [f"{name} {reason}" for name, reason in weights.left_out.items()]
    if out.suffix == ".pkl" and weights.iteration != iteration_from_name(out.name):
        not_kept.append(
            f"the iteration {weights.iteration}: a Detectron pickle tells it by its name only "
            f"(model_iter{weights.iteration}.pkl)"
        )
    return Conversion(weights, out, tuple(not_kept))


def _plain(name: str, array: Array, path: str) -> Array:
    """`array` as every container holds it: little-endian plain numbers, C order; no copy where it is so."""
    check_blob_name(name, path)
    if f"{array.dtype.kind}{array.dtype.itemsize}" not in ELEMENT_TYPES:
        raise WriteFailed(path, f"{name} has elements of type {array.dtype}; only plain numbers are written")
    return np.require(array, array.dtype.newbyteorder("<"), "C")


def _reader(container: Container) -> Callable[[ByteFile], WeightsFile]:
    """The libraries are imported when a file needs them: a pickle needs neither h5py nor safetensors."""
    match container:
        case "pkl":
            return read_pickle
        case "h5":
            from detectron_gn.weights.formats.hdf5 import read_hdf5

            return read_hdf5
        case "safetensors":
            from detectron_gn.weights.formats.safetensors import read_safetensors

            return read_safetensors
        case "pth":
            from detectron_gn.weights.formats.torch_zip import read_torch

            return read_torch


def _writer(path: Path) -> Callable[[Path, WeightsFile], None]:
    match path.suffix:
        case ".pkl":
            return write_pickle
        case ".h5":
            from detectron_gn.weights.formats.hdf5 import write_hdf5

            return write_hdf5
        case ".safetensors":
            from detectron_gn.weights.formats.safetensors import write_safetensors

            return write_safetensors
        case ".pth":
            from detectron_gn.weights.formats.torch_zip import write_torch

            return write_torch
    raise WriteFailed(str(path), "the name must end in .pkl, .h5, .safetensors or .pth")
