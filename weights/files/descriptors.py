"""Paths that lead to what a process has open, as /dev/stdout does: the file behind must never be replaced.

A shell that sends its output to a log has the log open. A file that took the place of the log would hide it: what was
in it and what comes after would be in a file without a name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

STDOUT = Path("/dev/stdout")

_STANDARD = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_FOLDER = re.compile(r"/dev/fd|/proc/(self|thread-self|[0-9]+)(?:/task/[0-9]+)?/fd")
_MOST_LINKS = 40  # as Linux


def leads_to_open_file(path: Path) -> bool:
    """Whether a path, or a link in its place, names what some process has open: /dev/stdout, /proc/self/fd/3, ..."""
    return any(True for _ in _found(path))


def own_descriptor(path: Path) -> int | None:
    """The number of what this process has open under that path; None for another path, and of another process."""
    number, process = next(_found(path), (0, ""))
    return number if process in ("self", "thread-self", str(os.getpid())) else None


def _found(path: Path) -> Iterator[tuple[int, str]]:
    """The descriptor that a path leads to, if it does, and the process that has it, as /proc calls it."""
    step = os.path.abspath(path)
    for _ in range(_MOST_LINKS):
        if step in _STANDARD:
            yield _STANDARD[step], "self"
            return
        folder, name = os.path.split(step)
        for written in (folder, os.path.realpath(folder)):
            match = _FOLDER.fullmatch(written)
            if match is not None and name.isdecimal():
                yield int(name), match[1] or "self"
                return
        try:
            step = os.path.abspath(os.path.join(folder, os.readlink(step)))
        except (OSError, ValueError):  # no link, or a name with a zero in it
            return
