"""`verify blobs`, `detections`, `imagenet` and `training`: one kind of parity with Caffe2 each."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectron_gn.port.options import (
    add_config,
    add_device,
    add_image_reading,
    add_model,
    add_proposals,
    image_reading,
)
from detectron_gn.verify.cli.options import add_data, add_max_dets, add_tolerance, add_type
from detectron_gn.weights.command_line import (
    CHECK_FAILED,
    DONE,
    Commands,
    add_source,
    at_least,
    between,
    write_json_option,
)
from detectron_gn.weights.progress import progress_bar
from detectron_gn.weights.shown import folded, one_line

if TYPE_CHECKING:
    from detectron_gn.verify.reference.weights_digests import ComparedWeights


def add_blobs(checks: Commands) -> None:
    """`verify blobs SOURCE --reference R.h5 --images DIR`."""
    parser = checks.add(
        "blobs",
        _blobs,
        "compare activations (those recorded) and detections with a reference that Caffe2 computed",
        "verify blobs model_final.pkl --reference blobs.h5 --images val2017",
    )
    add_model(parser)
    meaning = "what dump_blobs.py wrote (verify dump-script)"
    parser.add_argument("--reference", type=Path, required=True, metavar="R.h5", help=meaning)
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the images it names")
    parser.add_argument("--blobs", action="store_true", help="list every blob of every image, not only the worst ten")
    add_image_reading(parser)
    add_tolerance(parser)


def _blobs(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from detectron_gn.mrcnn.errors import InputError
    from detectron_gn.port.blobs.convert import model_blobs
    from detectron_gn.port.runs.load import load_model
    from detectron_gn.verify.parity.blob_tables import part_table, worst_table
    from detectron_gn.verify.parity.blobs import (
        blob_table,
        compare_file,
        first_difference,
        parity_holds,
        remarks,
        summary_table,
    )
    from detectron_gn.verify.parity.coverage import remark_of_thin, thin_not_compared, told_values
    from detectron_gn.verify.parity.usual import remark_of_errors
    from detectron_gn.verify.reference.weights_digests import compare_weights

    model = load_model(args.source, args.config, args.overrides, args.device, keep_unused=args.keep_unused)
    blobs = model_blobs(model)
    parities = []
    for parity in compare_file(model, args.reference, args.images, image_reading(args)):
        told = f"{one_line(parity.image)}: {len(parity.blobs)} blobs"
        print(f"{told}\n{blob_table(parity)}\n" if args.blobs else told, flush=True)
        parities.append(parity)
    if any(parity.blobs for parity in parities):
        print(f"\n{part_table(parities, args.tolerance)}\n\n{worst_table(parities)}")
    print(f"\n{summary_table(parities)}")
    for parity in parities:
        for line in remarks(parity):
            print(one_line(f"{parity.image}: {line}"))
    print(folded(f"compared: {told_values(parities)}"))
    for remark in filter(None, (remark_of_thin(parities), remark_of_errors(parities, args.tolerance))):
        print(folded(remark))
    weights = compare_weights(args.reference, blobs)
    print(folded(weights.told))
    holds = [parity_holds(parity, args.tolerance) for parity in parities]
    for parity, held in zip(parities, holds):
        if not held:
            first = first_difference(parity, args.tolerance) or "its detections"
            print(one_line(f"{parity.image}: first out of tolerance: {first}"))
    compares = any(parity.compares for parity in parities)
    agree = all(holds) and not weights.others
    document = {"weights": weights._asdict(), "images": [asdict(parity) for parity in parities]}
    write_json_option(args, {"holds": compares and agree, **document})
    if not compares:
        raise InputError(
            f"nothing was compared: {args.reference} holds no blob that the network has, and no detections; record it "
            "again with dump_blobs.py (verify dump-script)"
        )
    if not args.blobs:
        print("\n--blobs lists every blob.")
    print(f"\n{_blobs_verdict(all(holds), weights, thin_not_compared(parities))}")
    return DONE if agree else CHECK_FAILED


def _blobs_verdict(agree: bool, weights: ComparedWeights, left_out: str) -> str:
    """The end of it: whether the blobs agree, what is known of the weights, and what was not compared."""
    if not agree:
        return "The blobs do not agree."
    if weights.others:
        return folded("The blobs agree to the tolerance, but the weights are not those of the reference.")
    not_compared = ", ".join(filter(None, (weights.not_compared, left_out)))
    return folded(f"The blobs agree. Not compared: {not_compared}.") if not_compared else "The blobs agree."


def add_detections(checks: Commands) -> None:
    """`verify detections OURS.json REFERENCE.json`."""
    parser = checks.add(
        "detections",
        _detections,
        "compare two COCO result files detection by detection",
        "verify detections out/bbox.json bbox_coco_2014_minival_results.json --annotations instances_val2017.json",
    )
    parser.add_argument("ours", type=Path, metavar="OURS.json")
    parser.add_argument("reference", type=Path, metavar="REFERENCE.json")
    parser.add_argument("--annotations", type=Path, metavar="A.json", help="score both files as well")
    add_type(parser)
    add_max_dets(parser)
    limits = {"box-iou": (0.999, "smallest IoU of two boxes"), "mask-iou": (0.99, "smallest IoU of two masks")}
    limits["score"] = (1e-3, "largest difference of two scores")
    parser.add_argument(
        "--keypoint",
        type=between(0),
        default=0.02,
        metavar="X",
        help="largest distance, in pixels along x or y, of a keypoint that is in place (default 0.02); of all "
        "keypoints 1 in 500, rounded up, may be elsewhere, however far, and at most 8 of a person's 17",
    )
    parser.add_argument(
        "--box-px",
        type=between(0),
        default=0.05,
        metavar="X",
        help="largest distance, in pixels, of the edges of two boxes (default 0.05)",
    )
    for name, (default, meaning) in limits.items():
        parser.add_argument(
            f"--{name}", type=between(0, 1), default=default, metavar="X", help=f"{meaning} (default {default})"
        )


def _detections(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.data.coco import read_annotations
    from detectron_gn.mrcnn.evaluation.ap import AP_JSON_KEY, ap_document, ap_table, score
    from detectron_gn.mrcnn.evaluation.results_files import check_results, read_results, results_iou_type
    from detectron_gn.verify.parity.results import DetectionTolerances, match_detections, parity_table, told_moved
    from detectron_gn.verify.parity.usual import remark_of_detections

    annotations = read_annotations(args.annotations) if args.annotations else None
    ours, reference = read_results(args.ours), read_results(args.reference)
    iou_type = args.type or results_iou_type(reference, str(args.reference))
    check_results(ours, iou_type, str(args.ours), annotations)
    check_results(reference, iou_type, str(args.reference), annotations)
    tolerances = DetectionTolerances(
        box_iou=args.box_iou, mask_iou=args.mask_iou, box_px=args.box_px, keypoint=args.keypoint, score=args.score
    )
    parity = match_detections(ours, reference, iou_type, tolerances)
    print(parity_table([parity]))
    document = parity.document()
    if parity.keypoints:
        print(f"\n{told_moved(parity.moved_keypoints, parity.keypoints, parity.max_box_difference)}")
    if parity.holds:
        box_error = parity.max_box_difference if iou_type == "bbox" else 0.0
        if remark := remark_of_detections(box_error, parity.max_score_difference):
            print(folded(f"\n{remark}"))
    if parity.worst:
        worst = [_image_name(image.image_id, annotations) for image in parity.worst]
        print(f"\nfurthest apart: {one_line(', '.join(worst))}")
    if annotations is not None:
        both = {"ours": ours, "reference": reference}
        summaries = {name: score(rows, annotations, iou_type, args.max_dets) for name, rows in both.items()}
        print(f"\n{ap_table(summaries)}")
        kind = AP_JSON_KEY[iou_type]
        document["ap"] = {name: ap_document(args.annotations.stem, {kind: ap}) for name, ap in summaries.items()}
    write_json_option(args, document)
    print(f"\n{'The detections agree.' if parity.holds else 'The detections do not agree.'}")
    return DONE if parity.holds else CHECK_FAILED


def _image_name(image_id: int | str, annotations: Any) -> str:
    known = annotations.imgs.get(image_id, {}) if annotations is not None else {}
    return str(known.get("file_name", image_id))


def add_imagenet(checks: Commands) -> None:
    """`verify imagenet SOURCE --images DIR`."""
    parser = checks.add(
        "imagenet",
        _imagenet,
        "classify the ImageNet validation images with a backbone's file and compare its published top-1 error",
        "verify imagenet R-50-GN.pkl --images imagenet/val",
    )
    add_source(parser)
    parser.add_argument(
        "--images", type=Path, required=True, metavar="DIR", help="holds a folder a class, or the images"
    )
    parser.add_argument(
        "--list", type=Path, metavar="FILE", help="lines `name label`, where there are no class folders"
    )
    parser.add_argument(
        "--batch", type=at_least(1), default=32, metavar="N", help="images that run together (default 32)"
    )
    parser.add_argument(
        "--expect-error", type=between(0, 100), metavar="X", help="top-1 error in percent (default: the catalog's)"
    )
    parser.add_argument(
        "--mean",
        type=between(0, 255),
        nargs=3,
        metavar=("B", "G", "R"),
        help="mean colour that training subtracted (default: what is known of the body's trainer)",
    )
    add_image_reading(parser)
    add_config(parser, "a detector with this body (default: R-50 or R-101 with the file's normalisation)")
    add_device(parser)


def _imagenet(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.distributed import usable_device
    from detectron_gn.mrcnn.errors import InputError
    from detectron_gn.mrcnn.memory import keep_freed_memory
    from detectron_gn.port.blobs.classifier import build_classifier, mean_to_subtract, published_error
    from detectron_gn.port.runs.load import classifier_config
    from detectron_gn.verify.imagenet import classify, error_table, labelled_images
    from detectron_gn.weights import read_blobs
    from detectron_gn.weights.download.cache import resolve

    keep_freed_memory()
    expected = args.expect_error if args.expect_error is not None else published_error(args.source)
    cfg = classifier_config(args.config, args.overrides)
    weights = read_blobs(resolve(args.source))
    mean = mean_to_subtract(weights, cfg, args.mean and tuple(args.mean), args.overrides)
    model = build_classifier(weights, cfg).to(usable_device(args.device))
    images = labelled_images(args.images, model.pred.out_features, args.list)
    found = classify(
        model,
        images,
        expected,
        lambda batches, count: progress_bar(batches, count, unit="batch"),
        batch=args.batch,
        mean=mean.values,
        reading=image_reading(args),
    )
    another = "" if args.mean else "; --mean takes another"
    print(f"{mean}{another}\n\n{error_table(found)}", flush=True)
    write_json_option(args, {**found.document(), "mean": mean.values})
    if found.expected is None:
        raise InputError(
            f"nothing was compared: {args.source} has no published error; pass --expect-error with the one to compare"
        )
    return DONE if found.holds else CHECK_FAILED


def add_training(checks: Commands) -> None:
    """`verify training SOURCE --reference T.h5 --annotations A.json --images DIR`."""
    parser = checks.add(
        "training",
        _training,
        "replay a training run of Caffe2 Detectron and compare losses, updates and parameters",
        "verify training start.pkl --reference trace.h5 --annotations instances_train.json --images train",
    )
    add_source(parser)
    add_config(parser, "what it was trained with (default: the model's own)")
    add_data(parser)
    parser.add_argument("--reference", type=Path, required=True, metavar="T.h5", help="the trace of the run")
    add_proposals(parser)
    add_image_reading(parser)
    parser.add_argument(
        "--replicas",
        type=at_least(0),
        default=4,
        metavar="N",
        help="replays that measure what rounding does (default 4)",
    )


def _training(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.data.coco import read_dataset
    from detectron_gn.port.runs.load import configured_weights
    from detectron_gn.port.runs.proposals import stored_proposals
    from detectron_gn.verify.parity.training_check import check_training, training_tables
    from detectron_gn.verify.parity.training_verdict import told_training_verdict

    cfg, weights = configured_weights(args.source, args.config, args.overrides)
    dataset = read_dataset(args.annotations, args.images)
    parity = check_training(
        cfg,
        weights,
        dataset,
        args.reference,
        proposals=stored_proposals(cfg, args.proposals),
        replicas=args.replicas,
        reading=image_reading(args),
    )
    print(training_tables(parity))
    print(f"\n{folded(told_training_verdict(parity))}")
    write_json_option(args, parity.document())
    return DONE if parity.holds else CHECK_FAILED
