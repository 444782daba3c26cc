"""`check-data`: what training would leave out of a data set and why, and what would stop it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from detectron_gn.port.options import add_config, add_image_reading, image_reading
from detectron_gn.verify.cli.options import add_data_sets
from detectron_gn.weights.command_line import (
    CHECK_FAILED,
    DONE,
    Commands,
    at_least,
    write_json_option,
)
from detectron_gn.weights.progress import progress_bar

if TYPE_CHECKING:
    from detectron_gn.mrcnn.data.check import DataReport


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
    add_config(parser, "what will be trained (default: Detectron's thresholds, and as many classes as there are)")
    parser.add_argument("--weights", metavar="SOURCE", help="what it will start from, for the configuration inside")
    parser.add_argument("--no-decode", action="store_true", help="look for the image files without decoding them")
    parser.add_argument(
        "--most",
        type=at_least(0),
        default=20,
        metavar="N",
        help="lines of errors, of what is dropped, of notes, and of classes (default 20; --json has all)",
    )


def _check_data(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.data.check import check_dataset, differing_classes, images_of_another, report_text
    from detectron_gn.port.config.read import parse_config
    from detectron_gn.port.runs.load import own_keys
    from detectron_gn.verify.training.inputs import read_datasets, training_source, with_classes_of

    datasets = read_datasets(args.annotations, args.images)
    is_for_any = args.config is None and args.weights is None
    if is_for_any:
        defaults = f"MODEL: {{NUM_CLASSES: {len(datasets[0].classes)}}}"
        cfg = parse_config(defaults, "Detectron's defaults", args.overrides)
    else:
        cfg, _ = training_source(args.config, args.weights, args.overrides)
        cfg = with_classes_of(datasets[0], cfg, own_keys(args.config, args.overrides))
    reports: list[DataReport] = []
    for dataset in datasets:
        report = check_dataset(
            dataset, cfg, read_images=not args.no_decode, reading=image_reading(args), progress=progress_bar
        )
        report = differing_classes(report, dataset, datasets[0])
        for first, earlier in zip(reports, datasets):
            report = images_of_another(report, first, str(earlier.annotation_file))
        reports.append(report)
        name = f"{dataset.annotation_file}\n" if len(datasets) > 1 else ""
        print(f"{name}{report_text(reports[-1], most=args.most, is_for_any=is_for_any)}", flush=True)
    documents = [
        {"annotations_file": str(dataset.annotation_file), **report.document()}
        for dataset, report in zip(datasets, reports)
    ]
    write_json_option(args, reports[0].document() if len(reports) == 1 else {"data_sets": documents})
    return CHECK_FAILED if any(report.errors for report in reports) else DONE
