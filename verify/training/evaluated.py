"""Training with an eye on the AP: a run of `verify.training.run` whose checkpoints are evaluated as they come."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pycocotools.coco import COCO

from detectron_gn.mrcnn.config import Config, a_family, takes_proposals
from detectron_gn.mrcnn.data.coco import CocoDataset, read_annotations
from detectron_gn.mrcnn.data.image_files import image_files
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.data.read_image import ImageReading
from detectron_gn.mrcnn.detectors import Detector, ProposalNetwork
from detectron_gn.mrcnn.distributed import Ranks
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.ap import ap_document, ap_table, check_keypoints
from detectron_gn.mrcnn.evaluation.evaluate import evaluate, matched_category_ids, scores_keypoints
from detectron_gn.mrcnn.evaluation.generate_proposals import generate_proposals
from detectron_gn.mrcnn.evaluation.recall import recall_document, recall_table
from detectron_gn.mrcnn.stopping import until_stopped
from detectron_gn.verify.evaluation_files import write_evaluation, write_generated_proposals
from detectron_gn.verify.training.best import check_judged_by
from detectron_gn.verify.training.course import forward_context
from detectron_gn.verify.training.evaluation_data import EvaluationData, check_names
from detectron_gn.verify.training.held_out import HeldOutLosses
from detectron_gn.verify.training.metrics import HELD_OUT_LOSSES
from detectron_gn.verify.training.run import run_training
from detectron_gn.verify.training.run_options import RunOptions
from detectron_gn.verify.training.say import say_nothing
from detectron_gn.weights.errors import WeightsError
from detectron_gn.weights.files.json_file import write_json
from detectron_gn.weights.shown import folded
from detectron_gn.weights.weights_file import WeightsFile

_STOPPING = "finishing an image; --resume then evaluates this checkpoint again; once more ends at once"
_SHOWN_LOSSES = ("loss", "loss_cls", "loss_bbox", "loss_mask", "loss_kps")


@dataclass(frozen=True)
class Trained:
    """A finished run: its `model_final.pkl`, and what `ap.json` holds of it where it was evaluated."""

    final: Path | None
    ap: dict[str, Any] | None


def train_and_evaluate(
    cfg: Config,
    datasets: Sequence[CocoDataset],
    weights: WeightsFile | None,
    ranks: Ranks,
    options: RunOptions,
    evaluations: Sequence[EvaluationData],
    say: Callable[[str], None] = print,
    proposals: Sequence[StoredProposals] = (),
) -> Trained:
    """Train; evaluate every checkpoint and the final model on each evaluation set.

    The results of the model after iteration N lie in `eval_iterN/` of the run's folder, those of several sets in a
    folder of each one's name there; a run that goes on evaluates its checkpoint first where they are missing. All
    processes share the images out. The first set is what the best checkpoint is judged by.

    Args:
        proposals: of each data set that is trained on, for a model that takes them.

    Raises InputError before any training where an evaluation could not be done.
    """
    check_names(evaluations)
    check_judged_by(options.judged_by, cfg)
    classes = datasets[0].classes[1:]
    sets = [_checked(cfg, data, classes, ranks, options, say) for data in evaluations]
    options = replace(options, evaluated_files={each.data.name: each.files for each in sets})
    documents: list[dict[str, Any]] = []
    tell = partial(say if ranks.is_first else say_nothing, _STOPPING)

    def on_checkpoint(model: Detector, iteration: int) -> None:
        found = [(each, _evaluated(each, model, ranks, options, tell)) for each in sets]
        kept = [(each, evaluated) for each, evaluated in found if evaluated is not None]
        if not kept:
            return
        for each, evaluated in kept:
            for line in evaluated.lines if len(sets) == 1 else (f"on {each.data.name}:", *evaluated.lines):
                say(line)
        document = {name: part for _, evaluated in kept for name, part in evaluated.document.items()}
        documents.append(document)
        try:
            _write(options.out / f"eval_iter{iteration}", kept, document)
        except (WeightsError, OSError) as error:
            # The checkpoint is there, and so is the table above: no reason to end hours of training.
            say(f"this evaluation could not be kept: {error}; training goes on")

    final = run_training(
        cfg, datasets, weights, ranks, options, proposals=proposals, say=say, on_checkpoint=on_checkpoint
    )
    return Trained(final, documents[-1] if documents else None)


class _Set(NamedTuple):
    """An evaluation set that fits the run: its names of the classes, its pictures, its losses where they count."""

    data: EvaluationData
    names: tuple[str, ...]
    files: tuple[Path, ...]
    losses: HeldOutLosses | None


class _Evaluated(NamedTuple):
    """What a checkpoint finds in a set: lines to print, its part of `ap.json`, its losses, and what writes files."""

    lines: Sequence[str]
    document: dict[str, Any]
    losses: dict[str, float] | None
    write: Callable[[Path], object]


def _checked(
    cfg: Config,
    data: EvaluationData,
    names: tuple[str, ...],
    ranks: Ranks,
    options: RunOptions,
    say: Callable[[str], None],
) -> _Set:
    """A set that can be evaluated on; InputError for one that cannot."""
    coco = read_annotations(data.annotations)
    category_ids = None
    if not cfg.MODEL.RPN_ONLY:
        names = _names_used(cfg, coco, data, names)
        category_ids = matched_category_ids(cfg, coco, data.annotations, names)
    if ranks.is_first:
        for remark in coco.remarks:
            say(folded(f"{data.annotations}: {remark}", "  "))
    files = tuple(image_files(coco, data.images, "--eval-images").values())
    if scores_keypoints(cfg):
        check_keypoints(coco)
    if data.proposals is not None:
        if not takes_proposals(cfg):
            raise InputError(f"{a_family(cfg)} makes its own proposals or needs none: leave --eval-proposals out")
        data.proposals.of_images(coco, cfg.TEST.PROPOSAL_LIMIT)
    return _Set(data, names, files, HeldOutLosses(cfg, data, category_ids) if options.eval_loss else None)


def _evaluated(
    each: _Set, model: Detector, ranks: Ranks, options: RunOptions, tell: Callable[[], object]
) -> _Evaluated | None:
    """The AP of a detector, or the recall of an RPN by itself; None in every process but the first."""
    losses = None
    if each.losses is not None:
        losses = each.losses.of(model, ranks, options.reading, forward_context(options, ranks), tell)
    found = _results(each, model.eval(), ranks, options.reading, tell)
    if found is None:
        return None
    lines, document, write = found
    if losses is not None:
        # Those of each level are in the file.
        told = ", ".join(f"{name} {losses[name]:.4f}" for name in _SHOWN_LOSSES if name in losses)
        lines = [*lines, f"on {each.data.name}: {told}"]
    return _Evaluated(lines, document, losses, write)


def _results(
    each: _Set, model: Detector, ranks: Ranks, reading: ImageReading, tell: Callable[[], object]
) -> tuple[list[str], dict[str, Any], Callable[[Path], object]] | None:
    data = each.data

    def stopping(results: Iterable[Any], _count: int) -> Iterable[Any]:
        return until_stopped(results, tell)

    if isinstance(model, ProposalNetwork):
        proposed = generate_proposals(model, data.annotations, data.images, stopping, ranks=ranks, reading=reading)
        if proposed is None:
            return None
        write = partial(write_generated_proposals, proposed, model.cfg, data.name)
        return [recall_table(proposed.recall)], recall_document(data.name, proposed.recall), write
    found = evaluate(
        model,
        data.annotations,
        data.images,
        stopping,
        proposals=data.proposals,
        ranks=ranks,
        reading=reading,
        names=each.names,
    )
    if found is None:
        return None
    summaries = found.summaries
    return [ap_table(summaries)], ap_document(data.name, summaries), partial(write_evaluation, found, data.name)


def _write(folder: Path, found: Sequence[tuple[_Set, _Evaluated]], document: dict[str, Any]) -> None:
    """The files of an evaluation; `ap.json`, which says that all are there, comes last."""
    folder.mkdir(exist_ok=True)
    losses = {each.data.name: evaluated.losses for each, evaluated in found if evaluated.losses is not None}
    if losses:
        write_json(folder / HELD_OUT_LOSSES, losses)
    if len(found) == 1:
        found[0][1].write(folder)
        return
    for each, evaluated in found:
        (folder / each.data.name).mkdir(exist_ok=True)
        evaluated.write(folder / each.data.name)
    write_json(folder / "ap.json", document)


def _names_used(cfg: Config, coco: COCO, data: EvaluationData, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names by which the evaluation's annotations know the classes: the run's or, if not, its annotations'."""
    try:
        matched_category_ids(cfg, coco, data.annotations, names)
    except InputError as error:
        try:
            matched_category_ids(cfg, coco, data.annotations, data.other_names or names)
        except InputError:
            raise error from None
        return data.other_names or names
    return names
