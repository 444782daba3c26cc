"""Writes a configuration as YAML for people: plain values, only keys that are not at Detectron's defaults, comments.

Detectron and `read_config` read it as they read Detectron's own YAML files. What stands in weights is
`yaml_dumper`'s: all keys, in the types of Detectron's own dump.
"""

from collections.abc import Iterator, Mapping, Sequence

import yaml

from detectron_gn.mrcnn.config import Config, flatten
from detectron_gn.port.config.values import decode


def readable_config(cfg: Config, heading: Sequence[str] = (), comments: Mapping[str, str] | None = None) -> str:
    """YAML text of the keys that differ from Detectron's defaults, in Detectron's sections.

    Args:
        heading: lines of a comment at the top.
        comments: key -> what is said behind its value; such a key is written also where it is at its default.
    """
    return "\n".join([*(f"# {line}" for line in heading), *_lines(cfg, comments or {}), ""])


def _lines(cfg: Config, comments: Mapping[str, str]) -> Iterator[str]:
    defaults = flatten(Config())
    kept = {key: value for key, value in flatten(cfg).items() if value != defaults[key] or key in comments}
    open_sections: list[str] = []
    # Keys of a section follow one another in the schema; those of none come first, as in Detectron's files.
    for key, value in sorted(kept.items(), key=lambda item: "." in item[0]):
        *sections, name = key.split(".")
        shared = 0
        while shared < min(len(sections), len(open_sections)) and sections[shared] == open_sections[shared]:
            shared += 1
        for depth in range(shared, len(sections)):
            yield f"{'  ' * depth}{sections[depth]}:"
        open_sections = sections
        comment = f"  # {comments[key]}" if key in comments else ""
        yield f"{'  ' * len(sections)}{name}: {_text(key, value)}{comment}"


def _text(key: str, value: object) -> str:
    """A value in YAML, on one line; text that Detectron would read as a number or list stands in quotes of its own."""
    if isinstance(value, str) and decode(key, value) != value:
        value = repr(value)
    text: str = yaml.safe_dump(_plain(value), default_flow_style=True, width=10_000)
    return text.removesuffix("...\n").strip()


def _plain(value: object) -> object:
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
