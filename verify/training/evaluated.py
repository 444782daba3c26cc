"""Training with an eye on the AP: a run of `verify.training.run` whose checkpoints are evaluated as they come."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
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
from detectron_gn.verify.training.run import RunOptions, run_training
from detectron_gn.weights.errors import WeightsError
from detectron_gn.weights.weights_file import WeightsFile


@dataclass(frozen=True)
class EvaluationData:
    """What to evaluate on: a COCO instances file and the folder of its images.

    Attributes:
        proposals: of its images, for a model that takes them.
        other_names: what classes 1, 2, ... are called in the annotations that were trained on, where the run has other
            names for them; the evaluation's categories may go by either.
    """

    annotations: Path
    images: Path
    proposals: StoredProposals | None = None
    other_names: tuple[str, ...] | None = None


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
    evaluation_data: EvaluationData | None,
    say: Callable[[str], None] = print,
    proposals: Sequence[StoredProposals] = (),
) -> Trained:
    """Train; evaluate every checkpoint and the final model where there is something to evaluate on.

    The results of the model after iteration N lie in `eval_iterN/` of the run's folder; a run that goes on evaluates
    its checkpoint first where they are missing. All processes share the images out.

    Args:
        proposals: of each data set that is trained on, for a model that takes them.

    Raises InputError before any training where the evaluation could not be done.
    """
    names = datasets[0].classes[1:]
    if evaluation_data is not None:
        coco = read_annotations(evaluation_data.annotations)
        if not cfg.MODEL.RPN_ONLY:
            names = _names_used(cfg, coco, evaluation_data, names)
        if ranks.is_first:
            for remark in coco.remarks:
                say(f"{evaluation_data.annotations}: {remark}")
        image_files(coco, evaluation_data.images)
        if scores_keypoints(cfg):
            check_keypoints(coco)
        if evaluation_data.proposals is not None:
            if not takes_proposals(cfg):
                raise InputError(
                    f"{a_family(cfg)} makes its own proposals or needs none: leave --eval-proposals out"
                )
            evaluation_data.proposals.of_images(coco, cfg.TEST.PROPOSAL_LIMIT)
    documents: list[dict[str, Any]] = []

    def on_checkpoint(model: Detector, iteration: int) -> None:
        if evaluation_data is None:
            return
        evaluated = _evaluated(model.eval(), evaluation_data, names, ranks, options.reading)
        if evaluated is None:
            return
        say(evaluated.table)
        documents.append(evaluated.document)
        folder = options.out / f"eval_iter{iteration}"
        try:
            folder.mkdir(exist_ok=True)
            evaluated.write(folder)
        except (WeightsError, OSError) as error:
            # The checkpoint is there, and so is the table above: no reason to end hours of training.
            say(f"this evaluation could not be kept: {error}; training goes on")

    final = run_training(
        cfg, datasets, weights, ranks, options, proposals=proposals, say=say, on_checkpoint=on_checkpoint
    )
    return Trained(final, documents[-1] if documents else None)


class _Evaluated(NamedTuple):
    """What a checkpoint finds: a table to print, what `ap.json` holds, and what writes all of it into a folder."""

    table: str
    document: dict[str, Any]
    write: Callable[[Path], object]


def _evaluated(
    model: Detector, data: EvaluationData, names: Sequence[str], ranks: Ranks, reading: ImageReading
) -> _Evaluated | None:
    """The AP of a detector, or the recall of an RPN by itself; None in every process but the first."""
    name = data.annotations.stem

    def stopping(results: Iterable[Any], _count: int) -> Iterable[Any]:
        return until_stopped(results)

    if isinstance(model, ProposalNetwork):
        proposed = generate_proposals(model, data.annotations, data.images, stopping, ranks=ranks, reading=reading)
        if proposed is None:
            return None
        write = partial(write_generated_proposals, proposed, model.cfg, name)
        return _Evaluated(recall_table(proposed.recall), recall_document(name, proposed.recall), write)
    found = evaluate(
        model,
        data.annotations,
        data.images,
        stopping,
        proposals=data.proposals,
        ranks=ranks,
        reading=reading,
        names=names,
    )
    if found is None:
        return None
    summaries = found.summaries
    return _Evaluated(ap_table(summaries), ap_document(name, summaries), partial(write_evaluation, found, name))


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
