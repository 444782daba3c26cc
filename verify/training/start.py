"""What a run begins with: its network and solver, filled from weights or a checkpoint, and what is refused before."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.detectors import Detector, build_detector
from detectron_gn.mrcnn.distributed import Ranks
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.training.freeze import freeze_parts
from detectron_gn.mrcnn.training.network import recompute_activations
from detectron_gn.mrcnn.training.solver import MomentumSGD
from detectron_gn.mrcnn.wording import listed
from detectron_gn.port.blobs.solver_state import detectron_weights
from detectron_gn.port.classes import known_categories
from detectron_gn.port.config.read import dump_config
from detectron_gn.port.warm_start import StartingPoint, start_from
from detectron_gn.verify.training.length import RunLength
from detectron_gn.verify.training.run_options import RunOptions
from detectron_gn.weights.categories import Category
from detectron_gn.weights.weights_file import WeightsFile, blobs_sha256

# From-scratch models that Detectron trained with a frozen, random conv1 and res2, and their corrected runs
# (Detectron projects/GN/README.md, commit f8ffc87).
FROZEN_FROM_SCRATCH = (
    "TRAIN.FREEZE_AT is {} and there are no weights to start from: conv1 to res{} would stay random. Detectron's own "
    "from-scratch models lost that way (R-50: 36.2 instead of 39.5 box AP). Pass --set TRAIN.FREEZE_AT 0, or --force"
)


@dataclass
class TrainingRun:
    """A run that is ready to go: network, solver, and the iteration to begin with."""

    model: Detector
    solver: MomentumSGD
    start: int
    starting_point: StartingPoint | None
    _cfg_text: str = field(repr=False)
    _categories: tuple[Category, ...] = field(repr=False)

    def weights(self, iteration: int) -> WeightsFile:
        """The state after an iteration, as a checkpoint holds it."""
        preserved = self.starting_point.preserved if self.starting_point else None
        return detectron_weights(
            self.model, self._cfg_text, max(iteration, 0), self.solver, preserved, self._categories
        )


def source_classes_of(weights: WeightsFile | None, options: RunOptions) -> tuple[str, ...] | None:
    """The classes of the weights, the background first, as the person says or else as far as anybody knows them."""
    if weights is None or options.source_classes is not None:
        return options.source_classes
    known = known_categories(weights, weights.source)
    return None if known is None else known.classes


def origin_of(weights: WeightsFile | None, source_classes: Sequence[str] | None) -> str:
    """What a run starts from: a description and, last, a sha256."""
    if weights is None:
        return "from scratch"
    # Files of the same blobs may begin at different iterations: model_final.pkl at 0, model_final.pth where it ended.
    digest = hashlib.sha256(f"{blobs_sha256(weights.blobs)} {weights.iteration}".encode()).hexdigest()
    if source_classes is None:
        return f"{weights.source} {digest}"
    names = source_classes[1:]
    digest = hashlib.sha256((digest + ", ".join(names)).encode()).hexdigest()
    return f"{weights.source} of {listed(names, most=8)} {digest}"


def prepare(
    cfg: Config,
    weights: WeightsFile | None,
    classes: Sequence[str],
    source_classes: Sequence[str] | None,
    categories: tuple[Category, ...],
    ranks: Ranks,
    options: RunOptions,
    keypoints: Sequence[str] | None = None,
) -> TrainingRun:
    """The network and its solver, filled as a new one is and then from the weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.RNG_SEED)
        model = build_detector(cfg)
    model = model.to(ranks.device, memory_format=torch.channels_last).train()
    if options.precision == "tf32":
        model.use_precision("tf32")
    if options.recompute:
        recompute_activations(model)
    freeze_parts(model, options.frozen)
    solver = MomentumSGD.from_config(model, cfg)
    text = dump_config(cfg)
    if weights is None:
        return TrainingRun(model, solver, 0, None, text, categories)
    point = start_from(
        model, solver, weights, classes, source_classes, keypoints=keypoints, keep_unused=options.keep_unused
    )
    start = 0 if point.iteration is None else point.iteration + 1
    return TrainingRun(model, solver, start, point, text, categories)


def is_final(weights: WeightsFile) -> bool:
    """Whether a file is called as what a run writes at its end, in any format: nothing goes on after that.

    A pickle of that name does not tell its iteration, for Detectron as for us; a `.pth` does.
    """
    return Path(weights.source).stem == "model_final"


def told_beginning(run: TrainingRun, weights: WeightsFile, options: RunOptions) -> str:
    """A line about what a run starts from, and about why it begins where it does."""
    told = f"starting from {weights.source} at iteration {run.start}"
    if run.start:
        return f"{told}, after those that it has done (--epochs or --iterations begin at 0)"
    if is_final(weights) and not options.starts_anew:
        return f"{told}, as from every model_final (model_iterN goes on after N)"
    return told


def refuse_frozen_scratch(cfg: Config, weights: WeightsFile | None, options: RunOptions) -> None:
    """InputError for a stem that would stay random."""
    if weights is None and cfg.TRAIN.FREEZE_AT > 0 and not options.force:
        raise InputError(FROZEN_FROM_SCRATCH.format(cfg.TRAIN.FREEZE_AT, cfg.TRAIN.FREEZE_AT))


def refuse_precision(options: RunOptions, ranks: Ranks) -> None:
    """InputError for a precision that the device has not."""
    if options.precision == "tf32" and ranks.device.type != "cuda":
        raise InputError("--precision tf32 needs an NVIDIA GPU, and this is a CPU: leave it out, or pass fp32 or bf16")


def refuse_nothing_to_do(
    run: TrainingRun,
    cfg: Config,
    checkpoint: WeightsFile | None,
    weights: WeightsFile | None,
    length: RunLength | None,
) -> None:
    """A run that goes on must have iterations left, or, where it is our own, at least be at its end."""
    source = checkpoint or weights
    if source is None or run.start < cfg.SOLVER.MAX_ITER + (checkpoint is not None):
        return
    more = f"--set SOLVER.MAX_ITER above {run.start} to train on"
    if length is not None:
        more = f"{length.option} with more"
    elif checkpoint is None:
        more = f"--epochs N to train for N epochs from iteration 0 on, or {more}"
    raise InputError(
        f"{source.source} has done iteration {run.start - 1} and SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}: pass {more}"
    )
