"""Options of the commands that load a network: its configuration, device and precision, and where output goes."""

from __future__ import annotations

import argparse
from pathlib import Path

from detectron_gn.weights.options import add_source


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add SOURCE, its configuration, and the device that it runs on."""
    add_source(parser)
    add_config(parser, "what it was trained with (default: the model's own)")
    add_device(parser)


def add_config(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Add --config and --set."""
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


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add --precision of detection; training has its own, without fp16."""
    parser.add_argument(
        "--precision",
        choices=("fp32", "tf32", "bf16", "fp16"),
        default="fp32",
        help="of convolutions and products (default fp32); others change results slightly, see docs/precision.md",
    )


def add_out(parser: argparse.ArgumentParser, default: Path | None = None) -> None:
    """Add --out, a folder; it is required where there is no default."""
    meaning = "folder for what is written" + (f" (default: {default})" if default else "")
    parser.add_argument("--out", type=Path, required=default is None, default=default, metavar="DIR", help=meaning)
