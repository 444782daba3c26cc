"""argparse, whose errors are one sentence like all others, and say what was probably meant."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

from detectron_gn.other_programs import COMMANDS, bare_key, here
from detectron_gn.weights.shown import one_line

BAD_INPUT = 2  # 0 and 1 are what a command returns: see weights/command_line.py

# How alike a slip and what was meant are. Commands are short words.
_LIKE_A_COMMAND, _LIKE_AN_OPTION = 0.6, 0.7


class ForgivingParser(argparse.ArgumentParser):
    """A parser of one command, or of the program."""

    def error(self, message: str) -> NoReturn:
        print(f"detectron-gn: error: {one_line(message)}; see {self.prog} --help", file=sys.stderr)
        sys.exit(BAD_INPUT)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse does, but what this command does not know is refused here, where its options are known.

        Unknown options come first: argparse would take their values for arguments, and ask for what is lacking.
        """
        words = [str(word) for word in (sys.argv[1:] if args is None else args)]
        if words[:1] == ["help"] and (self._commands() is not None or (len(words) == 1 and not os.path.exists("help"))):
            words = [*words[1:], "--help"]
        # A shell asks for completions of a line that is not whole yet.
        if "_ARGCOMPLETE" not in os.environ:
            self._refuse_unknown(words)
        known, rest = super().parse_known_args(words, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return known, rest

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        """End with a sentence where there is an option that the command does not have, or a key without --set."""
        scanned = list(self._words(words))
        unknown = [word.partition("=")[0] for word, is_option in scanned if is_option]
        keys = [word for word, is_option in scanned if not is_option and _is_key(word)]
        if not unknown and not keys:
            lacking = self._arguments()[len(scanned) :]
            if lacking and "--set" in words and not {"-h", "--help"} & {*words}:
                named = ", ".join(lacking)
                self.error(
                    f"the following arguments are required: {named}: --set takes every word behind it: write it after "
                    "them"
                )
            return
        names = self._names()
        told = [each for name in unknown if (each := here(name, names)) is not None]
        told += [bare_key(key, names) for key in keys]
        strange = [name for name in unknown if here(name, names) is None]
        slips = [nearest(name, self._option_string_actions, _LIKE_AN_OPTION) for name in strange]
        advice = f": {'; '.join(dict.fromkeys(told))}" if told else ""
        meant = _did_you_mean([name for name in slips if name])
        self.error(f"unrecognized arguments: {' '.join([*unknown, *keys])}{advice}{meant}")

    def _words(self, words: Sequence[str]) -> Iterator[tuple[str, bool]]:
        """The options that this parser does not know, True, and the words that are no option's value, False.

        Of a parser with commands, up to the command, whose own parser takes the rest.
        """
        values: float = 0
        for word in words:
            if word == "--":
                return
            found = self._parse_optional(word)
            if found is None:
                if values:
                    values -= 1
                    continue
                yield word, False
                if self._commands() is not None:
                    return
                continue
            # A list of them from Python 3.12 on.
            action, _, value, *_ = found[0] if isinstance(found, list) else found
            if action is None:
                yield word, True
                values = 0 if "=" in word else 1
            elif word.startswith("-") and "=" in word and value is not None:
                values = 0
            else:
                values = _most_values(action)

    def _arguments(self) -> list[str]:
        """What the arguments without an option are called in the help."""
        return [str(action.metavar or action.dest) for action in self._actions if not action.option_strings]

    def _commands(self) -> argparse.Action | None:
        return next((action for action in self._actions if isinstance(action, argparse._SubParsersAction)), None)

    def _names(self) -> set[str]:
        """The options of this parser, and what its arguments are called in its help."""
        return {*self._option_string_actions, *(name for names in self._arguments() for name in names.split("|"))}

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        is_command = isinstance(action, argparse._SubParsersAction)
        elsewhere = COMMANDS if is_command and self.prog == "detectron-gn" else {}
        typed = os.path.basename(str(value)).removesuffix(".py") if elsewhere else str(value)
        near = elsewhere.get(typed.lower()) or nearest(typed, action.choices, _LIKE_A_COMMAND)
        told = _did_you_mean([near]) if near else f" (choose from {', '.join(map(str, action.choices))})"
        raise argparse.ArgumentError(action, f"invalid choice: {value!r}{told}")


def nearest(typed: str, names: Iterable[str], likeness: float) -> str | None:
    """The one of `names` that `typed` is a slip of; None where there is none."""
    near = difflib.get_close_matches(typed.lower(), names, 1, likeness)
    return near[0] if near else None


def _most_values(option: argparse.Action) -> float:
    """How many of the words that follow an option are its values."""
    if isinstance(option.nargs, int):
        return option.nargs
    return float("inf") if option.nargs in ("+", "*") else 1


def _is_key(word: str) -> bool:
    """Whether a word is a key of Detectron's configuration, or looks like one of a section of it, and names no file."""
    if not (word.isupper() and word.replace(".", "").replace("_", "").isalnum()) or os.path.exists(word):
        return False
    from dataclasses import fields

    from detectron_gn.mrcnn.config.schema import Config

    return word.partition(".")[0] in {field.name for field in fields(Config)}


def _did_you_mean(names: Sequence[str]) -> str:
    return f" (did you mean {', '.join(dict.fromkeys(names))}?)" if names else ""
