"""Pictures that are in two data sets: what is trained on tells nothing in an evaluation."""

import os
from collections.abc import Iterable
from pathlib import Path


def count_in_both(first: Iterable[Path], second: Iterable[Path]) -> int:
    """How many files are among both, by the files themselves: the same name in another folder is another picture."""
    return len(_resolved(first) & _resolved(second))


def _resolved(paths: Iterable[Path]) -> set[str]:
    """The paths with each folder's links and `..` followed; a folder is looked at once."""
    folders: dict[str, str] = {}
    found = set()
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        found.add(os.path.join(folders[folder], name))
    return found
