"""`demo`: everything that this project promises, on the embedded model."""

from __future__ import annotations

import argparse
from pathlib import Path

from detectron_gn.weights.command_line import (
    CHECK_FAILED,
    DONE,
    Commands,
    check_writable,
    write_json_option,
)
from detectron_gn.weights.progress import progress_bar


def add_demo(commands: Commands) -> None:
    """`demo`, which needs nothing but this package."""
    meaning = "the whole promise on the embedded model, beside Caffe2"
    parser = commands.add("demo", _demo, meaning, "demo --out out/demo")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), metavar="DIR", help="default: out/demo")


def _demo(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from detectron_gn.mrcnn.memory import keep_freed_memory
    from detectron_gn.verify.demo import run_demo

    keep_freed_memory()
    check_writable(args.out)
    outcome = run_demo(args.out, lambda line: print(line, flush=True), progress_bar)
    print("\nPictures, Detectron's detections on the left and ours on the right:")
    for picture in outcome.pictures:
        print(f"  {picture}")
    print(f"\nThe report: {outcome.report}")
    print("\nEverything agrees with Caffe2." if outcome.holds else "\nSomething does not agree with Caffe2: see above.")
    blobs, detections = [asdict(parity) for parity in outcome.blobs], [p.document() for p in outcome.detections]
    document = {"holds": outcome.holds, "report": str(outcome.report), "ap": outcome.ap}
    write_json_option(args, {**document, "detections": detections, "blobs": blobs})
    return DONE if outcome.holds else CHECK_FAILED
