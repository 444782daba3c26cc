"""What the commands of every room are made of: adding them, the options and checks that they share, JSON, progress.

It stands in the lowest room, since each room's `cli.py` uses it. Nothing here imports what only a command needs.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from detectron_gn.weights.errors import WeightsError
from detectron_gn.weights.files.atomic import refuse_open_file
from detectron_gn.weights.files.descriptors import STDOUT, leads_to_open_file, own_descriptor

DONE, CHECK_FAILED, NOTHING_COMPARED = 0, 1, 2

Handler = Callable[[argparse.Namespace], int]
"""Runs a command and returns its exit code: DONE, CHECK_FAILED where a check did not hold, or NOTHING_COMPARED where a
verification had nothing to go by, which is no success. Bad input, of the same code, it raises."""


class Commands:
    """The commands of a parser, each with a handler, a help text, an example and the options --json and --quiet."""

    def __init__(self, parser: argparse.ArgumentParser, metavar: str) -> None:
        self._parsers = parser.add_subparsers(metavar=metavar)
        parser.set_defaults(run=self._none_named, json=None, quiet=False)
        self._prog = parser.prog

    def _none_named(self, args: argparse.Namespace) -> int:
        """Runs where none of the commands is named."""
        raise WeightsError(f"name one of {', '.join(self._parsers.choices)}; see {self._prog} --help")

    def add(self, name: str, run: Handler, meaning: str, example: str) -> argparse.ArgumentParser:
        """Add a command; returns its parser, which takes its options."""
        parser: argparse.ArgumentParser = self._parsers.add_parser(
            name,
            help=meaning,
            description=f"{meaning[0].upper()}{meaning[1:]}.",
            epilog=f"example:\n  detectron-gn {example}",
            formatter_class=HelpFormatter,
        )
        parser.register("action", None, _StoreOnce)
        parser.set_defaults(run=run)
        add_output_options(parser)
        return parser

    def add_group(self, name: str, meaning: str, metavar: str) -> Commands:
        """Add a name that commands of its own follow, as `verify` in `verify blobs`."""
        parser: argparse.ArgumentParser = self._parsers.add_parser(
            name, help=meaning, description=f"{meaning[0].upper()}{meaning[1:]}.", formatter_class=HelpFormatter
        )
        return Commands(parser, metavar)


class HelpFormatter(argparse.HelpFormatter):
    """Help within the width of the terminal. A line that begins with blanks is a command, and is cut as a shell's."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n".join(
            _cut_command(line, width) if line.startswith(" ") else fill(line, width, indent)
            for line in text.splitlines()
        )


def _cut_command(line: str, width: int) -> str:
    """A shell's command in lines of at most `width`, each but the last with a backslash; options keep their values."""
    (start,) = re.findall("^ *", line)
    pieces = re.findall(r"-\S+(?: (?!-)(?:'[^']*'|\S+))?|'[^']*'|\S+", line)
    lines = [start + pieces[0]]
    for piece in pieces[1:]:
        if len(f"{lines[-1]} {piece} \\") > width:
            lines.append(f"{start}    {piece}")
        else:
            lines[-1] += f" {piece}"
    return " \\\n".join(lines)


class _StoreOnce(argparse._StoreAction):
    """An option with one value: given again it is refused, since the first value would go unsaid."""

    _given_in: argparse.Namespace | None = None

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if option_string is not None and self._given_in is namespace:
            raise argparse.ArgumentError(self, "is given twice, and only one can count: give it once")
        self._given_in = namespace
        super().__call__(parser, namespace, values, option_string)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """--json, as `args.json`, whose `-` is standard output, and ./- a file of that name; and --quiet."""
    parser.add_argument(
        "--json",
        type=lambda text: STDOUT if text == "-" else Path(text),
        metavar="FILE",
        help="write what is printed to FILE, for programs; with - to standard output, and nothing else there",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress and no notes; warnings and errors stay")


def add_source(parser: argparse.ArgumentParser) -> None:
    """The argument SOURCE, which `weights.download.cache.resolve` understands."""
    parser.add_argument("source", metavar="SOURCE", help="a model id, a URL, or a .pkl, .h5, .safetensors or .pth file")


def at_least(least: int) -> Callable[[str], int]:
    """An option's type: a whole number from `least` up."""

    def number(text: str) -> int:
        # Python refuses to read thousands of digits.
        if not text.isdecimal() or len(text) > 100 or int(text) < least:
            shown = text if len(text) <= 40 else f"{text[:40]}..."
            raise argparse.ArgumentTypeError(f"{shown!r} is no whole number from {least} up")
        return int(text)

    return number


def between(least: float, most: float = math.inf) -> Callable[[str], float]:
    """An option's type: a finite number from `least` to `most`."""

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
    """Make the folder if need be and see that files can be put into it, before any long work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".detectron-gn-{os.getpid()}"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise WeightsError(f"nothing can be written to {folder}: {error.strerror or error}") from None


def check_json_option(args: argparse.Namespace) -> None:
    """See that the file of --json can be written, where one is asked for, before any long work."""
    file: Path | None = args.json
    if file is None:
        return
    if leads_to_open_file(file):
        from detectron_gn.weights.files.json_file import check_open_for_writing

        check_open_for_writing(file)
    elif not _is_pipe_or_device(file):
        check_writable(file.parent)
        if file.is_dir():
            raise WeightsError(f"{file} is a folder: --json takes the name of a file")


def _is_pipe_or_device(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


@contextmanager
def json_alone(args: argparse.Namespace) -> Iterator[None]:
    """Where --json is standard output, nothing else is printed there: it goes to standard error meanwhile."""
    if args.json is None or own_descriptor(args.json) != 1:
        yield
        return
    sys.stdout.flush()
    with redirect_stdout(sys.stderr):
        yield


def check_outputs(args: argparse.Namespace) -> None:
    """See that the files that --out and --json name are none that the command reads, and are two."""
    out: Path | None = getattr(args, "out", None)
    if out is not None:
        refuse_open_file(out)
    if out is not None and out.is_dir():
        out = None
    files = {option: path for option, path in {"--out": out, "--json": args.json}.items() if path is not None}
    if files:
        read = inputs(args)
        for option, path in files.items():
            refuse_inputs_as_output(path, read, option)
    if len(files) == 2 and len({os.path.realpath(path) for path in files.values()}) == 1:
        raise WeightsError(f"--out and --json both name {out}: pass another --json")


def inputs(args: argparse.Namespace) -> list[str | Path]:
    """The files and folders that a command line names, besides those that are written."""
    named: list[str | Path] = []
    for name, value in vars(args).items():
        if name not in ("out", "json"):
            values = value if isinstance(value, list) else [value]
            named += [each for each in values if isinstance(each, Path)]
            named += [value] if name in ("source", "config", "weights") and isinstance(value, str) else []
    return named


def refuse_inputs_as_output(out: Path, given: Iterable[str | Path | None], option: str = "--out") -> None:
    """Raise WeightsError where what is written would take the place of one of the files that are read."""
    place = os.path.realpath(out)
    for path in given:
        if path is not None and os.path.realpath(path) == place:
            raise WeightsError(f"{path} is to be read, and a result would be written over it: pass another {option}")


def note(text: str) -> None:
    """Tell something that is no result and no warning, in a line of stderr; --quiet leaves it out."""
    if not getattr(sys.stderr, "is_quiet", False):
        print(text, file=sys.stderr, flush=True)


def write_json_option(args: argparse.Namespace, content: object) -> None:
    """Write what was printed to the file of --json, where one is asked for."""
    if args.json is not None:
        from detectron_gn.weights.files.json_file import write_json

        write_json(args.json, content, indent=1)
