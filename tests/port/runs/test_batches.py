"""Items share a batch by their kind, wait for each other only so long, and come out in their order."""

import random
from collections.abc import Iterator

from detectron_gn.port.runs.batches import grouped, in_order


def test_every_item_comes_once_in_groups_of_one_kind_and_in_order_again() -> None:
    items = random.Random(0).choices("abcde", weights=[20, 10, 5, 1, 1], k=500)
    groups = list(grouped(items, lambda item: None if item == "e" else item, 4, lambda _: 1, 30))
    assert sorted(number for group in groups for number, _ in group) == list(range(500))
    assert all(len({item for _, item in group}) == 1 and len(group) <= 4 for group in groups)
    assert all(len(group) == 1 for group in groups if group[0][1] == "e")
    assert sum(len(group) == 4 for group in groups) > 100
    # None waits for more than 8 batches of others.
    place = {number: when for when, group in enumerate(groups) for number, _ in group}
    before = [sum(len(group) for group in groups[: place[number]]) - number for number in range(500)]
    assert max(before) <= 8 * 4
    assert list(in_order((number, item) for group in groups for number, item in group)) == items


def test_what_waits_weighs_no_more_than_the_limit() -> None:
    taken = given = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(100):
            taken += 1
            yield item % 10

    most, sizes = 0, []
    for group in grouped(items(), lambda item: item, 8, lambda _: 5, 20):
        most = max(most, taken - given)
        given += len(group)
        sizes.append(len(group))
    # Ten kinds take turns, and four items are all that may wait: no two of a kind meet.
    assert (most, given, set(sizes)) == (5, 100, {1})
    assert [len(group) for group in grouped(range(10), lambda _: 0, 1, lambda _: 5, 0)] == [1] * 10
