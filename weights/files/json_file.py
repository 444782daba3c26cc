"""Writes JSON that any program can read, whole or not at all, and reads the small records that lie beside files."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from detectron_gn.weights.errors import WriteFailed
from detectron_gn.weights.files.atomic import refuse_open_file, replacing
from detectron_gn.weights.files.descriptors import own_descriptor
from detectron_gn.weights.files.shared_folder import open_without_following
from detectron_gn.weights.limits import MAX_RECORD_CHARACTERS


def write_json(path: Path, content: object, indent: int | None = None) -> None:
    """Write `content`, numbers in full precision; infinity and NaN, which JSON does not know, become null.

    A pipe, a device or what this process has open, which nothing may replace, is written to. Raises WriteFailed, naming
    `path`.
    """
    text = (json_text(content, indent) + "\n").encode()
    _write(path, lambda file: file.write(text))


def json_text(content: object, indent: int | None = None) -> str:
    """`content` as `write_json` writes it."""
    try:
        return json.dumps(content, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(content), indent=indent, allow_nan=False)


class JsonList:
    """A list that `write_json` would write, in memory that does not grow with it; use it in a `with` statement.

    Until it is written it lies in a file without a name, of which nothing is left, whatever ends the program.

    Args:
        folder: on a disk that has room for it.
    """

    def __init__(self, folder: Path, indent: int | None = None) -> None:
        self._folder, self._indent, self._separator = folder, indent, ""
        self._between = ", " if indent is None else ","
        try:
            self._file = tempfile.TemporaryFile(dir=folder)
        except OSError as error:
            raise WriteFailed(str(folder), f"nothing can be written there: {error.strerror or error}") from None

    def __enter__(self) -> JsonList:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # what a full disk refused has been told
            self._file.close()

    def extend(self, items: Sequence[object]) -> None:
        """Add items at the end."""
        if not items:
            return
        inner = json_text(items, self._indent)[1:-1].removesuffix("\n")
        self._put((self._separator + inner).encode())
        self._separator = self._between

    def write(self, path: Path) -> None:
        """Write the list of now to `path`, as `write_json` does."""
        last = "\n" if self._separator and self._indent is not None else ""

        def whole(file: BinaryIO) -> None:
            self._file.seek(0)
            file.write(b"[")
            shutil.copyfileobj(self._file, file)
            file.write(f"{last}]\n".encode())

        _write(path, whole)

    def _put(self, text: bytes) -> None:
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            raise WriteFailed(str(self._folder), f"could not be written to: {error.strerror or error}") from None


def check_open_for_writing(path: Path) -> None:
    """See that `write_json` can write to what this process has open under `path`, where that is such a path."""
    descriptor = own_descriptor(path)
    if descriptor is not None:
        _open(path, descriptor).close()
    elif path.is_file():
        refuse_open_file(path)  # of another process


def _write(path: Path, put: Callable[[BinaryIO], object]) -> None:
    """Have `put` write a file that becomes `path`, or write to the pipe, the device or the open file that is there."""
    descriptor = own_descriptor(path)
    if descriptor is None and (not path.exists() or path.is_file() or path.is_dir()):
        with replacing(path) as temporary, temporary.open("wb") as file:
            put(file)
        return
    try:
        # What was printed before stands before it.
        sys.stdout.flush()
        with _open(path, descriptor) as file:
            put(file)
    except BrokenPipeError:
        # Whoever read it has gone, which is for the front door to tell.
        raise
    except OSError as error:
        raise WriteFailed(str(path), f"could not be written: {error.strerror or error}") from None


def _open(path: Path, descriptor: int | None) -> BinaryIO:
    """A pipe or a device, or a second handle to what is open already, which writes on where the first one is."""
    if descriptor is None:
        return path.open("wb")
    import fcntl  # not everywhere, as such paths are not

    try:
        written = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        if written:
            return os.fdopen(os.dup(descriptor), "wb")
    except OSError:
        pass
    raise WriteFailed(str(path), "is not open to be written to; name a file, or - for standard output")


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    return [_finite(value) for value in content] if isinstance(content, list | tuple) else content


def read_json_record(path: Path) -> dict[str, Any] | None:
    """A small JSON object that this program wrote beside a file; None where there is none.

    It may lie in a folder that others can write to: a link is not followed, a pipe not waited for, and neither size nor
    depth can do harm.
    """
    try:
        with open(path, encoding="utf-8", opener=open_without_following) as handle:
            if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
                return None
            content = json.loads(handle.read(MAX_RECORD_CHARACTERS))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
