"""The commands `test` and `score`, and the evaluation that `verify ap` makes too."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectron_gn.port.options import add_model, add_out, add_precision
from detectron_gn.verify.cli.options import add_batch, add_cuda_graphs, add_data, add_per_class, add_type
from detectron_gn.verify.cli.progress import progress_bar
from detectron_gn.weights.options import DONE, Commands, add_command, check_writable, write_document

if TYPE_CHECKING:
    from detectron_gn.mrcnn.detectors.generalized_rcnn import MaskRCNN
    from detectron_gn.mrcnn.evaluation.evaluate import Evaluation


def add_commands(commands: Commands) -> None:
    """Add `test` and `score`."""
    test = add_command(
        commands,
        "test",
        _test,
        "run a model over a data set in COCO's format and score it",
        "test 48616381 --annotations instances_val2017.json --images val2017 --out out",
    )
    add_model(test)
    add_data(test)
    add_out(test)
    add_batch(test)
    add_precision(test)
    add_cuda_graphs(test)
    add_per_class(test)

    score = add_command(
        commands,
        "score",
        _score,
        "AP of a COCO results file, without a model",
        "score bbox.json --annotations instances_val2017.json",
    )
    score.add_argument("results", type=Path, metavar="RESULTS.json", help="a list of detections in COCO's format")
    score.add_argument("--annotations", type=Path, required=True, metavar="A.json", help="COCO instances file")
    add_type(score)
    add_per_class(score)


def _test(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.evaluation.ap import ap_table

    evaluation, document, _ = evaluate_model(args)
    if evaluation is None:
        return DONE
    print(evaluation.naming + "\n")
    print(ap_table({"box": evaluation.box_ap, "mask": evaluation.mask_ap}, per_class=args.per_class))
    print(f"\n{args.out / 'ap.json'}, bbox.json and segm.json hold the numbers and the detections.")
    write_document(args, document)
    return DONE


def evaluate_model(args: argparse.Namespace) -> tuple[Evaluation | None, dict[str, Any], MaskRCNN]:
    """Run a model over a data set, alone or with the other processes that torchrun started; None but for the first.

    Returns what was found, what `ap.json` holds of it, and the model.
    """
    from detectron_gn.mrcnn.distributed import joined_ranks
    from detectron_gn.mrcnn.evaluation.evaluate import evaluate
    from detectron_gn.mrcnn.inference.cuda_graphs import CudaGraphs
    from detectron_gn.mrcnn.memory import keep_freed_memory
    from detectron_gn.port.runs.load import load_model
    from detectron_gn.verify.evaluation_files import write_evaluation

    keep_freed_memory()
    check_writable(args.out)
    with joined_ranks(args.device) as ranks:
        model = load_model(args.source, args.config, args.overrides, str(ranks.device), args.precision)
        progress = partial(progress_bar, shown=ranks.is_first)
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
    write_document(args, ap_document(args.annotations.stem, **{kind: summary}))
    return DONE
