"""Reads the YAML that Detectron reads and writes, building nothing but data; answers to Detectron core/config.py:load_cfg.

The configuration inside a pickle is `yaml.dump` of a nest of AttrDicts, under Python 2 or 3, and so is full of Python
tags. The few that Detectron wrote have a constructor here that makes plain values; any other tag is an error. Nothing
is ever imported or called by name.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from mrcnn.errors import InputError

# Detectron's own dump of all its keys has 12 thousand characters, 600 nodes and 9 levels.
MAX_CHARACTERS = 100_000
MAX_NODES = 20_000
MAX_DEPTH = 30

_TAG = "tag:yaml.org,2002:"
_PYTHON = f"{_TAG}python/"
_ATTR_DICTS = ("detectron.utils.collections.AttrDict", "utils.collections.AttrDict")
_MULTIARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
_DTYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")
_BYTE_ORDERS = ("<", ">", "=", "|")


class Document(NamedTuple):
    """A mapping read from YAML, and the line (from 1) of each of its keys, under `"SECTION.KEY"`."""

    values: dict[Any, Any]
    lines: dict[str, int]


def load_yaml(text: str, source: str) -> Document:
    """Parse one YAML document that holds a mapping.

    AttrDicts become dictionaries, `!!python/tuple` tuples, numpy scalars numbers and numpy arrays lists.

    Args:
        source: what the text is called in errors, usually its file's name.

    Raises InputError, naming source and line, for anything else: broken YAML, unknown tags, a key given twice, aliases
    that would unfold to more than `MAX_NODES` nodes, a text of more than `MAX_CHARACTERS`.
    """
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"{source}: {len(text)} characters are too many for a Detectron configuration (at most {MAX_CHARACTERS}): "
            "give a YAML file of Detectron's"
        )
    try:
        loader = _DataLoader(text)
        root = loader.get_single_node()
        if root is None:
            raise InputError(f"{source}: it is empty, but a configuration must have at least one key")
        _check_extent(root)
        values = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise InputError(f"{_place(source, error)}: {_sentence(error)}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{source}: it is not YAML text ({str(error).splitlines()[0]})") from error
    except RecursionError as error:
        raise InputError(f"{source}: it is nested too deeply for a configuration") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{source}: it holds a value that cannot be read ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{source}: it holds {_kind(root)}, but a configuration is a mapping such as `NUM_GPUS: 8`")
    return Document(values, dict(_key_lines(root, "")))


class _DataLoader(yaml.SafeLoader):
    """PyYAML's safe loader that also knows Detectron's tags and takes no key twice."""

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        first_lines: dict[str, int] = {}
        for key_node, _ in node.value if isinstance(node, MappingNode) else ():
            if key_node.tag == f"{_TAG}merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _error(key_node, f"the key {key_node.value} is no text to YAML (on, off, yes and no are True "
                             "or False): write it in quotes")
            if key in first_lines:
                raise _error(key_node, f"the key {key} is given a second time, after line {first_lines[key]}: "
                             "remove one of them")
            first_lines[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep=deep)


def _error(node: Node, sentence: str) -> ConstructorError:
    return ConstructorError(None, None, sentence, node.start_mark)


def _attr_dict(loader: _DataLoader, node: Node) -> dict[Any, Any]:
    """`{dictitems: {...}, state: {__immutable__: true}}`; the state says nothing about the configuration."""
    if isinstance(node, SequenceNode) and not node.value:
        return {}
    if not isinstance(node, MappingNode):
        raise _error(node, "an AttrDict must be written as a mapping")
    parts = loader.construct_mapping(node, deep=True)
    items = parts.get("dictitems", {})
    if not set(parts) <= {"dictitems", "state"} or not isinstance(items, dict):
        raise _error(node, "an AttrDict must have dictitems and state, and nothing else")
    return items


def _empty_attr_dict(loader: _DataLoader, node: Node) -> dict[Any, Any]:
    """`!!python/object:...AttrDict {__immutable__: true}`, which is how PyYAML writes one without items."""
    if not isinstance(node, MappingNode) or not set(loader.construct_mapping(node, deep=True)) <= {"__immutable__"}:
        raise _error(node, "an AttrDict of this tag must be empty")
    return {}


def _tuple(loader: _DataLoader, node: SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node, deep=True))


def _text(loader: _DataLoader, node: ScalarNode) -> str:
    return str(loader.construct_scalar(node))


def _long(loader: _DataLoader, node: ScalarNode) -> int:
    return loader.construct_yaml_int(node)


def _dtype(loader: _DataLoader, node: Node) -> np.dtype[Any]:
    """`{args: [f8, 0, 1], state: (3, '<', ...)}` of a plain number type."""
    parts = loader.construct_mapping(node, deep=True) if isinstance(node, MappingNode) else {}
    code = (parts.get("args") or [None])[0]
    order = (*(parts.get("state") or ()), None, None)[1]
    if code not in _DTYPES or order not in _BYTE_ORDERS:
        raise _error(node, f"a numpy dtype must be one of {', '.join(_DTYPES)}, with its byte order")
    dtype: np.dtype[Any] = np.dtype(code).newbyteorder(order)
    return dtype


def _scalar(loader: _DataLoader, node: Node) -> Any:
    """`[dtype, bytes]`."""
    parts = loader.construct_sequence(node, deep=True) if isinstance(node, SequenceNode) else []
    if len(parts) != 2:
        raise _error(node, "a numpy scalar must have a dtype and its bytes")
    return _numbers(node, parts[0], (), parts[1]).item()


def _array(loader: _DataLoader, node: Node) -> Any:
    """`{args: [numpy.ndarray, (0,), b], state: (1, shape, dtype, is_fortran, bytes)}`."""
    parts = loader.construct_mapping(node, deep=True) if isinstance(node, MappingNode) else {}
    state = parts.get("state")
    if not isinstance(state, (tuple, list)) or len(state) != 5:
        raise _error(node, "a numpy array must have the state (version, shape, dtype, order, bytes)")
    _, shape, dtype, is_fortran, data = state
    return _numbers(node, dtype, shape, data, "F" if is_fortran else "C").tolist()


def _numbers(node: Node, dtype: Any, shape: Any, data: Any, order: str = "C") -> npt.NDArray[Any]:
    """An array from its parts, all of them checked; Python 2 writes bytes that are ASCII as text."""
    if isinstance(data, str) and data.isascii():
        data = data.encode("ascii")
    sides = shape if isinstance(shape, (tuple, list)) else (-1,)
    if (
        not isinstance(dtype, np.dtype)
        or not isinstance(data, bytes)
        or not all(type(side) is int and 0 <= side <= len(data) for side in sides)
        or int(np.prod([dtype.itemsize, *sides], dtype=object)) != len(data)
    ):
        raise _error(node, "the dtype, shape and bytes of a numpy value do not fit each other")
    return np.frombuffer(data, dtype).reshape(sides, order="F" if order == "F" else "C")


def _ndarray_name(loader: _DataLoader, node: Node) -> str:
    return "numpy.ndarray"


def _unknown(loader: _DataLoader, node: Node) -> None:
    tag = node.tag.replace(_TAG, "!!")
    raise _error(node, f"the tag {tag} is none that Detectron writes, and nothing was run for it: remove it")


for _module in _ATTR_DICTS:
    _DataLoader.add_constructor(f"{_PYTHON}object/new:{_module}", _attr_dict)
    _DataLoader.add_constructor(f"{_PYTHON}object:{_module}", _empty_attr_dict)
for _module in _MULTIARRAYS:
    _DataLoader.add_constructor(f"{_PYTHON}object/apply:{_module}.scalar", _scalar)
    _DataLoader.add_constructor(f"{_PYTHON}object/apply:{_module}._reconstruct", _array)
_DataLoader.add_constructor(f"{_PYTHON}object/apply:numpy.dtype", _dtype)
_DataLoader.add_constructor(f"{_PYTHON}name:numpy.ndarray", _ndarray_name)
_DataLoader.add_constructor(f"{_PYTHON}tuple", _tuple)
_DataLoader.add_constructor(f"{_PYTHON}unicode", _text)
_DataLoader.add_constructor(f"{_PYTHON}str", _text)
_DataLoader.add_constructor(f"{_PYTHON}long", _long)
_DataLoader.add_constructor(None, _unknown)


def _check_extent(root: Node) -> None:
    """Refuse a document whose aliases unfold to too many nodes, or to a cycle, before anything is built of it."""
    waiting = [(root, 1)]
    seen = 0
    while waiting:
        node, depth = waiting.pop()
        seen += 1
        if depth > MAX_DEPTH:
            raise _error(node, "it is nested too deeply for a configuration")
        if seen > MAX_NODES:
            raise _error(node, f"with its aliases unfolded, it has more than {MAX_NODES} values")
        if isinstance(node, MappingNode):
            waiting += [(child, depth + 1) for pair in node.value for child in pair]
        elif isinstance(node, SequenceNode):
            waiting += [(child, depth + 1) for child in node.value]


def _key_lines(node: Node, prefix: str) -> Iterator[tuple[str, int]]:
    """Full keys and their lines (from 1) in a mapping or an AttrDict."""
    if not isinstance(node, MappingNode):
        return
    is_attr_dict = node.tag.startswith(_PYTHON)
    for key_node, value_node in node.value:
        if is_attr_dict:
            if key_node.value == "dictitems":
                yield from _key_lines(value_node, prefix)
        elif isinstance(key_node, ScalarNode):
            yield prefix + key_node.value, key_node.start_mark.line + 1
            yield from _key_lines(value_node, f"{prefix}{key_node.value}.")


def _place(source: str, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f"{source}, line {mark.line + 1}" if mark is not None else source


def _sentence(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "something is wrong"
    if isinstance(error, ConstructorError):
        return problem
    if "'\\t'" in problem:
        return "a tab stands where YAML takes spaces only: indent with spaces"
    return f"it is not valid YAML ({problem}): mend that line"


def _kind(node: Node) -> str:
    return "a list" if isinstance(node, SequenceNode) else f"the value {node.value[:40]!r}"
