"""The commands `verify published`, `verify ap` and `verify imagenet`: beside the figures that were published."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from detectron_gn.port.options import add_config, add_device, add_model, add_out, add_precision
from detectron_gn.verify.cli.evaluate import evaluate_model
from detectron_gn.verify.cli.options import (
    add_batch,
    add_cuda_graphs,
    add_data,
    add_expected_ap,
    add_per_class,
)
from detectron_gn.verify.cli.progress import progress_bar
from detectron_gn.weights.options import (
    CHECK_FAILED,
    DONE,
    Commands,
    add_command,
    add_source,
    between,
    write_document,
)


def add_commands(checks: Commands) -> None:
    """Add these three to `verify`."""
    published = add_command(
        checks,
        "published",
        _verify_published,
        "score the published detections of a model: checks annotations and evaluator without running it",
        "verify published 48616381 --annotations instances_val2017.json",
    )
    published.add_argument("source", metavar="ID", help="a model of the catalog")
    published.add_argument("--annotations", type=Path, required=True, metavar="A.json", help="minival or val2017")
    add_per_class(published)

    ap = add_command(
        checks,
        "ap",
        _verify_ap,
        "run a model over a data set and compare its AP with the published one",
        "verify ap 48616381 --annotations instances_val2017.json --images val2017 --out out",
    )
    add_model(ap)
    add_data(ap)
    add_out(ap, default=Path("out/verify"))
    add_batch(ap)
    add_precision(ap)
    add_cuda_graphs(ap)
    add_expected_ap(ap)
    add_per_class(ap)

    imagenet = add_command(
        checks,
        "imagenet",
        _verify_imagenet,
        "classify the ImageNet validation images with a backbone's file and compare its published top-1 error",
        "verify imagenet R-50-GN.pkl --images imagenet/val",
    )
    add_source(imagenet)
    imagenet.add_argument(
        "--images", type=Path, required=True, metavar="DIR", help="holds a folder a class, or the images"
    )
    imagenet.add_argument(
        "--list", type=Path, metavar="FILE", help="lines `name label`, where there are no class folders"
    )
    imagenet.add_argument("--batch", type=int, default=32, metavar="N", help="images that run together (default 32)")
    imagenet.add_argument(
        "--expect-error", type=between(0, 100), metavar="X", help="top-1 error in percent (default: the catalog's)"
    )
    add_config(imagenet, "a detector with this body (default: R-50 or R-101 with the file's normalisation)")
    add_device(imagenet)


def _verify_published(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.evaluation.ap import ap_document, ap_table
    from detectron_gn.mrcnn.evaluation.coco_files import read_annotations
    from detectron_gn.verify.published import comparison_table, score_published, verdict

    annotations = read_annotations(args.annotations)
    comparison, summaries = score_published(args.source, annotations, args.annotations)
    print(f"{ap_table(summaries, per_class=args.per_class)}\n\n{comparison_table(comparison)}\n\n{verdict(comparison)}")
    write_document(args, {**comparison.document(), "ap": ap_document(args.annotations.stem, **summaries)})
    return DONE if comparison.holds else CHECK_FAILED


def _verify_ap(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.evaluation.ap import ap_table
    from detectron_gn.mrcnn.evaluation.coco_files import read_annotations
    from detectron_gn.verify.ladder import LadderInputs, ap_ladder
    from detectron_gn.verify.published import check_comparable, comparison_table, expectation, verdict
    from detectron_gn.verify.report.content import ladder_report, model_title
    from detectron_gn.verify.report.page import write_report

    expected = expectation(args.source, args.expect_box, args.expect_mask)
    check_comparable(read_annotations(args.annotations), args.annotations, expected)
    evaluation, document, model = evaluate_model(args)
    if evaluation is None:
        return DONE
    inputs = LadderInputs(
        args.source,
        args.out,
        config=args.config,
        overrides=args.overrides,
        annotations=args.annotations,
        images=args.images,
        expected=expected,
        batch=args.batch,
    )
    ladder = ap_ladder(inputs, evaluation)
    # The page tells its configuration, its precision and the machine it ran on.
    ladder.model = model
    assert ladder.comparison is not None
    summaries = {"box": evaluation.box_ap, "mask": evaluation.mask_ap}
    print(f"{evaluation.naming}\n\n{ap_table(summaries, per_class=args.per_class)}")
    print(f"\n{comparison_table(ladder.comparison)}\n\n{verdict(ladder.comparison)}")
    report = args.out / "report.html"
    write_report(ladder_report(model_title(args.source), ladder, inputs, "reference"), report)
    print(f"The report: {report}")
    write_document(args, {**ladder.comparison.document(), "naming": evaluation.naming, "ap": document})
    return DONE if ladder.holds else CHECK_FAILED


def _verify_imagenet(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.distributed import usable_device
    from detectron_gn.mrcnn.errors import InputError
    from detectron_gn.mrcnn.memory import keep_freed_memory
    from detectron_gn.port.blobs.classifier import build_classifier
    from detectron_gn.port.runs.load import find_config
    from detectron_gn.verify.imagenet import classify, error_table, labelled_images, published_error
    from detectron_gn.weights import read_blobs
    from detectron_gn.weights.download.cache import resolve

    keep_freed_memory()
    expected = args.expect_error if args.expect_error is not None else published_error(args.source)
    if args.config is None and args.overrides:
        raise InputError("--set overrides keys of --config: pass --config too, with a detector that has this body")
    cfg = None if args.config is None else find_config(args.config, args.overrides)
    model = build_classifier(read_blobs(resolve(args.source)), cfg).to(usable_device(args.device))
    images = labelled_images(args.images, model.pred.out_features, args.list)
    found = classify(
        model, images, expected, partial(progress_bar, unit="batch"), batch=args.batch
    )
    print(error_table(args.source, found))
    write_document(args, found.document())
    return DONE if found.holds else CHECK_FAILED
