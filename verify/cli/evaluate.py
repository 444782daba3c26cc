"""`test` and `score`: the AP of a model on a data set, and of a results file."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectron_gn.port.options import (
    add_batch,
    add_classes,
    add_image_reading,
    add_model,
    add_out,
    add_precision,
    add_proposals,
    given_model,
    image_reading,
)
from detectron_gn.verify.cli.options import (
    add_cuda_graphs,
    add_data,
    add_max_dets,
    add_per_class,
    add_type,
    check_out,
)
from detectron_gn.weights.command_line import DONE, Commands, note, write_json_option
from detectron_gn.weights.progress import progress_bar

if TYPE_CHECKING:
    from detectron_gn.mrcnn.detectors import Detector
    from detectron_gn.mrcnn.distributed import Ranks
    from detectron_gn.mrcnn.evaluation.evaluate import Evaluation
    from detectron_gn.mrcnn.evaluation.generate_proposals import GeneratedProposals


def add_test(commands: Commands) -> None:
    """`test SOURCE --annotations A.json --images DIR --out DIR`."""
    parser = commands.add(
        "test",
        _test,
        "run a model over a data set in COCO's format and score it",
        "test 48616381 --annotations instances_val2017.json --images val2017 --out out",
    )
    add_model(parser)
    add_classes(parser)
    add_data(parser)
    add_proposals(parser)
    add_out(parser)
    add_image_reading(parser)
    add_batch(parser)
    add_precision(parser)
    add_cuda_graphs(parser)
    add_max_dets(parser)
    add_per_class(parser)


def _test(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.distributed import joined_ranks
    from detectron_gn.mrcnn.memory import keep_freed_memory
    from detectron_gn.weights.files.lock import occupied

    keep_freed_memory()
    check_out(args)
    with joined_ranks(args.device) as ranks, occupied(args.out, "test.lock") if ranks.is_first else nullcontext():
        model = _loaded(args, ranks)
        if model.cfg.MODEL.RPN_ONLY:
            return _test_proposals(args, model, ranks)
        evaluation, document = _evaluated(args, model, ranks, args.max_dets)
    if evaluation is None:
        return DONE
    from detectron_gn.mrcnn.evaluation.ap import ap_table

    for line in (evaluation.naming, *evaluation.remarks):
        print(line)
    print("\n" + ap_table(evaluation.summaries, per_class=args.per_class))
    *files, last = [str(args.out / "ap.json"), *(f"{iou_type}.json" for iou_type in evaluation.rows)]
    print(f"\n{', '.join(files)} and {last} hold the numbers and the detections.")
    write_json_option(args, document)
    return DONE


def _test_proposals(args: argparse.Namespace, model: Detector, ranks: Ranks) -> int:
    """`test` of an RPN by itself: its proposals, in Detectron's file, and their recall."""
    from detectron_gn.mrcnn.evaluation.recall import recall_table

    found, document = _generated(args, model, ranks)
    if found is None:
        return DONE
    for line in (found.naming, *found.remarks):
        print(line)
    print(f"\nAverage recall\n{recall_table(found.recall)}")
    print(f"\n{args.out / 'ap.json'} and rpn_proposals.pkl hold the numbers and the proposals.")
    write_json_option(args, document)
    return DONE


def _generated(
    args: argparse.Namespace, model: Detector, ranks: Ranks
) -> tuple[GeneratedProposals | None, dict[str, Any]]:
    """What an RPN by itself proposes in the data set, written as Detectron does, and what `ap.json` holds of it."""
    from detectron_gn.mrcnn.detectors import ProposalNetwork
    from detectron_gn.mrcnn.errors import InputError
    from detectron_gn.mrcnn.evaluation.coco_eval import MAX_DETECTIONS
    from detectron_gn.mrcnn.evaluation.evaluate import no_progress
    from detectron_gn.mrcnn.evaluation.generate_proposals import generate_proposals
    from detectron_gn.mrcnn.stopping import Stopped, until_stopped
    from detectron_gn.verify.evaluation_files import write_generated_proposals

    assert isinstance(model, ProposalNetwork)
    model.check_proposals(args.proposals is not None)
    if args.cuda_graphs:
        raise InputError("an RPN by itself has no outputs of static shape: leave --cuda-graphs out")
    if args.per_class:
        raise InputError("the recall of proposals has no classes: leave --per-class out")
    if args.max_dets != MAX_DETECTIONS:
        raise InputError("the recall of proposals counts 100 and 1000 of an image: leave --max-dets out")
    shown = progress_bar if ranks.is_first else no_progress
    try:
        found = generate_proposals(
            model,
            args.annotations,
            args.images,
            lambda results, count: until_stopped(shown(results, count)),
            batch=args.batch,
            ranks=ranks,
            reading=image_reading(args),
        )
    except Stopped as stopped:
        raise Stopped(stopped.signal, "no proposals were written: the same command starts again") from None
    if found is None:
        return None, {}
    return found, write_generated_proposals(found, model.cfg, args.annotations.stem, args.out)


def run_evaluation(
    args: argparse.Namespace, max_detections: int
) -> tuple[Evaluation | GeneratedProposals | None, dict[str, Any], Detector]:
    """Run a model over a data set, alone or with the other processes that torchrun started; None but for the first.

    Returns what was found, what `ap.json` holds of it, and the model.
    """
    from detectron_gn.mrcnn.distributed import joined_ranks
    from detectron_gn.mrcnn.memory import keep_freed_memory
    from detectron_gn.weights.files.lock import occupied

    keep_freed_memory()
    check_out(args)
    with joined_ranks(args.device) as ranks, occupied(args.out, "test.lock") if ranks.is_first else nullcontext():
        model = _loaded(args, ranks)
        if model.cfg.MODEL.RPN_ONLY:
            return (*_generated(args, model, ranks), model)
        return (*_evaluated(args, model, ranks, max_detections), model)


def _loaded(args: argparse.Namespace, ranks: Ranks) -> Detector:
    from detectron_gn.port.classes import BY_PLACE

    model = given_model(args, ranks.device)
    if ranks.is_first and model.categories is None and not model.cfg.MODEL.RPN_ONLY:
        note(BY_PLACE)
    return model


def _evaluated(
    args: argparse.Namespace, model: Detector, ranks: Ranks, max_detections: int
) -> tuple[Evaluation | None, dict[str, Any]]:
    """What the model finds in the data set, and what `ap.json` holds of it."""
    from detectron_gn.mrcnn.evaluation.evaluate import evaluate, no_progress
    from detectron_gn.mrcnn.inference.cuda_graphs import CudaGraphs
    from detectron_gn.mrcnn.stopping import until_stopped
    from detectron_gn.port.runs.proposals import stored_proposals
    from detectron_gn.verify.evaluation_files import write_evaluation

    shown = progress_bar if ranks.is_first else no_progress
    proposals = stored_proposals(model.cfg, args.proposals)
    network = CudaGraphs(model) if args.cuda_graphs else None
    with kept_when_stopped(args.out):
        evaluation = evaluate(
            model,
            args.annotations,
            args.images,
            lambda results, count: until_stopped(shown(results, count)),
            batch=args.batch,
            proposals=proposals,
            out=args.out,
            ranks=ranks,
            network=network,
            reading=image_reading(args),
            max_detections=max_detections,
            going_on=tell_done_before,
        )
    if evaluation is None:
        return None, {}
    return evaluation, write_evaluation(evaluation, args.annotations.stem, args.out)


@contextmanager
def kept_when_stopped(out: Path) -> Iterator[None]:
    """Say how to go on where a signal stops an evaluation that has partial results in `out`."""
    from detectron_gn.mrcnn.evaluation.partial_results import has_partial_results
    from detectron_gn.mrcnn.stopping import Stopped

    try:
        yield
    except Stopped as stopped:
        if not has_partial_results(out):
            raise
        kept = f"{out} keeps what was detected: the same command goes on with it"
        raise Stopped(stopped.signal, kept) from None


def tell_done_before(done: int, count: int) -> None:
    """A note of an evaluation that goes on."""
    note(f"{done:,} of {count:,} images were done before")


def add_score(commands: Commands) -> None:
    """`score RESULTS.json --annotations A.json`."""
    parser = commands.add(
        "score",
        _score,
        "AP of a COCO results file, without a model",
        "score bbox.json --annotations instances_val2017.json",
    )
    parser.add_argument("results", type=Path, metavar="RESULTS.json", help="a list of detections in COCO's format")
    parser.add_argument("--annotations", type=Path, required=True, metavar="A.json", help="COCO instances file")
    add_type(parser)
    add_max_dets(parser)
    add_per_class(parser)


def _score(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.data.coco import read_annotations
    from detectron_gn.mrcnn.evaluation.ap import (
        AP_JSON_KEY,
        ap_document,
        ap_table,
        checked_columns,
        score_checked,
        scoring_remarks,
    )
    from detectron_gn.mrcnn.evaluation.mask_encoding import lacks_outlines
    from detectron_gn.mrcnn.evaluation.results_files import IouType, box_remarks, results_iou_type, stream_results

    first = list(islice(stream_results(args.results), 1))
    annotations = read_annotations(args.annotations)
    types: tuple[IouType, ...]
    if args.type is None and not first:
        # A file of nothing holds no boxes and no masks.
        types = ("bbox",) if lacks_outlines(annotations) else ("bbox", "segm")
    else:
        types = (args.type or results_iou_type(first, str(args.results)),)
    found = {each: checked_columns(args.results, annotations, each) for each in types}
    summaries = {
        AP_JSON_KEY[each]: score_checked(found[each], annotations, each, args.max_dets) for each in types
    }
    for line in (*annotations.remarks, *scoring_remarks(annotations, found[types[0]], args.max_dets)):
        print(line)
    if types == ("bbox",):
        for line in box_remarks(found["bbox"], annotations):
            print(f"{args.results}: {line}")
    print(ap_table(summaries, per_class=args.per_class))
    write_json_option(args, ap_document(args.annotations.stem, summaries))
    return DONE
