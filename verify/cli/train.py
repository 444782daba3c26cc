"""`train`: training from scratch, from other weights and on from a checkpoint, with an eye on the AP."""

from __future__ import annotations

import argparse
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectron_gn.port.options import image_reading
from detectron_gn.verify.cli.recorded_run import check_recorded_paths, told_no_run
from detectron_gn.verify.cli.train_options import (
    add_options,
    given_options,
    recorded,
    recorded_arguments,
    with_recorded,
)
from detectron_gn.weights.command_line import DONE, Commands, check_writable, write_json_option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detectron_gn.mrcnn.config import Config
    from detectron_gn.mrcnn.data.coco import CocoDataset
    from detectron_gn.mrcnn.distributed import Ranks
    from detectron_gn.verify.training.evaluated import Trained
    from detectron_gn.verify.training.evaluation_data import EvaluationData
    from detectron_gn.verify.training.length import CheckpointRule, RunLength
    from detectron_gn.verify.training.run_options import RunOptions

# Options that say how checkpoints are evaluated.
_OF_EVALUATION = ("eval_images", "eval_proposals", "eval_loss", "keep_best", "early_stop")
# What a length sets; a person who sets one of them has to choose.
_OF_LENGTH = ("SOLVER.MAX_ITER", "SOLVER.STEPS", "SOLVER.STEP_SIZE")


def add_train(commands: Commands) -> None:
    """`train --config YAML --weights SOURCE --annotations A.json --images DIR --out DIR`."""
    parser = commands.add(
        "train",
        _train,
        "train from scratch, from other weights, or on from a checkpoint",
        "train --weights 48616381 --epochs 40 --annotations train.json --images train --out run",
    )
    add_options(parser)


@dataclass(frozen=True)
class _Source:
    """What is trained, and from what.

    Attributes:
        cfg: the configuration, on as many GPUs as it will be.
        weights: what to start from; "" for from scratch, and where a run goes on from a checkpoint.
        own_keys: the keys that the person has set.
        length: into which the schedule is to be fitted.
        configured: the configuration before `cfg` was made of it; None where it is that of the run that goes on.
        classes: those of the run that goes on, without the background.
    """

    cfg: Config
    weights: str
    own_keys: frozenset[str]
    length: RunLength | None
    configured: Config | None
    classes: tuple[str, ...] | None = None


def _train(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.distributed import joined_ranks
    from detectron_gn.mrcnn.memory import keep_freed_memory

    keep_freed_memory()
    run = _record(args)
    if run is not None:
        record = args.out / "run.json"
        args = with_recorded(args, recorded(run, "arguments"), record)
        check_recorded_paths(args, given_options(args.arguments[1:]), record)
    _check_options(args, run)
    source = _source(args, run)
    if args.scale_schedule is not None:
        return _scale_schedule(args, source)
    with joined_ranks(args.device, source.cfg.NUM_GPUS) as ranks:
        trained = _train_together(args, source, ranks)
    if ranks.is_first:
        write_json_option(args, {"final": str(trained.final), "ap": trained.ap})
    return DONE


def _record(args: argparse.Namespace) -> Mapping[str, Any] | None:
    """What the run has on record that is to go on; None where one begins."""
    from detectron_gn.port.runs.run_record import read_run_record
    from detectron_gn.verify.training.run_dir import RunFolder

    return read_run_record(args.out) if args.resume and RunFolder(args.out).holds_run else None


def _check_options(args: argparse.Namespace, run: Mapping[str, Any] | None) -> None:
    """Raise InputError for options that do not go together."""
    from detectron_gn.mrcnn.errors import InputError

    missing = [option for option in ("annotations", "images") if not getattr(args, option)]
    if missing and args.scale_schedule is None:
        told = " and ".join(f"--{option}" for option in missing)
        if run is not None:
            raise InputError(f"{told} {_are(missing)} missing, and {args.out / 'run.json'} does not say {_it(missing)}")
        if args.resume:
            raise InputError(f"{told_no_run(args.out)}; a run that begins needs {told}")
        raise InputError(f"{told} {_are(missing)} missing: pass what to train on")
    for name in _OF_EVALUATION:
        if getattr(args, name) and not args.eval_annotations:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} is of --eval-annotations, which is missing: pass both, or neither")
    given = set(given_options(args.arguments[1:]))
    length = next((option for option in ("epochs", "iterations") if option in given), None)
    for key in args.overrides[::2]:
        if length is not None and key in _OF_LENGTH and "overrides" in given:
            raise InputError(f"--{length} and --set {key} both say how long the run is: leave one of them out")


def _are(names: Sequence[str]) -> str:
    return "are" if len(names) > 1 else "is"


def _it(names: Sequence[str]) -> str:
    return "them" if len(names) > 1 else "it"


def _source(args: argparse.Namespace, run: Mapping[str, Any] | None) -> _Source:
    """What is trained: of the command line, or of the run that goes on."""
    from detectron_gn.mrcnn.distributed import process_count
    from detectron_gn.mrcnn.training.schedule import scaled_schedule
    from detectron_gn.port.config.read import config_of_keys
    from detectron_gn.port.runs.load import own_keys
    from detectron_gn.verify.training.inputs import training_source, with_own_rates
    from detectron_gn.verify.training.length import RunLength
    from detectron_gn.verify.training.run_dir import RunFolder

    given = given_options(args.arguments[1:])
    length = None
    if _has_length(args):
        length = RunLength(args.epochs, args.iterations, "SOLVER.WARM_UP_ITERS" in args.overrides[::2])
    if run is not None and "config" not in given:
        return _source_of_run(args, run, given, length)
    configured, weights = training_source(args.config, args.weights, args.overrides)
    keys = own_keys(args.config, args.overrides)
    cfg = configured
    if length is not None and not {"epochs", "iterations"} & given.keys() and keys.intersection(_OF_LENGTH):
        length = None
    if length is not None and "NUM_GPUS" not in keys:
        gpus = process_count() if run is None else config_of_keys(run["config"], str(args.out / "run.json")).NUM_GPUS
        cfg = with_own_rates(scaled_schedule(cfg, gpus), cfg, keys)
    if run is not None and RunFolder(args.out).has_checkpoint:
        weights = ""
    return _Source(cfg, weights, keys, length, configured)


def _source_of_run(
    args: argparse.Namespace, run: Mapping[str, Any], given: Mapping[str, Any], length: RunLength | None
) -> _Source:
    """What a run that goes on has on record, and what is set now; what was set then is in its configuration."""
    from detectron_gn.port.config.read import config_of_keys, merge_overrides
    from detectron_gn.verify.training.run_dir import RunFolder

    overrides = given.get("overrides", [])
    cfg = merge_overrides(config_of_keys(run["config"], str(args.out / "run.json")), overrides)
    keys = frozenset(recorded(run, "own_keys")).union(overrides[::2])
    weights = "" if RunFolder(args.out).has_checkpoint else args.weights or cfg.TRAIN.WEIGHTS
    is_new = given.keys() & {"epochs", "iterations"}
    return _Source(cfg, weights, keys, length if is_new else None, None, tuple(map(str, run["classes"][1:])))


def _train_together(args: argparse.Namespace, source: _Source, ranks: Ranks) -> Trained:
    """Read the data and the weights and train, in each of the processes that torchrun started."""
    from detectron_gn.mrcnn.config import check_config, refuse_training
    from detectron_gn.mrcnn.data.roidb import check_classes
    from detectron_gn.port.runs.proposals import training_proposals
    from detectron_gn.verify.training import say
    from detectron_gn.verify.training.evaluated import train_and_evaluate
    from detectron_gn.verify.training.inputs import (
        refuse_old_box_weights,
        training_data,
        with_classes_of,
        with_names_of,
    )
    from detectron_gn.weights import read_blobs
    from detectron_gn.weights.download.cache import resolve
    from detectron_gn.weights.shown import folded

    said = say.print_line if ranks.is_first else say.say_nothing
    own = training_data(args.annotations, args.images, args.data_cache or args.out / "data_cache", said)
    datasets = _named(args, source, own)
    cfg = source.cfg
    if source.configured is not None:
        cfg = with_names_of(datasets, with_classes_of(datasets[0], cfg, source.own_keys), source.own_keys)
    for dataset in datasets:
        check_classes(dataset, cfg)
        for remark in dataset.remarks:
            said(folded(f"{dataset.annotation_file}: {remark}", "  "))
    check_config(cfg)
    refuse_training(cfg)
    weights = read_blobs(resolve(source.weights)) if source.weights else None
    if weights is not None:
        refuse_old_box_weights(weights, args.overrides)
    evaluations = _evaluations(args, cfg, own[0])
    options = _options(args, source, evaluations, is_from_weights=weights is not None)
    proposals = training_proposals(cfg, args.proposals)
    return train_and_evaluate(cfg, datasets, weights, ranks, options, evaluations, say.print_line, proposals)


def _named(args: argparse.Namespace, source: _Source, datasets: list[CocoDataset]) -> list[CocoDataset]:
    """The data sets with the class names of --classes, where they are given now or were when the run began."""
    from detectron_gn.mrcnn.data.categories import read_class_names
    from detectron_gn.verify.training.inputs import rename_classes

    if args.classes is None:
        return datasets
    is_of_run = source.classes is not None and "classes" not in given_options(args.arguments[1:])
    names = source.classes if is_of_run and source.classes else read_class_names(args.classes)
    return rename_classes(datasets, names, str(args.classes))


def _options(
    args: argparse.Namespace, source: _Source, evaluations: Sequence[EvaluationData], *, is_from_weights: bool
) -> RunOptions:
    """What the command line says of the run, beside its configuration and its data."""
    from detectron_gn.mrcnn.data.categories import BACKGROUND, read_class_names
    from detectron_gn.verify.training.run_options import RunOptions

    source_classes = None
    if args.weights_classes is not None and (is_from_weights or source.configured is not None):
        source_classes = (BACKGROUND, *read_class_names(args.weights_classes))
    return RunOptions(
        args.out,
        resume=args.resume,
        keep=args.keep,
        detectron_checkpoints=args.detectron_checkpoints,
        workers=args.workers,
        # Two of Detectron's own models were trained like that; their configurations exist to reproduce them.
        force=args.force or Path(args.config or "").stem.endswith("_freeze2"),
        source_classes=source_classes,
        precision=args.precision,
        recompute=args.recompute,
        keep_unused=args.keep_unused,
        command=_command_to_go_on(args.out),
        reading=image_reading(args),
        # Also where the length is part of the configuration on record by now.
        starts_anew=_has_length(args),
        length=source.length,
        checkpoints=_checkpoint_rule(args, source.own_keys),
        keep_best=bool(args.keep_best) or args.early_stop is not None,
        judged_by=args.keep_best if isinstance(args.keep_best, str) else "",
        patience=args.early_stop or None,
        frozen=args.freeze,
        keep_empty=args.keep_empty,
        record={"arguments": recorded_arguments(args), "own_keys": sorted(source.own_keys)},
        eval_loss=args.eval_loss,
        evaluated_on=", ".join(each.name for each in evaluations),
        configured=source.configured,
    )


def _has_length(args: argparse.Namespace) -> bool:
    return (args.epochs, args.iterations) != (None, None)


def _evaluations(args: argparse.Namespace, cfg: Config, trained: CocoDataset) -> list[EvaluationData]:
    """What checkpoints are evaluated on."""
    from detectron_gn.mrcnn.errors import InputError
    from detectron_gn.port.runs.proposals import stored_proposals
    from detectron_gn.verify.training.evaluation_data import EvaluationData, named_path

    count = len(args.eval_annotations)
    images = args.eval_images or args.images[:1]
    images = images * count if len(images) == 1 else images
    if len(images) != count:
        raise InputError(f"{count} --eval-annotations need as many --eval-images, or one for all, not {len(images)}")
    if args.eval_proposals and len(args.eval_proposals) != count:
        raise InputError(f"{count} --eval-annotations need as many --eval-proposals, not {len(args.eval_proposals)}")
    proposals = args.eval_proposals or [None] * count
    sets = []
    for text, folder, file in zip(args.eval_annotations, images, proposals):
        name, path = named_path(text)
        stored = stored_proposals(cfg, file, "--eval-proposals")
        sets.append(EvaluationData(path, folder, stored, trained.classes[1:], name))
    return sets


def _checkpoint_rule(args: argparse.Namespace, own_keys: frozenset[str]) -> CheckpointRule:
    """Detectron's where the person has set Detectron's key."""
    from detectron_gn.verify.training.length import CheckpointRule

    is_often = args.checkpoint_every is None and "TRAIN.SNAPSHOT_ITERS" not in own_keys
    return CheckpointRule(args.checkpoint_every, is_often)


def _command_to_go_on(out: Path) -> str:
    """The command line that goes on with the run in a folder."""
    resumed = shlex.join(["train", "--resume", "--out", str(out)])
    # All three are torchrun's; what is left of one in a shell means nothing.
    if not os.environ.keys() >= {"TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"}:
        return f"detectron-gn {resumed}"
    count, machines = os.environ["LOCAL_WORLD_SIZE"], os.environ["GROUP_WORLD_SIZE"]
    launcher = f"torchrun --standalone --nproc_per_node {count}" if machines == "1" else "torchrun, as before,"
    return f"{launcher} -m detectron_gn {resumed}"


def _scale_schedule(args: argparse.Namespace, source: _Source) -> int:
    from detectron_gn.mrcnn.config import check_config
    from detectron_gn.verify.training.inputs import read_datasets, with_classes_of, write_scaled_schedule

    cfg = source.configured or source.cfg
    check_config(cfg)
    if args.annotations:
        cfg = with_classes_of(read_datasets(args.annotations, args.images)[0], cfg, source.own_keys)
    check_writable(args.out)
    path, changes = write_scaled_schedule(cfg, args.scale_schedule, args.out)
    print("\n".join(changes))
    print(f"\n{path} holds this; nothing was trained. Pass it as --config to train with it.")
    write_json_option(args, {"config": str(path), "changes": changes})
    return DONE
