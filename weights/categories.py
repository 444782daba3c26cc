"""The classes of a model as its weights file carries them: COCO's list of `categories`, as one JSON text.

The text is `[{"id": 1, "name": "person"}, ...]`, in ASCII, of classes 1, 2, ... Every format keeps it under the name
`categories`, beside the configuration. Detectron passes over it: it reads only `cfg` and `blobs` of its dictionary
(Detectron utils/net.py:initialize_gpu_from_weights_file).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from detectron_gn.weights.limits import MAX_CATEGORIES, MAX_CATEGORIES_BYTES, MAX_CATEGORY_ID, MAX_NAME_BYTES

CATEGORIES = "categories"
"""What the text is called in every format."""


class Category(NamedTuple):
    """What a class of a model is: the data set's own id for it, and its name."""

    id: int
    name: str


def categories_text(categories: tuple[Category, ...]) -> str:
    """The JSON text of categories in which `category_fault` finds nothing."""
    return json.dumps([category._asdict() for category in categories])


def read_categories(text: str) -> tuple[Category, ...]:
    """The categories of a JSON text; ValueError, with half a sentence (`names ...`), where it holds none."""
    if len(text) > MAX_CATEGORIES_BYTES:
        raise ValueError(f"has {len(text)} characters, more than the names of any model's classes")
    try:
        rows = json.loads(text, parse_int=_whole_number)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) and {"id", "name"} <= row.keys() for row in rows):
        raise ValueError("is no list of objects with 'id' and 'name'")
    categories = tuple(Category(row["id"], row["name"]) for row in rows)
    fault = category_fault(categories)
    if fault is not None:
        raise ValueError(fault)
    return categories


def categories_or_reason(text: str) -> tuple[tuple[Category, ...] | None, dict[str, str]]:
    """The categories of a text, or else, for `left_out`, why they are not read: no file is refused for its names."""
    try:
        return read_categories(text), {}
    except ValueError as error:
        return None, {CATEGORIES: f"{error}, so that the classes have no names"}


def category_fault(categories: tuple[Category, ...]) -> str | None:
    """What makes categories unfit to name classes by, as half a sentence (`names ...`); None where nothing does."""
    if not 1 <= len(categories) <= MAX_CATEGORIES:
        return f"names {len(categories)} classes, where 1 to {MAX_CATEGORIES:,} may be"
    for number, (identity, name) in enumerate(categories, 1):
        if not isinstance(name, str) or any("\ud800" <= character <= "\udfff" for character in name):
            return f"names class {number} by what is no text"
        if len(name.encode()) > MAX_NAME_BYTES:
            return f"names class {number} by a text longer than {MAX_NAME_BYTES} bytes"
        if type(identity) is not int or abs(identity) > MAX_CATEGORY_ID:
            return f"gives class {number} an id that is no whole number of 64 bits"
    for what, values in (("name", Counter(names_of(categories))), ("id", Counter(c.id for c in categories))):
        value, count = values.most_common(1)[0]
        if count > 1:
            return f"gives {count} classes the {what} {ascii(value)[:120]}"
    return None


def names_of(categories: tuple[Category, ...]) -> tuple[str, ...]:
    """The names of classes 1, 2, ..."""
    return tuple(category.name for category in categories)


def _whole_number(digits: str) -> int:
    """An integer of JSON; one of a million digits would take minutes."""
    if len(digits) > 20:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)
