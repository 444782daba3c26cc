"""Configurations for benchmarks.fuzz_data: Detectron's keys with values that make sense and values that make none."""

from __future__ import annotations

import random
from typing import Any

import yaml

from benchmarks.fuzz_files import NUMBERS, damaged
from detectron_gn.mrcnn.config import Config, flatten

_DEFAULTS = flatten(Config())
_VALUES = [
    1, 0.5, "R-50", True, None, [1, 2], [], [[1]], {"a": 1}, {}, "generalized_rcnn", *NUMBERS, float("nan"),
    float("inf"), -1, 1e-300, "", "(1, 2)", "__import__('os')", "\u00e9", "x" * 300, "ON", "1e3", "0x10", "1_000", "~",
]  # fmt: skip
_PIECES = [
    "&a ", "*a", "*b", "&a [*a]", "!!python/tuple ", "!!python/object/apply:os.system ", "!!python/unicode ", "!!set ",
    "!!python/object/new:detectron.utils.collections.AttrDict\ndictitems: ", "[" * 50, "{", "\t", "\0", "\ufeff", "<<:",
    "? ", "- ", ": ", "'", '"', "|\n", "1e999", "0x", "\ud7ff", "- " * 30, "---\n", "...\n", "!!binary ", "%YAML 1.2\n",
    "!!omap ", "!!timestamp ", "2001-01-01", "=", "!<x>", "#", ",", "]", "}", "\\x", "&a {x: *a}", "\x85", "1:30:00",
    "!!int ", "!!float ", "!!bool ", "!!null ", "9" * 5000, "0o17", ".inf", "-.INF", "0b" + "1" * 70,
]  # fmt: skip


def yaml_texts(chance: random.Random) -> bytes:
    """A configuration with some of Detectron's keys, in one of the forms that people write YAML in."""
    document: dict[str, Any] = {}
    for key in chance.sample(sorted(_DEFAULTS), chance.randrange(1, 12)):
        *sections, name = key.split(".")
        place = document
        for section in sections:
            place = place.setdefault(section, {})
        default = _DEFAULTS[key]
        if isinstance(default, tuple):
            default = list(default)
        place[name] = default if chance.random() < 0.7 else chance.choice(_VALUES)
    if chance.random() < 0.1:
        document[chance.choice(["MODEL", "TEST", "NO_SUCH", "model", "", 1])] = chance.choice(_VALUES)
    text = yaml.safe_dump(
        document,
        default_flow_style=chance.choice([None, False, True]),
        default_style=chance.choice([None] * 8 + ['"', "'"]),
        allow_unicode=True,
    )

    def change() -> bytes:
        changed = text
        for _ in range(chance.choice([1, 1, 2, 5])):
            lines = changed.splitlines(keepends=True)
            at = chance.randrange(len(changed) + 1)
            if chance.random() < 0.3 and lines:
                line = chance.randrange(len(lines))
                lines.insert(chance.randrange(len(lines) + 1), chance.choice(["  ", "", ""]) + lines[line])
                changed = "".join(lines)
            else:
                changed = changed[:at] + chance.choice(_PIECES) + changed[at + chance.choice([0, 0, 1, 5]) :]
        return changed.encode(chance.choice(["utf-8"] * 9 + ["utf-16"]), "replace")

    return damaged(chance, text.encode(), change)
