"""The command `convert`: a weights file in another format, or under the names of another library."""

from __future__ import annotations

import argparse
from pathlib import Path

from detectron_gn.port.options import add_config
from detectron_gn.weights.command_line import DONE, Commands, add_source, write_json_option
from detectron_gn.weights.shown import one_line


def add_commands(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "convert",
        _convert,
        "turn a weights file into another format, Detectron's pickle included, or into another library's layout",
        "convert model_final.pkl --out model.safetensors",
    )
    add_source(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="ends in .pkl, .h5, .safetensors or .pth"
    )
    parser.add_argument(
        "--layout",
        choices=("detectron", "torchvision", "timm"),
        default="detectron",
        help="whose names the arrays get (default detectron); the others' are for ImageNet classifiers and for the "
        "body and pyramid of detectors",
    )
    parser.add_argument(
        "--strip",
        action="store_true",
        help="leave out the momentum of a training run, which is half of such a file; no run goes on from what is left",
    )
    add_config(
        parser,
        "of the network, for --layout torchvision and timm and for a state_dict of this project (default: the model's "
        "own)",
    )


def _convert(args: argparse.Namespace) -> int:
    return _convert_format(args) if args.layout == "detectron" else _convert_layout(args)


def _convert_format(args: argparse.Namespace) -> int:
    from detectron_gn.port.runs.convert import convert_format

    conversion = convert_format(args.source, args.out, args.config, args.overrides, strip=args.strip)
    print(f"{one_line(str(conversion.out))}: {len(conversion.weights.blobs)} blobs")
    for loss in conversion.not_kept:
        print(f"not kept: {one_line(loss)}")
    document = {"out": str(conversion.out), "blobs": len(conversion.weights.blobs), "not_kept": conversion.not_kept}
    write_json_option(args, document)
    return DONE


def _convert_layout(args: argparse.Namespace) -> int:
    from detectron_gn.port.runs.other_layouts import write_other_layout

    written = write_other_layout(args.source, args.out, args.layout, args.config, args.overrides)
    for line in written.lines():
        print(one_line(line))
    write_json_option(args, written.document())
    return DONE
