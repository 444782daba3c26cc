"""A lock between processes that goes away with the process that held it."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock file `path`, waiting for another process; yields False where the disk cannot lock.

    Some network file systems cannot lock at all. There the caller must be careful by itself: write under a
    name of its own and rename.
    """
    with open(path, "ab") as handle:
        yield _lock(handle.fileno())


def _lock(descriptor: int) -> bool:
    if fcntl is None:
        return False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
                return False
        time.sleep(0.1)
