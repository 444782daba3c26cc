"""A lock between processes that goes away with the process that held it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from detectron_gn.weights.errors import WeightsError
from detectron_gn.weights.files.shared_folder import remove_link


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file `path`; yields False where the disk cannot lock.

    While another process holds it this waits, or without `wait` raises filelock's Timeout.

    Some network file systems cannot lock at all. There the caller must take care itself: write under a name of its
    own and rename.
    """
    remove_link(path)
    path.touch()
    lock = FileLock(path, poll_interval=0.1, fallback_to_soft=False)
    try:
        lock.acquire(blocking=wait)
    except Timeout:  # an OSError too
        raise
    except (OSError, NotImplementedError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextlib.contextmanager
def occupied(folder: Path, name: str) -> Iterator[None]:
    """Keep other processes from the same work in a folder, by the lock file `name`, which is gone at the end.

    A killed process leaves the folder free. Where the disk cannot lock, nobody is kept out. Raises WeightsError where
    another process is there.
    """
    lock = folder / name
    try:
        with locked(lock, wait=False):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
    except Timeout:
        raise WeightsError(
            f"another process is at work in {folder}: stop it, wait for its end, or choose another --out"
        ) from None
