"""A walk over JSON that comes in pieces finds what `json` finds in the whole of it."""

import json
from collections.abc import Callable
from functools import partial
from io import StringIO
from typing import Any

import pytest

from detectron_gn.mrcnn.data import json_walk
from detectron_gn.mrcnn.data.json_walk import JsonWalk

VALUES: list[Any] = [12345, -1.5e-3, True, None, "a ], \" \\ é 漢", [[], [1, [2]]], {"a": {"b": []}, "c": "}"}, 0]


def pieces(text: str, size: int) -> Callable[[], str]:
    return partial(StringIO(text).read, size)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("indent", [None, 2])
def test_the_items_of_a_list_and_their_places_are_found_in_pieces_of_any_size(size: int, indent: int | None) -> None:
    text = f" \n{json.dumps(VALUES, indent=indent, ensure_ascii=False)} \t"
    walk, found = JsonWalk(pieces(text, size)), []
    for item in walk.items():
        found.append(item)
        assert json.loads(text[walk.began : walk.place]) == item
    assert found == VALUES and walk.next() == ""


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize(
    "text", ["", "[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", '["a]', "[1}", "{}", "12", "[tru]", '[{"a": }]', "[1 1]"]
)
def test_what_is_no_list_is_refused_wherever_it_is_cut(text: str, size: int) -> None:
    with pytest.raises(ValueError):
        list(JsonWalk(pieces(text, size)).items())


def test_an_empty_list_has_no_items_and_a_beginning_is_told() -> None:
    assert list(JsonWalk(pieces("[ ]", 1)).items()) == []
    walk = JsonWalk(pieces("\ufeff [3]", 1))
    assert walk.starts_with("\ufeff") and not walk.starts_with("[")
    walk.take("\ufeff")
    assert list(walk.items()) == [3]


def test_a_value_that_is_very_long_is_not_decoded_again_with_every_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_walk, "_LONGEST", 100)
    read = pieces(f'["{"a" * 10_000}"]', 10)
    with pytest.raises(ValueError):
        list(JsonWalk(read).items())
    assert len(read()) == 10
