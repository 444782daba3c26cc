"""The configuration inside a weights file, which nobody can edit and which may be older than today's keys.

Detectron itself reads one key of it, MODEL.BBOX_REG_WEIGHTS (utils/net.py:configure_bbox_reg_weights). So what is odd
about keys that have no effect is told and not refused.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from detectron_gn.mrcnn.config import Config, flatten, key_use
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.config.renamed_keys import DROPPED_KEYS, RENAMED_KEYS
from detectron_gn.port.config.values import decode
from detectron_gn.port.config.yaml_loader import Unreadable

logger = logging.getLogger(__name__)

BOX_WEIGHTS = "MODEL.BBOX_REG_WEIGHTS"
OLD_BOX_WEIGHTS = (1.0, 1.0, 1.0, 1.0)

_KEYS = frozenset(flatten(Config()))
# Switched off in every model that is supported; in old weights its defaults may have been others.
_IDLE_SECTIONS = ("RFCN.",)
# Switches that forks of Detectron added, in whatever section. Where one is on, boxes are computed otherwise, although
# the blobs may have Detectron's names and shapes.
_FORKS = {"XYXY": "KL-Loss", "PRED_STD": "KL-Loss", "CASCADE_ON": "Cascade R-CNN", "BODY_UV_ON": "DensePose"}
# Where a run keeps its files: these differ between any two machines.
_PLACES = ("TRAIN.WEIGHTS", "TEST.WEIGHTS", "TRAIN.PROPOSAL_FILES", "TEST.PROPOSAL_FILES")


class UnsupportedModel(InputError):
    """The configuration is of a network that cannot be built here, whatever else is given."""


def followed(key: str, value: object) -> tuple[str, object]:
    """A key and its value under the key's name of today."""
    if key in RENAMED_KEYS:
        new = RENAMED_KEYS[key]
        return new.key, new.value(decode(key, value))
    return key, value


def is_ignored(key: str, value: object) -> bool:
    """Whether a saved key is not read: one that has no effect is not, and an unknown one, which a warning tells.

    Raises UnsupportedModel as `check_fork` does, and InputError for a value that cannot be read where it matters.
    """
    check_fork(key, value)
    if key.startswith(_IDLE_SECTIONS):
        return True
    if key in DROPPED_KEYS:
        return False
    tags = [f"the tag {unreadable.tag}" for unreadable in _unreadable(value)]
    if key not in _KEYS:
        odd = f" (it has {tags[0]})" if tags else ""
        logger.warning("%s, saved with the weights, is no key of Detectron's%s and is ignored", key, odd)
        return True
    if tags and key_use(key) == "inert":
        logger.warning("%s, saved with the weights, has %s and is ignored: it has no effect", key, tags[0])
        return True
    if tags:
        raise InputError(f"{key} has {tags[0]}, which is none that Detectron writes")
    return False


def check_fork(key: str, value: object) -> None:
    """Raise UnsupportedModel for the switch of a fork that computes boxes otherwise, where it is on."""
    fork = _FORKS.get(key.rpartition(".")[2])
    if fork is not None and key not in _KEYS and decode(key, value):
        raise UnsupportedModel(
            f"{key} is {value!r}: the model is of {fork}, a fork of Detectron that computes boxes otherwise and is not "
            "supported"
        )


def differences(ours: Config, saved: Config) -> Iterator[str]:
    """What a saved configuration says otherwise, of the keys that have an effect: `TEST.NMS is 0.3, not 0.5`."""
    counted = flatten(ours)
    for key, value in flatten(saved).items():
        if value != counted[key] and key_use(key) != "inert" and key not in _PLACES:
            yield f"{key} is {value!r} there, not {counted[key]!r}"


def has_box_weights(values: Mapping[str, Any]) -> bool:
    """Whether a saved configuration, as YAML gave it, names MODEL.BBOX_REG_WEIGHTS."""
    section, name = BOX_WEIGHTS.split(".")
    model = values.get(section)
    return isinstance(model, dict) and name in model


def _unreadable(value: object) -> Iterator[Unreadable]:
    if isinstance(value, Unreadable):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _unreadable(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _unreadable(part)
