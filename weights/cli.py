"""The commands of this room: `models`, `download`, `convert`."""

from __future__ import annotations

import argparse
from pathlib import Path

from detectron_gn.weights.command_line import DONE, Commands, add_source, between, write_json_option
from detectron_gn.weights.limits import MAX_DOWNLOAD_GIB
from detectron_gn.weights.shown import one_line


def add_commands(commands: Commands) -> None:
    """Add all commands of this room."""
    _add_models(commands)
    _add_download(commands)
    _add_convert(commands)


def _add_models(commands: Commands) -> None:
    parser = commands.add(
        "models",
        _models,
        "list the published models with their AP and files",
        "models --family mask-rcnn --search 'R-50 GN'",
    )
    parser.add_argument("--family", metavar="KIND", help="only models of a kind, such as mask-rcnn, retinanet, rpn")
    parser.add_argument("--search", metavar="WORDS", help="only models whose id, name, norm, ... hold all of the words")


def _models(args: argparse.Namespace) -> int:
    from detectron_gn.weights import catalog

    entries = catalog.chosen(args.family, args.search)
    print(catalog.table(entries))
    write_json_option(args, catalog.rows(entries))
    return DONE


def _add_download(commands: Commands) -> None:
    parser = commands.add(
        "download", _download, "fetch a published model, check it, and print where it is kept", "download 48616381"
    )
    parser.add_argument("source", metavar="ID|URL")
    parser.add_argument("--cache", metavar="DIR", help="cache folder (default: DETECTRON_GN_CACHE, ~/.cache)")
    parser.add_argument("--base-url", metavar="URL", help="a mirror (default: DETECTRON_GN_BASE_URL, Detectron's)")
    parser.add_argument(
        "--max-gib",
        type=between(0),
        metavar="N",
        help=f"largest file that is fetched (default: DETECTRON_GN_MAX_GIB, {MAX_DOWNLOAD_GIB})",
    )


def _download(args: argparse.Namespace) -> int:
    from detectron_gn.weights.download.cache import fetch, options

    path = fetch(args.source, options(args.cache, args.base_url, max_gib=args.max_gib))
    print(path)
    write_json_option(args, {"path": str(path)})
    return DONE


def _add_convert(commands: Commands) -> None:
    parser = commands.add(
        "convert",
        _convert,
        "turn a weights file into another format, back to Detectron's pickle included",
        "convert model_final.pkl --out model.safetensors",
    )
    add_source(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="ends in .pkl, .h5, .safetensors or .pth"
    )


def _convert(args: argparse.Namespace) -> int:
    from detectron_gn.weights.convert import convert
    from detectron_gn.weights.download.cache import resolve

    conversion = convert(resolve(args.source), args.out)
    print(f"{one_line(str(conversion.out))}: {len(conversion.weights.blobs)} blobs")
    for loss in conversion.not_kept:
        print(f"not kept: {one_line(loss)}")
    document = {"out": str(conversion.out), "blobs": len(conversion.weights.blobs), "not_kept": conversion.not_kept}
    write_json_option(args, document)
    return DONE
