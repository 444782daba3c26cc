"""The commands of this room: `models`, `download`."""

from __future__ import annotations

import argparse

from detectron_gn.weights.command_line import DONE, Commands, between, write_json_option
from detectron_gn.weights.limits import MAX_DOWNLOAD_GIB


def add_commands(commands: Commands) -> None:
    """Add all commands of this room."""
    _add_models(commands)
    _add_download(commands)


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
    parser.add_argument("source", metavar="ID|URL", help="a model id, or the address of a file")
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
