"""Completion in bash, zsh and fish: the command `completion`, and the answer where a shell asks.

argcomplete, whose protocol it is, reads the parser itself, so that every option is known as soon as it is written.
What is offered for a value goes by its name in the help (SOURCE, YAML, DIR), wherever it stands.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from detectron_gn.weights.command_line import DONE, Commands, write_json_option
from detectron_gn.weights.shown import stream_for_code

if TYPE_CHECKING:
    from detectron_gn.weights.catalog import CatalogEntry

SHELLS = ("bash", "zsh", "fish")
_WHERE = (
    "bash, or zsh: append what is printed to ~/.bashrc, or to ~/.zshrc after its line with compinit; fish: write it to "
    "~/.config/fish/completions/detectron-gn.fish"
)
_WEIGHTS = ("pkl", "h5", "safetensors", "pth")
_YAML = ("yaml", "yml")

Completer = Callable[..., dict[str, str]]
"""Is given what was typed so far; returns each completion with a few words about it, which zsh and fish show."""


def add_completion(commands: Commands) -> None:
    """`completion SHELL`."""
    parser = commands.add(
        "completion",
        _completion,
        "print what lets bash, zsh or fish complete commands, options and model ids",
        "completion bash >> ~/.bashrc",
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=_WHERE)


def _completion(args: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    code = shellcode(["detectron-gn"], shell=args.shell)
    print(code, file=stream_for_code())
    write_json_option(args, {"shell": args.shell, "code": code})
    return DONE


def complete_and_leave(parser: argparse.ArgumentParser) -> None:
    """Where a shell asks for completions, write them and end the process; else do nothing, and import nothing."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        for action in arguments_of(parser):
            completer = COMPLETERS.get(str(action.metavar))
            if completer is not None:
                vars(action)["completer"] = completer
        argcomplete.autocomplete(parser, always_complete_options=False)


def arguments_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All arguments of a parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from arguments_of(child)
        else:
            yield action


def _models(prefix: str, **_: object) -> dict[str, str]:
    return _named(entry for entry in _entries() if entry.path is not None)


def _models_with_detections(prefix: str, **_: object) -> dict[str, str]:
    return _named(entry for entry in _entries() if entry.boxes or entry.masks or entry.keypoints)


def _models_and_files(prefix: str, **_: object) -> dict[str, str]:
    return _models(prefix) | _files(prefix, _WEIGHTS)


def _configurations_and_files(prefix: str, **_: object) -> dict[str, str]:
    return _configurations() | _files(prefix, _YAML)


def _models_configurations_and_files(prefix: str, **_: object) -> dict[str, str]:
    return _models(prefix) | _configurations() | _files(prefix, (*_WEIGHTS, *_YAML))


def _kinds(prefix: str, **_: object) -> dict[str, str]:
    from detectron_gn.weights.catalog import families

    return {family.lower().replace("r-cnn", "rcnn").replace(" ", "-"): family for family in families()}


def _folders(prefix: str, **_: object) -> dict[str, str]:
    from argcomplete.completers import DirectoriesCompleter

    return dict.fromkeys(DirectoriesCompleter()(prefix), "")


COMPLETERS: dict[str, Completer] = {
    "SOURCE": _models_and_files,
    "SOURCE|YAML": _models_configurations_and_files,
    "ID": _models_with_detections,
    "ID|URL": _models,
    "YAML": _configurations_and_files,
    "KIND": _kinds,
    "DIR": _folders,
}
"""By the name of a value in the help. A value of another name is completed from its choices, or else from files."""


def _entries() -> tuple[CatalogEntry, ...]:
    from detectron_gn.weights.catalog import catalog

    return catalog().entries


def _named(entries: Iterable[CatalogEntry]) -> dict[str, str]:
    """Models by id and by name."""
    return {name: f"{entry.kind} {entry.backbone} {entry.norm}" for entry in entries for name in entry.names}


def _configurations() -> dict[str, str]:
    """The configurations of the catalog by name."""
    configs = [(entry.config, entry.kind) for entry in _entries()]
    return {PurePosixPath(config).stem: f"configuration, {kind}" for config, kind in configs if config is not None}


def _files(prefix: str, suffixes: tuple[str, ...]) -> dict[str, str]:
    """Files that end so, and folders to look into."""
    from argcomplete.completers import FilesCompleter

    return dict.fromkeys(FilesCompleter(suffixes)(prefix), "")
