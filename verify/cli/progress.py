"""How far a long command is, on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")


def progress_bar(items: Iterable[Item], count: int, unit: str = "image", *, shown: bool = True) -> Iterable[Item]:
    """The items as they come, with a bar that tells items per second and the time left; in a log, every half minute.

    Args:
        count: how many items there will be.
        shown: False in every process but the first.
    """
    from tqdm import tqdm

    return tqdm(items, total=count, unit=unit, mininterval=0.1 if sys.stderr.isatty() else 30, disable=not shown)
