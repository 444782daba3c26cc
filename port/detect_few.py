"""`detect` in images that are named: a line and a picture of each, and COCO's list of all."""

from __future__ import annotations

import argparse
from contextlib import nullcontext

from detectron_gn.mrcnn.data.image_files import id_in_name
from detectron_gn.mrcnn.distributed import Ranks
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.stopping import Stopped, until_stopped
from detectron_gn.mrcnn.wording import amount
from detectron_gn.port.detect_model import loaded
from detectron_gn.port.detect_told import code_of_failures, note_undrawn, tell_failure, told_failed, told_shown
from detectron_gn.port.options import image_reading
from detectron_gn.port.runs.detect import FailedFile, detect_in_files
from detectron_gn.port.runs.drawn_rows import best_score
from detectron_gn.port.runs.failures import Failures, failure_files, forget_failures
from detectron_gn.port.runs.file_proposals import FileProposals
from detectron_gn.port.runs.output_paths import COCO_LIST, OutputPaths
from detectron_gn.port.runs.read_ahead import ImageToDetect
from detectron_gn.port.runs.result_rows import image_ids
from detectron_gn.weights.files.json_file import JsonList
from detectron_gn.weights.shown import one_line


def detect_few(args: argparse.Namespace, ranks: Ranks) -> int:
    """Detect in the images of the command line, which are all files; returns the exit code."""
    model, categories, stored = loaded(args, ranks)
    limit = model.cfg.TEST.PROPOSAL_LIMIT
    proposals = None if stored is None else FileProposals(stored, args.images, limit)
    ids = image_ids(args.images) if stored is None else list(map(id_in_name, args.images))
    paths = OutputPaths(args.images, args.out)
    images = (
        ImageToDetect(
            path,
            None if args.pictures is False else paths.picture(path),
            paths.masks(path) if args.save_masks else None,
        )
        for path in args.images
    )
    detected, detections, best, failed = 0, 0, 0.0, list[FailedFile]()
    file = args.out / COCO_LIST
    with JsonList(args.out) as rows, nullcontext() if args.json is None else JsonList(args.out, indent=1) as printed:
        try:
            found = detect_in_files(
                model, images, categories, args.min_score, image_reading(args), proposals, batch=args.batch
            )
            for image_id, image in zip(ids, until_stopped(found)):
                if isinstance(image, FailedFile):
                    failed.append(image)
                    if len(ids) > 1:
                        tell_failure(image.error)
                    continue
                told = "" if image.picture is None else f", {image.drawn} of them drawn in {image.picture}"
                print(one_line(f"{image.path}: {amount(len(image.detections), 'detection')}{told}"), flush=True)
                named = {"file_name": image.path.name, "image_id": image_id}
                of_image = [{**named, **detection} for detection in image.detections]
                for each in filter(None, (rows, printed)):
                    each.extend(of_image)
                detected += 1
                detections += len(image.detections)
                best = max(best, best_score(image.detections))
        except Stopped as stopped:
            kept = f"{file} holds what was found until then" if detected else "no image was done yet"
            raise Stopped(stopped.signal, kept) from None
        finally:
            # What was found is not lost, whatever comes after it.
            if detected:
                rows.write(file)
                _record(args, failed)
        if failed and len(ids) == 1:
            raise InputError(failed[0].error)
        if not detected:
            raise InputError(f"all {len(ids):,} images failed, as said above, so nothing was written")
        if printed is not None:
            printed.write(args.json)
    shown = "" if args.pictures is False else f"; pictures show {told_shown(args.min_score)}"
    counts = f"{amount(detections, 'detection')} in {amount(detected, 'image')}{told_failed(len(failed))}"
    print(one_line(f"{file}: {counts}{shown}"), flush=True)
    note_undrawn(args, best, is_another_folder=False)
    return code_of_failures(args, {"image": (len(failed), len(ids))}, failure_files(args.out), is_any_done=True)


def _record(args: argparse.Namespace, failed: list[FailedFile]) -> None:
    """Put what failed on record, in place of what failed in an earlier run."""
    forget_failures(args.out)
    with Failures(args.out) as failures:
        for image in failed:
            failures.add(image.path, image.error)
