"""A training run from its start to `model_final.pkl`: data, network, loop, checkpoints and figures put together."""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from mrcnn.config import Config
from mrcnn.data.coco import CocoDataset
from mrcnn.data.minibatch import minibatches
from mrcnn.data.roidb import training_roidb
from mrcnn.errors import InputError
from mrcnn.model import MaskRCNN
from mrcnn.training.curves import Panel, draw_curves
from mrcnn.training.loop import IterationResult, NonFiniteLoss, minibatch_numbers, train
from mrcnn.training.network import recompute_activations
from mrcnn.training.ranks import Ranks
from mrcnn.training.solver import MomentumSGD, learning_rate
from mrcnn.training.stats import TrainingStats, json_stats
from port.detectron_yaml import dump_config
from port.finetune import StartingPoint, start_from
from port.run_folder import RunFolder, RunIdentity, data_fingerprint
from port.training_state import detectron_weights
from weights.errors import WeightsError
from weights.weights_file import WeightsFile, blobs_sha256

Precision = Literal["fp32", "tf32", "bf16"]

# From-scratch models that Detectron trained with a frozen, random conv1 and res2, and their corrected runs
# (Detectron projects/GN/README.md, commit f8ffc87).
FROZEN_FROM_SCRATCH = (
    "TRAIN.FREEZE_AT is {} and there are no weights to start from: conv1 to res{} would stay random. Detectron's own "
    "from-scratch models lost that way (R-50: 36.2 instead of 39.5 box AP). Pass --set TRAIN.FREEZE_AT 0, or --force"
)


@dataclass(frozen=True)
class RunOptions:
    """What the command line says beside the configuration.

    Attributes:
        out: the run's folder.
        resume: go on with the run in that folder, if there is one.
        keep: how many checkpoints to keep.
        detectron_checkpoints: write each as `.pkl` as well.
        workers: processes that load images.
        force: train from scratch even with a frozen stem.
        source_classes: the classes of the weights file, the background first, where they cannot be known.
        precision: `fp32`; `tf32` on a GPU; `bf16` for the forward pass.
        channels_last: whether parameters are kept in channels-last memory.
        recompute: whether activations within the backbone's stages are computed again for the backward pass.
    """

    out: Path
    resume: bool = False
    keep: int = 3
    detectron_checkpoints: bool = False
    workers: int = 2
    force: bool = False
    source_classes: tuple[str, ...] | None = None
    precision: Precision = "fp32"
    channels_last: bool = True
    recompute: bool = False


@dataclass
class TrainingRun:
    """A run that is ready to go: network, solver, and the iteration to begin with."""

    model: MaskRCNN
    solver: MomentumSGD
    start: int
    starting_point: StartingPoint | None
    _cfg_text: str = field(repr=False)

    def weights(self, iteration: int) -> WeightsFile:
        """The state after an iteration, as a checkpoint holds it."""
        preserved = self.starting_point.preserved if self.starting_point else None
        return detectron_weights(self.model, self._cfg_text, max(iteration, 0), self.solver, preserved)


def run_training(
    cfg: Config,
    datasets: Sequence[CocoDataset],
    weights: WeightsFile | None,
    ranks: Ranks,
    options: RunOptions,
    *,
    say: Callable[[str], None] = print,
    on_checkpoint: Callable[[MaskRCNN, int], None] | None = None,
) -> Path | None:
    """Train to `cfg.SOLVER.MAX_ITER`; returns the path of `model_final.pkl`, in the first process.

    Args:
        weights: what to start from; None for from scratch. A run that is resumed does not look at them.
        say: prints a line; only the first process calls it.
        on_checkpoint: called in the first process with the model and the last iteration whenever one was written.

    Raises InputError, and NonFiniteLoss after writing a diagnostic checkpoint `diverged_iterN.pth` of the state
    before that iteration.
    """
    say = say if ranks.is_first else _silence
    roidb = training_roidb(datasets, cfg)
    classes = datasets[0].classes
    folder = RunFolder(options.out, options.keep, options.detectron_checkpoints)
    origin = "from scratch" if weights is None else f"{weights.source} {blobs_sha256(weights.blobs)}"
    identity = RunIdentity(cfg, data_fingerprint(roidb), origin, classes)
    checkpoint = None
    goes_on = options.resume and folder.holds_run
    if goes_on:
        folder.check(identity)
        checkpoint = folder.latest()
    else:
        folder.refuse_run()
        _refuse_frozen_scratch(cfg, weights, options)
    if checkpoint is not None:
        run = _prepare(cfg, checkpoint, classes, classes, ranks, options)
        # Detectron forgets the learning rate when it resumes, and with it to rescale the momentum if it changes here.
        run.solver.lr = learning_rate(cfg, run.start - 1)
    else:
        run = _prepare(cfg, weights, classes, options.source_classes, ranks, options)
    _refuse_nothing_to_do(run, cfg, checkpoint, weights)
    # Before anything is written every process has looked at what is there.
    ranks.wait()
    if ranks.is_first and not goes_on:
        folder.begin(identity)
    _introduce(run, cfg, len(roidb), checkpoint, weights, say)
    if ranks.is_first:
        folder.remove_unfinished()
        folder.keep_lines_before(run.start)
    batches = minibatches(
        roidb,
        cfg,
        cfg.RNG_SEED,
        minibatch_numbers(cfg, run.start, ranks),
        options.workers,
        pin_memory=ranks.device.type == "cuda",
    )
    stats = TrainingStats(run.start, cfg.SOLVER.MAX_ITER)
    board = _tensorboard(options.out, run.start) if ranks.is_first else None
    period = max(1, cfg.TRAIN.SNAPSHOT_ITERS // cfg.NUM_GPUS)
    result: IterationResult | None = None
    try:
        steps = train(
            run.model, run.solver, batches, run.start, ranks, forward_context=_forward_context(options, ranks)
        )
        for result in steps:
            if not ranks.is_first:
                continue
            _record(result, stats, folder, ranks, say, board)
            done = result.iteration + 1
            if done % period == 0 and done < cfg.SOLVER.MAX_ITER:
                say(f"checkpoint: {folder.save(run.weights(result.iteration))}")
                if on_checkpoint is not None:
                    on_checkpoint(run.model, result.iteration)
                    run.model.train()
                _draw(folder)
    except NonFiniteLoss as error:
        if not ranks.is_first:
            raise
        last = result.iteration if result is not None else run.start - 1
        path = folder.save_as(f"diverged_iter{last}.pth", run.weights(last))
        raise NonFiniteLoss(f"{error}; the state before it is in {path}") from None
    except (InputError, WeightsError) as error:
        raise InputError(f"{error}; once that is mended, --resume goes on from the last checkpoint") from None
    if not ranks.is_first:
        return None
    final, _ = folder.save_final(run.weights(cfg.SOLVER.MAX_ITER - 1))
    say(f"final model: {final}")
    if on_checkpoint is not None:
        on_checkpoint(run.model, cfg.SOLVER.MAX_ITER - 1)
    _draw(folder)
    return final


def _prepare(
    cfg: Config,
    weights: WeightsFile | None,
    classes: Sequence[str],
    source_classes: Sequence[str] | None,
    ranks: Ranks,
    options: RunOptions,
) -> TrainingRun:
    """The network and its solver, filled as a new one is and then from the weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.RNG_SEED)
        model = MaskRCNN(cfg)
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    model = model.to(ranks.device, memory_format=layout).train()  # type: ignore[call-overload]
    if options.recompute:
        recompute_activations(model)
    solver = MomentumSGD.from_config(model, cfg)
    text = dump_config(cfg)
    if weights is None:
        return TrainingRun(model, solver, 0, None, text)
    point = start_from(model, solver, weights, classes, source_classes)
    start = 0 if point.iteration is None else point.iteration + 1
    return TrainingRun(model, solver, start, point, text)


def _refuse_frozen_scratch(cfg: Config, weights: WeightsFile | None, options: RunOptions) -> None:
    if weights is None and cfg.TRAIN.FREEZE_AT > 0 and not options.force:
        raise InputError(FROZEN_FROM_SCRATCH.format(cfg.TRAIN.FREEZE_AT, cfg.TRAIN.FREEZE_AT))


def _refuse_nothing_to_do(
    run: TrainingRun, cfg: Config, checkpoint: WeightsFile | None, weights: WeightsFile | None
) -> None:
    """A run that goes on must have iterations left, or, where it is our own, at least be at its end."""
    source = checkpoint or weights
    if source is not None and run.start >= cfg.SOLVER.MAX_ITER + (checkpoint is not None):
        raise InputError(
            f"{source.source} has done iteration {run.start - 1} and SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}: pass "
            "--set SOLVER.MAX_ITER with more, or --weights with a model_final.pkl to begin at iteration 0 with it"
        )


def _introduce(
    run: TrainingRun,
    cfg: Config,
    entries: int,
    checkpoint: WeightsFile | None,
    weights: WeightsFile | None,
    say: Callable[[str], None],
) -> None:
    """Say what is about to be trained."""
    trained = sum(p.numel() for p in run.solver.parameters())
    everything = sum(p.numel() for p in run.model.parameters())
    say(f"{entries} roidb entries, {cfg.NUM_GPUS} x {cfg.TRAIN.IMS_PER_BATCH} images an iteration")
    say(f"{trained:,} of {everything:,} parameters are trained (TRAIN.FREEZE_AT {cfg.TRAIN.FREEZE_AT})")
    if checkpoint is not None:
        say(f"going on with {checkpoint.source} at iteration {run.start}")
    elif weights is not None and run.starting_point is not None:
        say(f"starting from {weights.source} at iteration {run.start}")
        for line in run.starting_point.report():
            say(f"  {line}")
    else:
        say(f"starting from scratch (RNG_SEED {cfg.RNG_SEED})")


def _record(
    result: IterationResult,
    stats: TrainingStats,
    folder: RunFolder,
    ranks: Ranks,
    say: Callable[[str], None],
    board: Any,
) -> None:
    """Keep the figures of an iteration and print them when a line is due."""
    stats.add(result.iteration, result.outputs, result.seconds)
    if result.momentum_scale != 1.0:
        say(f"iteration {result.iteration}: learning rate {result.lr:g}, momentum x {result.momentum_scale:g}")
    if stats.is_due(result.iteration):
        line = stats.line(result.iteration, result.lr, ranks.device)
        folder.add_line(line)
        say(json_stats(line))
        if board is not None:
            for name, value in line.items():
                if isinstance(value, float):
                    board.add_scalar(name, value, result.iteration)


def _tensorboard(out: Path, start: int) -> Any:
    """TensorBoard's writer of the same figures, where TensorBoard is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(out / "tensorboard"), purge_step=start)


def _draw(folder: RunFolder) -> None:
    """Draw `curves.png` from all figures so far."""
    lines = folder.lines()
    if not lines:
        return
    iterations = [int(line["iter"]) for line in lines]

    def series(*names: str) -> dict[str, list[float]]:
        return {name: [float(line.get(name, "nan")) for line in lines] for name in names}

    rpn = {
        kind: [sum(v for k, v in line.items() if k.startswith(f"loss_{kind}")) for line in lines]
        for kind in ("rpn_cls", "rpn_bbox")
    }
    panels = [
        Panel("losses", iterations, series("loss", "loss_cls", "loss_bbox", "loss_mask") | rpn),
        Panel("share of RoIs classified right", iterations, series("accuracy_cls")),
        Panel("learning rate", iterations, series("lr")),
    ]
    evaluations = folder.evaluations()
    if evaluations:
        ap = {f"{kind} AP": [100 * of_kind[kind] for of_kind in evaluations.values()] for kind in ("box", "mask")}
        panels.insert(1, Panel("AP in percent", list(evaluations), ap, least_top=1.0))
    draw_curves(panels, folder.path / "curves.png")


def _forward_context(options: RunOptions, ranks: Ranks) -> Callable[[], AbstractContextManager[object]]:
    """Set up the precision; returns what to wrap each forward pass in."""
    torch.backends.cuda.matmul.allow_tf32 = options.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = options.precision == "tf32"
    if options.precision == "bf16":
        return partial(torch.autocast, ranks.device.type, torch.bfloat16)
    return nullcontext


def _silence(_: str) -> None:
    """What processes other than the first say."""


def print_line(line: str) -> None:
    """Print a line at once, also into a pipe."""
    print(line, flush=True, file=sys.stdout)
