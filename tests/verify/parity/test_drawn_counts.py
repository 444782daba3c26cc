"""How many anchors were drawn: what chance does to two right draws is not told, and what a wrong rule does is."""

import pytest
import torch

from detectron_gn.verify.parity.drawn_counts import miscounted_anchors


def labels(there, wanted, generator, objects=0, turned=0):
    """Labels of a draw with replacement of `wanted` from the first `there` of candidates, after which objects stand."""
    drawn = torch.full((there + 4,), -1)
    drawn[torch.randint(there, (wanted,), generator=generator)] = 0
    drawn[there : there + objects] = 1
    drawn[there : there + turned] = 0
    return drawn


def roles(there):
    is_object = torch.arange(there + 4) >= there
    return is_object, ~is_object


@pytest.mark.parametrize(
    ("there", "wanted"), [(33, 32), (80, 64), (300, 256), (1000, 256), (20000, 256), (200000, 256)]
)
def test_chance_alone_is_not_told(there, wanted):
    generator = torch.Generator().manual_seed(3)
    draws = [labels(there, wanted, generator) for _ in range(300)]
    found = [miscounted_anchors(one, other, *roles(there)) for one, other in zip(draws, draws[1:])]
    assert not any(found)


@pytest.mark.parametrize(
    ("there", "ours", "theirs"),
    [(256, 128, 64), (1000, 512, 256), (1000, 128, 256), (20000, 512, 256), (20000, 128, 256), (200000, 32, 64)],
)
def test_half_or_twice_as_many_are_told(there, ours, theirs):
    generator = torch.Generator().manual_seed(3)
    drawn = [labels(there, wanted, generator) for wanted in (theirs, ours)]
    assert miscounted_anchors(*drawn, *roles(there)) > abs(ours - theirs) / 2


def test_where_ours_takes_all_the_background_each_that_lacks_counts():
    ours = torch.zeros(54, dtype=torch.int64)
    theirs = ours.clone()
    theirs[:3] = -1
    assert miscounted_anchors(theirs, ours, *roles(50)) == 3


def test_objects_count_one_by_one_but_for_those_that_are_background_since():
    generator = torch.Generator().manual_seed(3)
    ours = labels(10000, 60, generator, objects=4)
    found = [
        miscounted_anchors(labels(10000, 60, generator, objects, turned), ours, *roles(10000))
        for objects, turned in ((4, 0), (3, 0), (1, 0), (4, 1), (4, 3))
    ]
    assert found == [0, 1, 3, 0, 0]
