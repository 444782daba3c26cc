"""The commands `verify blobs`, `verify detections` and `verify training`: parity with values that Caffe2 computed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from detectron_gn.port.options import add_config, add_model
from detectron_gn.verify.cli.options import add_data, add_tolerance, add_type
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
    blobs = add_command(
        checks,
        "blobs",
        _verify_blobs,
        "compare every activation and detection with a reference that Caffe2 computed",
        "verify blobs model_final.pkl --reference blobs.h5 --images val2017",
    )
    add_model(blobs)
    blobs.add_argument("--reference", type=Path, required=True, metavar="R.h5", help="what dump_blobs.py wrote")
    blobs.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the images it names")
    add_tolerance(blobs)

    detections = add_command(
        checks,
        "detections",
        _verify_detections,
        "compare two COCO result files detection by detection",
        "verify detections out/bbox.json bbox_coco_2014_minival_results.json --annotations instances_val2017.json",
    )
    detections.add_argument("ours", type=Path, metavar="OURS.json")
    detections.add_argument("reference", type=Path, metavar="REFERENCE.json")
    detections.add_argument("--annotations", type=Path, metavar="A.json", help="score both files as well")
    add_type(detections)
    limits = {"box-iou": (0.999, "smallest IoU of two boxes"), "mask-iou": (0.99, "smallest IoU of two masks")}
    limits["score"] = (1e-3, "largest difference of two scores")
    for name, (default, meaning) in limits.items():
        detections.add_argument(
            f"--{name}", type=between(0, 1), default=default, metavar="X", help=f"{meaning} (default {default})"
        )

    training = add_command(
        checks,
        "training",
        _verify_training,
        "replay a training run of Caffe2 Detectron and compare losses, updates and parameters",
        "verify training start.pkl --reference trace.h5 --annotations instances_train.json --images train",
    )
    add_source(training)
    add_config(training, "what it was trained with (default: the model's own)")
    add_data(training)
    training.add_argument("--reference", type=Path, required=True, metavar="T.h5", help="the trace of the run")
    training.add_argument(
        "--replicas", type=int, default=4, metavar="N", help="replays that measure what rounding does (default 4)"
    )


def _verify_blobs(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from detectron_gn.port.runs.load import load_model
    from detectron_gn.verify.parity.blobs import (
        blob_table,
        compare_file,
        first_difference,
        parity_holds,
        remarks,
        summary_table,
    )

    model = load_model(args.source, args.config, args.overrides, args.device)
    parities = []
    for parity in compare_file(model, args.reference, args.images):
        print(f"{parity.image}\n{blob_table(parity)}\n", flush=True)
        parities.append(parity)
    print(summary_table(parities))
    for parity in parities:
        for line in remarks(parity):
            print(f"{parity.image}: {line}")
    holds = [parity_holds(parity, args.tolerance) for parity in parities]
    for parity, held in zip(parities, holds):
        if not held:
            first = first_difference(parity, args.tolerance) or "its detections"
            print(f"{parity.image}: first out of tolerance: {first}")
    print("\nThe blobs agree." if all(holds) else "\nThe blobs do not agree.")
    write_document(args, {"holds": all(holds), "images": [asdict(parity) for parity in parities]})
    return DONE if all(holds) else CHECK_FAILED


def _verify_detections(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.evaluation.ap import AP_JSON_KEY, ap_document, ap_table, score
    from detectron_gn.mrcnn.evaluation.coco_files import check_results, read_annotations, read_results, results_iou_type
    from detectron_gn.verify.parity.results import DetectionTolerances, match_detections, parity_table

    annotations = read_annotations(args.annotations) if args.annotations else None
    ours, reference = read_results(args.ours), read_results(args.reference)
    iou_type = args.type or results_iou_type(reference, str(args.reference))
    check_results(ours, iou_type, str(args.ours), annotations)
    check_results(reference, iou_type, str(args.reference), annotations)
    tolerances = DetectionTolerances(box_iou=args.box_iou, mask_iou=args.mask_iou, score=args.score)
    parity = match_detections(ours, reference, iou_type, tolerances)
    print(parity_table([parity]))
    document = parity.document()
    if parity.worst:
        print(f"\nfurthest apart: {', '.join(_image_name(image.image_id, annotations) for image in parity.worst)}")
    if annotations is not None:
        both = {"ours": ours, "reference": reference}
        summaries = {name: score(rows, annotations, iou_type) for name, rows in both.items()}
        print(f"\n{ap_table(summaries)}")
        kind = AP_JSON_KEY[iou_type]
        document["ap"] = {name: ap_document(args.annotations.stem, **{kind: ap}) for name, ap in summaries.items()}
    print(f"\n{'The detections agree.' if parity.holds else 'The detections do not agree.'}")
    write_document(args, document)
    return DONE if parity.holds else CHECK_FAILED


def _image_name(image_id: int | str, annotations: Any) -> str:
    known = annotations.imgs.get(image_id, {}) if annotations is not None else {}
    return str(known.get("file_name", image_id))


def _verify_training(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.data.coco import read_dataset
    from detectron_gn.port.runs.load import configured_weights
    from detectron_gn.verify.parity.training_check import check_training, training_tables

    cfg, weights = configured_weights(args.source, args.config, args.overrides)
    dataset = read_dataset(args.annotations, args.images)
    parity = check_training(cfg, weights, dataset, args.reference, replicas=args.replicas)
    print(training_tables(parity))
    print(f"\n{'It is the same run.' if parity.holds else 'It is not the same run.'}")
    write_document(args, parity.document())
    return DONE if parity.holds else CHECK_FAILED
