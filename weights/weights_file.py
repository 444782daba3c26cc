"""What a weights file holds, whatever its format: named arrays, the configuration, the iteration, the classes."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectron_gn.weights.categories import Category
from detectron_gn.weights.errors import MalformedFile, OverBudget, UnsupportedArray
from detectron_gn.weights.limits import MAX_DIMENSIONS, MAX_ITERATION, MAX_NAME_BYTES, MAX_TIED

Array = NDArray[Any]

ELEMENT_TYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
"""The element types every format can hold, as numpy writes them: plain numbers and nothing else."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ITERATION = re.compile(r"model_iter([0-9]{1,19})\.pkl")


@dataclass(frozen=True)
class WeightsFile:
    """Named arrays and what travels with them.

    Attributes:
        blobs: Detectron's blob name -> array, in file order. Little-endian plain numbers, C order; momentum
            blobs (`*_momentum`) and preserved ones (`pred_w`) are blobs like any other.
        cfg: the configuration the model was trained with, as the YAML text Detectron saved; None if absent.
        iteration: index of the last training iteration done, from 0; None if unknown. A Detectron pickle does
            not hold it, so there it comes from a name like `model_iter2399.pkl` (Detectron utils/train.py).
        source: where the arrays came from, for messages: a path as the user gave it.
        format: `pkl`, `h5`, `safetensors` or `pth`.
        left_out: name -> why it is not among the blobs (Detectron stores None under some names).
        categories: id and name of classes 1, 2, ...; None where the file does not tell, as in every published file.
    """

    blobs: dict[str, Array]
    cfg: str | None
    iteration: int | None
    source: str
    format: str
    left_out: dict[str, str] = field(default_factory=dict)
    categories: tuple[Category, ...] | None = None


def iteration_from_name(name: str) -> int | None:
    """`model_iter2399.pkl` -> 2399; None for every other name (Detectron utils/train.py:create_model)."""
    match = _ITERATION.fullmatch(name)
    return valid_iteration(int(match.group(1))) if match else None


def valid_iteration(value: object) -> int | None:
    """`value` if it is the index of an iteration that every format can hold, else None."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ITERATION:
        return value
    return None


def source_name(weights: WeightsFile) -> str:
    """The name of the file that the weights came from, for a new file to tell; U+FFFD where it is not UTF-8."""
    return os.fsencode(Path(weights.source).name).decode("utf-8", "replace")


def blobs_sha256(blobs: dict[str, Array]) -> str:
    """One sha256 over every blob's name, element type, shape and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(blobs):
        array = blobs[name]
        digest.update(f"{name}\n{array.dtype.str}\n{array.shape}\n".encode())
        digest.update(np.require(array, requirements="C").reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def check_blob_name(name: str, source: str) -> str:
    """Return `name` if it can name a blob in every format, else raise MalformedFile."""
    if not name:
        raise MalformedFile(source, "a blob has an empty name")
    if is_not_unicode(name):
        raise MalformedFile(source, f"a blob's name is not valid Unicode: {ascii(name)[:120]}")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise MalformedFile(source, f"a blob's name is longer than {MAX_NAME_BYTES} bytes: {name[:40]}...")
    if _CONTROL.search(name):
        raise MalformedFile(source, f"a blob's name holds a control character: {ascii(name)[:120]}")
    return name


def is_not_unicode(text: str) -> bool:
    """Whether a text holds half of a surrogate pair, which no file can hold as UTF-8."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def array_bytes(shape: Iterable[int], item_size: int, name: str, source: str) -> int:
    """Bytes of an array of `shape`, without overflow; raises UnsupportedArray for a senseless shape."""
    dimensions = tuple(shape)
    if len(dimensions) > MAX_DIMENSIONS:
        raise UnsupportedArray(source, f"{name} has {len(dimensions)} dimensions, at most {MAX_DIMENSIONS}")
    if any(isinstance(size, bool) or not isinstance(size, int) or size < 0 for size in dimensions):
        raise UnsupportedArray(source, f"{name} has a shape that is not made of whole numbers from 0 up")
    # Zeros count as ones here: numpy refuses an empty array whose other dimensions overflow.
    if math.prod(max(size, 1) for size in dimensions) * item_size >= 2**63:
        raise UnsupportedArray(source, f"{name} has a shape too large for any memory")
    return math.prod(dimensions) * item_size


def check_arrays(arrays: Mapping[str, tuple[Hashable, int]], file_size: int, source: str) -> None:
    """Refuse arrays that hold more bytes than their file (a bomb).

    Args:
        arrays: name -> (what makes it another array, its bytes). Tied weights, one array under several names, are read
            once and count once; written to another file they count with each name.
    """
    once = sum(dict(arrays.values()).values())
    if once > file_size:
        raise OverBudget(source, f"its arrays would take {once} bytes, but the file has only {file_size}")
    total = sum(nbytes for _, nbytes in arrays.values())
    if total > MAX_TIED * file_size:
        raise OverBudget(
            source, f"its arrays would take {total} bytes, more than {MAX_TIED} times the {file_size} of the file"
        )


def element_type(code: str, name: str, source: str) -> np.dtype[Any]:
    """The numpy dtype of `code` (`f4`, ...), little-endian; raises UnsupportedArray unless a plain number."""
    if code not in ELEMENT_TYPES:
        raise UnsupportedArray(
            source,
            f"{name} has elements of type {ascii(code)[:40]}; only plain numbers of up to 64 bits are read",
        )
    dtype: np.dtype[Any] = np.dtype(code).newbyteorder("<")
    return dtype
