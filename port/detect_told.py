"""What both ways of `detect` say in the same words: what pictures show, what failed, and whether that is an error."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.wording import amount
from detectron_gn.port.runs.drawn_rows import shown_score
from detectron_gn.weights.command_line import DONE
from detectron_gn.weights.shown import one_line


def tell_failure(error: InputError | str) -> None:
    """Say what is the matter with one image or video."""
    print(one_line(f"detectron-gn: {error}"), file=sys.stderr, flush=True)


def told_failed(failed: int) -> str:
    """What a line of counts says of those that failed."""
    return f", {failed:,} failed" if failed else ""


def told_files(files: Sequence[Path]) -> str:
    """Files of lines, of which there may be one for each process."""
    return f"{files[0]}{f' and {len(files) - 1} more' * (len(files) > 1)}"


def told_shown(least_score: float | None) -> str:
    """What pictures show, which nobody sees in them."""
    return f"what scores at least {shown_score(least_score):g}"


def code_of_failures(
    args: argparse.Namespace, failed: dict[str, tuple[int, int]], recorded: Sequence[Path], is_any_done: bool
) -> int:
    """The exit code of a run of which some may have failed; where that counts as an error, InputError says so.

    Args:
        failed: how many of how many, by what they are: `{"image": (2, 10)}`.
        recorded: the files in which they are listed.
        is_any_done: whether something was detected in, by this run or an earlier one.
    """
    told = [f"{bad:,} of {amount(count, kind)} failed" for kind, (bad, count) in failed.items() if bad]
    if not told:
        return DONE
    found = f"; what was found in the others is in {args.out}" if is_any_done else ""
    sentence = f"{' and '.join(told)}, as said above and in {told_files(recorded)}{found}"
    if not (args.allow_failures and is_any_done):
        raise InputError(sentence)
    tell_failure(sentence)
    return DONE
