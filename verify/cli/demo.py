"""The command `demo`."""

from __future__ import annotations

import argparse
from pathlib import Path

from detectron_gn.port.options import add_out
from detectron_gn.verify.cli.progress import progress_bar
from detectron_gn.weights.options import CHECK_FAILED, DONE, Commands, add_command, check_writable, write_document


def add_commands(commands: Commands) -> None:
    """Add `demo`."""
    demo = add_command(
        commands, "demo", _demo, "the whole promise on the embedded model, beside Caffe2", "demo --out out/demo"
    )
    add_out(demo, default=Path("out/demo"))


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
    write_document(args, {**document, "detections": detections, "blobs": blobs})
    return DONE if outcome.holds else CHECK_FAILED
