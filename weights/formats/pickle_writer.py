"""Writes the pickle that Detectron under Python 2.7 would have written, opcode for opcode.

Answers to Detectron utils/net.py:save_model_to_weights_file and utils/io.py:save_object (cPickle, protocol
2). Python 2.7 and Detectron's own loader under Python 3 (`encoding='latin1'`) read it. Arrays go from memory
to the file without a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from detectron_gn.weights.categories import CATEGORIES, categories_text
from detectron_gn.weights.errors import WriteFailed
from detectron_gn.weights.files.atomic import replacing
from detectron_gn.weights.weights_file import Array, WeightsFile

_BATCH = 1000
"""cPickle closes a run of dictionary items after this many."""


def write_pickle(path: Path, weights: WeightsFile) -> None:
    """Write `{'cfg': text, 'categories': text, 'blobs': {name: array}}` to `path`, without a text that is None.

    Detectron passes over `categories`; `iteration` and `left_out` have no place in its format. Raises WriteFailed,
    with nothing left behind, where the file cannot be written or an array has 2 GiB or more.
    """
    for name, array in weights.blobs.items():
        if array.nbytes >= 2**31:
            raise WriteFailed(str(path), f"{name} has {array.nbytes} bytes; a protocol 2 pickle holds 2 GiB")
    with replacing(path) as temporary, open(temporary, "wb") as handle:
        Pickler(handle).write(weights)


class Pickler:
    """Emits opcodes as cPickle does: objects seen once are memorised in the order of their writing."""

    def __init__(self, handle: BinaryIO) -> None:
        self._write = handle.write
        self._next = 1
        self._known: dict[str, int] = {}

    def write(self, weights: WeightsFile) -> None:
        entries: list[tuple[str, Callable[[], None]]] = []
        if weights.cfg is not None:
            cfg = weights.cfg.encode()
            entries.append(("cfg", lambda: self.string(cfg)))
        if weights.categories is not None:
            categories = categories_text(weights.categories).encode()
            entries.append((CATEGORIES, lambda: self.string(categories)))
        entries.append(("blobs", lambda: self._blobs(weights.blobs)))
        self.write_top(entries)

    def write_top(self, entries: list[tuple[str, Callable[[], None]]]) -> None:
        """The whole pickle of a dictionary, of names and what each value writes."""
        self._write(b"\x80\x02")
        self.dictionary(iter(entries), len(entries))
        self._write(b".")

    def _blobs(self, blobs: dict[str, Array]) -> None:
        def writer(array: Array) -> Callable[[], None]:
            return lambda: self.array(array)

        self.dictionary(((name, writer(array)) for name, array in blobs.items()), len(blobs))

    def dictionary(self, entries: Iterator[tuple[str, Callable[[], None]]], count: int) -> None:
        """A dictionary of names and what each value writes."""
        self._write(b"}")
        self._memorise()
        for start in range(0, count, _BATCH):
            size = min(_BATCH, count - start)
            if size > 1:
                self._write(b"(")
            for _ in range(size):
                name, write_value = next(entries)
                self.string(name.encode())
                write_value()
            self._write(b"u" if size > 1 else b"s")

    def array(self, array: Array) -> None:
        """An array of plain numbers."""
        self._once("reconstruct", lambda: self._write(b"cnumpy.core.multiarray\n_reconstruct\n"))
        self._once("ndarray", lambda: self._write(b"cnumpy\nndarray\n"))
        self._write(b"K\x00\x85U\x01b\x87R")
        self._memorise()
        self._write(b"(K\x01")
        self._shape(array.shape)
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1)
        self._once(f"dtype {little.dtype.str}", lambda: self._dtype(little.dtype.str))
        self._write(b"\x89")
        self._string(little.view(np.uint8).data)
        self._write(b"tb")

    def sequence(self, items: Iterator[Callable[[], None]], count: int) -> None:
        """A list of what each item writes."""
        self._write(b"]")
        self._memorise()
        for start in range(0, count, _BATCH):
            size = min(_BATCH, count - start)
            if size > 1:
                self._write(b"(")
            for _ in range(size):
                next(items)()
            self._write(b"e" if size > 1 else b"a")

    def integer(self, value: int) -> None:
        """A whole number of 64 bits."""
        for opcode, width in (b"K", 1), (b"M", 2), (b"J", 4):
            if value in range(-(2**31) if width == 4 else 0, 2 ** (8 * width - (width == 4))):
                self._write(opcode + value.to_bytes(width, "little", signed=value < 0))
                return
        self._write(b"\x8a\x09" + value.to_bytes(9, "little", signed=True))

    def _dtype(self, code: str) -> None:
        """`code` as numpy writes it, `<f4`; cPickle memorises the dtype between its REDUCE and its BUILD."""
        self._once("dtype", lambda: self._write(b"cnumpy\ndtype\n"))
        self._string(code[1:].encode())
        self._write(b"K\x00K\x01\x87R")
        self._memorise_as(f"dtype {code}")
        self._write(b"(K\x03")
        self._string(code[:1].encode())
        self._write(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb")

    def _shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) > 3:
            self._write(b"(")
        for size in shape:
            self.integer(size)
        self._write({0: b")", 1: b"\x85", 2: b"\x86", 3: b"\x87"}.get(len(shape), b"t"))

    def _string(self, content: bytes | memoryview) -> None:
        size = len(content)
        self._write(b"U" + bytes([size]) if size < 256 else b"T" + size.to_bytes(4, "little"))
        self._write(content)

    def string(self, content: bytes) -> None:
        """A string, which what follows may refer to."""
        self._string(content)
        self._memorise()

    def _once(self, key: str, write: Callable[[], object]) -> None:
        """Write an object the first time, and a reference to it from then on."""
        if key in self._known:
            index = self._known[key]
            self._write(b"h" + bytes([index]) if index < 256 else b"j" + index.to_bytes(4, "little"))
            return
        write()
        if key not in self._known:
            self._memorise_as(key)

    def _memorise_as(self, key: str) -> None:
        self._known[key] = self._next
        self._memorise()

    def _memorise(self) -> None:
        index = self._next
        self._write(b"q" + bytes([index]) if index < 256 else b"r" + index.to_bytes(4, "little"))
        self._next += 1
