"""The commands of this room: `inspect` and `export`; `detect` and `convert` stand beside it."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from detectron_gn.port.options import (
    add_classes,
    add_config,
    add_keep_unused,
    add_proposals,
    class_names,
)
from detectron_gn.weights.command_line import (
    CHECK_FAILED,
    DONE,
    Commands,
    add_source,
    check_writable,
    write_json_option,
)
from detectron_gn.weights.progress import progress_bar
from detectron_gn.weights.shown import folded


def add_commands(commands: Commands) -> None:
    """Add all commands of this room."""
    _add_inspect(commands)
    _add_export(commands)


def _add_inspect(commands: Commands) -> None:
    parser = commands.add(
        "inspect",
        _inspect,
        "tell what is in a weights file, or what network a YAML asks for: family, parts, blobs",
        "inspect model_final.pkl",
    )
    parser.add_argument(
        "source",
        metavar="SOURCE|YAML",
        help="a model id, a URL, a .pkl, .h5, .safetensors or .pth file; or a Detectron YAML, file or name",
    )
    parser.add_argument("--blobs", action="store_true", help="list every blob: its name, shape and values")


def _inspect(args: argparse.Namespace) -> int:
    from detectron_gn.port.blobs.architecture import Architecture, describe_config
    from detectron_gn.port.blobs.summary import Summary, summarise
    from detectron_gn.port.classes import known_categories
    from detectron_gn.port.runs.load import find_config, names_config, unused_blobs
    from detectron_gn.weights import read_blobs
    from detectron_gn.weights.download.cache import resolve
    from detectron_gn.weights.files.digest import file_digest

    summary: Architecture | Summary
    if names_config(args.source):
        summary = describe_config(find_config(args.source), args.source)
    else:
        path = resolve(args.source)
        weights = read_blobs(path)
        unused = unused_blobs(args.source, path, weights)
        categories = known_categories(weights, args.source)
        summary = summarise(weights, path.stat().st_size, unused, categories, file_digest(path))
    print(summary)
    print(f"\n{summary.blob_table()}" if args.blobs else "\n--blobs lists every blob.")
    write_json_option(args, summary.as_dict())
    return DONE


def _add_export(commands: Commands) -> None:
    parser = commands.add(
        "export",
        _export,
        "write a network that runs without this project, and check that it finds what the model finds",
        "export model_final.pkl --out model.onnx",
    )
    add_source(parser)
    add_config(parser, "what it was trained with (default: the model's own)")
    add_keep_unused(parser)
    add_classes(parser)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="FILE.onnx, from an image to its detections; or FILE.pt2, a program of torch.export that takes blobs",
    )
    parser.add_argument(
        "--input",
        choices=("image", "blob"),
        help="what an .onnx takes: a BGR image of any size (default), or data and im_info that are prepared already",
    )
    parser.add_argument(
        "--size",
        type=_padded_size,
        metavar="HxW",
        help="the one size of padded blobs that a .pt2 takes (default: any that the model's pictures are padded to)",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="pictures that it is checked on (default: those of the demo)"
    )
    add_proposals(parser)
    parser.add_argument("--no-check", action="store_true", help="do not run what was written beside the model")


def _padded_size(text: str) -> tuple[int, int]:
    """An option's type: height and width, as in 800x1216."""
    height, cross, width = text.lower().partition("x")
    if not (cross and all(side.isdecimal() and len(side) <= 6 and int(side) for side in (height, width))):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give height and width, as in 800x1216")
    return int(height), int(width)


def _export(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.errors import InputError
    from detectron_gn.port.runs.export import check_export_options, check_not_too_narrow, checked_pictures, exported

    check_export_options(args.out, args.input, args.size, check=not args.no_check)
    check_writable(args.out.parent)
    from detectron_gn.port.export.check import all_agree, compared_pictures, compared_table
    from detectron_gn.port.export.metadata import told_classes
    from detectron_gn.port.runs.load import load_model
    from detectron_gn.weights.download.cache import resolve

    source = resolve(args.source)
    model = load_model(
        args.source, args.config, args.overrides, "cpu", keep_unused=args.keep_unused, classes=class_names(args)
    )
    # Read before anything is written: what cannot be checked is said first.
    pictures = [] if args.no_check else checked_pictures(model, args.images, args.proposals, args.size)
    if args.out.suffix == ".pt2" and args.size is None:
        check_not_too_narrow(model, pictures)
    written, network = exported(model, args.out, source, args.input or "image", args.size)
    print(f"{' and '.join(map(str, written))}: {sum(path.stat().st_size for path in written) / 2**20:.1f} MiB")
    print(folded(told_classes(model)))
    if args.no_check:
        print("not checked")
        write_json_option(args, {"files": [str(path) for path in written], "pictures": []})
        return DONE
    pairs = compared_pictures(network(), model, pictures)
    compared = list(progress_bar(pairs, len(pictures), "picture"))
    print(compared_table(compared))
    rows = [asdict(each) for each in compared]
    write_json_option(args, {"files": [str(path) for path in written], "pictures": rows})
    if not any(each.ours or each.exported for each in compared):
        raise InputError(
            f"{args.out} is written, but the model finds nothing in the {len(compared)} pictures, so nothing was "
            "compared: give --images with pictures of what it knows, or lower --set TEST.SCORE_THRESH"
        )
    if not all_agree(compared):
        print(
            "the exported network does not find what the model finds: see the table; where many scores are equal, "
            "others of them may pass a limit (docs/export.md)"
        )
        return CHECK_FAILED
    print(f"every detection of {len(compared)} pictures is the model's")
    return DONE
