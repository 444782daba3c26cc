"""A training run from its start to `model_final.pkl`: data, network, loop, checkpoints and figures put together."""

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from detectron_gn.mrcnn.config import Config, check_config, idle_training_remarks, refuse_training
from detectron_gn.mrcnn.data.annotations.keypoints import common_names
from detectron_gn.mrcnn.data.categories import Categories
from detectron_gn.mrcnn.data.coco import CocoDataset
from detectron_gn.mrcnn.data.minibatch import Minibatch, minibatches
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.data.read_image import AS_IMREAD, ImageReading
from detectron_gn.mrcnn.data.roidb import check_proposals, training_roidb
from detectron_gn.mrcnn.detectors import Detector, build_detector
from detectron_gn.mrcnn.distributed import Ranks
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.ops.keypoints import KEYPOINT_NAMES
from detectron_gn.mrcnn.precision import Precision
from detectron_gn.mrcnn.stopping import Stopped, stop_request
from detectron_gn.mrcnn.training.loop import IterationResult, NonFiniteLoss, minibatch_numbers, train
from detectron_gn.mrcnn.training.network import recompute_activations
from detectron_gn.mrcnn.training.samplers import has_enough_keypoints
from detectron_gn.mrcnn.training.solver import MomentumSGD, learning_rate
from detectron_gn.mrcnn.training.stats import TrainingStats, json_stats
from detectron_gn.mrcnn.wording import listed
from detectron_gn.port.blobs.solver_state import detectron_weights
from detectron_gn.port.classes import file_categories, known_categories
from detectron_gn.port.config.read import dump_config
from detectron_gn.port.warm_start import StartingPoint, start_from
from detectron_gn.verify.training.fingerprint import data_fingerprint
from detectron_gn.verify.training.metrics import RunFigures
from detectron_gn.verify.training.run_dir import Latest, RunFolder, RunIdentity
from detectron_gn.weights.categories import Category
from detectron_gn.weights.errors import WeightsError
from detectron_gn.weights.weights_file import WeightsFile, blobs_sha256

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
        workers: threads that load images.
        force: train from scratch even with a frozen stem.
        source_classes: the classes of the weights file, the background first; by default what `known_categories` finds.
        precision: `fp32`; `tf32` on a GPU; `bf16` for the forward pass.
        recompute: whether activations within the backbone's stages are computed again for the backward pass.
        keep_unused: whether parts of another network may be left over in the weights file; they are preserved.
        command: that goes on with the run when it was stopped, for a sentence.
        reading: how image files are read.
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


def run_training(
    cfg: Config,
    datasets: Sequence[CocoDataset],
    weights: WeightsFile | None,
    ranks: Ranks,
    options: RunOptions,
    *,
    proposals: Sequence[StoredProposals] = (),
    say: Callable[[str], None] = print,
    on_checkpoint: Callable[[Detector, int], None] | None = None,
) -> Path | None:
    """Train to `cfg.SOLVER.MAX_ITER`; returns the path of `model_final.pkl`, in the first process.

    Args:
        weights: what to start from; None for from scratch. A run that is resumed does not look at them.
        proposals: of each data set, for a model that takes them.
        say: prints a line; only the first process calls it.
        on_checkpoint: called in every process with the model and the last iteration whenever one was written.

    Raises InputError or WeightsError, and NonFiniteLoss after writing a diagnostic checkpoint `diverged_iterN.pth` of
    the state before that iteration. What is refused before the first iteration leaves the folder as it was. A signal
    to any process raises Stopped in all of them, after the iteration in hand and its checkpoint.
    """
    say_in_each, say = say, say if ranks.is_first else say_nothing
    check_config(cfg)
    refuse_training(cfg)
    _refuse_precision(options, ranks)
    check_proposals(datasets, cfg, proposals)
    roidb = training_roidb(datasets, cfg, proposals)
    classes = datasets[0].classes
    source_classes = _source_classes(weights, options)
    count = cfg.KRCNN.NUM_KEYPOINTS
    keypoints = common_names(datasets[0].categories, count) if cfg.MODEL.KEYPOINTS_ON else None
    told = keypoints if keypoints is not None and count != len(KEYPOINT_NAMES) else ()
    categories = file_categories(Categories(classes[1:], datasets[0].category_ids, told), datasets[0].annotation_file)
    folder = RunFolder(options.out, options.keep, options.detectron_checkpoints)
    origin = _origin(weights, source_classes)
    category_ids = datasets[0].category_ids
    data = data_fingerprint(roidb)
    identity = RunIdentity(cfg, data, origin, classes, category_ids, options.precision, options.reading.exif)
    latest = Latest(None, {})
    goes_on = options.resume and folder.holds_run
    if goes_on:
        latest = folder.latest()
        folder.check(identity, latest.weights)
    else:
        folder.refuse_run()
    checkpoint = latest.weights
    if checkpoint is not None:
        run = _prepare(cfg, checkpoint, classes, classes, categories, ranks, options)
        # Detectron forgets the learning rate when it resumes, and with it to rescale the momentum if it changes here.
        run.solver.lr = learning_rate(cfg, run.start - 1)
    else:
        _refuse_frozen_scratch(cfg, weights, options)
        run = _prepare(cfg, weights, classes, source_classes, categories, ranks, options, keypoints)
    _refuse_nothing_to_do(run, cfg, checkpoint, weights)
    batches = minibatches(
        roidb,
        cfg,
        cfg.RNG_SEED,
        minibatch_numbers(cfg, run.start, ranks),
        options.workers,
        pin_memory=ranks.device.type == "cuda",
        reading=options.reading,
        is_trained_on=partial(has_enough_keypoints, cfg=cfg),
    )
    # Before anything is written every process has looked at what is there, and nothing is left that could be refused.
    ranks.wait()
    occupied = folder.occupied() if ranks.is_first else nullcontext()
    with occupied, closing(batches), stop_request() as stop:
        figures = RunFigures(options.out, say)
        if ranks.is_first:
            if goes_on:
                for line in (*folder.told_changes(identity), *folder.set_aside(latest)):
                    say(line)
            else:
                folder.begin(identity)
            folder.remove_unfinished()
            figures.begin_at(run.start)
        _introduce(run, cfg, len(roidb), checkpoint, weights, say)
        stats = TrainingStats(run.start, cfg.SOLVER.MAX_ITER)
        period = max(1, cfg.TRAIN.SNAPSHOT_ITERS // cfg.NUM_GPUS)
        last = run.start - 1

        def look_at(iteration: int) -> None:
            """What follows a checkpoint: the end, where any process was asked to stop, or else its evaluation."""
            asked = max(ranks.exchange(stop.signal))
            if asked:
                raise Stopped(asked)
            if on_checkpoint is not None:
                on_checkpoint(run.model, iteration)
                run.model.train()
            if ranks.is_first:
                figures.draw()

        try:
            if checkpoint is not None and run.start < cfg.SOLVER.MAX_ITER and run.start % period == 0:
                # A kill may have come before its evaluation was done; what the first process sees counts for all.
                if ranks.exchange(last not in figures.evaluations())[0]:
                    look_at(last)
            steps = train(
                run.model,
                run.solver,
                _with_remarks(batches, say_in_each),
                run.start,
                ranks,
                forward_context=_forward_context(options, ranks),
                stop_asked=lambda: stop.signal != 0,
            )
            for result in steps:
                last = result.iteration
                if ranks.is_first:
                    _record(result, stats, figures, ranks, say)
                if last + 1 < cfg.SOLVER.MAX_ITER and (result.stop or (last + 1) % period == 0):
                    if ranks.is_first:
                        say(f"checkpoint: {folder.save(run.weights(last))}")
                    look_at(last)
            final = None
            if ranks.is_first:
                final, _ = folder.save_final(run.weights(cfg.SOLVER.MAX_ITER - 1))
                say(f"final model: {final}")
            look_at(cfg.SOLVER.MAX_ITER - 1)
            return final
        except Stopped as stopped:
            how = f"go on with: {options.command}" if options.command else folder.how_to_go_on()
            say(f"{stopped} after iteration {last}; {how}")
            raise
        except NonFiniteLoss as error:
            if not ranks.is_first:
                raise
            try:
                path = folder.save_as(f"diverged_iter{last}.pth", run.weights(last))
            except WeightsError as no_room:
                raise NonFiniteLoss(f"{error}; the state before it is not kept: {no_room}") from None
            raise NonFiniteLoss(f"{error}; the state before it is in {path}") from None
        except InputError as error:
            # The run's data: images may be mended, and with other annotations it is another run.
            raise InputError(
                f"{error}; once the file is mended, {folder.how_to_go_on()}; where you change the annotations instead, "
                f"{folder.how_to_go_on_with_other_data()}"
            ) from None
        except WeightsError as error:
            raise InputError(f"{error}; once that is mended, {folder.how_to_go_on()}") from None


def _source_classes(weights: WeightsFile | None, options: RunOptions) -> tuple[str, ...] | None:
    """The classes of the weights, the background first, as far as anybody knows them."""
    if weights is None or options.source_classes is not None:
        return options.source_classes
    known = known_categories(weights, weights.source)
    return None if known is None else known.classes


def _origin(weights: WeightsFile | None, source_classes: Sequence[str] | None) -> str:
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


def _prepare(
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
    solver = MomentumSGD.from_config(model, cfg)
    text = dump_config(cfg)
    if weights is None:
        return TrainingRun(model, solver, 0, None, text, categories)
    point = start_from(
        model, solver, weights, classes, source_classes, keypoints=keypoints, keep_unused=options.keep_unused
    )
    start = 0 if point.iteration is None else point.iteration + 1
    return TrainingRun(model, solver, start, point, text, categories)


def _refuse_frozen_scratch(cfg: Config, weights: WeightsFile | None, options: RunOptions) -> None:
    if weights is None and cfg.TRAIN.FREEZE_AT > 0 and not options.force:
        raise InputError(FROZEN_FROM_SCRATCH.format(cfg.TRAIN.FREEZE_AT, cfg.TRAIN.FREEZE_AT))


def _refuse_precision(options: RunOptions, ranks: Ranks) -> None:
    if options.precision == "tf32" and ranks.device.type != "cuda":
        raise InputError("--precision tf32 needs an NVIDIA GPU, and this is a CPU: leave it out, or pass fp32 or bf16")


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
    for remark in idle_training_remarks(cfg):
        say(remark)
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
    figures: RunFigures,
    ranks: Ranks,
    say: Callable[[str], None],
) -> None:
    """Keep the figures of an iteration and print them when a line is due."""
    stats.add(result.iteration, result.outputs, result.seconds)
    if result.momentum_scale != 1.0:
        say(f"iteration {result.iteration}: learning rate {result.lr:g}, momentum x {result.momentum_scale:g}")
    if stats.is_due(result.iteration):
        line = stats.line(result.iteration, result.lr, ranks.device)
        figures.add(line)
        say(json_stats(line))


def _forward_context(options: RunOptions, ranks: Ranks) -> Callable[[], AbstractContextManager[object]]:
    """What to wrap each forward pass in."""
    if options.precision == "bf16":
        return partial(torch.autocast, ranks.device.type, torch.bfloat16)
    return nullcontext


def _with_remarks(batches: Iterable[Minibatch], say: Callable[[str], None]) -> Iterator[Minibatch]:
    """The minibatches, each remark about an image file said once."""
    said: set[str] = set()
    for minibatch in batches:
        for remark in minibatch.remarks:
            if remark not in said:
                said.add(remark)
                say(remark)
        yield minibatch


def say_nothing(_: str) -> None:
    """What processes other than the first say."""


def print_line(line: str) -> None:
    """Print a line at once, also into a pipe."""
    print(line, flush=True, file=sys.stdout)
