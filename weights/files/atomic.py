"""Writes a file whole or not at all: a temporary beside it, fsync, rename.

Answers to Detectron utils/io.py:save_object, which does the same for its pickles.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from detectron_gn.weights.errors import WriteFailed


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; when the block ends well it becomes `path`.

    An existing file stays as it was until then; of a link, what it points to is replaced. Raises WriteFailed, naming
    `path`, where the operating system refuses; whatever ends the block early, nothing of the temporary is left.
    """
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        if path.is_dir():
            raise WriteFailed(str(path), "is a folder; name a file")
        if path.exists() and not path.is_file():
            raise WriteFailed(str(path), "is a device or a pipe; name a file")
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteFailed(str(path), f"could not be written: {reason}; nothing was left behind") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def sync(path: Path) -> None:
    """Have the disk hold what was written; folders too, so that the rename survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
