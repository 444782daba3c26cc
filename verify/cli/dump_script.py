"""`verify dump-script`: the script that records Caffe2's values, for people who have no checkout of this project."""

from __future__ import annotations

import argparse
from pathlib import Path

from detectron_gn.weights.command_line import DONE, Commands, check_writable, write_json_option
from detectron_gn.weights.shown import one_line

NAME = "dump_blobs.py"


def add_dump_script(checks: Commands) -> None:
    """`verify dump-script [--out FILE]`."""
    parser = checks.add(
        "dump-script",
        _dump_script,
        f"write {NAME}, which records blobs and detections where Detectron runs, for --reference",
        f"verify dump-script --out {NAME}",
    )
    parser.add_argument(
        "--out", type=Path, default=Path(NAME), metavar="FILE", help=f"where to write it (default: {NAME})"
    )


def _dump_script(args: argparse.Namespace) -> int:
    from importlib.resources import files

    from detectron_gn.mrcnn.errors import InputError
    from detectron_gn.weights.files.atomic import replacing

    script = (files("detectron_gn.verify") / "reference" / NAME).read_bytes()
    check_writable(args.out.parent)
    if args.out.is_dir():
        raise InputError(f"{args.out} is a folder: --out takes the name of a file, such as {args.out / NAME}")
    if args.out.exists() and args.out.read_bytes() != script:
        raise InputError(f"{args.out} is there already, and is another file: give another --out")
    with replacing(args.out) as temporary:
        temporary.write_bytes(script)
    print(
        f"{one_line(str(args.out))} is written. It runs where Detectron runs, under Python 2.7 or 3 with\n"
        "h5py, and needs nothing of this project:\n"
        f"  python {one_line(args.out.name)} --cfg MODEL.yaml --wts model_final.pkl --out blobs.h5 \\\n"
        "      --images a.jpg b.jpg\n"
        "then, here:\n"
        "  detectron-gn verify blobs model_final.pkl --reference blobs.h5 --images DIR"
    )
    write_json_option(args, {"out": str(args.out)})
    return DONE
