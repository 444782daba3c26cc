"""The command `detect`: its options, and which of the two ways it goes: a few images, or any number, and videos."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from detectron_gn.port.options import (
    add_batch,
    add_classes,
    add_image_reading,
    add_model,
    add_out,
    add_precision,
    add_proposals,
)
from detectron_gn.weights.command_line import Commands, at_least, between, check_writable, refuse_inputs_as_output

OUT = Path("out/detect")


def add_commands(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "detect",
        _detect,
        "find the objects in images and videos: pictures with boxes, masks and skeletons, and COCO's results in JSON; "
        "of folders, lists and videos a line of JSON for each image and frame",
        "detect model_final.pkl photo.jpg --out out",
    )
    add_model(parser)
    add_classes(parser)
    add_precision(parser)
    add_proposals(parser)
    parser.add_argument(
        "images",
        type=Path,
        nargs="+",
        metavar="INPUT",
        help="an image or a video; or any number of them: a folder, a pattern ('photos/**/*.jpg') or @list.txt",
    )
    add_out(parser, OUT)
    add_image_reading(parser)
    parser.add_argument(
        "--annotations",
        type=Path,
        metavar="A.json",
        help="data set whose category ids results carry (default: the model's own); where neither the model nor "
        "--classes names the classes, it names them too",
    )
    parser.add_argument(
        "--min-score",
        type=between(0, 1),
        metavar="X",
        help="leave out what scores less than X, in results and pictures (default: results hold all that the model "
        "keeps, from TEST.SCORE_THRESH on, and pictures show what scores at least 0.5)",
    )
    parser.add_argument(
        "--pictures",
        action=argparse.BooleanOptionalAction,
        help="draw what is found, also of what an earlier run has detected in (default: of files that are named "
        "themselves, not of folders, patterns and lists)",
    )
    parser.add_argument(
        "--save-masks",
        action="store_true",
        help="write NAME_masks.png, in which each pixel is the number of its detection, 0 where there is none",
    )
    parser.add_argument(
        "--every", type=at_least(1), metavar="N", help="in videos, detect in every N-th frame (default: in all)"
    )
    parser.add_argument(
        "--coco",
        action="store_true",
        help="write detections.json, COCO's list, at the end (of named images it is always written)",
    )
    parser.add_argument(
        "--allow-failures",
        action="store_true",
        help="exit code 0 although images or videos failed, where others are done (default: 2)",
    )
    add_batch(parser)
    parser.add_argument(
        "--workers",
        type=at_least(0),
        metavar="N",
        help="processes that read images ahead, with folders, patterns and lists (default 4 beside a GPU, else 1)",
    )


def _detect(args: argparse.Namespace) -> int:
    check_writable(args.out)
    _check_named(args)
    # Late, since they import torch, which takes seconds.
    from detectron_gn.mrcnn.distributed import joined_ranks
    from detectron_gn.mrcnn.memory import keep_freed_memory
    from detectron_gn.port.detect_few import detect_few
    from detectron_gn.port.detect_many import detect_many
    from detectron_gn.port.runs.image_inputs import names_many

    keep_freed_memory()
    with joined_ranks(args.device) as ranks:
        if names_many(args.images) or ranks.count > 1:
            return detect_many(args, ranks)
        return detect_few(args, ranks)


def _check_named(args: argparse.Namespace) -> None:
    """Before any long work: of inputs that are all files one is there, and no output takes the place of an input."""
    from detectron_gn.mrcnn.data.read_image import check_image_file
    from detectron_gn.mrcnn.errors import InputError
    from detectron_gn.port.options import image_reading
    from detectron_gn.port.runs.image_inputs import is_video, named_files, named_lists, names_many
    from detectron_gn.port.runs.output_paths import COCO_LIST, OutputPaths
    from detectron_gn.port.runs.video_file import check_video

    if args.every is not None and not names_many(args.images):
        raise InputError("--every is for videos, and only images are named: leave it out")
    named = named_files(args.images)
    missing = []
    for path in named:
        try:
            if is_video(path):
                check_video(path, image_reading(args))
            else:
                check_image_file(path)
        except InputError as error:
            missing.append(error)
    if len(missing) == len(args.images):
        raise missing[0]
    given = [*args.images, *named_lists(args.images), args.annotations]
    paths = OutputPaths(args.images, args.out)
    # A shell may have made thousands of names of a pattern, so that not each is compared with each.
    inputs = {os.path.realpath(path): path for path in given if path is not None}
    for out in [*(each for path in named for each in paths.files(path)), args.out / COCO_LIST]:
        refuse_inputs_as_output(out, [inputs.get(os.path.realpath(out))])
    if args.json is not None:
        refuse_inputs_as_output(args.json, given, "--json")
