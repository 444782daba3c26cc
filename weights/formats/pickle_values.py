"""The values that stand for a pickle's strings and globals while it is read; they do nothing."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Literal

Value = object
"""What the stack holds: None, bool, int, float, tuple, list, dict, Text, Symbol, or the grammar's own."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A global of the grammar's table: a name that stands for itself and is never imported."""

    name: str


@dataclass(frozen=True, slots=True)
class Text:
    """A string or bytes of the pickle: where it lies, undecoded until someone asks.

    `written` is how the bytes stand in the file. `kind` is what they were: `text`, `bytes`, or a Python 2
    `str`, which may be either.
    """

    offset: int
    length: int
    written: Literal["plain", "utf-8", "raw-unicode-escape", "string-escape"]
    kind: Literal["text", "bytes", "str"]


def unescape(stored: bytes) -> bytes:
    """The bytes that the inside of a Python 2 string literal stands for; ValueError for a strange escape."""
    if _STRANGE_ESCAPE.search(stored.replace(rb"\\", b"")):
        raise ValueError("an escape that Python 2 does not write")
    return codecs.escape_decode(stored)[0]


_STRANGE_ESCAPE = re.compile(rb"\\(?!x[0-9a-f]{2}|['\"nrt])")


def describe(value: Value) -> str:
    """A value's kind in words, for messages; never its content, which may be huge or nested."""
    if value is None:
        return "None"
    if isinstance(value, Symbol):
        return value.name
    names: dict[type, str] = {
        bool: "a truth value", int: "a whole number", float: "a number", tuple: "a tuple", list: "a list",
        dict: "a dictionary",
    }  # fmt: skip
    if isinstance(value, Text):
        return "bytes" if value.kind == "bytes" else "a text"
    return names.get(type(value), "an array")
