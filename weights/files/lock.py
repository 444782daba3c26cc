"""A lock between processes that goes away with the process that held it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock file `path`, waiting for another process; yields False where the disk cannot lock.

    Some network file systems cannot lock at all. There the caller must take care itself: write under a name of its
    own and rename.
    """
    path.touch()
    lock = FileLock(path, poll_interval=0.1, fallback_to_soft=False)
    try:
        lock.acquire()
    except (OSError, NotImplementedError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
