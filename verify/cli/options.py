"""Options that several commands of this room have: data sets, tolerances, expected AP."""

from __future__ import annotations

import argparse
from pathlib import Path

from detectron_gn.weights.command_line import at_least, between, check_writable, inputs, refuse_inputs_as_output


def add_data(parser: argparse.ArgumentParser) -> None:
    """--annotations and --images: one data set in COCO's format."""
    parser.add_argument("--annotations", type=Path, required=True, metavar="A.json", help="COCO instances file")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the images")


def add_data_sets(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """--annotations and --images of one data set or of several."""

    def add(option: str, metavar: str, meaning: str) -> None:
        parser.add_argument(
            option, type=Path, required=required, action="append", default=[], metavar=metavar, help=meaning
        )

    add("--annotations", "A.json", "may be given several times")
    add("--images", "DIR", "one for each --annotations")


def add_max_dets(parser: argparse.ArgumentParser) -> None:
    """--max-dets of an AP."""
    parser.add_argument(
        "--max-dets",
        type=at_least(1),
        default=100,
        metavar="N",
        help="detections of an image and category that count, the best first (default 100, as COCO)",
    )


def add_type(parser: argparse.ArgumentParser) -> None:
    """--type of COCO results."""
    parser.add_argument(
        "--type",
        choices=("bbox", "segm", "keypoints"),
        help="what is scored or compared (default: keypoints or masks where there are any)",
    )


def add_per_class(parser: argparse.ArgumentParser) -> None:
    """--per-class of an AP table."""
    parser.add_argument("--per-class", action="store_true", help="show the AP of each class as well")


def add_tolerance(parser: argparse.ArgumentParser) -> None:
    """--tolerance of a comparison of blobs."""
    parser.add_argument(
        "--tolerance",
        type=between(0),
        default=1e-3,
        metavar="X",
        help="largest relative error of a blob (default 0.001)",
    )


def add_expected_ap(parser: argparse.ArgumentParser) -> None:
    """--expect-box, --expect-mask, --expect-keypoint and --expect-proposal; `expected_ap` gives what was passed."""
    told = {"box": "box AP", "mask": "mask AP", "keypoint": "keypoint AP", "proposal": "AR of 1,000 proposals"}
    for kind, name in told.items():
        parser.add_argument(
            f"--expect-{kind}",
            type=between(0, 100),
            metavar="AP",
            help=f"the {name} to compare with, in percent or as a share of 1 (default: the catalog's)",
        )


def expected_ap(args: argparse.Namespace) -> dict[str, float]:
    """What the user expects: "box", "mask", "keypoint", "proposal"."""
    kinds = ("box", "mask", "keypoint", "proposal")
    return {kind: ap for kind in kinds if (ap := getattr(args, f"expect_{kind}")) is not None}


def check_out(args: argparse.Namespace) -> None:
    """Make the folder of an evaluation, and see that nothing that is read has the name of what is written there."""
    from detectron_gn.verify.evaluation_files import WRITTEN

    check_writable(args.out)
    read = inputs(args)
    for name in WRITTEN:
        refuse_inputs_as_output(args.out / name, read)


def add_cuda_graphs(parser: argparse.ArgumentParser) -> None:
    """--cuda-graphs of an evaluation."""
    parser.add_argument(
        "--cuda-graphs",
        action="store_true",
        help="record the network once for each padded size of images and replay it; needs an NVIDIA GPU",
    )
