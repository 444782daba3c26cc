"""The options of `train`, and how `run.json` keeps them, so that `train --resume --out run` needs nothing else."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from detectron_gn.port.options import (
    add_config,
    add_device,
    add_image_reading,
    add_keep_unused,
    add_out,
)
from detectron_gn.verify.cli.options import add_data_sets
from detectron_gn.weights.command_line import add_output_options, at_least

# What says how a command is run, not what is trained.
_NOT_KEPT = ("out", "resume", "json", "quiet", "scale_schedule")
# Where one of a pair is given, the run's own other one does not count.
_INSTEAD = {
    "epochs": ("iterations",),
    "iterations": ("epochs",),
    "eval_annotations": ("eval_images", "eval_proposals"),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """All options of `train` but --json and --quiet."""
    add_config(parser, "what to train (default: that of the weights)")
    add = parser.add_argument
    add(
        "--weights",
        metavar="SOURCE",
        help="model id, URL or file to start from (default: TRAIN.WEIGHTS); model_iterN goes on after N, model_final "
        "begins at 0",
    )
    add_data_sets(parser, required=False)
    add(
        "--proposals",
        type=Path,
        action="append",
        default=[],
        metavar="P.pkl",
        help="rpn_proposals.pkl of each --annotations, for a model without an RPN (default: TRAIN.PROPOSAL_FILES)",
    )
    add(
        "--data-cache",
        type=Path,
        metavar="DIR",
        help="where large annotation files are kept as they were read (default: data_cache in --out)",
    )
    add("--keep-empty", action="store_true", help="train on images without objects too, which Detectron leaves out")
    add_out(parser)
    add("--resume", action="store_true", help="go on with the run in --out, bit for bit; it knows its other options")
    _add_schedule(parser)
    add("--classes", type=Path, metavar="NAMES.txt", help="class names, one a line, in the order of the categories")
    add("--weights-classes", type=Path, metavar="NAMES.txt", help="those of the weights, to keep rows of equal names")
    add_keep_unused(parser)
    add("--freeze", type=_names, default=(), metavar="PARTS", help="do not train these: body, fpn, rpn, box, mask, ...")
    add("--force", action="store_true", help="train from scratch even with TRAIN.FREEZE_AT above 0")
    _add_checkpoints(parser)
    _add_evaluation(parser)
    add_image_reading(parser)
    add("--workers", type=at_least(0), default=2, metavar="N", help="threads that load images (default 2)")
    add_device(parser)
    add("--precision", choices=("fp32", "tf32", "bf16"), default="fp32", help="of the forward pass (default fp32)")
    add("--recompute", action="store_true", help="save memory: compute the backbone's activations twice")
    add("--scale-schedule", type=at_least(1), metavar="N", help="write the configuration for N GPUs to --out and stop")


def _add_schedule(parser: argparse.ArgumentParser) -> None:
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--epochs",
        type=at_least(1),
        metavar="N",
        help="fit the configuration's schedule into N passes over the images, and its rate to the GPUs that there are "
        "(default: Detectron's keys, exactly)",
    )
    length.add_argument("--iterations", type=at_least(1), metavar="N", help="the same, into N iterations")


def _add_checkpoints(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--checkpoint-every",
        type=at_least(1),
        metavar="N",
        help="iterations (default: TRAIN.SNAPSHOT_ITERS where you set it, else as Detectron, but ten times in a run, "
        "of a short one every 20, and after half an hour)",
    )
    add("--keep", type=at_least(1), default=3, metavar="K", help="checkpoints to keep (default 3)")
    add("--detectron-checkpoints", action="store_true", help="write model_iterN.pkl, which Detectron goes on from, too")


def _add_evaluation(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--eval-annotations",
        action="append",
        default=[],
        metavar="[NAME=]V.json",
        help="evaluate every checkpoint on this; may be given several times, the first one decides what is best",
    )
    add(
        "--eval-images",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="their images: one for each --eval-annotations, or one for all (default: those of training)",
    )
    add(
        "--eval-proposals",
        type=Path,
        action="append",
        default=[],
        metavar="P.pkl",
        help="rpn_proposals.pkl of each --eval-annotations, for a model without an RPN (default: TEST.PROPOSAL_FILES)",
    )
    add("--eval-loss", action="store_true", help="compute the losses on the --eval-annotations too")
    add(
        "--keep-best",
        nargs="?",
        const=True,
        default=False,
        choices=("box", "mask", "keypoint"),
        help="keep model_best.pth: of the highest AP of this kind (default: mask, or else keypoint, box AP or recall)",
    )
    add(
        "--early-stop",
        type=at_least(0),
        metavar="N",
        help="end after N evaluations without a better one (0: never), and keep the best",
    )


def _names(text: str) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(name for name in text.split(",") if name)


def given_options(arguments: Sequence[str]) -> dict[str, Any]:
    """What is given on a command line of `train`, by the name of its option, without defaults."""
    parser = _parser("the command line")
    parser.set_defaults(**dict.fromkeys(vars(parser.parse_args(["--out", "."]))))
    return {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}


def with_recorded(args: argparse.Namespace, recorded: Sequence[str], place: Path) -> argparse.Namespace:
    """The options of a run that goes on: those that are given now, and for all others those that it has on record.

    Args:
        recorded: as `recorded_arguments` made them.
        place: where they were found, for a sentence.
    """
    out = ["--out", str(args.out)]
    parsed = vars(_parser(f"{place}: its arguments are damaged").parse_args([*recorded, *out]))
    # Whoever wrote the record has no say in where anything is written.
    kept = {name: value for name, value in parsed.items() if name not in _NOT_KEPT}
    given = given_options(args.arguments[1:])
    for option in given:
        for other in _INSTEAD.get(option, ()):
            kept[other] = _parser("").get_default(other)
    return argparse.Namespace(**{**vars(args), **kept, **given})


def recorded_arguments(args: argparse.Namespace) -> list[str]:
    """The options as arguments for `with_recorded`: those that are not at their defaults, with absolute paths."""
    defaults = vars(_parser("").parse_args(["--out", "."]))
    return [
        argument
        for name, default in defaults.items()
        if name not in _NOT_KEPT and getattr(args, name) != default
        for argument in _arguments(name, getattr(args, name))
    ]


def _arguments(name: str, value: Any) -> Iterator[str]:
    option = f"--{name.replace('_', '-')}"
    if name == "overrides":
        yield from ("--set", *value)
    elif value is True:
        yield option
    elif isinstance(value, list):
        for each in value:
            yield f"{option}={_named_absolute(each) if name == 'eval_annotations' else _absolute(each)}"
    elif isinstance(value, tuple):
        yield f"{option}={','.join(value)}"
    else:
        yield f"{option}={_absolute(value) if name in ('config', 'weights') or isinstance(value, Path) else value}"


def _absolute(source: str | Path) -> str:
    """A path from the root; a name that is no path as it is."""
    return os.path.abspath(source) if isinstance(source, Path) or Path(source).exists() else str(source)


def _named_absolute(text: str) -> str:
    from detectron_gn.verify.training.evaluation_data import named_path

    name, path = named_path(text)
    return f"{name}={os.path.abspath(path)}" if name else os.path.abspath(path)


class _Parser(argparse.ArgumentParser):
    """Refuses in a sentence of ours."""

    place = ""

    def error(self, message: str) -> NoReturn:
        from detectron_gn.mrcnn.errors import InputError

        raise InputError(f"{self.place}: {message}")


def _parser(place: str) -> _Parser:
    """A parser of the options of `train` by itself; `place` is what a sentence about wrong ones begins with."""
    parser = _Parser(prog="detectron-gn train", add_help=False)
    parser.place = place
    add_output_options(parser)
    add_options(parser)
    return parser


def recorded(content: Mapping[str, Any], key: str) -> list[str]:
    """A list of text in the content of `run.json`; empty where it holds none, as that of an earlier version."""
    value = content.get(key)
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
