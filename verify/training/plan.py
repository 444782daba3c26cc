"""What a run is about to do, as the table that it prints at its start."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from detectron_gn.mrcnn.config import Config, flatten, model_family
from detectron_gn.mrcnn.config.functions import body, norm_of_backbone
from detectron_gn.mrcnn.data.roidb import Roidb, TrainedImages
from detectron_gn.mrcnn.data.shared_files import count_in_both
from detectron_gn.mrcnn.training.curves import INSTALL
from detectron_gn.mrcnn.training.schedule import told_shape
from detectron_gn.mrcnn.training.solver import learning_rate, rate_steps
from detectron_gn.mrcnn.wording import amount, in_one_line, listed, printable
from detectron_gn.verify.training.length import image_count, images_an_iteration, may_grow
from detectron_gn.verify.training.run_options import RunOptions

WIDTH, LABELS = 80, 13
_OF_POLICIES = {
    "SOLVER.STEP_SIZE": ("step",),
    "SOLVER.STEPS": ("steps_with_decay", "steps_with_lrs"),
    "SOLVER.LRS": ("steps_with_lrs",),
}
# Pictures that lose more of their sides than that are remarked on.
MOST_SHRUNK = 3
_STEPPED = ("steps_with_decay", "steps_with_lrs", "step")


@dataclass(frozen=True)
class Plan:
    """What the table shows beside the configuration and the data.

    Attributes:
        start: the iteration that the run begins with.
        period: iterations between two checkpoints.
        options: of the run.
        can_draw: whether what draws curves.png is installed.
    """

    start: int
    period: int
    options: RunOptions
    can_draw: bool = True


def table(plan: Plan, cfg: Config, roidb: Roidb, classes: Sequence[str], trained: int, parameters: int) -> list[str]:
    """The lines of the table, of at most 80 columns where no name is longer.

    Args:
        classes: the background first.
        trained, parameters: how many numbers are trained, and how many the network has.
    """
    options = plan.options
    is_complete = plan.start >= cfg.SOLVER.MAX_ITER
    rows = {
        "model": [_model(cfg, classes)],
        "images": list(_images(roidb)),
        "pictures": list(_scaling(cfg, roidb)),
        "iterations": list(_iterations(plan, cfg, roidb)),
        "rate": [] if is_complete else [_rate(plan, cfg), *_shape(plan)],
        "set here": [] if options.configured is None else list(changes(options.configured, cfg)),
        "trained": [_trained(plan, cfg, trained, parameters)],
        "checkpoints": [_checkpoints(plan, cfg)],
        "evaluation": [_evaluation(plan), *_trained_on_too(plan, roidb)],
        "written to": list(_written(plan)),
        "to stop": [] if is_complete else ["Ctrl-C: the iteration is finished and a checkpoint written"],
        "to go on": [options.command] if options.command and not is_complete else [],
        "to train on": list(_to_train_on(plan, cfg)) if is_complete else [],
    }
    return [line for label, texts in rows.items() for line in _row(label, texts)]


def changes(before: Config, after: Config) -> Iterator[str]:
    """The keys that have another value, with both; those that the policy of the rate does not look at are left out."""
    new = flatten(after)
    for key, old in flatten(before).items():
        if old != new[key] and after.SOLVER.LR_POLICY in _OF_POLICIES.get(key, (after.SOLVER.LR_POLICY,)):
            yield f"{key} {_value(old)} -> {_value(new[key])}"


def _row(label: str, texts: Sequence[str]) -> Iterator[str]:
    """A label, and beside it texts, each on lines of its own."""
    for text in texts:
        for line in textwrap.wrap(
            in_one_line(text), WIDTH - LABELS, break_long_words=False, break_on_hyphens=False, subsequent_indent="  "
        ):
            yield f"{label:{LABELS}}{line}".rstrip()
            label = ""


def _model(cfg: Config, classes: Sequence[str]) -> str:
    of_body = body(cfg)
    norm = {"gn": ", GN"}.get(norm_of_backbone(cfg), "") if of_body.depth else ""
    pyramid = {"FPN": "-FPN", "C4": "-C4"}.get(of_body.kind, "")
    names = listed([printable(name) for name in classes[1:]], most=5)
    return f"{model_family(cfg)}, {of_body.name}{pyramid}{norm}; {amount(len(classes) - 1, 'class')}: {names}"


def _images(roidb: Roidb) -> Iterator[str]:
    copies = ", each also mirrored" if len(roidb.flips) == 2 else ""
    yield f"{image_count(roidb):,} of {sum(map(_of_file, roidb.datasets)):,}{copies}"
    without = sum(each.without_objects for each in roidb.datasets)
    kept = sum(each.kept_empty for each in roidb.datasets)
    others = sum(_of_file(each) - len(each) for each in roidb.datasets) - (without - kept)
    if kept:
        yield f"{kept:,} of them without objects, as background (--keep-empty)"
    if without - kept:
        yield f"{without - kept:,} without objects left out, as in Detectron (--keep-empty keeps them)"
    if others:
        yield f"{others:,} without an object that counts left out, as in Detectron (check-data says why)"


def _scaling(cfg: Config, roidb: Roidb) -> Iterator[str]:
    """The size at which the network sees pictures, and whether little is left of the data's."""
    sides = listed([str(side) for side in sorted(cfg.TRAIN.SCALES)], most=6)
    at_random = " at random" if len(cfg.TRAIN.SCALES) > 1 else ""
    yield f"scaled to {sides} pixels{at_random} (shorter side; the longer one to {cfg.TRAIN.MAX_SIZE} at most)"
    sizes = np.concatenate([np.stack([each.heights, each.widths], axis=1) for each in roidb.datasets])
    side = max(cfg.TRAIN.SCALES)
    shrunk = np.maximum(sizes.min(axis=1) / side, sizes.max(axis=1) / cfg.TRAIN.MAX_SIZE)
    middle = np.argsort(shrunk, kind="stable")[len(shrunk) // 2]
    if shrunk[middle] > MOST_SHRUNK:
        height, width = sizes[middle]
        yield (
            f"half of those here are {shrunk[middle]:.2g} times as large or more, such as {height} x {width} "
            "(height x width): small objects may be lost; a model that sees more keeps them, or larger TRAIN.SCALES, "
            "TRAIN.MAX_SIZE, TEST.SCALE and TEST.MAX_SIZE"
        )


def _of_file(images: TrainedImages) -> int:
    return len(images.objects)


def _iterations(plan: Plan, cfg: Config, roidb: Roidb) -> Iterator[str]:
    last, each = cfg.SOLVER.MAX_ITER, images_an_iteration(cfg)
    left = last - plan.start
    images = image_count(roidb)
    told = _epochs(last * each / images)
    of_one = f"{cfg.NUM_GPUS} x {cfg.TRAIN.IMS_PER_BATCH}" if cfg.NUM_GPUS > 1 else f"{each}"
    batch = f"each on {of_one} image{'s' * (each > 1)}"
    of_images = f"of {amount(images, 'image')}"
    if not plan.start:
        yield f"{last:,}, {batch}; {told} {of_images}"
    elif not left:
        yield f"all {last:,} are done: the run is complete; {told} {of_images}"
    else:
        # Iteration 0 is the first, so that N of them end with N - 1.
        numbers = f"{plan.start:,} to {last - 1:,}" if left > 1 else f"number {plan.start:,}"
        rest = f"{left * each / images:.3g}"
        yield f"{left:,} of {last:,} are left ({numbers}, counted from 0), {batch}; {rest} of {told} {of_images}"
    if plan.options.length is None and plan.options.configured is not None:
        yield "as SOLVER.MAX_ITER of the configuration says: --epochs N fits its schedule into N passes over the images"


def _epochs(number: float) -> str:
    told = f"{number:.3g}"
    return f"{told} epoch" if told == "1" else f"{told} epochs"


def _rate(plan: Plan, cfg: Config) -> str:
    """The rate that the run begins with, and each one after it that the run gets to."""
    solver = cfg.SOLVER
    steps = [step for step in rate_steps(cfg) if step > plan.start]
    firsts, lasts = [plan.start, *steps], [*(step - 1 for step in steps), solver.MAX_ITER - 1]
    begun, *others = (f"{learning_rate(cfg, first):.3g}" for first in firsts)
    risen, *rises = map(partial(_rise, cfg), firsts, lasts)
    if solver.LR_POLICY not in _STEPPED:
        return f"{begun}{risen}, then SOLVER.LR_POLICY {solver.LR_POLICY}"
    told = [f"{rate} from {step:,}{rise}" for rate, step, rise in zip(others, steps, rises)]
    return ", ".join([f"{begun}{risen}", *([listed(told, most=4)] if told else [])])


def _rise(cfg: Config, first: int, last: int) -> str:
    """How far the warm-up takes the rate within iterations between which it does not jump."""
    top = min(cfg.SOLVER.WARM_UP_ITERS, last)
    rate = learning_rate(cfg, top)
    return f" rising to {rate:.3g} at iteration {top:,}" if first < top and rate > learning_rate(cfg, first) else ""


def _shape(plan: Plan) -> Iterator[str]:
    """What a length makes of steps that lie beyond the configuration's end."""
    if plan.options.length is not None and plan.options.configured is not None:
        told = told_shape(plan.options.configured)
        if told is not None:
            yield told


def _to_train_on(plan: Plan, cfg: Config) -> Iterator[str]:
    """What makes a run longer that is complete."""
    if not plan.options.command:
        return
    if may_grow(cfg):
        more = f"--set SOLVER.MAX_ITER N, N above {cfg.SOLVER.MAX_ITER}"
        yield f"{plan.options.command} {more}: the rate goes on as SOLVER.STEPS say"
    final = plan.options.out / "model_final.pkl"
    yield f"or a run of its own: detectron-gn train --weights {final} --epochs N --out OTHER, and its data"


def _trained(plan: Plan, cfg: Config, trained: int, parameters: int) -> str:
    frozen = f" and --freeze {','.join(plan.options.frozen)}, which Detectron has not" if plan.options.frozen else ""
    return f"{trained:,} of {parameters:,} parameters (TRAIN.FREEZE_AT {cfg.TRAIN.FREEZE_AT}{frozen})"


def _checkpoints(plan: Plan, cfg: Config) -> str:
    every = f"every {amount(plan.period, 'iteration')}"
    if plan.period >= cfg.SOLVER.MAX_ITER:
        every = f"at the end only ({every})"
    also = ", and after half an hour without one" if plan.options.checkpoints.is_often else ""
    best = " and the best" if plan.options.keep_best else ""
    return f"{every}{also}; the last {plan.options.keep}{best} {'stay' if best or plan.options.keep > 1 else 'stays'}"


def _evaluation(plan: Plan) -> str:
    if not plan.options.evaluated_on:
        return "none (--eval-annotations evaluates every checkpoint)"
    patience = f"; {plan.options.patience} without a better one end the run" if plan.options.patience else ""
    return f"of every checkpoint, on {plan.options.evaluated_on}{patience}"


def _trained_on_too(plan: Plan, roidb: Roidb) -> Iterator[str]:
    """That pictures are evaluated on which are trained on."""
    trained = [file for each in roidb.datasets for file in each.files] if plan.options.evaluated_files else []
    for name, files in plan.options.evaluated_files.items():
        if both := count_in_both(trained, files):
            yield (
                f"{both:,} of the {amount(len(files), 'picture')} of {name} {'are' if both > 1 else 'is'} trained on "
                "too: the AP does not tell how other pictures will do"
            )


def _written(plan: Plan) -> Iterator[str]:
    yield f"{plan.options.out}: model_final.pkl, checkpoints, json_stats.jsonl, curves.png"
    if not plan.can_draw:
        yield f"curves.png needs matplotlib: {INSTALL}; --resume draws those of a run that is done"


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
