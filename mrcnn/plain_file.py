"""Reads files that a user names, and nothing that is no file: a pipe would wait for ever, a device never end."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def read_plain_file(path: str | Path, most: int = -1) -> bytes:
    """The content of a regular file, at most its first `most` bytes; all of them where that is negative.

    Raises OSError as `open_plain_file` does.
    """
    with open_plain_file(path) as file:
        return file.read(most)


def open_plain_file(path: str | Path) -> BinaryIO:
    """A regular file, opened to be read.

    Commands read some files twice, so that a pipe could not be taken even where somebody writes to it.

    Raises OSError, whose words say so, where there is a pipe or a device in its place, and where it cannot be read.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:  # a name with a zero in it, or with half of a surrogate pair
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        # Asked before opening, which waits at a pipe.
        raise OSError(errno.EINVAL, "it is a pipe or a device; save it to a file first", str(path))
    return open(path, "rb")
