"""Options that several commands of this room share: a data set, batches, tolerances, and what is shown of an AP."""

from __future__ import annotations

import argparse
from pathlib import Path

from detectron_gn.weights.options import between


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add --annotations and --images of one data set."""
    parser.add_argument("--annotations", type=Path, required=True, metavar="A.json", help="COCO instances file")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the images")


def add_batch(parser: argparse.ArgumentParser) -> None:
    """Add --batch of an evaluation."""
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="images of one padded size that run together (default 1)"
    )


def add_cuda_graphs(parser: argparse.ArgumentParser) -> None:
    """Add --cuda-graphs."""
    parser.add_argument(
        "--cuda-graphs",
        action="store_true",
        help="record the network once for each padded size of images and replay it; needs an NVIDIA GPU",
    )


def add_type(parser: argparse.ArgumentParser) -> None:
    """Add --type, which says what of a results file counts."""
    parser.add_argument("--type", choices=("bbox", "segm"), help="boxes or masks (default: masks where there are any)")


def add_per_class(parser: argparse.ArgumentParser) -> None:
    """Add --per-class."""
    parser.add_argument("--per-class", action="store_true", help="show the AP of each class as well")


def add_tolerance(parser: argparse.ArgumentParser) -> None:
    """Add --tolerance of blobs."""
    parser.add_argument(
        "--tolerance",
        type=between(0),
        default=1e-3,
        metavar="X",
        help="largest relative error of a blob (default 0.001)",
    )


def add_expected_ap(parser: argparse.ArgumentParser) -> None:
    """Add --expect-box and --expect-mask."""
    for kind in ("box", "mask"):
        parser.add_argument(
            f"--expect-{kind}",
            type=between(0, 100),
            metavar="AP",
            help=f"the {kind} AP to compare with, in percent or as a share of 1 (default: the catalog's)",
        )
