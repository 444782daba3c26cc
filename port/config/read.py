"""Detectron's YAML, from files or from inside weights, to `Config` and back (Detectron core/config.py)."""

import contextlib
import dataclasses
import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

from detectron_gn.mrcnn.config import Config, flatten, has_box_head, key_use, unsupported_values, with_values
from detectron_gn.mrcnn.config.old_types import fixed_values
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.limits import MAX_CONFIG_CHARACTERS
from detectron_gn.mrcnn.plain_file import read_plain_file
from detectron_gn.port.config.renamed_keys import DROPPED_KEYS, RENAMED_KEYS
from detectron_gn.port.config.saved import (
    BOX_WEIGHTS,
    OLD_BOX_WEIGHTS,
    UnsupportedModel,
    check_fork,
    followed,
    has_box_weights,
    is_ignored,
)
from detectron_gn.port.config.values import coerce
from detectron_gn.port.config.yaml_dumper import dump_config
from detectron_gn.port.config.yaml_loader import load_yaml
from detectron_gn.weights.catalog import lookup
from detectron_gn.weights.errors import UnknownModel

__all__ = ["bundled_config", "bundled_names", "dump_config", "merge_overrides", "parse_config", "read_config"]

logger = logging.getLogger(__name__)


class WrongOverride(InputError):
    """A key or value that the user gave beside a configuration, which has no part in the fault."""


def _kinds(section: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Full keys with their types; sections with their dataclasses."""
    for name, kind in get_type_hints(section).items():
        yield prefix + name, kind
        if dataclasses.is_dataclass(kind):
            yield from _kinds(kind, f"{prefix}{name}.")


_KINDS: dict[str, Any] = dict(_kinds(Config, ""))
_SECTIONS = {key for key, kind in _KINDS.items() if dataclasses.is_dataclass(kind)}
_DEFAULTS = flatten(Config())
_MAX_BYTES = 4 * MAX_CONFIG_CHARACTERS


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration that a Detectron YAML file makes of Detectron's defaults.

    Args:
        overrides: `[KEY, VALUE, KEY, VALUE, ...]`, as on Detectron's command line.

    Raises InputError, naming the file and the line, as `parse_config` does, and for a file that cannot be read.
    """
    return parse_config(_text(path), str(path), overrides)


def named_keys(path: str | Path) -> frozenset[str]:
    """The keys that a Detectron YAML file names, whatever their values; InputError as `read_config` raises it."""
    return frozenset(key for key, _ in _leaves(load_yaml(_text(path), str(path)).values))


def config_of_keys(keys: Mapping[str, object], source: str) -> Config:
    """The configuration of full keys and their values, as JSON holds them: lists for tuples.

    Args:
        source: what holds them, for errors.

    Raises InputError, naming it and the key, as `parse_config` does.
    """
    settings: dict[str, object] = {}
    try:
        for key, value in keys.items():
            settings.update(_setting(key, value))
        return _finished(with_values(Config(), settings), {})
    except InputError as error:
        raise type(error)(f"{source}: {error}") from error


def _text(path: str | Path) -> str:
    """The text of a YAML file."""
    try:
        data = read_plain_file(path, _MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise InputError(f"{path}: it is too large for a configuration: give a Detectron YAML file")
        # A byte order mark of UTF-16 names its codec; that of UTF-8 is dropped.
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: it cannot be read ({error.strerror}): give a Detectron YAML file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: it is not text: give a Detectron YAML file") from error


def parse_config(
    text: str, source: str, overrides: Sequence[str] = (), *, saved_in_weights: bool = False
) -> Config:
    """The configuration that a YAML text makes of Detectron's defaults.

    Keys, types and values are checked, each by itself; what must hold between keys is for `check_config` to say when
    a model is built. Dropped keys are ignored with a warning; renamed and unknown ones are refused.

    Args:
        source: what the text is called in errors, usually its file's name.
        overrides: `[KEY, VALUE, KEY, VALUE, ...]`, as on Detectron's command line.
        saved_in_weights: the text is the `cfg` of a weights file, which nobody can edit and which may be older than
            today's keys. Renamed keys are then followed, unknown ones and those without effect are ignored, and a
            missing MODEL.BBOX_REG_WEIGHTS of a model with a box head is (1, 1, 1, 1), with a warning, as in Detectron
            (utils/net.py:configure_bbox_reg_weights).

    Raises InputError, naming source, line and key.
    """
    document = load_yaml(text, source, lenient=saved_in_weights)
    places = {key: f"{source}, line {line}: " for key, line in document.lines.items()}
    setting = _saved_setting if saved_in_weights else _setting
    settings: dict[str, object] = {}
    for key, value in _leaves(document.values):
        try:
            settings.update(setting(key, value))
        except InputError as error:
            raise type(error)(f"{places[key]}{error}") from error
    overriding = _override_settings(overrides)
    for key in overriding:
        places.pop(key, None)
    cfg = with_values(Config(), settings | overriding)
    if saved_in_weights and BOX_WEIGHTS not in settings | overriding and has_box_head(cfg):
        logger.warning("%s", told_old_box_weights(source))
        cfg = with_values(cfg, {BOX_WEIGHTS: OLD_BOX_WEIGHTS})
    return _finished(cfg, places, saved_in_weights=saved_in_weights)


def lacks_box_weights(text: str, source: str) -> bool:
    """Whether a configuration saved in weights does not name MODEL.BBOX_REG_WEIGHTS, which then are (1, 1, 1, 1).

    Raises InputError, as `parse_config` does, where the text cannot be read or a fork's switch is on in it.
    """
    values = load_yaml(text, source, lenient=True).values
    for key, value in _leaves(values):
        check_fork(key, value)
    return not has_box_weights(values)


def told_old_box_weights(source: str) -> str:
    """What is said of weights whose configuration does not name MODEL.BBOX_REG_WEIGHTS."""
    return (
        f"{source} does not name {BOX_WEIGHTS}, so the weights are taken to be older than that key: it is set to "
        f"(1, 1, 1, 1), as Detectron does; where boxes come out wrong, pass --set {BOX_WEIGHTS} '(10., 10., 5., 5.)'"
    )


def merge_overrides(cfg: Config, overrides: Sequence[str]) -> Config:
    """A configuration with some of its keys changed, as by Detectron's command line.

    Args:
        overrides: `[KEY, VALUE, KEY, VALUE, ...]`, for example `["TEST.NMS", "0.3", "TRAIN.SCALES", "(640, 800)"]`.

    Raises InputError, naming the key.
    """
    return _finished(with_values(cfg, _override_settings(overrides)), {})


def bundled_config(name: str, overrides: Sequence[str] = ()) -> Config:
    """A configuration of `yaml_configs/`.

    Args:
        name: one of `bundled_names()`, or the last part of one, with or without `.yaml`. Of two with the same last
            part, the baseline counts, not the one with test-time augmentation.

    Raises InputError, with the nearest names, for any other.
    """
    wanted = name.removeprefix("yaml_configs/").removesuffix(".yaml") + ".yaml"
    for known in bundled_names():
        if wanted in (known, known.rpartition("/")[2]):
            text = (resources.files("detectron_gn.yaml_configs") / known).read_text(encoding="utf-8")
            return parse_config(text, f"yaml_configs/{known}", overrides)
    raise InputError(f"{name} is no file and none of the configurations of yaml_configs/: {_meant(wanted)}")


def _meant(wanted: str) -> str:
    """What was probably meant by a name that is no configuration's."""
    by_stem = {known.rpartition("/")[2].removesuffix(".yaml"): known for known in reversed(bundled_names())}
    stem = wanted.rpartition("/")[2].removesuffix(".yaml")
    if stem in by_stem:
        return f"it is {by_stem[stem]} there, and --config {stem} is enough"
    with contextlib.suppress(UnknownModel):
        config = lookup(stem).config
        if config is not None:
            return f"the model of that name has --config {config.rpartition('/')[2].removesuffix('.yaml')}"
    near = difflib.get_close_matches(stem, by_stem, n=3)
    return f"did you mean {' or '.join(near)}?" if near else "`detectron-gn models` lists the models they are named by"


def bundled_names() -> list[str]:
    """What `yaml_configs/` holds, as `04_2018_gn_baselines/e2e_mask_rcnn_R-50-FPN_2x_gn.yaml`."""
    folders = [folder for folder in resources.files("detectron_gn.yaml_configs").iterdir() if folder.is_dir()]
    return sorted(
        f"{folder.name}/{file.name}" for folder in folders for file in folder.iterdir() if file.name.endswith(".yaml")
    )


def _leaves(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Full keys and values of a mapping of sections; a section that holds no keys stands for itself."""
    for name, value in mapping.items():
        if prefix + name in _SECTIONS and isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _override_settings(overrides: Sequence[str]) -> dict[str, object]:
    if len(overrides) % 2:
        raise WrongOverride(f"{overrides[-1]} has no value: give KEY VALUE pairs, such as TEST.NMS 0.3")
    settings: dict[str, object] = {}
    try:
        for key, value in zip(overrides[::2], overrides[1::2], strict=True):
            settings.update(_setting(key, value))
    except InputError as error:
        raise WrongOverride(str(error)) from error
    return settings


def _setting(key: str, value: object) -> dict[str, object]:
    """A key and its value in the key's type; nothing for a key that Detectron dropped."""
    if key in DROPPED_KEYS:
        logger.warning("%s is no longer a key of Detectron's and is ignored", key)
        return {}
    if key in RENAMED_KEYS:
        new = RENAMED_KEYS[key]
        raise InputError(f"{key} is now called {new.key}: give it under that name{new.advice}")
    if key in _SECTIONS:
        first = next(known for known in _DEFAULTS if known.startswith(f"{key}."))
        raise InputError(f"{key} is a section, not a key: give its keys, such as {first}")
    if key not in _DEFAULTS:
        raise InputError(f"{key} is no key of Detectron's: {_way_out(key)}")
    return {key: coerce(key, value, _KINDS[key], _DEFAULTS[key])}


def _saved_setting(key: str, value: object) -> dict[str, object]:
    """`_setting` for the configuration inside weights: old names are followed, what has no effect is ignored."""
    key, value = followed(key, value)
    if key not in _SECTIONS and is_ignored(key, value):
        return {}
    try:
        return _setting(key, value)
    except InputError as error:
        if key in _DEFAULTS and key_use(key) == "inert":
            logger.warning("%s; it has no effect and is ignored", error)
            return {}
        raise


def _finished(cfg: Config, places: Mapping[str, str], *, saved_in_weights: bool = False) -> Config:
    """The configuration with its inferred keys, when every value in it is supported.

    Args:
        places: where each key stands, for errors.
        saved_in_weights: whether the model was trained with these values, so that others make another network of it.

    A model with its own RPN takes no proposals from files (Detectron core/config.py:assert_and_infer_cfg). Some old
    values of MODEL.TYPE fix the body and the box head.
    """
    cfg = with_values(cfg, fixed_values(cfg.MODEL.TYPE))
    has_rpn = cfg.RPN.RPN_ON or cfg.MODEL.FASTER_RCNN or cfg.MODEL.RPN_ONLY
    from_files = cfg.TEST.PRECOMPUTED_PROPOSALS and not (has_rpn or cfg.RETINANET.RETINANET_ON)
    cfg = with_values(cfg, {"RPN.RPN_ON": has_rpn, "TEST.PRECOMPUTED_PROPOSALS": from_files})
    for unsupported in unsupported_values(cfg):
        place = places.get(unsupported.key, "")
        if not place:
            raise WrongOverride(str(unsupported))
        if not saved_in_weights:
            raise InputError(f"{place}{unsupported}")
        if unsupported.key.startswith(("TEST.", "TRAIN.", "SOLVER.")):
            raise InputError(f"{place}{unsupported.problem}: pass --set {unsupported.key} {unsupported.choices}")
        if not unsupported.can_be_meant:
            raise InputError(f"{place}{unsupported.problem}")
        raise UnsupportedModel(f"{place}{unsupported.problem}, and the model was trained so: only Detectron runs it")
    return cfg


def _way_out(key: str) -> str:
    """The nearest key: of those with the same last part, else of all."""
    name = key.rpartition(".")[2].upper()
    namesakes = [known for known in _DEFAULTS if known.rpartition(".")[2] == name]
    cutoff = 0.0 if namesakes else 0.6
    near = difflib.get_close_matches(key.upper(), namesakes or [*_DEFAULTS, *_SECTIONS], n=1, cutoff=cutoff)
    return f"did you mean {near[0]}?" if near else "remove it"

