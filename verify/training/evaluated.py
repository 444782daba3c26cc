"""Training with an eye on the AP: a run of `verify.training.run` whose checkpoints are evaluated as they come."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.coco import CocoDataset, read_annotations
from detectron_gn.mrcnn.data.image_files import image_files
from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.distributed import Ranks
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.ap import ap_document, ap_table
from detectron_gn.mrcnn.evaluation.evaluate import evaluate, matched_category_ids
from detectron_gn.mrcnn.stopping import until_stopped
from detectron_gn.verify.evaluation_files import write_evaluation
from detectron_gn.verify.training.run import RunOptions, run_training
from detectron_gn.weights.errors import WeightsError
from detectron_gn.weights.weights_file import WeightsFile


@dataclass(frozen=True)
class EvaluationData:
    """What to evaluate on: a COCO instances file and the folder of its images.

    Attributes:
        other_names: what classes 1, 2, ... are called in the annotations that were trained on, where the run has other
            names for them; the evaluation's categories may go by either.
    """

    annotations: Path
    images: Path
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
) -> Trained:
    """Train; evaluate every checkpoint and the final model where there is something to evaluate on.

    The results of the model after iteration N lie in `eval_iterN/` of the run's folder; a run that goes on evaluates
    its checkpoint first where they are missing. All processes share the images out.

    Raises InputError before any training where the evaluation could not be done.
    """
    names = datasets[0].classes[1:]
    if evaluation_data is not None:
        coco = read_annotations(evaluation_data.annotations)
        names = _names_used(cfg, coco, evaluation_data, names)
        if ranks.is_first:
            for remark in coco.remarks:
                say(f"{evaluation_data.annotations}: {remark}")
        image_files(coco, evaluation_data.images)
    documents: list[dict[str, Any]] = []

    def on_checkpoint(model: Detector, iteration: int) -> None:
        if evaluation_data is None:
            return
        evaluation = evaluate(
            model.eval(),
            evaluation_data.annotations,
            evaluation_data.images,
            lambda results, _: until_stopped(results),
            ranks=ranks,
            reading=options.reading,
            names=names,
        )
        if evaluation is None:
            return
        say(ap_table(evaluation.summaries))
        name = evaluation_data.annotations.stem
        documents.append(ap_document(name, evaluation.summaries))
        folder = options.out / f"eval_iter{iteration}"
        try:
            folder.mkdir(exist_ok=True)
            write_evaluation(evaluation, name, folder)
        except (WeightsError, OSError) as error:
            # The checkpoint is there, and so is the table above: no reason to end hours of training.
            say(f"this evaluation could not be kept: {error}; training goes on")

    final = run_training(cfg, datasets, weights, ranks, options, say=say, on_checkpoint=on_checkpoint)
    return Trained(final, documents[-1] if documents else None)


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
