"""What a detector's classes are called: their names and ids, which find their categories in annotations by name.

Detectron takes class k to be category k of whatever annotation file it is given
(datasets/json_dataset.py: json_category_id_to_contiguous_id). In a file that lists the same categories in another
order every detection is then of a wrong class, and nothing says so; names tell.
"""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.limits import LARGEST_NAMES_FILE, LONGEST_CLASS_NAME
from detectron_gn.mrcnn.plain_file import read_plain_file
from detectron_gn.mrcnn.wording import listed, printable

BACKGROUND = "__background__"


@dataclass(frozen=True)
class Categories:
    """Names and ids of classes 1, 2, ..., as the data set has them that the model was trained on.

    `keypoints` are the names of the keypoints of a model of others than COCO's 17; none where they are not known.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    keypoints: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of classes 0, 1, 2, ...: class 0 is the background."""
        return (BACKGROUND, *self.names)


# What an RPN by itself finds.
PROPOSALS = Categories(("proposal",), (1,))


def numbered(count: int) -> Categories:
    """What `count` classes are called whose names are not known: `class 1`, `class 2`, ..., with ids 1, 2, ..."""
    numbers = tuple(range(1, count + 1))
    return Categories(tuple(f"class {number}" for number in numbers), numbers)


def read_class_names(path: Path) -> tuple[str, ...]:
    """The class names of a text file, one a line, without the background; blank lines do not count.

    Raises InputError, naming the file, for what is no such list, and OSError where there is no file.
    """
    content = read_plain_file(path, LARGEST_NAMES_FILE + 1)
    try:
        lines = content.decode("utf-8-sig").splitlines() if len(content) <= LARGEST_NAMES_FILE else None
    except UnicodeDecodeError:
        lines = None
    if lines is None:
        raise InputError(f"{path} is no text in UTF-8: give class names, one a line")
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise InputError(f"{path} names no class: give class names, one a line")
    seen: set[str] = set()
    for name in names:
        if len(name.encode()) > LONGEST_CLASS_NAME:
            raise InputError(f"{path}: the class {name[:40]}... has a name longer than {LONGEST_CLASS_NAME} bytes")
        if name in seen or name == BACKGROUND:
            raise InputError(
                f"{path}: the class {name} " + ("is given twice: " if name != BACKGROUND else "is what is no object: ")
                + "give each class a name of its own, without the background"
            )
        seen.add(name)
    return tuple(names)


class Places:
    """Where each of some names stands. An accent may be written as one character or as two (Unicode's NFC and NFD)."""

    def __init__(self, names: Sequence[str]) -> None:
        self._places = {_composed(name): place for place, name in enumerate(names)}
        # Names that differ only in that are told apart where they are given exactly.
        self._places |= {name: place for place, name in enumerate(names)}

    def find(self, name: str) -> int | None:
        """The place of a name, from 0; None where it is not among them."""
        return self._places.get(name, self._places.get(_composed(name)))


def equal_names(some: Sequence[str], others: Sequence[str]) -> bool:
    """Whether two lists hold the same names in the same order."""
    return [_composed(name) for name in some] == [_composed(name) for name in others]


def match_categories(
    names: Sequence[str] | None, count: int, categories: Sequence[Mapping[str, Any]], annotations: Path
) -> list[int]:
    """The category id that each class of a model has in an annotation file, of classes 1, 2, ...

    Args:
        names: of classes 1, 2, ...; where they are None, class k is category k of the file, as in Detectron.
        count: of classes, without the background.
        categories: the file's, each with `id` and, if it has one, `name`.
        annotations: the file's name, for messages.

    Raises InputError unless each class has a category of its own and each category a class; it names the first
    difference and a way out.
    """
    if names is None:
        if len(categories) != count:
            raise InputError(
                f"{annotations} has {len(categories)} categories, but the model has {count} classes besides the "
                "background: give the annotations of the data set the model was trained on"
            )
        return [category["id"] for category in categories]
    given = [str(category.get("name", "")) for category in categories]
    twice = next((name for name, times in Counter(given).items() if times > 1), None)
    if twice is not None:
        raise InputError(f"{annotations} gives the name {twice!r} to two categories: give each a name of its own")
    places = Places(given)
    found: list[int | None] = []
    for name in names:
        place = places.find(name)
        found.append(None if place in found else place)
    missing = next((index for index, place in enumerate(found) if place is None), None)
    spare = [name for place, name in enumerate(given) if place not in found]
    if missing is not None:
        raise InputError(_missing(names, missing, spare, len(categories), annotations))
    if spare:
        raise InputError(
            f"{annotations} has the category {spare[0]!r}, which the model does not know: take it and its annotations "
            f"out of the file, or give the annotations of the data set the model was trained on ({_model(names)})"
        )
    return [categories[place]["id"] for place in found if place is not None]


def _missing(names: Sequence[str], index: int, spare: Sequence[str], count: int, annotations: Path) -> str:
    """What to say of a class that the annotations have no category for."""
    name = names[index]
    told = f"{annotations} has no category {name!r}, which is class {index + 1} of the model"
    if count != len(names):
        return (
            f"{told}; it has {count} categories and the model {len(names)} classes besides the background: list every "
            f"class of the model in 'categories', or give the annotations of the data set it was trained on "
            f"({_model(names)})"
        )
    nearest = next((other for other in spare if other.casefold() == name.casefold()), spare[0] if spare else "")
    return (
        f"{told}; it has {nearest!r}, which the model does not know: give the annotations of the data set the model "
        f"was trained on ({_model(names)}), or --classes with a file of the model's classes, one a line in their "
        "order, as the annotations call them"
    )


def _model(names: Sequence[str]) -> str:
    return listed([printable(name) for name in names], most=8)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip()
