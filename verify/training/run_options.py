"""What the command line says of a training run, beside the configuration and the data."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.read_image import AS_IMREAD, ImageReading
from detectron_gn.mrcnn.precision import Precision
from detectron_gn.verify.training.length import CheckpointRule, RunLength


@dataclass(frozen=True)
class RunOptions:
    """What the command line says beside the configuration.

    Attributes:
        out: the run's folder.
        resume: go on with the run in that folder, if there is one.
        keep: how many checkpoints to keep.
        detectron_checkpoints: write each as `.pkl` as well.
        workers: threads that load images.
        force: train from scratch even with a frozen stem.
        source_classes: what the person calls the classes of the weights file, the background first; by default they are
            what `known_categories` finds.
        precision: `fp32`; `tf32` on a GPU; `bf16` for the forward pass.
        recompute: whether activations within the backbone's stages are computed again for the backward pass.
        keep_unused: whether parts of another network may be left over in the weights file; they are preserved.
        command: that goes on with the run when it was stopped, for a sentence.
        reading: how image files are read.
        starts_anew: begin at iteration 0 whatever iteration the weights are of, because the length is this run's own.
        length: fits the configuration's schedule into a length; None leaves it as it is.
        checkpoints: when they are written.
        keep_best: keep the best of the checkpoints that are evaluated, too.
        judged_by: the kind of AP that decides which is the best, for `best_of`.
        patience: end after so many evaluations without a better one; None or 0 for never.
        frozen: parts that are not trained, as `freeze_parts` names them.
        keep_empty: train on images without objects, too.
        record: for `run.json`: what the run goes on with where nothing else is said.
        eval_loss: also compute the losses on evaluation data.
        evaluated_on: what checkpoints are evaluated on, for the table at the start.
        evaluated_files: the pictures of that, by the name of the set.
        configured: the configuration before options of the command line changed it, for that table.
    """

    out: Path
    resume: bool = False
    keep: int = 3
    detectron_checkpoints: bool = False
    workers: int = 2
    force: bool = False
    source_classes: tuple[str, ...] | None = None
    precision: Precision = "fp32"
    recompute: bool = False
    keep_unused: bool = False
    command: str = ""
    reading: ImageReading = AS_IMREAD
    starts_anew: bool = False
    length: RunLength | None = None
    checkpoints: CheckpointRule = CheckpointRule()
    keep_best: bool = False
    judged_by: str = ""
    patience: int | None = None
    frozen: tuple[str, ...] = ()
    keep_empty: bool = False
    record: Mapping[str, object] = field(default_factory=dict)
    eval_loss: bool = False
    evaluated_on: str = ""
    evaluated_files: Mapping[str, Collection[Path]] = field(default_factory=dict)
    configured: Config | None = None
