"""What values of JSON files are, asked before they are used, and how sentences show them."""

import math
import reprlib
from collections.abc import Mapping
from typing import Any


def is_known(identity: Any, known: Mapping[Any, Any] | set[Any]) -> bool:
    """Whether a value of JSON is one of the known ids."""
    return is_id(identity) and identity in known


def is_id(value: Any) -> bool:
    """Whether a value of JSON may be an id."""
    return type(value) is int or is_text(value)


def is_text(value: Any) -> bool:
    """Whether a value of JSON is text that can be written to a file: half of a surrogate pair cannot."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number that float64 holds."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def whole_number(value: Any) -> int | None:
    """A value of JSON as a whole number, which tools write as 177 or as 177.0; None for what is none."""
    if type(value) is int:
        return value
    return int(value) if type(value) is float and value.is_integer() else None


def told(value: Any) -> str:
    """A value in a sentence, cut short where it is long."""
    return reprlib.repr(value)


def kind(value: Any) -> str:
    """What a value of JSON is, in words."""
    return {dict: "JSON object", list: "list", str: "text", bool: "truth value"}.get(type(value), "number")
