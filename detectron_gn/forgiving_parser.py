"""argparse, whose errors are one sentence like all others, and say what was probably meant."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from detectron_gn.weights.shown import one_line

BAD_INPUT = 2  # 0 and 1 are what a command returns: see weights/command_line.py

# What other programs call a command of ours.
_ELSEWHERE = {
    "list": "models", "ls": "models", "zoo": "models", "fetch": "download", "get": "download", "info": "inspect",
    "show": "inspect", "predict": "detect", "infer": "detect", "inference": "detect", "eval": "test",
    "evaluate": "test", "val": "test", "finetune": "train", "fit": "train", "compare": "verify", "check": "verify",
    "version": "--version", "help": "--help",
}  # fmt: skip


class ForgivingParser(argparse.ArgumentParser):
    """A parser of one command, or of the program."""

    def error(self, message: str) -> NoReturn:
        print(f"detectron-gn: error: {one_line(message)}; see {self.prog} --help", file=sys.stderr)
        sys.exit(BAD_INPUT)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse does, but what this command does not know is refused here, where its options are known."""
        known, rest = super().parse_known_args(args, namespace)
        if rest:
            names = [text.partition("=")[0] for text in rest if text.startswith("-")]
            meant = [near for name in names if (near := nearest(name, self._option_string_actions)) is not None]
            self.error(f"unrecognized arguments: {' '.join(rest)}{_did_you_mean(meant)}")
        return known, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        is_command = isinstance(action, argparse._SubParsersAction)
        near = nearest(str(value), action.choices, _ELSEWHERE if is_command and self.prog == "detectron-gn" else {})
        told = _did_you_mean([near]) if near else f" (choose from {', '.join(map(str, action.choices))})"
        raise argparse.ArgumentError(action, f"invalid choice: {value!r}{told}")


def nearest(typed: str, names: Iterable[str], elsewhere: dict[str, str] | None = None) -> str | None:
    """The one of `names` that `typed` is a slip of, or that it is called elsewhere; None where there is none."""
    if elsewhere and typed.lower() in elsewhere:
        return elsewhere[typed.lower()]
    near = difflib.get_close_matches(typed.lower(), names, 1)
    return near[0] if near else None


def _did_you_mean(names: list[str]) -> str:
    return f" (did you mean {', '.join(dict.fromkeys(names))}?)" if names else ""
