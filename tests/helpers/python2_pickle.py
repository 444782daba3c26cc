"""Pickles as Python 2 wrote them, protocols 0 and 2: byte strings, numpy 1 module names, unicode only where asked.

Independent of the project's own writer, on the standard library's pickler in Python.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np


class Unicode(str):
    """A Python 2 `unicode`; a plain `str` becomes a Python 2 `str`."""


class _Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """The names of numpy 1, and `str` and `bytes` as Python 2's one type."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_byte_string(self, value: bytes) -> None:
        if self.proto == 0:
            self.write(b"S" + repr(value)[1:].encode("ascii") + b"\n")
        elif len(value) < 256:
            self.write(b"U" + bytes([len(value)]) + value)
        else:
            self.write(b"T" + len(value).to_bytes(4, "little") + value)
        self.memoize(value)

    def save_text(self, value: str) -> None:
        self.save_byte_string(value.encode("utf-8"))

    def save_unicode(self, value: Unicode) -> None:
        text = value.encode("utf-8")
        self.write(b"V" + text + b"\n" if self.proto == 0 else b"X" + len(text).to_bytes(4, "little") + text)
        self.memoize(value)

    def save_global(self, value: Any, name: str | None = None) -> None:
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(f"c{module}\n{name or value.__qualname__}\n".encode("ascii"))
        self.memoize(value)

    dispatch[bytes] = save_byte_string
    dispatch[str] = save_text
    dispatch[Unicode] = save_unicode
    dispatch[type(len)] = save_global
    dispatch[type(np.dot)] = save_global
    dispatch[type] = save_global


def write_python2_pickle(path: Path, value: object, protocol: int = 2) -> None:
    """Write nested dictionaries, lists, texts, numbers and numpy arrays as cPickle of Python 2 would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        _Pickler(file, protocol).dump(value)
