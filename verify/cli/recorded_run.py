"""What `train --resume` finds of a run: whether it is where it is looked for, and whether its data still is."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Container, Iterator
from pathlib import Path

# The options that name data, and what each is called in the help.
_KINDS = {"annotations": "A.json", "images": "DIR", "eval_annotations": "V.json", "eval_images": "DIR"}


def check_recorded_paths(args: argparse.Namespace, given: Container[str], record: Path) -> None:
    """Raise InputError, naming all options to pass, where files or folders that a run has on record are gone.

    Args:
        args: the options of the run that goes on.
        given: those that are given now.
        record: where the others are on record.
    """
    from detectron_gn.mrcnn.errors import InputError

    gone = {name: path for name, path in _recorded_paths(args, given) if not path.exists()}
    if gone:
        first = next(iter(gone.values()))
        options = " and ".join(f"{_option(name)} {_KINDS[name]}" for name in gone)
        raise InputError(f"{first}: not there any more, and {record} names it: pass {options} with the new place")


def _recorded_paths(args: argparse.Namespace, given: Container[str]) -> Iterator[tuple[str, Path]]:
    from detectron_gn.verify.training.evaluation_data import named_path

    for name in _KINDS:
        if name not in given:
            for each in getattr(args, name):
                yield name, named_path(each)[1] if isinstance(each, str) else each


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def told_no_run(out: Path) -> str:
    """That a folder holds no run, with the name of one beside it that was meant, perhaps."""
    told = f"{out} holds no run to go on with" if out.exists() else f"{out}: no such folder"
    try:
        runs = [path.name for path in out.absolute().parent.iterdir() if (path / "run.json").exists()]
    except OSError:
        runs = []
    near = difflib.get_close_matches(out.name, runs, 1)
    return f"{told} (did you mean {out.with_name(near[0])}?)" if near else told
