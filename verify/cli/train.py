"""`train` and `check-data`: training with an eye on the AP, and what it would leave out of a data set."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detectron_gn.port.options import (
    add_config,
    add_device,
    add_image_reading,
    add_keep_unused,
    add_out,
    image_reading,
)
from detectron_gn.verify.cli.options import add_data_sets
from detectron_gn.weights.command_line import (
    CHECK_FAILED,
    DONE,
    Commands,
    at_least,
    check_writable,
    progress_bar,
    write_json_option,
)

if TYPE_CHECKING:
    from detectron_gn.mrcnn.config import Config
    from detectron_gn.mrcnn.distributed import Ranks
    from detectron_gn.verify.training.evaluated import Trained


def add_train(commands: Commands) -> None:
    """`train --config YAML --weights SOURCE --annotations A.json --images DIR --out DIR`."""
    parser = commands.add(
        "train",
        _train,
        "train from scratch, from other weights, or on from a checkpoint",
        "train --config e2e_mask_rcnn_R-50-FPN_2x_gn --weights R-50-GN.pkl --annotations train.json --images train "
        "--out run",
    )
    add_config(parser, "what to train (default: that of the weights)")
    add = parser.add_argument
    add(
        "--weights",
        metavar="SOURCE",
        help="model id, URL or file to start from (default: TRAIN.WEIGHTS); model_iterN.pkl goes on after N",
    )
    add_data_sets(parser)
    add(
        "--proposals",
        type=Path,
        action="append",
        default=[],
        metavar="P.pkl",
        help="rpn_proposals.pkl of each --annotations, for a model without an RPN (default: TRAIN.PROPOSAL_FILES)",
    )
    add(
        "--data-cache",
        type=Path,
        metavar="DIR",
        help="where large annotation files are kept as they were read (default: data_cache in --out)",
    )
    add_out(parser)
    add("--resume", action="store_true", help="go on with the run in --out, bit for bit")
    add("--classes", type=Path, metavar="NAMES.txt", help="class names, one a line, in the order of the categories")
    add("--weights-classes", type=Path, metavar="NAMES.txt", help="those of the weights, to keep rows of equal names")
    add_keep_unused(parser)
    add("--keep", type=at_least(1), default=3, metavar="K", help="checkpoints to keep (default 3)")
    add("--detectron-checkpoints", action="store_true", help="write model_iterN.pkl, which Detectron goes on from, too")
    add("--eval-annotations", type=Path, metavar="V.json", help="evaluate every checkpoint on this")
    add("--eval-images", type=Path, metavar="DIR", help="its images (default: those of training)")
    add(
        "--eval-proposals",
        type=Path,
        metavar="P.pkl",
        help="rpn_proposals.pkl of the --eval-annotations, for a model without an RPN (default: TEST.PROPOSAL_FILES)",
    )
    add_image_reading(parser)
    add("--workers", type=at_least(0), default=2, metavar="N", help="threads that load images (default 2)")
    add_device(parser)
    add("--precision", choices=("fp32", "tf32", "bf16"), default="fp32", help="of the forward pass (default fp32)")
    add("--recompute", action="store_true", help="save memory: compute the backbone's activations twice")
    add("--scale-schedule", type=at_least(1), metavar="N", help="write the configuration for N GPUs to --out and stop")
    add("--force", action="store_true", help="train from scratch even with TRAIN.FREEZE_AT above 0")


def _train(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.distributed import joined_ranks
    from detectron_gn.mrcnn.errors import InputError
    from detectron_gn.mrcnn.memory import keep_freed_memory
    from detectron_gn.verify.training.inputs import training_source

    keep_freed_memory()
    for option, value in (("--eval-images", args.eval_images), ("--eval-proposals", args.eval_proposals)):
        if value is not None and args.eval_annotations is None:
            raise InputError(f"{option} is of --eval-annotations, which is missing: pass both, or neither")
    cfg, source = training_source(args.config, args.weights, args.overrides)
    if args.scale_schedule is not None:
        return _scale_schedule(args, cfg)
    with joined_ranks(args.device, cfg.NUM_GPUS) as ranks:
        trained = _train_together(args, cfg, source, ranks)
    if ranks.is_first:
        write_json_option(args, {"final": str(trained.final), "ap": trained.ap})
    return DONE


def _train_together(args: argparse.Namespace, cfg: Config, source: str, ranks: Ranks) -> Trained:
    """Read the data and the weights and train, in each of the processes that torchrun started."""
    from detectron_gn.mrcnn.config import check_config, refuse_training, with_values
    from detectron_gn.mrcnn.data.categories import BACKGROUND, read_class_names
    from detectron_gn.mrcnn.data.roidb import check_classes
    from detectron_gn.port.classes import known_categories
    from detectron_gn.port.runs.proposals import stored_proposals, training_proposals
    from detectron_gn.verify.training.evaluated import EvaluationData, train_and_evaluate
    from detectron_gn.verify.training.inputs import refuse_old_box_weights, rename_classes, training_data
    from detectron_gn.verify.training.run import RunOptions, print_line, say_nothing
    from detectron_gn.weights import read_blobs
    from detectron_gn.weights.download.cache import resolve

    cache = args.data_cache or args.out / "data_cache"
    own = training_data(args.annotations, args.images, cache, print_line if ranks.is_first else say_nothing)
    datasets = own
    if args.classes is not None:
        datasets = rename_classes(own, args.classes)
        cfg = with_values(cfg, {"MODEL.NUM_CLASSES": len(datasets[0].classes)})
    for dataset in datasets:
        check_classes(dataset, cfg)
        if ranks.is_first:
            for remark in dataset.remarks:
                print_line(f"{dataset.annotation_file}: {remark}")
    check_config(cfg)
    refuse_training(cfg)
    weights = read_blobs(resolve(source)) if source else None
    if weights is not None:
        refuse_old_box_weights(weights, args.overrides)
    source_classes = None
    if args.weights_classes is not None:
        source_classes = (BACKGROUND, *read_class_names(args.weights_classes))
    elif weights is not None and (known := known_categories(weights, source)) is not None:
        source_classes = known.classes
    evaluation_data = None
    if args.eval_annotations is not None:
        evaluation_data = EvaluationData(
            args.eval_annotations,
            args.eval_images or args.images[0],
            stored_proposals(cfg, args.eval_proposals, "--eval-proposals"),
            own[0].classes[1:],
        )
    options = RunOptions(
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
        command=_command_to_go_on(args.arguments),
        reading=image_reading(args),
    )
    proposals = training_proposals(cfg, args.proposals)
    return train_and_evaluate(cfg, datasets, weights, ranks, options, evaluation_data, print_line, proposals)


def _command_to_go_on(arguments: Sequence[str]) -> str:
    """The command line that goes on with the run that these arguments began."""
    resumed = [*arguments, *([] if "--resume" in arguments else ["--resume"])]
    # All three are torchrun's; what is left of one in a shell means nothing.
    if not os.environ.keys() >= {"TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"}:
        return shlex.join(["detectron-gn", *resumed])
    count, machines = os.environ["LOCAL_WORLD_SIZE"], os.environ["GROUP_WORLD_SIZE"]
    launcher = f"torchrun --standalone --nproc_per_node {count}" if machines == "1" else "torchrun, as before,"
    return f"{launcher} -m detectron_gn {shlex.join(resumed)}"


def _scale_schedule(args: argparse.Namespace, cfg: Config) -> int:
    from detectron_gn.mrcnn.config import check_config
    from detectron_gn.verify.training.inputs import write_scaled_schedule

    check_config(cfg)
    check_writable(args.out)
    path, changes = write_scaled_schedule(cfg, args.scale_schedule, args.out)
    print("\n".join(changes))
    print(f"\n{path} holds this; nothing was trained. Pass it as --config to train with it.")
    write_json_option(args, {"config": str(path), "changes": changes})
    return DONE


def add_check_data(commands: Commands) -> None:
    """`check-data --annotations A.json --images DIR`."""
    parser = commands.add(
        "check-data",
        _check_data,
        "list what training would leave out of a data set and why, and what would stop it",
        "check-data --annotations instances_train.json --images train",
    )
    add_data_sets(parser)
    add_image_reading(parser)
    add_config(parser, "thresholds and number of classes (default: Detectron's, and as many as there are)")
    parser.add_argument("--no-decode", action="store_true", help="look for the image files without decoding them")
    parser.add_argument(
        "--most", type=at_least(0), default=20, metavar="N", help="findings shown of a kind (default 20)"
    )


def _check_data(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.data.check import check_dataset, differing_classes, report_text
    from detectron_gn.port.config.read import parse_config
    from detectron_gn.port.runs.load import find_config
    from detectron_gn.verify.training.inputs import read_datasets

    datasets = read_datasets(args.annotations, args.images)
    if args.config is None:
        defaults = f"MODEL: {{NUM_CLASSES: {len(datasets[0].classes)}}}"
        cfg = parse_config(defaults, "Detectron's defaults", args.overrides)
    else:
        cfg = find_config(args.config, args.overrides)
    reports = []
    for dataset in datasets:
        report = check_dataset(
            dataset, cfg, read_images=not args.no_decode, reading=image_reading(args), progress=progress_bar
        )
        reports.append(differing_classes(report, dataset, datasets[0]))
        name = f"{dataset.annotation_file}\n" if len(datasets) > 1 else ""
        print(f"{name}{report_text(reports[-1], most=args.most)}", flush=True)
    documents = [
        {"annotations_file": str(dataset.annotation_file), **report.document()}
        for dataset, report in zip(datasets, reports)
    ]
    write_json_option(args, reports[0].document() if len(reports) == 1 else {"data_sets": documents})
    return CHECK_FAILED if any(report.errors for report in reports) else DONE
