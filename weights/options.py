"""What the commands of every room share: how a command is added, its exit codes, SOURCE, numbers, and --json.

Imports only the standard library at first: `detectron-gn --help` reads this module and every `cli.py`.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from detectron_gn.weights.errors import WeightsError

DONE, CHECK_FAILED, BAD_INPUT = 0, 1, 2

# What `ArgumentParser.add_subparsers` returns; argparse has no public name for it.
Commands: TypeAlias = "argparse._SubParsersAction[Any]"


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], meaning: str, example: str
) -> argparse.ArgumentParser:
    """Add a command with its help, an example and the option --json.

    Args:
        run: does the work and returns the exit code.
        meaning: one line of help, which begins with a small letter and has no full stop.
        example: arguments of a call that works, the command's name included.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=meaning,
        description=f"{meaning[0].upper()}{meaning[1:]}.",
        epilog=f"example:\n  detectron-gn {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what is printed to FILE, for programs")
    return parser


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add SOURCE, which names a weights file."""
    parser.add_argument("source", metavar="SOURCE", help="a model id, a URL, or a .pkl, .h5, .safetensors or .pth file")


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option that is a whole number from `least` up."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} up")
        return int(text)

    return number


def between(least: float, most: float = math.inf) -> Callable[[str], float]:
    """The type of an option that is a finite number from `least` to `most`."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and least <= value <= most):
            up_to = "up" if math.isinf(most) else f"to {most:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {least:g} {up_to}")
        return value

    return number


def check_writable(folder: Path) -> None:
    """Make the folder if need be and see that files can be put into it, before any long work; else WeightsError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".detectron-gn-{os.getpid()}"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise WeightsError(f"nothing can be written to {folder}: {error.strerror or error}") from None


def check_json(args: argparse.Namespace) -> None:
    """See that --json, where it is given, names a file that can be written; else WeightsError."""
    if args.json is None:
        return
    check_writable(args.json.parent)
    if args.json.is_dir():
        raise WeightsError(f"{args.json} is a folder: --json takes the name of a file")


def write_document(args: argparse.Namespace, document: object) -> None:
    """Write what a command printed to the file of --json, where it is given."""
    if args.json is not None:
        from detectron_gn.weights.files.json_file import write_json

        write_json(args.json, document, indent=1)
