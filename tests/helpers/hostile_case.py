"""What a case of the hostile corpus is, and the opcodes of which its pickles are put together."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CANARY = "canary-was-here"
GOOD = {"conv1_w": np.arange(6, dtype="f4").reshape(2, 3), "conv1_b": np.array([1.5, -0.0], "f4")}
CFG = "MODEL:\n  NUM_CLASSES: 81\n"


@dataclass(frozen=True)
class Case:
    """A file and what must become of it: `expect` names the errors allowed; empty means it must be read."""

    name: str
    content: bytes | Callable[[Path], None]
    expect: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()
    suffix: str = ".pkl"


def u(text: bytes) -> bytes:
    """SHORT_BINSTRING or BINSTRING."""
    return b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + struct.pack("<I", len(text)) + text


def x(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def integer(value: int) -> bytes:
    size = (value.bit_length() + 8) // 8
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"


def dtype(code: bytes = b"f4", order: bytes = b"<", state: bytes | None = None) -> bytes:
    state = b"(K\x03" + u(order) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t" if state is None else state
    return b"cnumpy\ndtype\n" + u(code) + b"K\x00K\x01\x87R" + state + b"b"


def array(
    shape: bytes = b"K\x02\x85",
    data: bytes = u(b"\0" * 8),
    element: bytes = dtype(),
    version: bytes = b"K\x01",
    fortran: bytes = b"\x89",
) -> bytes:
    return RECONSTRUCT + b"(" + version + shape + element + fortran + data + b"tb"


def wrap(value: bytes, key: bytes = u(b"w"), before: bytes = b"", after: bytes = b"") -> bytes:
    """A pickle of {'blobs': {key: value, 'z': array}} with extra opcodes at three places."""
    return b"\x80\x02" + before + b"}" + u(b"blobs") + b"}(" + key + value + u(b"z") + array() + b"us." + after
