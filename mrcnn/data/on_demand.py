"""Sequences whose items are made when they are asked for, so that holding them costs nothing."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TypeVar, overload

Item = TypeVar("Item")


class OnDemand(Sequence[Item]):
    """A sequence that says how long it is and makes an item from its place; slices are lists."""

    @abstractmethod
    def make(self, place: int) -> Item:
        """The item at a place from 0 on, below the length."""

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> list[Item]: ...
    def __getitem__(self, place: int | slice) -> Item | list[Item]:
        places = range(len(self))[place]
        return list(map(self.make, places)) if isinstance(places, range) else self.make(places)

    def __iter__(self) -> Iterator[Item]:
        return map(self.make, range(len(self)))
