"""Values of JSON as arrays, and rows of different lengths in one array, one after another."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
NumberArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Ragged:
    """`N` rows.

    Attributes:
        values: of all rows.
        starts: `[N + 1]` int64, where each row begins in `values`, and last where all end.
    """

    values: npt.NDArray[Any]
    starts: IntArray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        """A row, as a view."""
        return self.values[self.starts[row] : self.starts[row + 1]]

    @property
    def lengths(self) -> IntArray:
        """`[N]`, of the rows."""
        return np.diff(self.starts)

    def take(self, rows: IntArray) -> "Ragged":
        """Some rows, in this order."""
        lengths = self.lengths[rows]
        starts = starts_of(lengths)
        return Ragged(self.values[np.arange(starts[-1]) + np.repeat(self.starts[rows] - starts[:-1], lengths)], starts)


def numbers(values: Sequence[Any]) -> NumberArray | None:
    """Values of JSON as an array; None where one is no finite number."""
    if not set(map(type, values)) <= {int, float}:
        return None
    try:
        found = np.array(values, np.float64)
    except OverflowError:
        return None
    return found if np.isfinite(found).all() else None


def whole_numbers(values: Sequence[Any]) -> IntArray | None:
    """Values of JSON as an array; None where one is no whole number of 64 bits."""
    try:
        return np.array(values, np.int64) if set(map(type, values)) == {int} else None
    except OverflowError:
        return None


def starts_of(lengths: Sequence[int] | IntArray) -> IntArray:
    """Where rows of some lengths begin, and last where all end."""
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)))


def ragged(rows: Sequence[Sequence[Any]], dtype: npt.DTypeLike = np.float64) -> Ragged:
    """Rows of numbers put one after another."""
    starts = starts_of([len(row) for row in rows])
    return Ragged(np.fromiter(chain.from_iterable(rows), dtype, int(starts[-1])), starts)


def joined_starts(parts: Sequence[IntArray]) -> IntArray:
    """The `starts` of rows that came in parts."""
    ends = np.cumsum([0, *(part[-1] for part in parts)])
    shifted = [part[:-1] + end for part, end in zip(parts, ends[:-1].tolist(), strict=True)]
    return np.concatenate([*shifted, ends[-1:]]).astype(np.int64)


def joined(parts: Sequence[Ragged]) -> Ragged:
    """The rows of several parts, one part after another; there is at least one part."""
    return Ragged(np.concatenate([part.values for part in parts]), joined_starts([part.starts for part in parts]))
