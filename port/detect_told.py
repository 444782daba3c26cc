"""What both ways of `detect` say in the same words: what pictures show, what failed, and whether that is an error."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.wording import amount
from detectron_gn.port.runs.drawn_rows import shown_score
from detectron_gn.weights.command_line import DONE, note
from detectron_gn.weights.shown import one_line

# What most models keep at all (TEST.SCORE_THRESH).
_LOW_SCORE = 0.05


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


def note_undrawn(args: argparse.Namespace, best: float, is_another_folder: bool) -> None:
    """Where all that was found scores too little to be shown, say how it is seen.

    Args:
        best: the highest score, 0 where nothing was found.
        is_another_folder: whether a run with another --min-score needs another --out.
    """
    if args.pictures is False and not args.save_masks or not 0 < best < shown_score(args.min_score):
        return
    # Rounded down, so that 0.4996 is not told as 0.5.
    told = f"{math.floor(best * 1000) / 1000:g}"
    lower = f"--min-score {_LOW_SCORE if best >= _LOW_SCORE else 0:g}"
    shows = f"{lower} and another --out show more" if is_another_folder else f"{lower} shows more"
    note(f"nothing that was found scores enough to be shown: the best score is {told}; {shows}")


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
