"""Turns what YAML or a command line gave for a key into the key's type; answers to Detectron core/config.py:_decode_cfg_value."""

import datetime
import math
from ast import literal_eval
from typing import Any, get_args, get_origin

from mrcnn.errors import InputError

# A list of the longest URLs has a few thousand characters.
MAX_CHARACTERS = 20_000
_LARGEST_INT = 2**63 - 1


def decode(key: str, value: object) -> object:
    """Text that reads as a Python literal becomes that literal; everything else stays as it is.

    So `SCALES: (800,)`, which is text to YAML, and `--set TEST.NMS 0.3` give a tuple and a number (Detectron
    core/config.py:_decode_cfg_value). Bytes, as Python 2 wrote some text, are decoded first.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{key} holds bytes that are not UTF-8 text: write it as text") from None
    if not isinstance(value, str):
        return value
    if len(value) > MAX_CHARACTERS:
        raise InputError(f"{key} has {len(value)} characters, more than the {MAX_CHARACTERS} that a value may have")
    try:
        return literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


def coerce(key: str, value: object, kind: Any, default: object) -> object:
    """A key's value in the key's own type, or InputError with the key, the value and what to write instead.

    Types must match but for what Detectron allows: text takes any plain value, lists and tuples take each other's
    place, PIXEL_MEANS takes any nesting of its three numbers (Detectron core/config.py:_check_and_coerce_cfg_value_type).
    Beyond Detectron, the elements of a list are checked, numbers must be finite, and text must not be null, which
    Detectron would read as 'None'.

    Args:
        value: as YAML or the command line gave it.
        kind: the type of the key's field in `Config`.
        default: shown as an example.
    """
    decoded = decode(key, value)
    if kind is str:
        return _text(key, value, decoded, default)
    if get_origin(kind) is tuple:
        return _tuple(key, decoded, kind, default)
    if kind is float and type(decoded) is int:
        raise InputError(f"{key} is {decoded}, but it is a float to Detectron: write {decoded}.0")
    if not _is_of(decoded, kind):
        raise _mismatch(key, decoded, kind, default)
    return decoded


def _text(key: str, value: object, decoded: object, default: object) -> str:
    is_plain = isinstance(value, (str, bytes, bool, int, float, datetime.date))
    if not is_plain:
        raise _mismatch(key, value, str, default)
    try:
        return str(decoded)
    except (ValueError, RecursionError):
        raise _mismatch(key, decoded, str, default) from None


def _tuple(key: str, value: object, kind: Any, default: object) -> tuple[object, ...]:
    if not isinstance(value, (tuple, list)):
        raise _mismatch(key, value, kind, default)
    kinds = get_args(kind)
    if kinds[-1] is not Ellipsis:
        if key == "PIXEL_MEANS":
            value = [float(number) if type(number) is int else number for number in _flat(value)]
        if len(value) != len(kinds):
            raise _mismatch(key, value, kind, default)
    elif kinds[0] is Any:
        return _nested_tuple(value)
    # An int may stand among floats: Detectron's own aspect ratios are (0.5, 1, 2).
    allowed = (float, int) if kinds[0] is float else (kinds[0],)
    if not all(_is_of(element, *allowed) for element in value):
        raise _mismatch(key, value, kind, default)
    return tuple(value)


def _is_of(value: object, *kinds: type) -> bool:
    """Exactly one of the types (True is no int), and no number beyond all measure."""
    if type(value) not in kinds:
        return False
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or abs(value) <= _LARGEST_INT


def _flat(value: object) -> list[object]:
    if isinstance(value, (tuple, list)):
        return [number for element in value for number in _flat(element)]
    return [value]


def _nested_tuple(value: tuple[object, ...] | list[object]) -> tuple[object, ...]:
    return tuple(_nested_tuple(element) if isinstance(element, (tuple, list)) else element for element in value)


def _mismatch(key: str, value: object, kind: Any, default: object) -> InputError:
    return InputError(f"{key} is {_shown(value)}, but it must be {_wanted(kind)}, such as {_example(kind, default)}")


def _shown(value: object) -> str:
    try:
        shown = "empty" if value is None else repr(value)
    except (ValueError, RecursionError):
        return "a value too long to show"
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _wanted(kind: Any) -> str:
    if kind is bool:
        return "True or False"
    names = {int: "whole numbers", float: "numbers", str: "text", Any: "anything"}
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if kinds[-1] is Ellipsis:
            return f"a list of {names[kinds[0]]}"
        return f"a list of {len(kinds)} {names[kinds[0]]}"
    return {int: "a whole number", float: "a number", str: "text"}[kind]


def _example(kind: Any, default: object) -> str:
    if isinstance(default, tuple):
        element = {int: 0, str: "name"}.get(get_args(kind)[0], 1.0)
        return repr(list(default or (element,)))
    return repr(default)
