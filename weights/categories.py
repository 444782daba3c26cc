"""The classes of a model as its weights file carries them: COCO's list of `categories`, as one JSON text.

The text is `[{"id": 1, "name": "person"}, ...]`, in ASCII, of classes 1, 2, ... A model of keypoints that are not
COCO's 17 has their names as `keypoints` there. Every format keeps it under the name `categories`, beside the
configuration. Detectron passes over it: it reads only `cfg` and `blobs` of its dictionary
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
    """What a class of a model is: the data set's own id for it, its name, and the names of its keypoints, if known."""

    id: int
    name: str
    keypoints: tuple[str, ...] = ()


def categories_text(categories: tuple[Category, ...]) -> str:
    """The JSON text of categories in which `category_fault` finds nothing."""
    rows = ({key: value for key, value in category._asdict().items() if value != ()} for category in categories)
    return json.dumps(list(rows))


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
    if not all(isinstance(row.get("keypoints", []), list) for row in rows):
        raise ValueError("names keypoints by what is no list")
    categories = tuple(Category(row["id"], row["name"], tuple(row.get("keypoints", []))) for row in rows)
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
    for number, (identity, name, keypoints) in enumerate(categories, 1):
        if len(keypoints) > MAX_CATEGORIES:
            return f"names {len(keypoints)} keypoints of class {number}"
        for what, each in ((f"class {number}", name), *((f"a keypoint of class {number}", each) for each in keypoints)):
            if not isinstance(each, str) or any("\ud800" <= character <= "\udfff" for character in each):
                return f"names {what} by what is no text"
            if len(each.encode()) > MAX_NAME_BYTES:
                return f"names {what} by a text longer than {MAX_NAME_BYTES} bytes"
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


def keypoints_of(categories: tuple[Category, ...]) -> tuple[str, ...]:
    """The names of the keypoints, where all classes have the same ones."""
    found = {category.keypoints for category in categories}
    return found.pop() if len(found) == 1 else ()


def _whole_number(digits: str) -> int:
    """An integer of JSON; one of a million digits would take minutes."""
    if len(digits) > 20:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)
