"""The front door: `detectron-gn COMMAND ...` and `detectron_gn.load()`, which dispatch to the rooms."""

from __future__ import annotations

import argparse
import errno
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from detectron_gn.mrcnn.config import Config
    from detectron_gn.mrcnn.detectors.generalized_rcnn import MaskRCNN
    from detectron_gn.mrcnn.evaluation.evaluate import Evaluation
    from detectron_gn.mrcnn.precision import Precision

# Rooms and libraries are imported by the command that needs them, so that the door opens without torch or OpenCV.

DONE, CHECK_FAILED, BAD_INPUT = 0, 1, 2
INTERRUPTED, BROKEN_PIPE = 130, 141  # what a shell reports for SIGINT and SIGPIPE
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def load(
    source: str | Path,
    *,
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    precision: Precision = "fp32",
) -> MaskRCNN:
    """A model ready to detect: `load("model_final.pkl").detect(image)`.

    Args:
        source: a model id of the catalog, its URL, or a file (`.pkl .h5 .safetensors .pth`).
        config: a Detectron YAML file, or the name of one in `yaml_configs/`. Where it is left out the configuration
            inside the file counts, or else the catalog's.
        overrides: `["TEST.NMS", "0.3", ...]`, as on Detectron's command line.
        device: where it runs, as torch names it; "auto" is the first GPU, or the CPU where there is none.
        precision: of convolutions and matrix products: "fp32", or "tf32", "bf16" or "fp16", which find a little
            else (docs/precision.md).

    Raises `weights.errors.WeightsError` or `mrcnn.errors.InputError`, both ValueErrors, with one sentence.
    """
    from detectron_gn.port.runs.load import load_model

    return load_model(source, config, overrides, device, precision)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 a check did not hold, 2 bad input."""
    try:
        try:
            args = _parser().parse_args(arguments)
            if args.json is not None:
                _check_writable(args.json.parent)
                _check_no_folder(args.json)
            code: int = args.run(args)
        finally:
            # Here, and not at the interpreter's end, where a full disk could no longer be told in a sentence.
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("detectron-gn: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone.
        _drop_output()
        return BROKEN_PIPE
    except (ValueError, OSError) as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
        print(f"detectron-gn: error: {sentence}", file=sys.stderr)
        return BAD_INPUT


def _drop_output() -> None:
    """Send what is not written yet nowhere: the interpreter must not try to flush it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _models(args: argparse.Namespace) -> int:
    from detectron_gn.weights import catalog

    print(catalog.table())
    _write_json(args, catalog.rows())
    return DONE


def _download(args: argparse.Namespace) -> int:
    from detectron_gn.weights.download.cache import fetch, options

    path = fetch(args.source, options(args.cache, args.base_url))
    print(path)
    _write_json(args, {"path": str(path)})
    return DONE


def _convert(args: argparse.Namespace) -> int:
    from detectron_gn.weights.download.cache import resolve
    from detectron_gn.weights.formats.containers import convert

    conversion = convert(resolve(args.source), args.out)
    print(f"{conversion.out}: {len(conversion.weights.blobs)} blobs")
    for loss in conversion.not_kept:
        print(f"not kept: {loss}")
    document = {"out": str(conversion.out), "blobs": len(conversion.weights.blobs), "not_kept": conversion.not_kept}
    _write_json(args, document)
    return DONE


def _inspect(args: argparse.Namespace) -> int:
    from detectron_gn.weights.download.cache import resolve
    from detectron_gn.weights.summary import describe

    summary = describe(resolve(args.source))
    print(summary)
    _write_json(args, summary.as_dict())
    return DONE


def _detect(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.errors import InputError
    from detectron_gn.mrcnn.memory import keep_freed_memory
    from detectron_gn.port.runs.detect import categories_of, detect_in_files
    from detectron_gn.weights.files.json_file import write_json

    keep_freed_memory()
    _check_writable(args.out)
    for path in args.images:
        path.open("rb").close()
    model = _load(args, args.precision)
    categories = categories_of(model, args.annotations, args.source)
    rows: list[dict[str, Any]] = []
    try:
        for image in detect_in_files(model, args.images, categories, args.out, args.min_score):
            print(f"{image.path}: {image.found} detections, {image.drawn} of them drawn in {image.picture}", flush=True)
            rows += image.rows
    except InputError:
        # What was found is not lost with an image that cannot be read.
        if rows:
            write_json(args.out / "detections.json", rows)
        raise
    write_json(args.out / "detections.json", rows)
    _write_json(args, rows)
    return DONE


def _test(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.evaluation.ap import ap_table

    evaluation, document, _ = _evaluate(args)
    if evaluation is None:
        return DONE
    print(evaluation.naming + "\n")
    print(ap_table({"box": evaluation.box_ap, "mask": evaluation.mask_ap}, per_class=args.per_class))
    print(f"\n{args.out / 'ap.json'}, bbox.json and segm.json hold the numbers and the detections.")
    _write_json(args, document)
    return DONE


def _evaluate(args: argparse.Namespace) -> tuple[Evaluation | None, dict[str, Any], MaskRCNN]:
    """Run a model over a data set, alone or with the other processes that torchrun started; None but for the first.

    Returns what was found, what `ap.json` holds of it, and the model.
    """
    from detectron_gn.mrcnn.distributed import joined_ranks
    from detectron_gn.mrcnn.evaluation.evaluate import evaluate
    from detectron_gn.mrcnn.inference.cuda_graphs import CudaGraphs
    from detectron_gn.mrcnn.memory import keep_freed_memory
    from detectron_gn.verify.evaluation_files import write_evaluation

    keep_freed_memory()
    _check_writable(args.out)
    with joined_ranks(args.device) as ranks:
        model = load(
            args.source,
            config=args.config,
            overrides=args.overrides,
            device=str(ranks.device),
            precision=args.precision,
        )
        progress = _progress_bar if ranks.is_first else _no_progress_bar
        network = CudaGraphs(model) if args.cuda_graphs else None
        evaluation = evaluate(
            model, args.annotations, args.images, progress, batch=args.batch, out=args.out, ranks=ranks, network=network
        )
    if evaluation is None:
        return None, {}, model
    return evaluation, write_evaluation(evaluation, args.annotations.stem, args.out), model


def _score(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.evaluation.ap import AP_JSON_KEY, ap_document, ap_table, score
    from detectron_gn.mrcnn.evaluation.coco_files import read_annotations, read_results, results_iou_type

    rows = read_results(args.results)
    iou_type = args.type or results_iou_type(rows, str(args.results))
    summary = score(args.results, read_annotations(args.annotations), iou_type)
    kind = AP_JSON_KEY[iou_type]
    print(ap_table({kind: summary}, per_class=args.per_class))
    _write_json(args, ap_document(args.annotations.stem, **{kind: summary}))
    return DONE


def _verify_blobs(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from detectron_gn.verify.parity.blobs import (
        blob_table,
        compare_file,
        first_difference,
        parity_holds,
        remarks,
        summary_table,
    )

    parities = []
    for parity in compare_file(_load(args), args.reference, args.images):
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
    _write_json(args, {"holds": all(holds), "images": [asdict(parity) for parity in parities]})
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
    _write_json(args, document)
    return DONE if parity.holds else CHECK_FAILED


def _verify_published(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.evaluation.ap import ap_document, ap_table
    from detectron_gn.mrcnn.evaluation.coco_files import read_annotations
    from detectron_gn.verify.published import comparison_table, score_published, verdict

    annotations = read_annotations(args.annotations)
    comparison, summaries = score_published(args.source, annotations, args.annotations)
    print(f"{ap_table(summaries, per_class=args.per_class)}\n\n{comparison_table(comparison)}\n\n{verdict(comparison)}")
    _write_json(args, {**comparison.document(), "ap": ap_document(args.annotations.stem, **summaries)})
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
    evaluation, document, model = _evaluate(args)
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
    _write_json(args, {**ladder.comparison.document(), "naming": evaluation.naming, "ap": document})
    return DONE if ladder.holds else CHECK_FAILED


def _verify_all(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.distributed import joined_ranks
    from detectron_gn.mrcnn.memory import keep_freed_memory
    from detectron_gn.verify.ladder import LadderInputs, climb, ladder_table
    from detectron_gn.verify.published import known_expectation, published_results
    from detectron_gn.verify.report.content import ladder_report, model_title
    from detectron_gn.verify.report.page import write_report

    keep_freed_memory()
    _check_writable(args.out)
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
        progress = _progress_bar if ranks.is_first else _no_progress_bar
        ladder = climb(inputs, lambda line: print(line, flush=True), progress)
    if ladder is None:
        return DONE
    report = args.out / "report.html"
    write_report(ladder_report(model_title(args.source), ladder, inputs, "Detectron (Caffe2)"), report)
    print(f"\n{ladder_table(ladder)}\n\nThe report: {report}")
    _write_json(args, ladder.document())
    return DONE if ladder.holds else CHECK_FAILED


def _check_reference_results(annotations: Path, files: tuple[Path | None, Path | None]) -> None:
    """Refuse result files of boxes and masks that are not of these annotations before any image runs."""
    from detectron_gn.mrcnn.evaluation.coco_files import IouType, check_results, read_annotations, read_results

    coco = read_annotations(annotations)
    kinds: tuple[IouType, IouType] = ("bbox", "segm")
    for iou_type, path in zip(kinds, files):
        if path is not None:
            check_results(read_results(path), iou_type, str(path), coco)


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
        model, images, expected, lambda batches, count: _progress_bar(batches, count, unit="batch"), batch=args.batch
    )
    print(error_table(args.source, found))
    _write_json(args, found.document())
    return DONE if found.holds else CHECK_FAILED


def _verify_training(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.data.coco import read_dataset
    from detectron_gn.port.runs.load import configured_weights
    from detectron_gn.verify.parity.training_check import check_training, training_tables

    cfg, weights = configured_weights(args.source, args.config, args.overrides)
    dataset = read_dataset(args.annotations, args.images)
    parity = check_training(cfg, weights, dataset, args.reference, replicas=args.replicas)
    print(training_tables(parity))
    print(f"\n{'It is the same run.' if parity.holds else 'It is not the same run.'}")
    _write_json(args, parity.document())
    return DONE if parity.holds else CHECK_FAILED


def _train(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.config import check_config, with_values
    from detectron_gn.mrcnn.data.roidb import check_classes
    from detectron_gn.mrcnn.distributed import joined_ranks
    from detectron_gn.mrcnn.memory import keep_freed_memory
    from detectron_gn.verify.training.evaluated import EvaluationData, train_and_evaluate
    from detectron_gn.verify.training.inputs import class_names, training_data, training_source
    from detectron_gn.verify.training.run import RunOptions, print_line
    from detectron_gn.weights import read_blobs
    from detectron_gn.weights.download.cache import resolve

    keep_freed_memory()
    cfg, source = training_source(args.config, args.weights, args.overrides)
    if args.scale_schedule is not None:
        return _scale_schedule(args, cfg)
    datasets = training_data(args.annotations, args.images, args.classes)
    if args.classes is not None:
        cfg = with_values(cfg, {"MODEL.NUM_CLASSES": len(datasets[0].classes)})
    for dataset in datasets:
        check_classes(dataset, cfg)
    check_config(cfg)
    weights = read_blobs(resolve(source)) if source else None
    evaluation_data = None
    if args.eval_annotations is not None:
        evaluation_data = EvaluationData(args.eval_annotations, args.eval_images or args.images[0])
    options = RunOptions(
        args.out,
        resume=args.resume,
        keep=args.keep,
        detectron_checkpoints=args.detectron_checkpoints,
        workers=args.workers,
        # Two of Detectron's own models were trained like that; their configurations exist to reproduce them.
        force=args.force or Path(args.config or "").stem.endswith("_freeze2"),
        source_classes=class_names(args.weights_classes) if args.weights_classes else None,
        precision=args.precision,
        recompute=args.recompute,
    )
    with joined_ranks(args.device, cfg.NUM_GPUS) as ranks:
        trained = train_and_evaluate(cfg, datasets, weights, ranks, options, evaluation_data, print_line)
    if ranks.is_first:
        _write_json(args, {"final": str(trained.final), "ap": trained.ap})
    return DONE


def _check_data(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.data.check import check_dataset, report_text
    from detectron_gn.mrcnn.data.coco import read_dataset
    from detectron_gn.port.config.read import parse_config
    from detectron_gn.port.runs.load import find_config

    dataset = read_dataset(args.annotations, args.images)
    if args.config is None:
        defaults = f"MODEL: {{NUM_CLASSES: {len(dataset.classes)}}}"
        cfg = parse_config(defaults, "Detectron's defaults", args.overrides)
    else:
        cfg = find_config(args.config, args.overrides)
    report = check_dataset(dataset, cfg, read_images=not args.no_decode)
    print(report_text(report, most=args.most))
    _write_json(args, report.document())
    return CHECK_FAILED if report.errors else DONE


def _demo(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from detectron_gn.mrcnn.memory import keep_freed_memory
    from detectron_gn.verify.demo import run_demo

    keep_freed_memory()
    _check_writable(args.out)
    outcome = run_demo(args.out, lambda line: print(line, flush=True), _progress_bar)
    print("\nPictures, Detectron's detections on the left and ours on the right:")
    for picture in outcome.pictures:
        print(f"  {picture}")
    print(f"\nThe report: {outcome.report}")
    print("\nEverything agrees with Caffe2." if outcome.holds else "\nSomething does not agree with Caffe2: see above.")
    blobs, detections = [asdict(parity) for parity in outcome.blobs], [p.document() for p in outcome.detections]
    document = {"holds": outcome.holds, "report": str(outcome.report), "ap": outcome.ap}
    _write_json(args, {**document, "detections": detections, "blobs": blobs})
    return DONE if outcome.holds else CHECK_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="detectron-gn",
        description="The Group-Norm Mask R-CNN models of Caffe2 Detectron, exactly, in PyTorch.",
        epilog="Exit codes: 0 done, 1 a check did not hold, 2 bad input. `detectron-gn COMMAND --help` has examples.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    command = _command_adder(commands)

    command("models", _models, "list the published models with their AP and files", "models")

    download = command(
        "download", _download, "fetch a published model, check it, and print where it is kept", "download 48616381"
    )
    download.add_argument("source", metavar="ID|URL")
    download.add_argument("--cache", metavar="DIR", help="cache folder (default: DETECTRON_GN_CACHE, ~/.cache)")
    download.add_argument("--base-url", metavar="URL", help="a mirror (default: DETECTRON_GN_BASE_URL, Detectron's)")

    convert = command(
        "convert",
        _convert,
        "turn a weights file into another format, back to Detectron's pickle included",
        "convert model_final.pkl --out model.safetensors",
    )
    _add_source(convert)
    convert.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="ends in .pkl, .h5, .safetensors or .pth"
    )

    inspect = command(
        "inspect", _inspect, "tell what is in a weights file: kind, configuration, blobs", "inspect model_final.pkl"
    )
    _add_source(inspect)

    detect = command(
        "detect",
        _detect,
        "find the objects in images: pictures with boxes and masks, and COCO results",
        "detect model_final.pkl photo.jpg --out out",
    )
    _add_model(detect)
    _add_precision(detect)
    detect.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    _add_out(detect)
    detect.add_argument(
        "--annotations", type=Path, metavar="A.json", help="class names and ids (default: of the run, or COCO)"
    )
    detect.add_argument(
        "--min-score",
        type=_between(0, 1),
        default=0.5,
        metavar="X",
        help="what is drawn scores at least X (default 0.5)",
    )

    test = command(
        "test",
        _test,
        "run a model over a data set in COCO's format and score it",
        "test 48616381 --annotations instances_val2017.json --images val2017 --out out",
    )
    _add_model(test)
    _add_data(test)
    _add_out(test)
    _add_batch(test)
    _add_precision(test)
    _add_cuda_graphs(test)
    _add_per_class(test)

    score = command(
        "score",
        _score,
        "AP of a COCO results file, without a model",
        "score bbox.json --annotations instances_val2017.json",
    )
    score.add_argument("results", type=Path, metavar="RESULTS.json", help="a list of detections in COCO's format")
    score.add_argument("--annotations", type=Path, required=True, metavar="A.json", help="COCO instances file")
    _add_type(score)
    _add_per_class(score)

    verify = commands.add_parser("verify", help="compare with Caffe2: blobs, detections, AP, training")
    checks = verify.add_subparsers(metavar="WHAT", required=True, parser_class=_Parser)
    check = _command_adder(checks, "verify ")
    blobs = check(
        "blobs",
        _verify_blobs,
        "compare every activation and detection with a reference that Caffe2 computed",
        "verify blobs model_final.pkl --reference blobs.h5 --images val2017",
    )
    _add_model(blobs)
    blobs.add_argument("--reference", type=Path, required=True, metavar="R.h5", help="what dump_blobs.py wrote")
    blobs.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the images it names")
    _add_tolerance(blobs)

    detections = check(
        "detections",
        _verify_detections,
        "compare two COCO result files detection by detection",
        "verify detections out/bbox.json bbox_coco_2014_minival_results.json --annotations instances_val2017.json",
    )
    detections.add_argument("ours", type=Path, metavar="OURS.json")
    detections.add_argument("reference", type=Path, metavar="REFERENCE.json")
    detections.add_argument("--annotations", type=Path, metavar="A.json", help="score both files as well")
    _add_type(detections)
    limits = {"box-iou": (0.999, "smallest IoU of two boxes"), "mask-iou": (0.99, "smallest IoU of two masks")}
    limits["score"] = (1e-3, "largest difference of two scores")
    for name, (default, meaning) in limits.items():
        detections.add_argument(
            f"--{name}", type=_between(0, 1), default=default, metavar="X", help=f"{meaning} (default {default})"
        )

    published = check(
        "published",
        _verify_published,
        "score the published detections of a model: checks annotations and evaluator without running it",
        "verify published 48616381 --annotations instances_val2017.json",
    )
    published.add_argument("source", metavar="ID", help="a model of the catalog")
    published.add_argument("--annotations", type=Path, required=True, metavar="A.json", help="minival or val2017")
    _add_per_class(published)

    ap = check(
        "ap",
        _verify_ap,
        "run a model over a data set and compare its AP with the published one",
        "verify ap 48616381 --annotations instances_val2017.json --images val2017 --out out",
    )
    _add_model(ap)
    _add_data(ap)
    _add_out(ap, default=Path("out/verify"))
    _add_batch(ap)
    _add_precision(ap)
    _add_cuda_graphs(ap)
    _add_expected_ap(ap)
    _add_per_class(ap)

    every = check(
        "all",
        _verify_all,
        "climb from the file to the AP, stop at the first rung that differs from Caffe2, name the usual suspect",
        "verify all model_final.pkl --reference blobs.h5 --images val2017 --annotations instances_val2017.json",
    )
    _add_model(every)
    every.add_argument("--reference", type=Path, metavar="R.h5", help="blobs and proposals: what dump_blobs.py wrote")
    every.add_argument("--images", type=Path, metavar="DIR", help="folder of the images of both")
    every.add_argument("--annotations", type=Path, metavar="A.json", help="detections and AP: COCO instances file")
    for kind in ("boxes", "masks"):
        every.add_argument(
            f"--reference-{kind}", type=Path, metavar="R.json", help=f"Detectron's {kind} (default: the published)"
        )
    _add_expected_ap(every)
    _add_out(every, default=Path("out/verify"))
    _add_batch(every)
    _add_tolerance(every)

    imagenet = check(
        "imagenet",
        _verify_imagenet,
        "classify the ImageNet validation images with a backbone's file and compare its published top-1 error",
        "verify imagenet R-50-GN.pkl --images imagenet/val",
    )
    _add_source(imagenet)
    imagenet.add_argument(
        "--images", type=Path, required=True, metavar="DIR", help="holds a folder a class, or the images"
    )
    imagenet.add_argument(
        "--list", type=Path, metavar="FILE", help="lines `name label`, where there are no class folders"
    )
    imagenet.add_argument("--batch", type=int, default=32, metavar="N", help="images that run together (default 32)")
    imagenet.add_argument(
        "--expect-error", type=_between(0, 100), metavar="X", help="top-1 error in percent (default: the catalog's)"
    )
    _add_config(imagenet, "a detector with this body (default: R-50 or R-101 with the file's normalisation)")
    _add_device(imagenet)

    training = check(
        "training",
        _verify_training,
        "replay a training run of Caffe2 Detectron and compare losses, updates and parameters",
        "verify training start.pkl --reference trace.h5 --annotations instances_train.json --images train",
    )
    _add_source(training)
    _add_config(training, "what it was trained with (default: the model's own)")
    _add_data(training)
    training.add_argument("--reference", type=Path, required=True, metavar="T.h5", help="the trace of the run")
    training.add_argument(
        "--replicas", type=int, default=4, metavar="N", help="replays that measure what rounding does (default 4)"
    )

    train = command(
        "train",
        _train,
        "train from scratch, from other weights, or on from a checkpoint",
        "train --config e2e_mask_rcnn_R-50-FPN_2x_gn --weights R-50-GN.pkl --annotations train.json --images train "
        "--out run",
    )
    _add_train(train)

    check_data = command(
        "check-data",
        _check_data,
        "list what training would leave out of a data set and why, and what would stop it",
        "check-data --annotations instances_train.json --images train",
    )
    _add_data(check_data)
    _add_config(check_data, "thresholds and number of classes (default: Detectron's, and as many as there are)")
    check_data.add_argument("--no-decode", action="store_true", help="look for the image files without decoding them")
    check_data.add_argument("--most", type=int, default=20, metavar="N", help="findings shown of a kind (default 20)")

    demo = command("demo", _demo, "the whole promise on the embedded model, beside Caffe2", "demo --out out/demo")
    demo.add_argument("--out", type=Path, default=Path("out/demo"), metavar="DIR", help="default: out/demo")

    return parser


class _Parser(argparse.ArgumentParser):
    """argparse, whose errors are one sentence like all others."""

    def error(self, message: str) -> NoReturn:
        print(f"detectron-gn: error: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(BAD_INPUT)


def _command_adder(
    commands: Any, prefix: str = ""
) -> Callable[[str, Callable[[argparse.Namespace], int], str, str], argparse.ArgumentParser]:
    """Adds commands that have a handler, a help text, an example and the option --json."""

    def add(name: str, run: Callable[[argparse.Namespace], int], meaning: str, example: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = commands.add_parser(
            name,
            help=meaning,
            description=f"{meaning[0].upper()}{meaning[1:]}.",
            epilog=f"example:\n  detectron-gn {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(run=run)
        parser.add_argument("--json", type=Path, metavar="FILE", help="write what is printed to FILE, for programs")
        return parser

    return add


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a model id, a URL, or a .pkl, .h5, .safetensors or .pth file")


def _add_model(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    _add_config(parser, "what it was trained with (default: the model's own)")
    _add_device(parser)


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--annotations", type=Path, required=True, metavar="A.json", help="COCO instances file")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the images")


def _add_config(parser: argparse.ArgumentParser, meaning: str) -> None:
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


def _add_train(parser: argparse.ArgumentParser) -> None:
    _add_config(parser, "what to train (default: that of the weights)")
    _add_device(parser)
    add = parser.add_argument
    add(
        "--weights",
        metavar="SOURCE",
        help="model id, URL or file to start from (default: TRAIN.WEIGHTS); model_iterN.pkl goes on after N",
    )
    add("--annotations", type=Path, required=True, action="append", metavar="A.json", help="may be given several times")
    add("--images", type=Path, required=True, action="append", metavar="DIR", help="one for each --annotations")
    _add_out(parser)
    add("--resume", action="store_true", help="go on with the run in --out, bit for bit")
    add("--classes", type=Path, metavar="NAMES.txt", help="class names, one a line, in the order of the categories")
    add("--weights-classes", type=Path, metavar="NAMES.txt", help="those of the weights, to keep rows of equal names")
    add("--keep", type=_at_least(1), default=3, metavar="K", help="checkpoints to keep (default 3)")
    add("--detectron-checkpoints", action="store_true", help="write model_iterN.pkl, which Detectron goes on from, too")
    add("--eval-annotations", type=Path, metavar="V.json", help="evaluate every checkpoint on this")
    add("--eval-images", type=Path, metavar="DIR", help="its images (default: those of training)")
    add("--workers", type=_at_least(0), default=2, metavar="N", help="processes that load images (default 2)")
    add("--precision", choices=("fp32", "tf32", "bf16"), default="fp32", help="of the forward pass (default fp32)")
    add("--recompute", action="store_true", help="save memory: compute the backbone's activations twice")
    add("--scale-schedule", type=_at_least(1), metavar="N", help="write the configuration for N GPUs to --out and stop")
    add("--force", action="store_true", help="train from scratch even with TRAIN.FREEZE_AT above 0")


def _at_least(least: int) -> Callable[[str], int]:
    """An option's whole number from `least` up."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} up")
        return int(text)

    return number


def _between(least: float, most: float = math.inf) -> Callable[[str], float]:
    """An option's finite number from `least` to `most`."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and least <= value <= most):
            up_to = "up" if math.isinf(most) else f"to {most:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {least:g} {up_to}")
        return value

    return number


def _add_out(parser: argparse.ArgumentParser, default: Path | None = None) -> None:
    meaning = "folder for what is written" + (f" (default: {default})" if default else "")
    parser.add_argument("--out", type=Path, required=default is None, default=default, metavar="DIR", help=meaning)


def _add_expected_ap(parser: argparse.ArgumentParser) -> None:
    for kind in ("box", "mask"):
        parser.add_argument(
            f"--expect-{kind}",
            type=_between(0, 100),
            metavar="AP",
            help=f"the {kind} AP to compare with, in percent or as a share of 1 (default: the catalog's)",
        )


def _add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=("fp32", "tf32", "bf16", "fp16"),
        default="fp32",
        help="of convolutions and products (default fp32); others find a little else, see docs/precision.md",
    )


def _add_cuda_graphs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cuda-graphs",
        action="store_true",
        help="record the network once for each padded size of images and replay it; needs an NVIDIA GPU",
    )


def _add_tolerance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tolerance",
        type=_between(0),
        default=1e-3,
        metavar="X",
        help="largest relative error of a blob (default 0.001)",
    )


def _add_batch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="images of one padded size that run together (default 1)"
    )


def _add_type(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--type", choices=("bbox", "segm"), help="boxes or masks (default: masks where there are any)")


def _add_per_class(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--per-class", action="store_true", help="show the AP of each class as well")


def _load(args: argparse.Namespace, precision: Precision = "fp32") -> MaskRCNN:
    return load(args.source, config=args.config, overrides=args.overrides, device=args.device, precision=precision)


def _image_name(image_id: int | str, annotations: Any) -> str:
    known = annotations.imgs.get(image_id, {}) if annotations is not None else {}
    return str(known.get("file_name", image_id))


def _progress_bar(results: Any, count: int, unit: str = "image") -> Any:
    """A bar with images a second and the time left; in a log, a line every half minute."""
    from tqdm import tqdm

    return tqdm(results, total=count, unit=unit, mininterval=0.1 if sys.stderr.isatty() else 30)


def _no_progress_bar(results: Any, _count: int) -> Any:
    return results


def _scale_schedule(args: argparse.Namespace, cfg: Config) -> int:
    from detectron_gn.mrcnn.config import check_config
    from detectron_gn.verify.training.inputs import write_scaled_schedule

    check_config(cfg)
    _check_writable(args.out)
    path, changes = write_scaled_schedule(cfg, args.scale_schedule, args.out)
    print("\n".join(changes))
    print(f"\n{path} holds this; nothing was trained. Pass it as --config to train with it.")
    _write_json(args, {"config": str(path), "changes": changes})
    return DONE


def _check_writable(folder: Path) -> None:
    """Make the folder if need be and see that files can be put into it, before any long work."""
    from detectron_gn.mrcnn.errors import InputError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".detectron-gn-{os.getpid()}"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"nothing can be written to {folder}: {error.strerror or error}") from None


def _check_no_folder(file: Path) -> None:
    from detectron_gn.mrcnn.errors import InputError

    if file.is_dir():
        raise InputError(f"{file} is a folder: --json takes the name of a file")


def _write_json(args: argparse.Namespace, content: object) -> None:
    if args.json is not None:
        from detectron_gn.weights.files.json_file import write_json

        write_json(args.json, content, indent=1)


def _sentence(error: ValueError | OSError) -> str | None:
    """What is wrong with the user's input, or None for an error that is the program's own."""
    from detectron_gn.mrcnn.errors import InputError
    from detectron_gn.weights.errors import WeightsError

    if isinstance(error, InputError | WeightsError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return f"the output cannot be written: {error.strerror}; make room, or send it elsewhere"
    if isinstance(error, OSError):
        return f"the system refuses to read or write: {error.strerror or error}"
    return None

