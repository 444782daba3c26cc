"""Options of the commands that load a network, read images or write results: --config, --device, --exif and others."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from detectron_gn.weights.command_line import add_source, at_least

if TYPE_CHECKING:
    from detectron_gn.mrcnn.data.read_image import ImageReading
    from detectron_gn.mrcnn.detectors import Detector


def add_model(parser: argparse.ArgumentParser) -> None:
    """SOURCE, --config, --set and --device: what `port.runs.load.load_model` takes, except the precision."""
    add_source(parser)
    add_config(parser, "what it was trained with (default: the model's own)")
    add_keep_unused(parser)
    add_device(parser)


def add_config(parser: argparse.ArgumentParser, meaning: str) -> None:
    """--config and --set, as `args.config` and `args.overrides`; `meaning` says what the configuration is for."""
    parser.add_argument("--config", metavar="YAML", help=f"Detectron YAML file or a name in yaml_configs/: {meaning}")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY VALUE",
        dest="overrides",
        help="override keys of the configuration",
    )


def add_keep_unused(parser: argparse.ArgumentParser) -> None:
    """--keep-unused, as `args.keep_unused`."""
    parser.add_argument(
        "--keep-unused",
        action="store_true",
        help="go on although the file has trained blobs that the configuration has no place for",
    )


def add_classes(parser: argparse.ArgumentParser) -> None:
    """--classes of a network that detects, for `port.runs.load.load_model`."""
    parser.add_argument(
        "--classes",
        type=Path,
        metavar="NAMES.txt",
        help="names of the model's classes, one a line, which count before all others (default: those in the file, of "
        "its run, or COCO's)",
    )


def class_names(args: argparse.Namespace) -> tuple[str, ...] | None:
    """The names in the file of --classes; None where it was not given."""
    from detectron_gn.mrcnn.data.categories import read_class_names

    return None if args.classes is None else read_class_names(args.classes)


def given_model(args: argparse.Namespace, device: object) -> Detector:
    """The model that the options of `add_model`, `add_classes` and `add_precision` name, on a device."""
    from detectron_gn.port.runs.load import load_model

    return load_model(
        args.source,
        args.config,
        args.overrides,
        str(device),
        args.precision,
        keep_unused=args.keep_unused,
        classes=class_names(args),
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device, which `mrcnn.distributed.usable_device` checks."""
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")


def add_precision(parser: argparse.ArgumentParser) -> None:
    """--precision of a network that detects."""
    parser.add_argument(
        "--precision",
        choices=("fp32", "tf32", "bf16", "fp16"),
        default="fp32",
        help="of convolutions and products (default fp32); the others change results slightly, see docs/precision.md",
    )


def add_batch(parser: argparse.ArgumentParser) -> None:
    """--batch of a network that detects."""
    parser.add_argument(
        "--batch",
        type=at_least(1),
        default=1,
        metavar="N",
        help="images of one padded size that run together (default 1)",
    )


def add_image_reading(parser: argparse.ArgumentParser) -> None:
    """--exif and --max-pixels of the commands that read image files; `image_reading` makes one value of both."""
    parser.add_argument(
        "--exif",
        choices=("apply", "ignore"),
        default="apply",
        help="turn photos upright as the camera says in them (EXIF), or take them as they are stored (default apply)",
    )
    parser.add_argument(
        "--max-pixels", type=at_least(1), metavar="N", help="largest image, in pixels (default 120 million)"
    )


def image_reading(args: argparse.Namespace) -> ImageReading:
    """How the command reads image files."""
    from detectron_gn.mrcnn.data.read_image import ImageReading
    from detectron_gn.mrcnn.limits import MAX_IMAGE_PIXELS

    return ImageReading(args.exif, args.max_pixels or MAX_IMAGE_PIXELS)


def add_out(parser: argparse.ArgumentParser, default: Path | None = None) -> None:
    """--out, a folder; required where there is no default."""
    meaning = "folder for what is written" + (f" (default: {default})" if default else "")
    parser.add_argument("--out", type=_folder, required=default is None, default=default, metavar="DIR", help=meaning)


def add_proposals(parser: argparse.ArgumentParser) -> None:
    """--proposals: where a model without an RPN looks for objects."""
    parser.add_argument(
        "--proposals",
        type=Path,
        metavar="P.pkl",
        help="rpn_proposals.pkl of the images, for a model without an RPN (default: TEST.PROPOSAL_FILES, where that is "
        "one file)",
    )


def _folder(text: str) -> Path:
    """A folder; no text at all, as of a shell's variable that is not set, would be the current one."""
    if not text:
        raise argparse.ArgumentTypeError("names no folder (is a variable of the shell empty?); give . for this one")
    return Path(text)
