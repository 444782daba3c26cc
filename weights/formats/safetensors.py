"""Weights as safetensors: the library writes them and checks what is read; `cfg` and the like are metadata."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from detectron_gn.weights.errors import MalformedFile, WriteFailed
from detectron_gn.weights.files.atomic import replacing
from detectron_gn.weights.files.mapped_file import MappedFile
from detectron_gn.weights.weights_file import (
    Array,
    WeightsFile,
    array_bytes,
    check_blob_name,
    element_type,
)

_ELEMENT_TYPES = {
    "BOOL": "b1", "I8": "i1", "I16": "i2", "I32": "i4", "I64": "i8", "U8": "u1", "U16": "u2", "U32": "u4",
    "U64": "u8", "F16": "f2", "F32": "f4", "F64": "f8",
}  # fmt: skip


def write_safetensors(path: Path, weights: WeightsFile) -> None:
    """Write `weights` to `path`; raises WriteFailed, with nothing left behind, where that is not possible.

    The format sorts by element type and name, so the order of the blobs is kept beside them.
    """
    if "__metadata__" in weights.blobs:
        raise WriteFailed(str(path), "safetensors keeps the name __metadata__ for itself")
    metadata = {"source": Path(weights.source).name, "order": "\n".join(weights.blobs)}
    if weights.cfg is not None:
        metadata["cfg"] = weights.cfg
    if weights.iteration is not None:
        metadata["iteration"] = str(weights.iteration)
    with replacing(path) as temporary:
        try:
            save_file(weights.blobs, temporary, metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from None


def read_safetensors(file: MappedFile) -> WeightsFile:
    """The weights in a safetensors file; raises a `weights.errors.FileError` for everything else."""
    try:
        with safe_open(str(file.path), framework="numpy") as handle:
            metadata = dict(handle.metadata() or {})
            names = [check_blob_name(name, file.source) for name in handle.keys()]
    except SafetensorError as error:
        raise MalformedFile(file.source, f"is a damaged safetensors file: {str(error)[:200]}") from None
    if not names:
        raise MalformedFile(file.source, "is a safetensors file without any array")
    order = metadata.get("order", "").split("\n")
    if len(order) == len(names) and set(order) == set(names):
        names = order
    # The library has found the header sound, and each array within the file and apart from the others.
    start = 8 + int.from_bytes(file.map[:8], "little")
    header = json.loads(bytes(file.map[8:start]))
    blobs: dict[str, Array] = {}
    for name in names:
        entry = header[name]
        dtype = element_type(_ELEMENT_TYPES.get(entry["dtype"], entry["dtype"]), name, file.source)
        count = array_bytes(entry["shape"], dtype.itemsize, name, file.source)
        blobs[name] = file.array(start + entry["data_offsets"][0], count).view(dtype).reshape(entry["shape"])
    iteration = metadata.get("iteration", "")
    return WeightsFile(
        blobs,
        metadata.get("cfg"),
        int(iteration) if iteration.isascii() and iteration.isdigit() and len(iteration) < 13 else None,
        file.source,
        "safetensors",
    )
