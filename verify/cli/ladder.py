"""The command `verify all`: the ladder from the file to the AP, and its report."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from detectron_gn.port.options import add_model, add_out, add_precision
from detectron_gn.verify.cli.options import add_batch, add_expected_ap, add_tolerance
from detectron_gn.verify.cli.progress import progress_bar
from detectron_gn.weights.options import CHECK_FAILED, DONE, Commands, add_command, check_writable, write_document


def add_commands(checks: Commands) -> None:
    """Add `all` to `verify`."""
    every = add_command(
        checks,
        "all",
        _verify_all,
        "climb from the file to the AP, stop at the first rung that differs from Caffe2, name the usual suspect",
        "verify all model_final.pkl --reference blobs.h5 --images val2017 --annotations instances_val2017.json",
    )
    add_model(every)
    every.add_argument("--reference", type=Path, metavar="R.h5", help="blobs and proposals: what dump_blobs.py wrote")
    every.add_argument("--images", type=Path, metavar="DIR", help="folder of the images of both")
    every.add_argument("--annotations", type=Path, metavar="A.json", help="detections and AP: COCO instances file")
    for kind in ("boxes", "masks"):
        every.add_argument(
            f"--reference-{kind}", type=Path, metavar="R.json", help=f"Detectron's {kind} (default: the published)"
        )
    add_expected_ap(every)
    add_out(every, default=Path("out/verify"))
    add_batch(every)
    add_precision(every)
    add_tolerance(every)


def _verify_all(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.distributed import joined_ranks
    from detectron_gn.mrcnn.memory import keep_freed_memory
    from detectron_gn.verify.ladder import LadderInputs, climb, ladder_table
    from detectron_gn.verify.published import known_expectation, published_results
    from detectron_gn.verify.report.content import ladder_report, model_title
    from detectron_gn.verify.report.page import write_report

    keep_freed_memory()
    check_writable(args.out)
    expected = known_expectation(args.source, args.annotations, args.expect_box, args.expect_mask)
    files = (args.reference_boxes, args.reference_masks)
    if expected is not None and expected.entry is not None and files == (None, None):
        files = published_results(expected.entry)
    if args.annotations is not None:
        _check_reference_results(args.annotations, files)
    with joined_ranks(args.device) as ranks:
        inputs = LadderInputs(
            args.source,
            args.out,
            config=args.config,
            overrides=args.overrides,
            device=str(ranks.device),
            precision=args.precision,
            reference=args.reference,
            images=args.images,
            annotations=args.annotations,
            reference_boxes=files[0],
            reference_masks=files[1],
            expected=expected,
            tolerance=args.tolerance,
            batch=args.batch,
            ranks=ranks,
        )
        progress = partial(progress_bar, shown=ranks.is_first)
        ladder = climb(inputs, lambda line: print(line, flush=True), progress)
    if ladder is None:
        return DONE
    report = args.out / "report.html"
    write_report(ladder_report(model_title(args.source), ladder, inputs, "Detectron (Caffe2)"), report)
    print(f"\n{ladder_table(ladder)}\n\nThe report: {report}")
    write_document(args, ladder.document())
    return DONE if ladder.holds else CHECK_FAILED


def _check_reference_results(annotations: Path, files: tuple[Path | None, Path | None]) -> None:
    """Refuse result files of boxes and masks that are not of these annotations before any image runs."""
    from detectron_gn.mrcnn.evaluation.coco_files import IouType, check_results, read_annotations, read_results

    coco = read_annotations(annotations)
    kinds: tuple[IouType, IouType] = ("bbox", "segm")
    for iou_type, path in zip(kinds, files):
        if path is not None:
            check_results(read_results(path), iou_type, str(path), coco)
