"""`verify published`, `ap` and `all`: the AP of a model beside the published one, and the ladder up to it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from detectron_gn.port.options import (
    add_batch,
    add_classes,
    add_image_reading,
    add_model,
    add_out,
    add_precision,
    add_proposals,
    class_names,
    image_reading,
)
from detectron_gn.verify.cli.evaluate import kept_when_stopped, run_evaluation, tell_done_before
from detectron_gn.verify.cli.options import (
    add_cuda_graphs,
    add_data,
    add_expected_ap,
    add_max_dets,
    add_per_class,
    add_tolerance,
    check_out,
    expected_ap,
)
from detectron_gn.weights.command_line import (
    CHECK_FAILED,
    DONE,
    NOTHING_COMPARED,
    Commands,
    note,
    write_json_option,
)
from detectron_gn.weights.progress import progress_bar
from detectron_gn.weights.shown import folded

if TYPE_CHECKING:
    from detectron_gn.mrcnn.evaluation.results_files import IouType

OUT = Path("out/verify")

_ONLY_THE_FILE = """\
To compare, pass
  --reference R.h5 --images DIR      blobs, proposals and detections
  --annotations A.json --images DIR  the AP, with --expect-box or a model id
`detectron-gn verify dump-script` writes what records R.h5 where Detectron runs.

The file is in order, as far as it tells by itself: its format, its names and
shapes, its values. Nothing was compared with Caffe2's values.\
"""


def add_published(checks: Commands) -> None:
    """`verify published ID --annotations A.json`."""
    parser = checks.add(
        "published",
        _published,
        "score the published detections of a model: checks annotations and evaluator without running it",
        "verify published 48616381 --annotations instances_val2017.json",
    )
    parser.add_argument("source", metavar="ID", help="a model of the catalog")
    parser.add_argument("--annotations", type=Path, required=True, metavar="A.json", help="minival or val2017")
    add_per_class(parser)


def _published(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.data.coco import read_annotations
    from detectron_gn.mrcnn.evaluation.ap import ap_document, ap_table
    from detectron_gn.verify.published import comparison_table, score_published, verdict

    annotations = read_annotations(args.annotations)
    comparison, summaries = score_published(args.source, annotations, args.annotations)
    print(f"{ap_table(summaries, per_class=args.per_class)}\n\n{comparison_table(comparison)}")
    write_json_option(args, {**comparison.document(), "ap": ap_document(args.annotations.stem, summaries)})
    print(f"\n{verdict(comparison)}")
    return DONE if comparison.holds else CHECK_FAILED


def add_ap(checks: Commands) -> None:
    """`verify ap SOURCE --annotations A.json --images DIR`."""
    parser = checks.add(
        "ap",
        _ap,
        "run a model over a data set and compare its AP with the published one",
        "verify ap 48616381 --annotations instances_val2017.json --images val2017 --out out",
    )
    add_model(parser)
    add_classes(parser)
    add_data(parser)
    add_proposals(parser)
    add_out(parser, default=OUT)
    add_image_reading(parser)
    add_batch(parser)
    add_precision(parser)
    add_cuda_graphs(parser)
    add_expected_ap(parser)
    add_max_dets(parser)
    add_per_class(parser)


def _ap(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.data.coco import read_annotations
    from detectron_gn.mrcnn.evaluation.ap import ap_table
    from detectron_gn.mrcnn.evaluation.evaluate import Evaluation
    from detectron_gn.mrcnn.evaluation.recall import recall_table
    from detectron_gn.verify.evaluation_files import REPORT
    from detectron_gn.verify.ladder import LadderInputs, ap_ladder
    from detectron_gn.verify.published import (
        check_comparable,
        check_max_dets,
        comparison_table,
        expectation,
        verdict,
    )
    from detectron_gn.verify.report.content import ladder_report, model_title
    from detectron_gn.verify.report.page import write_report

    check_out(args)
    expected = expectation(args.source, expected_ap(args))
    check_comparable(read_annotations(args.annotations), args.annotations, expected)
    check_max_dets(args.max_dets, expected)
    found, document, model = run_evaluation(args, args.max_dets)
    if found is None:
        return DONE
    inputs = LadderInputs(
        args.source,
        args.out,
        config=args.config,
        overrides=args.overrides,
        keep_unused=args.keep_unused,
        annotations=args.annotations,
        images=args.images,
        expected=expected,
        batch=args.batch,
        reading=image_reading(args),
        max_detections=args.max_dets,
    )
    ladder = ap_ladder(inputs, found)
    # The page tells its configuration, its precision and the machine it ran on.
    ladder.model = model
    assert ladder.comparison is not None
    print("\n".join((found.naming, *found.remarks)))
    if isinstance(found, Evaluation):
        print(f"\n{ap_table(found.summaries, per_class=args.per_class)}")
    else:
        print(f"\n{recall_table(found.recall)}")
    print(f"\n{comparison_table(ladder.comparison)}")
    report = args.out / REPORT
    write_report(ladder_report(model_title(args.source), ladder, inputs, "reference"), report)
    print(f"\nThe report: {report}")
    write_json_option(args, {**ladder.comparison.document(), "naming": found.naming, "ap": document})
    print(f"\n{verdict(ladder.comparison)}")
    return DONE if ladder.holds else CHECK_FAILED


def add_all(checks: Commands) -> None:
    """`verify all SOURCE`, with whatever there is to compare."""
    parser = checks.add(
        "all",
        _all,
        "climb from the file to the AP, stop at the first rung that differs from Caffe2, name the usual suspect",
        "verify all model_final.pkl --reference blobs.h5 --images val2017 --annotations instances_val2017.json",
    )
    add_model(parser)
    add_classes(parser)
    meaning = "blobs and proposals: what dump_blobs.py wrote (verify dump-script)"
    parser.add_argument("--reference", type=Path, metavar="R.h5", help=meaning)
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the images of both")
    parser.add_argument("--annotations", type=Path, metavar="A.json", help="detections and AP: COCO instances file")
    add_proposals(parser)
    for kind in ("boxes", "masks", "keypoints"):
        parser.add_argument(
            f"--reference-{kind}", type=Path, metavar="R.json", help=f"Detectron's {kind} (default: the published)"
        )
    add_expected_ap(parser)
    add_max_dets(parser)
    add_out(parser, default=OUT)
    parser.set_defaults(out=None)
    add_image_reading(parser)
    add_batch(parser)
    add_precision(parser)
    add_tolerance(parser)


def _all(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.data.coco import read_annotations
    from detectron_gn.mrcnn.distributed import joined_ranks
    from detectron_gn.mrcnn.evaluation.evaluate import no_progress
    from detectron_gn.mrcnn.memory import keep_freed_memory
    from detectron_gn.mrcnn.stopping import until_stopped
    from detectron_gn.port.classes import BY_PLACE
    from detectron_gn.verify.evaluation_files import REPORT
    from detectron_gn.verify.ladder import LadderInputs, check_inputs, climb, differing, told_verdict
    from detectron_gn.verify.published import check_coco_ids, check_max_dets, known_expectation, published_results
    from detectron_gn.verify.report.content import ladder_report, model_title
    from detectron_gn.verify.report.page import write_report

    keep_freed_memory()
    has_values = args.reference is not None or args.annotations is not None
    # What the file tells by itself fills no page that nobody asked for.
    writes_report = has_values or args.out is not None
    args.out = args.out or OUT
    if writes_report:
        check_out(args)
    expected = known_expectation(args.source, args.annotations, expected_ap(args))
    given: dict[IouType, Path | None]
    given = {"bbox": args.reference_boxes, "segm": args.reference_masks, "keypoints": args.reference_keypoints}
    files = {iou_type: path for iou_type, path in given.items() if path is not None}
    if expected is not None and expected.entry is not None and not files:
        files = published_results(expected.entry)
        check_coco_ids(read_annotations(args.annotations), args.annotations)
    if expected is not None:
        check_max_dets(args.max_dets, expected)
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
            keep_unused=args.keep_unused,
            classes=class_names(args),
            reference=args.reference,
            images=args.images,
            annotations=args.annotations,
            proposals=args.proposals,
            reference_results=files,
            expected=expected,
            tolerance=args.tolerance,
            batch=args.batch,
            ranks=ranks,
            reading=image_reading(args),
            max_detections=args.max_dets,
        )
        check_inputs(inputs)
        shown = progress_bar if ranks.is_first else no_progress
        with kept_when_stopped(args.out):
            ladder = climb(
                inputs,
                lambda line: print(line, flush=True),
                lambda results, count: until_stopped(shown(results, count)),
                tell_done_before,
            )
    if ladder is None:
        return DONE
    if writes_report:
        report = args.out / REPORT
        write_report(ladder_report(model_title(args.source), ladder, inputs, "Detectron (Caffe2)"), report)
    if ladder.evaluation is not None and ladder.model is not None and ladder.model.categories is None:
        note(BY_PLACE)
    print(f"\nThe report: {report}\n" if writes_report else "", flush=True)
    write_json_option(args, ladder.document())
    if not has_values and differing(ladder) is None:
        print(_ONLY_THE_FILE)
        return NOTHING_COMPARED
    print(folded(told_verdict(ladder)))
    return DONE if ladder.holds else CHECK_FAILED


def _check_reference_results(annotations: Path, files: Mapping[IouType, Path]) -> None:
    """Refuse result files that are not of these annotations before any image runs."""
    from detectron_gn.mrcnn.data.coco import read_annotations
    from detectron_gn.mrcnn.evaluation.results_files import check_results, read_results

    coco = read_annotations(annotations)
    for iou_type, path in files.items():
        check_results(read_results(path), iou_type, str(path), coco)
