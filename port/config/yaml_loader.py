"""Reads the YAML that Detectron reads and writes, building nothing but data (Detectron core/config.py:load_cfg).

The configuration inside a pickle is `yaml.dump` of a nest of AttrDicts, under Python 2 or 3, and so is full of
Python tags. The few that Detectron wrote have a constructor here that makes plain values; any other tag is an error.
Nothing is ever imported or called by name.
"""

import math
import re
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.limits import MAX_CONFIG_CHARACTERS, MAX_CONFIG_DEPTH, MAX_CONFIG_VALUES

_TAG = "tag:yaml.org,2002:"
_PYTHON = f"{_TAG}python/"
_MULTIARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
_DTYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")
_NAME = re.compile(r"\w{1,100}")
_BYTE_ORDERS = ("<", ">", "=", "|")


class Unreadable(NamedTuple):
    """A value whose tag is none that Detectron writes; it is read as nothing."""

    tag: str


class Document(NamedTuple):
    """A mapping read from YAML, and the line (from 1) of each of its keys, under `"SECTION.KEY"`."""

    values: dict[str, Any]
    lines: dict[str, int]


def load_yaml(text: str, source: str, *, lenient: bool = False) -> Document:
    """Parse one YAML document that holds a mapping.

    AttrDicts become dictionaries, `!!python/tuple` tuples, numpy scalars numbers and numpy arrays lists.

    Args:
        source: what the text is called in errors, usually its file's name.
        lenient: give a value of an unknown tag as `Unreadable` instead of raising an error.

    Raises InputError, naming source and line, for anything else: broken YAML, unknown tags, keys that are no names
    or given twice, aliases that unfold to more than `MAX_CONFIG_VALUES` values, more than `MAX_CONFIG_CHARACTERS` of
    text.
    """
    with _told(source):
        loader = _loader(text, source, _LenientLoader if lenient else _DataLoader)
        root = loader.get_single_node()
        if not isinstance(root, MappingNode):
            raise InputError(f"{source}: it is {_kind(root)}, but a configuration is a mapping, such as NUM_GPUS: 8")
        _check_extent(root)
        values = loader.construct_document(root)
    if not isinstance(values, dict):
        raise InputError(f"{source}: it is a {type(values).__name__}, but a configuration is a mapping")
    return Document(values, dict(_key_lines(root, "")))


def yaml_nodes(text: str, source: str) -> Node | None:
    """The nodes of one YAML document, whose tags nobody has looked at; None for an empty one.

    Raises InputError, naming source and line, for broken YAML and for more text or more values than `load_yaml` takes.
    """
    with _told(source):
        root: Node | None = _loader(text, source, _LenientLoader).get_single_node()
        return root


@contextmanager
def _told(source: str) -> Iterator[None]:
    """Turns what the YAML library raises, and its want of depth, into one sentence that names source and line."""
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = source if mark is None else f"{source}, line {mark.line + 1}"
        raise InputError(f"{place}: {_sentence(error)}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{source}: it is not YAML text ({str(error).splitlines()[0]})") from error
    except RecursionError as error:
        raise InputError(f"{source}: it is nested too deeply: give a YAML file of Detectron's") from error


def _loader(text: str, source: str, kind: "type[_DataLoader]") -> "_DataLoader":
    if len(text) > MAX_CONFIG_CHARACTERS:
        raise InputError(
            f"{source}: it has more than {MAX_CONFIG_CHARACTERS} characters, too many for a configuration of "
            "Detectron's: give a YAML file of Detectron's"
        )
    return kind(text)


class _DataLoader(yaml.SafeLoader):
    """PyYAML's safe loader that also knows Detectron's tags, stops in time, and whose errors all name a line."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        # Counted here, for composing is what takes the time: seconds for every hundred thousand values.
        self._nodes += 1
        if self._nodes > MAX_CONFIG_VALUES:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            sentence = f"it has more than {MAX_CONFIG_VALUES} values: write fewer"
            raise ConstructorError(None, None, sentence, event.start_mark)
        node: Node | None = super().compose_node(parent, index)
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:
            # For a scalar that is not what its tag says, PyYAML lets through whatever int, float and dict raise.
            raise _error(node, f"{_shown(node)} is not what its type says: write it in quotes if it is text") from error

    def unknown(self, node: Node) -> Any:
        """What becomes of a node whose tag has no constructor."""
        tag = _told_tag(node)
        raise _error(node, f"the tag {tag} is none that Detectron writes (nothing was run for it): remove it")

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first_lines: dict[str, int] = {}
        for key_node, _ in node.value if isinstance(node, MappingNode) else ():
            if key_node.tag == f"{_TAG}merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                sentence = f"the key {_shown(key_node)} is no text to YAML (ON, OFF, YES and NO are truth values): "
                raise _error(key_node, f"{sentence}write it in quotes")
            if not _NAME.fullmatch(key):
                raise _error(key_node, f"the key {_shown(key_node)} is no name: write keys below their section")
            if key in first_lines:
                sentence = f"the key {key} is given a second time, after line {first_lines[key]}: "
                raise _error(key_node, f"{sentence}remove one of them")
            first_lines[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep=deep)


class _LenientLoader(_DataLoader):
    """The same, which reads values of unknown tags as `Unreadable`."""

    def unknown(self, node: Node) -> Unreadable:
        return Unreadable(_told_tag(node))


def _parts(loader: _DataLoader, node: Node) -> dict[Any, Any]:
    """What stands below a tag that describes an object by named parts; empty if it is no mapping."""
    return loader.construct_mapping(node, deep=True) if isinstance(node, MappingNode) else {}


def _attr_dict(loader: _DataLoader, node: Node) -> dict[Any, Any]:
    """`{dictitems: {...}, state: {__immutable__: true}}`; the state says nothing about the configuration."""
    parts = _parts(loader, node)
    items = parts.get("dictitems")
    if not parts.keys() <= {"dictitems", "state"} or not isinstance(items, dict):
        raise _error(node, "an AttrDict must have dictitems, perhaps a state, and nothing else")
    return items


def _tuple(loader: _DataLoader, node: SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node, deep=True))


def _text(loader: _DataLoader, node: ScalarNode) -> str:
    return str(loader.construct_scalar(node))


def _long(loader: _DataLoader, node: ScalarNode) -> int:
    return loader.construct_yaml_int(node)


def _dtype(loader: _DataLoader, node: Node) -> np.dtype[Any]:
    """`{args: [f8, 0, 1], state: (3, '<', ...)}` of a plain number type."""
    match _parts(loader, node):
        case {"args": [code, *_], "state": [3, order, *_]} if code in _DTYPES and order in _BYTE_ORDERS:
            dtype: np.dtype[Any] = np.dtype(code).newbyteorder(order)
            return dtype
    raise _error(node, f"a numpy dtype must be one of {', '.join(_DTYPES)}, with its byte order")


def _scalar(loader: _DataLoader, node: SequenceNode) -> Any:
    """`[dtype, bytes]`."""
    match loader.construct_sequence(node, deep=True):
        case [np.dtype() as dtype, data]:
            return _numbers(node, dtype, [], data).item()
    raise _error(node, "a numpy scalar must have a dtype and its bytes")


def _array(loader: _DataLoader, node: Node) -> Any:
    """`{args: [numpy.ndarray, (0,), b], state: (1, shape, dtype, is_fortran, bytes)}`, in C order."""
    match _parts(loader, node):
        case {"state": [1, [*shape], np.dtype() as dtype, False, data]}:
            return _numbers(node, dtype, shape, data).tolist()
    raise _error(node, "a numpy array must have the state (1, shape, dtype, False, bytes)")


def _numbers(node: Node, dtype: np.dtype[Any], shape: list[Any], data: Any) -> npt.NDArray[Any]:
    """An array from parts that fit each other; Python 2 writes bytes that happen to be ASCII as text."""
    if isinstance(data, str) and data.isascii():
        data = data.encode("ascii")
    sides_are_whole = all(type(side) is int and side >= 0 for side in shape)
    if not isinstance(data, bytes) or not sides_are_whole or dtype.itemsize * math.prod(shape) != len(data):
        raise _error(node, "the dtype, shape and bytes of a numpy value do not fit each other")
    return np.frombuffer(data, dtype).reshape(shape)


def _ndarray(loader: _DataLoader, node: Node) -> str:
    return "numpy.ndarray"


def _any_attr_dict(loader: _DataLoader, name: str, node: Node) -> Any:
    """An AttrDict of Detectron's, of whatever module: forks moved it."""
    return _attr_dict(loader, node) if name.rpartition(".")[2] == "AttrDict" else loader.unknown(node)


def _bare_attr_dict(loader: _DataLoader, name: str, node: Node) -> Any:
    """An AttrDict without items: what stands below the tag `object` are attributes."""
    return {} if name.rpartition(".")[2] == "AttrDict" else loader.unknown(node)


def _unknown(loader: _DataLoader, node: Node) -> Any:
    return loader.unknown(node)


_DataLoader.add_multi_constructor(f"{_PYTHON}object/new:", _any_attr_dict)
_DataLoader.add_multi_constructor(f"{_PYTHON}object:", _bare_attr_dict)
for _module in _MULTIARRAYS:
    _DataLoader.add_constructor(f"{_PYTHON}object/apply:{_module}.scalar", _scalar)
    _DataLoader.add_constructor(f"{_PYTHON}object/apply:{_module}._reconstruct", _array)
_DataLoader.add_constructor(f"{_PYTHON}object/apply:numpy.dtype", _dtype)
_DataLoader.add_constructor(f"{_PYTHON}name:numpy.ndarray", _ndarray)
_DataLoader.add_constructor(f"{_PYTHON}tuple", _tuple)
_DataLoader.add_constructor(f"{_PYTHON}unicode", _text)
_DataLoader.add_constructor(f"{_PYTHON}str", _text)
_DataLoader.add_constructor(f"{_PYTHON}long", _long)
_DataLoader.add_constructor(None, _unknown)


def _check_extent(root: Node) -> None:
    """Refuse a document whose aliases unfold to too many values, or to a cycle, before anything is built of it."""
    waiting = [(root, 1)]
    seen = 0
    while waiting:
        node, depth = waiting.pop()
        seen += 1
        if depth > MAX_CONFIG_DEPTH:
            raise _error(node, "it is nested too deeply, or in itself: a configuration has sections and keys alone")
        if seen > MAX_CONFIG_VALUES:
            raise _error(node, f"with its aliases unfolded, it has more than {MAX_CONFIG_VALUES} values: write fewer")
        if isinstance(node, MappingNode):
            waiting += [(child, depth + 1) for pair in node.value for child in pair]
        elif isinstance(node, SequenceNode):
            waiting += [(child, depth + 1) for child in node.value]


def _key_lines(node: Node, prefix: str) -> Iterator[tuple[str, int]]:
    """Full keys and their lines (from 1) in a mapping or an AttrDict; a key that `<<` merges in has its own line."""
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


def _told_tag(node: Node) -> str:
    return _cut(node.tag.replace(_TAG, "!!"))


def _error(node: Node, sentence: str) -> ConstructorError:
    return ConstructorError(None, None, sentence, node.start_mark)


def _sentence(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "something is wrong"
    if isinstance(error, ConstructorError):
        return problem
    if "'\\t'" in problem:
        return "a tab stands where YAML takes only spaces: indent with spaces"
    return f"it is not valid YAML ({problem}): mend it there"


def _kind(node: Node | None) -> str:
    if node is None:
        return "empty"
    return "a list" if isinstance(node, SequenceNode) else f"the value {_shown(node)}"


def _shown(node: Node) -> str:
    return _cut(repr(node.value)) if isinstance(node, ScalarNode) else "of several values"


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
