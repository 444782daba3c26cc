"""Writes a configuration as Detectron does with its weights (Detectron utils/net.py:save_model_to_weights_file).

Detectron reads it back as an AttrDict (`saved_cfg.MODEL`), so plain YAML mappings would not do there.
"""

import dataclasses
import struct
from typing import Any

import yaml
from yaml.nodes import MappingNode, ScalarNode, SequenceNode

from detectron_gn.mrcnn.config import Config

_PYTHON = "tag:yaml.org,2002:python/"
# Detectron holds these as lists, everything else of several values as tuples.
_LISTS = ("SOLVER.STEPS", "SOLVER.LRS", "EXPECTED_RESULTS")


def dump_config(cfg: Config) -> str:
    """YAML text of all keys, which Detectron reads, from a file or inside weights, and `parse_config` gives back."""
    return yaml.dump(_attr_dict(cfg, ""), Dumper=_Dumper, default_flow_style=False)


class _AttrDict(dict[str, Any]):
    """Becomes a `detectron.utils.collections.AttrDict`."""


class _Float64(float):
    """Becomes a numpy scalar; Detectron refuses any other type for BBOX_XFORM_CLIP."""


class _Array(tuple[float, ...]):
    """Becomes a `[1, 1, N]` numpy array, as PIXEL_MEANS is one."""


class _Dtype:
    """Becomes the numpy dtype of little-endian float64."""


def _attr_dict(section: Any, prefix: str) -> _AttrDict:
    items = _AttrDict()
    for field in dataclasses.fields(section):
        key, value = prefix + field.name, getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            items[field.name] = _attr_dict(value, f"{key}.")
        elif key == "BBOX_XFORM_CLIP":
            items[field.name] = _Float64(value)
        elif key == "PIXEL_MEANS":
            items[field.name] = _Array(value)
        else:
            items[field.name] = _lists(value) if key in _LISTS else value
    return items


def _lists(value: Any) -> Any:
    return [_lists(element) for element in value] if isinstance(value, tuple) else value


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper with the tags that Detectron's own dump has, and without aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_attr_dict(dumper: _Dumper, items: _AttrDict) -> MappingNode:
    parts = {"dictitems": dict(items), "state": {"__immutable__": True}}
    return dumper.represent_mapping(f"{_PYTHON}object/new:detectron.utils.collections.AttrDict", parts)


def _represent_tuple(dumper: _Dumper, value: tuple[Any, ...]) -> SequenceNode:
    return dumper.represent_sequence(f"{_PYTHON}tuple", value)


def _represent_dtype(dumper: _Dumper, value: _Dtype) -> MappingNode:
    parts = {"args": ["f8", False, True], "state": (3, "<", None, None, None, -1, -1, 0)}
    return dumper.represent_mapping(f"{_PYTHON}object/apply:numpy.dtype", parts)


def _represent_float64(dumper: _Dumper, value: _Float64) -> SequenceNode:
    parts = [_Dtype(), struct.pack("<d", value)]
    return dumper.represent_sequence(f"{_PYTHON}object/apply:numpy.core.multiarray.scalar", parts)


def _represent_array(dumper: _Dumper, value: _Array) -> MappingNode:
    data = struct.pack(f"<{len(value)}d", *value)
    parts = {"args": [_Ndarray(), (0,), b"b"], "state": (1, (1, 1, len(value)), _Dtype(), False, data)}
    return dumper.represent_mapping(f"{_PYTHON}object/apply:numpy.core.multiarray._reconstruct", parts)


class _Ndarray:
    """Becomes the name of numpy's array type."""


def _represent_ndarray(dumper: _Dumper, value: _Ndarray) -> ScalarNode:
    return dumper.represent_scalar(f"{_PYTHON}name:numpy.ndarray", "")


_Dumper.add_representer(_AttrDict, _represent_attr_dict)
_Dumper.add_representer(tuple, _represent_tuple)
_Dumper.add_representer(_Float64, _represent_float64)
_Dumper.add_representer(_Array, _represent_array)
_Dumper.add_representer(_Dtype, _represent_dtype)
_Dumper.add_representer(_Ndarray, _represent_ndarray)
