"""The command `detect`: a few pictures with what is drawn in them, or any number of them into JSON lines."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from detectron_gn.port.options import (
    add_classes,
    add_image_reading,
    add_model,
    add_out,
    add_precision,
    add_proposals,
    given_model,
    image_reading,
    refuse_inputs_as_output,
)
from detectron_gn.weights.command_line import (
    DONE,
    Commands,
    at_least,
    between,
    check_writable,
    progress_bar,
    write_json_option,
)
from detectron_gn.weights.shown import one_line

if TYPE_CHECKING:
    from detectron_gn.mrcnn.data.categories import Categories
    from detectron_gn.mrcnn.data.proposals_file import StoredProposals
    from detectron_gn.mrcnn.detectors import Detector
    from detectron_gn.mrcnn.distributed import Ranks
    from detectron_gn.port.runs.detect import UnreadFile
    from detectron_gn.port.runs.work_left import WorkLeft

# COCO's list of what was found in all images.
COCO_LIST = "detections.json"
# Where a run over many images puts what it draws.
DRAWN = "pictures"


def add_commands(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "detect",
        _detect,
        "find the objects in images: pictures with boxes, masks and skeletons, and COCO results; of folders and lists "
        "JSON lines",
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
        metavar="IMAGE",
        help="a file; or a folder, a pattern ('photos/**/*.jpg') or @list.txt, of as many as there are",
    )
    add_out(parser)
    add_image_reading(parser)
    parser.add_argument(
        "--annotations", type=Path, metavar="A.json", help="category ids of a data set (default: the model's own)"
    )
    parser.add_argument(
        "--pictures",
        action=argparse.BooleanOptionalAction,
        help="draw what is found (default: in files that are named, not in those of folders, patterns and lists)",
    )
    parser.add_argument(
        "--min-score",
        type=between(0, 1),
        default=0.5,
        metavar="X",
        help="what is drawn scores at least X (default 0.5)",
    )
    parser.add_argument(
        "--coco",
        action="store_true",
        help="of folders, patterns and lists: write detections.json, COCO's list, at the end (else only JSON lines)",
    )
    parser.add_argument(
        "--workers",
        type=at_least(0),
        metavar="N",
        help="processes that read images ahead, of folders, patterns and lists (default 4 beside a GPU, else 1)",
    )


class _Loaded(NamedTuple):
    """A model, what its detections are called, and where it looks for objects if it has no RPN."""

    model: Detector
    categories: Categories
    proposals: StoredProposals | None


def _detect(args: argparse.Namespace) -> int:
    from detectron_gn.mrcnn.distributed import joined_ranks
    from detectron_gn.mrcnn.memory import keep_freed_memory
    from detectron_gn.port.runs.image_inputs import names_many

    keep_freed_memory()
    check_writable(args.out)
    many = names_many(args.images)
    if not many:
        _check_image_files(args)
    with joined_ranks(args.device) as ranks:
        if many or ranks.count > 1:
            return _detect_many(args, ranks)
        return _detect_few(args, ranks)


def _loaded(args: argparse.Namespace, ranks: Ranks) -> _Loaded:
    from detectron_gn.port.classes import BY_PLACE, NUMBERED
    from detectron_gn.port.runs.detect import detected_categories
    from detectron_gn.port.runs.proposals import stored_proposals

    model = given_model(args, ranks.device)
    categories = detected_categories(model, args.annotations)
    if ranks.is_first and model.categories is None and not model.cfg.MODEL.RPN_ONLY:
        print(NUMBERED if args.annotations is None else BY_PLACE)
    return _Loaded(model, categories, stored_proposals(model.cfg, args.proposals))


def _detect_few(args: argparse.Namespace, ranks: Ranks) -> int:
    """Images that are named: a line and a picture of each, and COCO's list of all."""
    from detectron_gn.mrcnn.data.image_files import id_in_name
    from detectron_gn.mrcnn.errors import InputError
    from detectron_gn.mrcnn.stopping import Stopped, until_stopped
    from detectron_gn.port.runs.detect import (
        FileProposals,
        UnreadFile,
        detect_in_files,
        image_ids,
        picture_paths,
    )
    from detectron_gn.port.runs.read_ahead import ImageToDetect
    from detectron_gn.weights.files.json_file import JsonList

    model, categories, stored = _loaded(args, ranks)
    limit = model.cfg.TEST.PROPOSAL_LIMIT
    proposals = None if stored is None else FileProposals(stored, args.images, limit)
    ids = image_ids(args.images) if stored is None else list(map(id_in_name, args.images))
    pictures = [None] * len(ids) if args.pictures is False else picture_paths(args.images, args.out)
    images = map(ImageToDetect, args.images, pictures)
    detected, unread = 0, list[UnreadFile]()
    with JsonList(args.out) as rows, nullcontext() if args.json is None else JsonList(args.out, indent=1) as printed:
        try:
            found = detect_in_files(model, images, categories, args.min_score, image_reading(args), proposals)
            for image_id, image in zip(ids, until_stopped(found)):
                if isinstance(image, UnreadFile):
                    unread.append(image)
                    if len(ids) > 1:
                        _tell_unread(image)
                    continue
                told = "" if image.picture is None else f", {image.drawn} of them drawn in {image.picture}"
                print(one_line(f"{image.path}: {len(image.detections)} detections{told}"), flush=True)
                named = {"file_name": image.path.name, "image_id": image_id}
                of_image = [{**named, **detection} for detection in image.detections]
                for each in filter(None, (rows, printed)):
                    each.extend(of_image)
                detected += 1
        except Stopped as stopped:
            file = args.out / COCO_LIST
            kept = f"{file} holds what was found until then" if detected else "no image was done yet"
            raise Stopped(stopped.signal, kept) from None
        finally:
            # What was found is not lost, whatever comes after it.
            if detected:
                rows.write(args.out / COCO_LIST)
        if unread and len(ids) == 1:
            raise InputError(unread[0].error)
        if not detected:
            raise InputError(f"none of the {len(unread)} images could be used, so nothing was written")
        if printed is not None:
            printed.write(args.json)
    if unread:
        raise InputError(_told_unread(len(unread), len(ids), args.out))
    return DONE


def _detect_many(args: argparse.Namespace, ranks: Ranks) -> int:
    """Images of folders, patterns and lists, or shared out by torchrun: JSON lines, a file for each process."""
    from detectron_gn.port.runs.detection_lines import check_run, detection_run, done_keys, line_files
    from detectron_gn.port.runs.image_inputs import images_of, named_lists
    from detectron_gn.port.runs.work_left import WorkLeft
    from detectron_gn.weights.files.lock import occupied

    if args.json is not None:
        refuse_inputs_as_output(args.json, [*args.images, *named_lists(args.images), args.annotations], "--json")
    images = images_of(args.images, args.out / DRAWN)
    with (
        occupied(args.out, "detect.lock") if ranks.is_first else nullcontext(),
        WorkLeft(images, ranks, args.out) as work,
    ):
        loaded = _loaded(args, ranks)
        check_run(args.out, detection_run(loaded.model, loaded.categories, image_reading(args), loaded.proposals))
        # Those that other processes finished are left out too: there may have been more or fewer of them.
        done = done_keys(ranks.share_here(line_files(args.out)))
        work.leave_out(b"".join(ranks.exchange(done)))
        return _run_through(args, ranks, loaded, work)


def _run_through(args: argparse.Namespace, ranks: Ranks, loaded: _Loaded, work: WorkLeft) -> int:
    """Detect in the images that are left to this process, and tell of all."""
    from detectron_gn.mrcnn.errors import InputError
    from detectron_gn.mrcnn.evaluation.evaluate import THREADS_BESIDE_A_GPU, no_progress
    from detectron_gn.mrcnn.stopping import Stopped, until_stopped
    from detectron_gn.port.runs.detect import FileProposals, UnreadFile, detect_in_files
    from detectron_gn.port.runs.detection_lines import DetectionLines, detection_line, line_files
    from detectron_gn.port.runs.image_inputs import images_of
    from detectron_gn.port.runs.read_ahead import ImageToDetect

    model, categories, stored = loaded
    beside_gpu = ranks.device.type != "cpu"
    drawn = args.out / DRAWN
    proposals = None
    if stored is not None:
        every = map(Path, images_of(args.images, drawn))
        proposals = FileProposals(stored, every, model.cfg.TEST.PROPOSAL_LIMIT)
    images = (ImageToDetect(path, _drawn_path(path, drawn) if args.pictures else None) for path in map(Path, work))
    detected = detections = unread = 0
    found = detect_in_files(
        model,
        images,
        categories,
        args.min_score,
        image_reading(args),
        proposals,
        workers=(4 if beside_gpu else 1) if args.workers is None else args.workers,
        threads=THREADS_BESIDE_A_GPU if beside_gpu else 0,
    )
    shown = progress_bar if ranks.is_first else no_progress
    with DetectionLines(args.out, ranks.rank) as lines, closing(found):
        try:
            for image in until_stopped(shown(found, len(work))):
                if isinstance(image, UnreadFile):
                    _tell_unread(image)
                    unread += 1
                    continue
                lines.add(detection_line(str(image.path), image.height, image.width, image.detections))
                detected += 1
                detections += len(image.detections)
        except Stopped as stopped:
            kept = f"{args.out} keeps what was detected: the same command goes on with it"
            raise Stopped(stopped.signal, kept) from None
    counts = {
        "images": work.share, "done_before": work.share - len(work), "detected": detected, "detections": detections,
        "unread": unread,
    }  # fmt: skip
    parts = ranks.exchange(counts)
    if not ranks.is_first:
        return DONE
    total = {name: sum(part[name] for part in parts) for name in counts}
    files = line_files(args.out)
    print(
        f"{total['images']:,} images: {total['done_before']:,} were done before, {total['detected']:,} now, with "
        f"{total['detections']:,} detections, in {files[0]}{f' and {len(files) - 1} more' * (len(files) > 1)}"
    )
    if args.coco:
        _write_coco_list(args.out, files)
    write_json_option(args, {**total, "files": [str(path) for path in files]})
    if total["unread"] == total["images"]:
        raise InputError(f"none of the {total['unread']:,} images could be used")
    if total["unread"]:
        raise InputError(_told_unread(total["unread"], total["images"], args.out))
    return DONE


def _write_coco_list(out: Path, files: Sequence[Path]) -> None:
    from detectron_gn.port.runs.detection_lines import gather_list
    from detectron_gn.weights.files.json_file import JsonList

    with JsonList(out) as rows:
        gather_list(files, rows)
        rows.write(out / COCO_LIST)


def _drawn_path(path: Path, folder: Path) -> Path:
    """The picture of an image in a folder that has the folders of all images in it."""
    absolute = Path(os.path.normpath(path))
    return folder.joinpath(*absolute.parts[1:-1], f"{absolute.name}_detections.png")


def _tell_unread(image: UnreadFile) -> None:
    print(one_line(f"detectron-gn: {image.error}"), file=sys.stderr, flush=True)


def _told_unread(unread: int, images: int, out: Path) -> str:
    return (
        f"{unread:,} of {images:,} images could not be used, as said above; what was found in the others is in {out}"
    )


def _check_image_files(args: argparse.Namespace) -> None:
    """Before any long work: at least one image is a file, and nothing that is written takes the place of an input."""
    from detectron_gn.mrcnn.data.read_image import check_image_file
    from detectron_gn.mrcnn.errors import InputError
    from detectron_gn.port.runs.detect import picture_paths

    missing = []
    for path in args.images:
        try:
            check_image_file(path)
        except InputError as error:
            missing.append(error)
    if len(missing) == len(args.images):
        raise missing[0]
    given = [*args.images, args.annotations]
    pictures = [] if args.pictures is False else picture_paths(args.images, args.out)
    for path in [*pictures, args.out / COCO_LIST]:
        refuse_inputs_as_output(path, given)
    if args.json is not None:
        refuse_inputs_as_output(args.json, given, "--json")
