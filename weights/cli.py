"""The commands `models`, `download` and `convert`."""

from __future__ import annotations

import argparse
from pathlib import Path

from detectron_gn.weights.options import DONE, Commands, add_command, add_source, write_document


def add_commands(commands: Commands) -> None:
    """Add the commands of this room."""
    add_command(commands, "models", _models, "list the published models with their AP and files", "models")

    download = add_command(
        commands,
        "download",
        _download,
        "fetch a published model, check it, and print where it is kept",
        "download 48616381",
    )
    download.add_argument("source", metavar="ID|URL")
    download.add_argument("--cache", metavar="DIR", help="cache folder (default: DETECTRON_GN_CACHE, ~/.cache)")
    download.add_argument("--base-url", metavar="URL", help="a mirror (default: DETECTRON_GN_BASE_URL, Detectron's)")

    convert = add_command(
        commands,
        "convert",
        _convert,
        "turn a weights file into another format, back to Detectron's pickle included",
        "convert model_final.pkl --out model.safetensors",
    )
    add_source(convert)
    convert.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="ends in .pkl, .h5, .safetensors or .pth"
    )


def _models(args: argparse.Namespace) -> int:
    from detectron_gn.weights import catalog

    print(catalog.table())
    write_document(args, catalog.rows())
    return DONE


def _download(args: argparse.Namespace) -> int:
    from detectron_gn.weights.download.cache import fetch, options

    path = fetch(args.source, options(args.cache, args.base_url))
    print(path)
    write_document(args, {"path": str(path)})
    return DONE


def _convert(args: argparse.Namespace) -> int:
    from detectron_gn.weights.download.cache import resolve
    from detectron_gn.weights.formats.containers import convert

    conversion = convert(resolve(args.source), args.out)
    print(f"{conversion.out}: {len(conversion.weights.blobs)} blobs")
    for loss in conversion.not_kept:
        print(f"not kept: {loss}")
    document = {"out": str(conversion.out), "blobs": len(conversion.weights.blobs), "not_kept": conversion.not_kept}
    write_document(args, document)
    return DONE
