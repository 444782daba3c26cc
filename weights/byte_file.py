"""A weights file opened for reading: its size, a map for its structure, and reads of array bytes.

The map serves headers and opcodes only. Arrays are read into memory of their own, so that they are aligned,
writable, independent of the file afterwards, and so that a process holds the numbers once and not twice.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from weights.errors import TruncatedFile, UnreadableFile, WrongContainer

_CHUNK = 1 << 20


class ByteFile:
    """A regular, non-empty file opened for reading; use it in a `with` statement.

    Attributes:
        source: the path as the user gave it, for messages.
        path: the same as a `Path`.
        size: bytes, taken from the open file.
        map: the whole file, read-only.

    Raises UnreadableFile where there is no such file, WrongContainer where it is empty.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.source = str(path)
        try:
            # Asked before opening: opening a pipe would wait for a writer for ever.
            mode = os.stat(self.path).st_mode
            if stat.S_ISDIR(mode):
                raise UnreadableFile(self.source, "is a folder; name the weights file inside it")
            if not stat.S_ISREG(mode):
                raise UnreadableFile(self.source, "is not a regular file")
            self._file = open(self.path, "rb", buffering=0)
        except FileNotFoundError:
            raise UnreadableFile(self.source, "there is no such file") from None
        except (OSError, ValueError) as error:
            if isinstance(error, UnreadableFile):
                raise
            raise UnreadableFile(self.source, f"cannot be read: {_reason(error)}") from None
        self.size = os.fstat(self._file.fileno()).st_size
        if self.size == 0:
            self._file.close()
            raise WrongContainer(self.source, "is empty; download or copy it again")
        self.map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)

    def __enter__(self) -> ByteFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.map.close()
        self._file.close()

    def read_into(self, array: NDArray[np.uint8], offset: int) -> None:
        """Fill `array` (`[N]` uint8, contiguous) with the N bytes from `offset` on."""
        view = memoryview(array.data)
        self._file.seek(offset)
        while view.nbytes:
            got = self._file.readinto(view)
            if not got:
                raise TruncatedFile(self.source, "the file became shorter while it was read", offset)
            view = view[got:]

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """The `length` bytes from `offset` on, in pieces of at most 1 MiB."""
        end = offset + length
        while offset < end:
            piece = np.empty(min(_CHUNK, end - offset), np.uint8)
            self.read_into(piece, offset)
            offset += piece.size
            yield piece.tobytes()


def _reason(error: BaseException) -> str:
    """The operating system's words for an error, without the path it repeats."""
    return getattr(error, "strerror", None) or str(error)
