"""Detectron's dictionary, `{'blobs': {name: array}, 'cfg': text, 'categories': text}`, or the arrays themselves, bare.

Answers to Detectron utils/net.py:initialize_gpu_from_weights_file, which takes `blobs` where there is one and
the dictionary itself where there is none (the ImageNet files); other keys beside `blobs` it does not look at. PyTorch
projects keep their arrays under `model`, `state_dict` or a name of their own (`model_state_dict`, `net`); these are
read too (the last ones where `torch.save` wrote the file), so that whoever knows names can say whose they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from detectron_gn.weights.categories import CATEGORIES, Category, categories_or_reason
from detectron_gn.weights.errors import MalformedFile
from detectron_gn.weights.formats.pickle_values import Text, Value, describe
from detectron_gn.weights.formats.pickle_vm import PickleVM
from detectron_gn.weights.limits import MAX_CATEGORIES_BYTES, MAX_CFG_BYTES
from detectron_gn.weights.weights_file import check_blob_name, valid_iteration

Kind = TypeVar("Kind")

# Where the arrays are: in Detectron's files, and in the checkpoints of PyTorch projects.
_ARRAYS_UNDER = ("blobs", "model", "state_dict", "model_state_dict")


@dataclass(frozen=True)
class CheckpointDict(Generic[Kind]):
    """A dictionary sorted out: what is an array, what is the configuration, what is neither."""

    arrays: dict[str, Kind]
    cfg: str | None
    iteration: int | None
    left_out: dict[str, str]
    categories: tuple[Category, ...] | None


def sort_out(
    top: Value, array_type: type[Kind], machine: PickleVM, *, under_any_name: bool = False
) -> CheckpointDict[Kind]:
    """Sort the dictionary at the top of a pickle; arrays are the values of `array_type`.

    Args:
        under_any_name: whether the arrays may be in a dictionary of any name, as PyTorch's users call it; Detectron and
            its tools know their names.

    Raises MalformedFile where there is no dictionary, no array in it, or where several dictionaries in it have arrays
    and none a name that is known.
    """
    if not isinstance(top, dict):
        raise MalformedFile(machine.source, f"holds {describe(top)}, not a dictionary of arrays")
    key = _key_of_arrays(top, array_type, machine, under_any_name)
    blobs = top.get(key, top)
    if not isinstance(blobs, dict):
        raise MalformedFile(machine.source, f"holds {describe(blobs)} under 'blobs' where arrays belong")
    cfg, iteration = top.get("cfg"), top.get("iteration")
    left_out: dict[str, str] = {}
    if isinstance(cfg, Text):
        cfg_text = _cfg_text(cfg, machine)
    else:
        cfg_text = None
        if cfg is not None:
            left_out["cfg"] = f"is {describe(cfg)}, not YAML text"
    iteration = valid_iteration(iteration)
    categories = None
    if blobs is not top:
        taken = {key, "cfg"} | ({"iteration"} if iteration is not None else set())
        if isinstance(top.get(CATEGORIES), Text):
            categories, reason = _categories(top[CATEGORIES], machine)
            taken.add(CATEGORIES)
            left_out |= reason
        left_out |= {str(other): f"is {describe(top[other])} outside {key!r}" for other in top if other not in taken}
    arrays: dict[str, Kind] = {}
    for name, value in blobs.items():
        if blobs is top and name == "cfg":
            continue
        if isinstance(value, array_type):
            if not isinstance(name, str):
                raise MalformedFile(machine.source, f"a blob is named by the number {name}, not by a text")
            arrays[check_blob_name(name, machine.source)] = value
        elif not (blobs is top and name == "iteration" and iteration is not None):
            left_out[str(name)] = "is None" if value is None else f"is {describe(value)}, not an array"
    if not arrays:
        keys = ", ".join(ascii(key)[:40] for key in list(blobs)[:5]) or "nothing"
        raise MalformedFile(machine.source, f"holds no arrays (its keys: {keys}); a weights file has some")
    return CheckpointDict(arrays, cfg_text, iteration, left_out, categories)


def _key_of_arrays(
    top: dict[Any, Value], array_type: type[Kind], machine: PickleVM, under_any_name: bool
) -> Any:
    """Under which key the arrays are; `blobs`, which is not there, where they are in the dictionary itself."""
    known = next((key for key in _ARRAYS_UNDER if isinstance(top.get(key), dict)), None)
    if known is not None or not under_any_name or "blobs" in top or _has_arrays(top, array_type):
        return known or "blobs"
    found = [key for key, value in top.items() if isinstance(value, dict) and _has_arrays(value, array_type)]
    if len(found) > 1:
        keys = " and ".join(ascii(key)[:40] for key in found[:5])
        raise MalformedFile(machine.source, f"holds arrays under {keys}: save those of the model alone")
    return found[0] if found else "blobs"


def _has_arrays(values: dict[Any, Value], array_type: type[Kind]) -> bool:
    return any(isinstance(value, array_type) for value in values.values())


def _categories(stored: Value, machine: PickleVM) -> tuple[tuple[Category, ...] | None, dict[str, str]]:
    """The classes of the file, or why they are not read."""
    try:
        text = machine.text(stored, MAX_CATEGORIES_BYTES)
    except MalformedFile as error:
        return None, {CATEGORIES: f"is {error.cause}"}
    return categories_or_reason(text)


def _cfg_text(cfg: Text, machine: PickleVM) -> str:
    """The configuration's text; Latin-1 where it is not UTF-8 (a Python 2 `str` with accents)."""
    try:
        return machine.text(cfg, MAX_CFG_BYTES)
    except MalformedFile:
        if cfg.written != "plain" or cfg.length > MAX_CFG_BYTES:
            raise
    return bytes(machine.data[cfg.offset : cfg.offset + cfg.length]).decode("latin-1")
