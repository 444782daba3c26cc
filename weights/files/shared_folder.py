"""Files in a folder that others may write to: a link or a pipe that was put there leads to another file, or waits."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def is_own_file(path: Path) -> bool:
    """Whether a regular file of this user lies there, under this name only."""
    found = _lstat(path)
    owner = os.geteuid() if hasattr(os, "geteuid") else None
    return found is not None and _is_plain(found) and owner in (None, found.st_uid)


def remove_link(path: Path) -> None:
    """Remove what lies there under a name of ours and is no plain file: a link, a pipe, a second name of a file."""
    found = _lstat(path)
    if found is not None and not _is_plain(found):
        path.unlink()


def open_without_following(path: str, flags: int) -> int:
    """An opener for `open`: no link is followed, and no pipe waited for, that was put there meanwhile."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)


def _lstat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _is_plain(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1
