"""Weights as HDF5: one dataset a blob at the root; attributes `cfg`, `iteration`, `source`, `sha256`.

Read with h5py, behind checks that come before any data is touched: no links to elsewhere, no chunks, filters
or virtual datasets, plain numbers only, and no more bytes than the file has.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from weights.atomic import replacing
from weights.byte_file import ByteFile
from weights.errors import FileError, ForbiddenContent, MalformedFile, UnsupportedArray
from weights.weights_file import (
    MAX_CFG_BYTES,
    Array,
    WeightsFile,
    array_bytes,
    blobs_sha256,
    check_blob_name,
    check_total_bytes,
    element_type,
)


def write_hdf5(path: Path, weights: WeightsFile) -> None:
    """Write `weights` to `path`; raises WriteFailed, with nothing left behind, where that is not possible."""
    with replacing(path) as temporary, h5py.File(temporary, "w", track_order=True) as handle:
        for name, array in weights.blobs.items():
            handle.create_dataset(_to_hdf5(name), data=array)
        if weights.cfg is not None:
            handle.attrs["cfg"] = weights.cfg
        if weights.iteration is not None:
            handle.attrs["iteration"] = weights.iteration
        handle.attrs["source"] = Path(weights.source).name
        handle.attrs["sha256"] = blobs_sha256(weights.blobs)


def read_hdf5(file: ByteFile) -> WeightsFile:
    """The weights in an HDF5 file; raises a `weights.errors.FileError` for everything else."""
    try:
        with h5py.File(file.path, "r", locking=False) as handle:
            return _read(file, handle)
    except FileError:
        raise
    except Exception as error:  # h5py maps HDF5's own failures onto a dozen types
        cause = " ".join(str(error).split())[:200]
        raise MalformedFile(file.source, f"is a damaged HDF5 file: {cause}") from None


def _read(file: ByteFile, handle: h5py.File) -> WeightsFile:
    total = 0
    datasets: dict[str, tuple[h5py.Dataset, np.dtype[Any]]] = {}
    for stored in handle:
        name = check_blob_name(_from_hdf5(stored), file.source)
        if handle.id.links.get_info(stored.encode()).type != h5py.h5l.TYPE_HARD:
            raise ForbiddenContent(file.source, f"{name} is a link to somewhere else")
        dataset = handle[stored]
        if not isinstance(dataset, h5py.Dataset):
            raise MalformedFile(file.source, f"{name} is a group; a weights file has its arrays at the root")
        dtype = _checked_type(dataset, name, file.source)
        total += array_bytes(dataset.shape, dtype.itemsize, name, file.source)
        datasets[name] = dataset, dtype
    if not datasets:
        raise MalformedFile(file.source, "is an HDF5 file without any dataset")
    check_total_bytes(total, file.size, file.source)
    blobs: dict[str, Array] = {}
    for name, (dataset, dtype) in datasets.items():
        blobs[name] = np.empty(dataset.shape, dtype)
        if blobs[name].size:
            dataset.read_direct(blobs[name])
    expected = _text_attribute(handle, "sha256", file.source)
    if expected is not None and expected != blobs_sha256(blobs):
        raise MalformedFile(file.source, "its arrays do not have the sha256 beside them; copy it again")
    cfg = _text_attribute(handle, "cfg", file.source)
    return WeightsFile(blobs, cfg, _iteration(handle, file.source), file.source, "h5")


def _checked_type(dataset: h5py.Dataset, name: str, source: str) -> np.dtype[Any]:
    """The element type of a dataset whose bytes lie in this file, plainly, one after the other."""
    layout = dataset.id.get_create_plist().get_layout()
    if dataset.external or layout == h5py.h5d.VIRTUAL:
        raise ForbiddenContent(source, f"{name} keeps its bytes in another file")
    if layout not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT):
        raise UnsupportedArray(source, f"{name} is stored in chunks or compressed; write it contiguous")
    if dataset.shape is None:
        raise UnsupportedArray(source, f"{name} has no shape")
    if dataset.dtype.kind not in "biuf":
        raise UnsupportedArray(source, f"{name} does not hold plain numbers")
    return element_type(f"{dataset.dtype.kind}{dataset.dtype.itemsize}", name, source)


def _text_attribute(handle: h5py.File, name: str, source: str) -> str | None:
    """A text attribute of the root, None if absent; its type is checked before it is read."""
    if name not in handle.attrs:
        return None
    identifier = handle.attrs.get_id(name)
    if identifier.shape != () or h5py.check_string_dtype(identifier.dtype) is None:
        raise MalformedFile(source, f"the attribute {name} is not a text")
    value = handle.attrs[name]
    text = value.decode() if isinstance(value, bytes) else str(value)
    if len(text) > MAX_CFG_BYTES:
        raise MalformedFile(source, f"the attribute {name} has {len(text)} characters, too many for a text")
    return text


def _iteration(handle: h5py.File, source: str) -> int | None:
    if "iteration" not in handle.attrs:
        return None
    identifier = handle.attrs.get_id("iteration")
    if identifier.shape != () or identifier.dtype.kind not in "iu":
        raise MalformedFile(source, "the attribute iteration is not a whole number")
    return int(handle.attrs["iteration"])


def _to_hdf5(name: str) -> str:
    """HDF5 takes `/` for a folder and `.` for this one; both are written as their code, `%2F` and `%2E`."""
    escaped = name.replace("%", "%25").replace("/", "%2F")
    return "%2E" if escaped == "." else escaped


def _from_hdf5(stored: str) -> str:
    codes = {"%25": "%", "%2F": "/", "%2E": "."}
    return re.sub("%(25|2F|2E)", lambda match: codes[match[0]], stored)
