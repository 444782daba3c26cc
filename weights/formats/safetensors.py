"""Weights as safetensors; `cfg` and the like are metadata. The library checks what is read.

Written here, in the layout that the library writes: its own writer gives the metadata another order each time, so that
equal files differ, and makes files that only their owner can read.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from detectron_gn.weights.categories import CATEGORIES, categories_or_reason, categories_text
from detectron_gn.weights.errors import MalformedFile, OverBudget, WriteFailed
from detectron_gn.weights.files.atomic import replacing
from detectron_gn.weights.files.mapped_file import MappedFile
from detectron_gn.weights.limits import MAX_BLOBS
from detectron_gn.weights.weights_file import (
    Array,
    WeightsFile,
    array_bytes,
    check_blob_name,
    element_type,
    source_name,
    valid_iteration,
)

_ELEMENT_TYPES = {
    "BOOL": "b1", "I8": "i1", "I16": "i2", "I32": "i4", "I64": "i8", "U8": "u1", "U16": "u2", "U32": "u4",
    "U64": "u8", "F16": "f2", "F32": "f4", "F64": "f8",
}  # fmt: skip
_NAMES = {code: name for name, code in _ELEMENT_TYPES.items()}


def write_safetensors(path: Path, weights: WeightsFile) -> None:
    """Write `weights` to `path`; raises WriteFailed, with nothing left behind, where that is not possible.

    The format sorts by element type and name, so the order of the blobs is kept beside them.
    """
    if "__metadata__" in weights.blobs:
        raise WriteFailed(str(path), "safetensors keeps the name __metadata__ for itself")
    metadata = {"source": source_name(weights), "order": "\n".join(weights.blobs)}
    if weights.cfg is not None:
        metadata["cfg"] = weights.cfg
    if weights.iteration is not None:
        metadata["iteration"] = str(weights.iteration)
    if weights.categories is not None:
        metadata[CATEGORIES] = categories_text(weights.categories)
    header: dict[str, object] = {"__metadata__": metadata}
    # Large elements first, so that each array is aligned.
    names = sorted(weights.blobs, key=lambda name: (-weights.blobs[name].itemsize, name.encode()))
    start = 0
    for name in names:
        array = weights.blobs[name]
        dtype = _NAMES[f"{array.dtype.kind}{array.dtype.itemsize}"]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, start + array.nbytes]}
        start += array.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as temporary, open(temporary, "wb") as handle:
        handle.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            handle.write(weights.blobs[name].reshape(-1).view(np.uint8).data)


def read_safetensors(file: MappedFile) -> WeightsFile:
    """The weights in a safetensors file; raises a `weights.errors.FileError` for everything else."""
    try:
        with safe_open(_path_for_library(file), framework="numpy") as handle:
            metadata = dict(handle.metadata() or {})
            if len(handle.keys()) > MAX_BLOBS:
                raise OverBudget(
                    file.source, f"has {len(handle.keys())} arrays, but a weights file has at most {MAX_BLOBS}"
                )
            names = [check_blob_name(name, file.source) for name in handle.keys()]
    except (SafetensorError, OSError) as error:
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
    text = metadata.get("iteration")
    iteration = None
    if text is not None and text.isascii() and text.isdigit() and len(text) < 20:
        iteration = valid_iteration(int(text))
    left_out = {"iteration": "is not a whole number from 0 up"} if text is not None and iteration is None else {}
    categories, reason = categories_or_reason(metadata[CATEGORIES]) if CATEGORIES in metadata else (None, {})
    return WeightsFile(
        blobs, metadata.get("cfg"), iteration, file.source, "safetensors", left_out | reason, categories
    )


def _path_for_library(file: MappedFile) -> str:
    """A path of the file in UTF-8, which is all that the library takes."""
    path = str(file.path)
    try:
        path.encode()
    except UnicodeEncodeError:
        return f"/dev/fd/{file.fileno()}"
    return path
