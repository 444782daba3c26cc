"""Writes a file whole or not at all: a temporary beside it, fsync, rename.

Answers to Detectron utils/io.py:save_object, which does the same for its pickles.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from uuid import uuid4

from detectron_gn.weights.errors import WriteFailed
from detectron_gn.weights.files.descriptors import leads_to_open_file


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of an empty temporary in the folder of `path`; when the block ends well it becomes `path`.

    An existing file stays as it was until then, and what replaces it has its permissions; of a link, what it points to
    is replaced. Folders of `path` that are not there are made. Raises WriteFailed, naming `path`, where the operating
    system refuses; whatever ends the block early, nothing of the temporary is left, and no folder that was made for it.
    """
    if "\0" in str(path):
        raise WriteFailed(str(path), "holds a zero byte, which no name can have")
    refuse_open_file(path)
    path = Path(os.path.realpath(path))
    # Shortened, since a name of the greatest length has no room for more.
    name = os.fsdecode(os.fsencode(path.name)[:200])
    temporary = path.with_name(f".{name}.{uuid4().hex}.tmp")
    missing = list(takewhile(lambda folder: not folder.exists(), path.parents))
    try:
        if path.is_dir():
            raise WriteFailed(str(path), "is a folder; name a file")
        if path.exists() and not path.is_file():
            raise WriteFailed(str(path), "is a device or a pipe; name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        _create(temporary, path)
        yield temporary
        sync(temporary)
        publish(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteFailed(str(path), f"could not be written: {reason}; nothing was left behind") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        # Those that hold the file stay, as they are not empty.
        with contextlib.suppress(OSError):
            for folder in missing:
                folder.rmdir()


def refuse_open_file(path: Path) -> None:
    """Raise WriteFailed where `path` leads to what a process has open: a log would be lost with all that is in it."""
    if leads_to_open_file(path):
        raise WriteFailed(str(path), "is what a process has open, which no file may replace; name a file")


def publish(part: Path, path: Path) -> None:
    """Rename a file whose content is on the disk to `path`, so that the new name survives a power cut."""
    os.replace(part, path)
    _sync_folder(path.parent)


def sync(path: Path) -> None:
    """Have the disk hold what was written."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Have the disk hold what was renamed; some network disks cannot do that, and the rename is done all the same."""
    with contextlib.suppress(OSError):
        sync(folder)


def _create(temporary: Path, path: Path) -> None:
    """Make the temporary with the permissions of the file that it will replace, before anything is written."""
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    if path.exists():
        with contextlib.suppress(OSError):  # some disks know no permissions
            os.chmod(temporary, path.stat().st_mode & 0o777)
