"""A weights file opened for reading: its size, a map for its structure, and the bytes of its arrays.

Headers and opcodes are read from the map. Arrays are read into memory of their own: so they are aligned, writable and
independent of the file, and the process holds the numbers once, not twice. Only a conversion, which writes them to
another file at once, leaves them in the map: that is twice as fast.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from detectron_gn.weights.errors import TruncatedFile, UnreadableFile, WrongFormat

_CHUNK = 1 << 20


class MappedFile:
    """A regular, non-empty file opened for reading; use it in a `with` statement.

    Args:
        path: the file.
        keep_mapped: let arrays be views of the map, of any alignment; they keep the map open.

    Attributes:
        source: the path as the user gave it, for messages.
        path: the same as a `Path`.
        size: bytes, taken from the open file.
        map: the whole file, read-only.

    Raises UnreadableFile where there is no such file, WrongFormat where it is empty.
    """

    def __init__(self, path: str | os.PathLike[str], keep_mapped: bool = False) -> None:
        self._keep_mapped = keep_mapped
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
            raise WrongFormat(self.source, "is empty; download or copy it again")
        # A private copy only looks writable: torch wants that of arrays, and nobody writes to these.
        access = mmap.ACCESS_COPY if keep_mapped else mmap.ACCESS_READ
        self.map = mmap.mmap(self._file.fileno(), 0, access=access)

    def __enter__(self) -> MappedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(BufferError):  # arrays still lie in it
            self.map.close()
        self._file.close()

    def fileno(self) -> int:
        """The descriptor of the open file."""
        return self._file.fileno()

    def array(self, offset: int, count: int) -> NDArray[np.uint8]:
        """The `count` bytes from `offset` on, `[count]` uint8."""
        if self._keep_mapped and count:
            return np.frombuffer(self.map, np.uint8, count, offset)
        content = np.empty(count, np.uint8)
        self._read_into(content, offset)
        return content

    def _read_into(self, array: NDArray[np.uint8], offset: int) -> None:
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
            self._read_into(piece, offset)
            offset += piece.size
            yield piece.tobytes()


def _reason(error: BaseException) -> str:
    """The operating system's words for an error, without the path it repeats."""
    return getattr(error, "strerror", None) or str(error)
