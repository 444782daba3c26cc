"""Turns what YAML or a command line gave for a key into the key's own type.

Answers to Detectron core/config.py:_decode_cfg_value and _check_and_coerce_cfg_value_type.
"""

import datetime
import math
import warnings
from ast import literal_eval
from typing import Any, get_args, get_origin

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.limits import MAX_VALUE_CHARACTERS

_LARGEST_INT = 2**63 - 1


def decode(key: str, value: object) -> object:
    """Text that reads as a Python literal becomes that literal; everything else stays as it is.

    So `SCALES: (800,)`, which is text to YAML, and `--set TEST.NMS 0.3` give a tuple and a number. Bytes, as which
    Python 2 wrote text that is not ASCII, become text first.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{key} holds bytes that are not UTF-8 text: write it as text") from error
    if not isinstance(value, str):
        return value
    if len(value) > MAX_VALUE_CHARACTERS:
        raise InputError(f"{key} has {len(value)} characters: give at most {MAX_VALUE_CHARACTERS}")
    try:
        with warnings.catch_warnings():
            # Of text that is almost Python, such as "1if", it would print one.
            warnings.simplefilter("ignore")
            return literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


def coerce(key: str, value: object, kind: Any, default: object) -> object:
    """A key's value in the key's own type, or InputError with the key, the value and what to write instead.

    Types must match exactly, but that text takes any plain value, lists and tuples take each other's place, and
    PIXEL_MEANS takes any nesting of its three numbers. Beyond Detectron: the elements of a list are checked, numbers
    must be finite, and text must not be null, which Detectron would take for the word 'None'.

    Args:
        value: as YAML or the command line gave it.
        kind: the type of the key's field in `Config`.
        default: the key's default, an example for the error.
    """
    decoded = decode(key, value)
    if kind is str:
        return _text(key, value, decoded, default)
    if get_origin(kind) is tuple:
        return _tuple(key, decoded, kind, default)
    if kind is float and type(decoded) is int and _is_of(decoded, int):
        raise InputError(f"{key} is the whole number {decoded}, but Detectron takes only floats: write {decoded}.0")
    if not _is_of(decoded, kind):
        raise _mismatch(key, decoded, kind, default)
    return decoded


def _text(key: str, value: object, decoded: object, default: object) -> str:
    """Detectron decodes text too, so that the quotes in `"'a b'"` fall away, and turns it back."""
    if not isinstance(value, (str, bytes, bool, int, float, datetime.date)) or not _is_sane(decoded):
        raise _mismatch(key, value, str, default)
    return str(decoded)


def _tuple(key: str, value: object, kind: Any, default: object) -> tuple[object, ...]:
    elements = get_args(kind)
    # An int may stand among floats: Detectron's own aspect ratios are (0.5, 1, 2).
    allowed = (float, int) if elements[0] is float else (elements[0],)
    if elements[0] is not Any and elements[-1] is Ellipsis and _is_of(value, *allowed):
        raise InputError(f"{key} is {value!r}, but it must be a list: write [{value!r}]")
    if not isinstance(value, (tuple, list)) or not _is_sane(value):
        raise _mismatch(key, value, kind, default)
    if elements[0] is Any:
        return _nested_tuple(value)
    if key == "PIXEL_MEANS":
        value = [float(number) if type(number) is int else number for number in _flat(value)]
    right_length = elements[-1] is Ellipsis or len(value) == len(elements)
    if not right_length or not all(_is_of(element, *allowed) for element in value):
        raise _mismatch(key, value, kind, default)
    return tuple(value)


def _is_of(value: object, *kinds: type) -> bool:
    """Exactly one of the types (True is no int), and a number of ordinary size."""
    return type(value) in kinds and _is_sane(value)


def _is_sane(value: object) -> bool:
    """No number in it is infinite, not a number, or too large for 64 bits."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, (tuple, list)):
        return all(_is_sane(element) for element in value)
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
    except ValueError:  # Python refuses to write out an int of more than 4300 digits.
        return "too large"
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _wanted(kind: Any) -> str:
    if get_origin(kind) is not tuple:
        return {bool: "True or False", int: "a whole number", float: "a number", str: "text"}[kind]
    elements = get_args(kind)
    count = "" if elements[-1] is Ellipsis else f"{len(elements)} "
    return f"a list of {count}" + {int: "whole numbers", float: "numbers", str: "texts", Any: "values"}[elements[0]]


def _example(kind: Any, default: object) -> str:
    if isinstance(default, tuple):
        return repr(list(default) or [{int: 0, float: 1.0, str: "name", Any: 0}[get_args(kind)[0]]])
    return repr(default)
