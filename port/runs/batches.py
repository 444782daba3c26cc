"""Batches of what comes one after another: items of one kind wait for each other, and their results stay in order."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

# An item is given to the network at the latest when so many batches of others have come after it.
_PATIENCE = 8


def grouped(
    items: Iterable[Item],
    kind: Callable[[Item], Hashable],
    batch: int,
    weight: Callable[[Item], int],
    limit: int,
) -> Iterator[list[tuple[int, Item]]]:
    """Items with their places, in groups of at most `batch` of one kind, that kind first which has waited longest.

    Args:
        kind: of an item; None keeps it alone.
        weight: of an item; those that wait weigh no more than `limit` together, or fewer than `batch` share a group.
    """
    waiting: dict[Hashable, list[tuple[int, Item]]] = {}
    held = 0

    def taken(key: Hashable) -> list[tuple[int, Item]]:
        nonlocal held
        group = waiting.pop(key)
        held -= sum(weight(item) for _, item in group)
        return group

    for number, item in enumerate(items):
        key = kind(item)
        if key is None:
            yield [(number, item)]
            continue
        waiting.setdefault(key, []).append((number, item))
        held += weight(item)
        if len(waiting[key]) == batch:
            yield taken(key)
        while waiting:
            # A dictionary keeps its order, so the first group is the one whose first item came first.
            key, group = next(iter(waiting.items()))
            if held <= limit and number - group[0][0] < _PATIENCE * batch:
                break
            yield taken(key)
    while waiting:
        yield taken(next(iter(waiting)))


def in_order(results: Iterable[tuple[int, Item]]) -> Iterator[Item]:
    """Results by the places of their items, whatever order they come in; those that are early wait in memory."""
    early: dict[int, Item] = {}
    place = 0
    for number, result in results:
        early[number] = result
        while place in early:
            yield early.pop(place)
            place += 1
