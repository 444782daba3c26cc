"""A training run from its start to `model_final.pkl`: data, network, loop, checkpoints and figures put together."""

from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from detectron_gn.mrcnn.config import Config, check_config, idle_training_remarks, refuse_training
from detectron_gn.mrcnn.data.annotations.keypoints import common_names
from detectron_gn.mrcnn.data.categories import Categories
from detectron_gn.mrcnn.data.coco import CocoDataset
from detectron_gn.mrcnn.data.minibatch import minibatches
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.data.roidb import Roidb, check_proposals, training_roidb
from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.distributed import Ranks
from detectron_gn.mrcnn.ops.keypoints import KEYPOINT_NAMES
from detectron_gn.mrcnn.stopping import stop_request
from detectron_gn.mrcnn.training.curves import can_draw
from detectron_gn.mrcnn.training.loop import minibatch_numbers
from detectron_gn.mrcnn.training.samplers import has_enough_keypoints
from detectron_gn.mrcnn.training.solver import learning_rate
from detectron_gn.port.classes import file_categories
from detectron_gn.verify.training.course import Course
from detectron_gn.verify.training.fingerprint import data_fingerprint
from detectron_gn.verify.training.plan import Plan, table
from detectron_gn.verify.training.run_dir import Latest, RunFolder, RunIdentity
from detectron_gn.verify.training.run_options import RunOptions
from detectron_gn.verify.training.say import say_nothing
from detectron_gn.verify.training.start import (
    TrainingRun,
    is_final,
    origin_of,
    prepare,
    refuse_frozen_scratch,
    refuse_nothing_to_do,
    refuse_precision,
    source_classes_of,
    told_beginning,
)
from detectron_gn.weights.shown import folded
from detectron_gn.weights.weights_file import WeightsFile


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
    refuse_precision(options, ranks)
    check_proposals(datasets, cfg, proposals)
    roidb = training_roidb(datasets, cfg, proposals, keep_empty=options.keep_empty)
    if options.length is not None:
        cfg = options.length.fitted(cfg, roidb)
        check_config(cfg)
    classes, category_ids = datasets[0].classes, datasets[0].category_ids
    source_classes = source_classes_of(weights, options)
    count = cfg.KRCNN.NUM_KEYPOINTS
    keypoints = common_names(datasets[0].categories, count) if cfg.MODEL.KEYPOINTS_ON else None
    told = keypoints if keypoints is not None and count != len(KEYPOINT_NAMES) else ()
    categories = file_categories(Categories(classes[1:], category_ids, told), datasets[0].annotation_file)
    folder = RunFolder(options.out, options.keep, options.detectron_checkpoints)
    identity = RunIdentity(
        cfg,
        data_fingerprint(roidb),
        origin_of(weights, source_classes),
        classes,
        category_ids,
        options.precision,
        options.reading.exif,
        options.frozen,
        options.keep_empty,
    )
    latest = Latest(None, {})
    goes_on = options.resume and folder.holds_run
    if goes_on:
        latest = folder.latest()
        folder.check(identity, latest.weights, options.length)
    else:
        folder.refuse_run()
    checkpoint = latest.weights
    if checkpoint is not None:
        run = prepare(cfg, checkpoint, classes, classes, categories, ranks, options)
        # Detectron forgets the learning rate when it resumes, and with it to rescale the momentum if it changes here.
        run.solver.lr = learning_rate(cfg, run.start - 1)
    else:
        refuse_frozen_scratch(cfg, weights, options)
        if weights is not None and (options.starts_anew or is_final(weights)):
            weights = replace(weights, iteration=None)
        run = prepare(cfg, weights, classes, source_classes, categories, ranks, options, keypoints)
    refuse_nothing_to_do(run, cfg, checkpoint, weights, options.length)
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
        course = Course(run, cfg, folder, ranks, options, stop, say, on_checkpoint)
        if ranks.is_first:
            if goes_on:
                for line in (*folder.told_changes(identity), *folder.set_aside(latest)):
                    say(folded(line, "  "))
                folder.go_on(identity, options.record)
            else:
                folder.begin(identity, options.record)
            folder.remove_unfinished()
            course.figures.begin_at(run.start)
        # Of a run that goes on no further there is no table of what it is going to do.
        if checkpoint is None or not course.has_ended_early:
            _introduce(run, cfg, roidb, classes, checkpoint, weights, options, say)
        return course.run(batches, say_in_each, is_resumed=checkpoint is not None)


def _introduce(
    run: TrainingRun,
    cfg: Config,
    roidb: Roidb,
    classes: Sequence[str],
    checkpoint: WeightsFile | None,
    weights: WeightsFile | None,
    options: RunOptions,
    say: Callable[[str], None],
) -> None:
    """Say what is about to be trained."""
    plan = Plan(run.start, options.checkpoints.period(cfg), options, can_draw())
    trained = sum(p.numel() for p in run.solver.parameters())
    everything = sum(p.numel() for p in run.model.parameters())
    for line in table(plan, cfg, roidb, classes, trained, everything):
        say(line)
    for remark in idle_training_remarks(cfg):
        say(folded(remark, "  "))
    if checkpoint is not None and run.start >= cfg.SOLVER.MAX_ITER:
        say(f"the run is complete: {checkpoint.source} is of its last iteration")
    elif checkpoint is not None:
        say(f"going on with {checkpoint.source} at iteration {run.start}")
    elif weights is not None and run.starting_point is not None:
        say(folded(told_beginning(run, weights, options), "  "))
        for line in run.starting_point.report(is_named=options.source_classes is not None):
            say(folded(f"  {line}", "    "))
    else:
        say(f"starting from scratch (RNG_SEED {cfg.RNG_SEED})")
