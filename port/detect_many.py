"""`detect` in any number of images, of folders, patterns and lists or shared out by torchrun, and in videos.

Everything is put on record in JSON lines as it is done, a file for each process and one for each video, so that the
same command goes on where it was killed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from detectron_gn.mrcnn.distributed import Ranks
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.evaluate import THREADS_BESIDE_A_GPU
from detectron_gn.mrcnn.stopping import Stopped, until_stopped
from detectron_gn.mrcnn.wording import amount
from detectron_gn.port.detect_model import Loaded, loaded
from detectron_gn.port.detect_summary import Counts, summed_up
from detectron_gn.port.detect_told import tell_failure, told_shown
from detectron_gn.port.options import image_reading
from detectron_gn.port.runs.detect import FailedFile, detect_in_files
from detectron_gn.port.runs.detect_video import VideoOutputs, detect_in_video, planned_frames
from detectron_gn.port.runs.detection_lines import (
    DetectionLines,
    check_run,
    detection_line,
    detection_run,
    done_keys,
    line_files,
    own_lines,
    recorded_lines,
    run_begun,
)
from detectron_gn.port.runs.draw_recorded import draw_recorded, left_to_draw
from detectron_gn.port.runs.drawn_rows import best_score, written_since
from detectron_gn.port.runs.failures import Failures, forget_failures
from detectron_gn.port.runs.file_proposals import FileProposals
from detectron_gn.port.runs.image_inputs import images_of, is_video, named_files
from detectron_gn.port.runs.output_paths import WRITTEN, OutputPaths
from detectron_gn.port.runs.read_ahead import ImageToDetect
from detectron_gn.port.runs.video_lines import is_done
from detectron_gn.port.runs.work_left import WorkLeft
from detectron_gn.weights.command_line import DONE
from detectron_gn.weights.files.lock import occupied
from detectron_gn.weights.progress import progress_bar
from detectron_gn.weights.shown import one_line


class _Job(NamedTuple):
    """What every part of the work of a process has in common."""

    args: argparse.Namespace
    ranks: Ranks
    given: Loaded
    paths: OutputPaths
    counts: Counts
    failures: Failures

    def fail(self, path: Path, error: InputError | str) -> None:
        """Put on record that an image or a video failed, and say it; an only one is the whole run's error."""
        self.failures.add(path, str(error))
        if self.counts.is_all(1) and self.ranks.count == 1:
            raise InputError(str(error)) from None
        tell_failure(error)

    def shown(self, results: Iterable[Any], count: int, unit: str = "image") -> Iterable[Any]:
        """Results one after another until a signal comes, with a progress bar of the first process."""
        return until_stopped(progress_bar(results, count, unit) if self.ranks.is_first else results)


def detect_many(args: argparse.Namespace, ranks: Ranks) -> int:
    """Detect in everything that the inputs name; returns the exit code."""
    paths = OutputPaths(args.images, args.out)
    with (
        occupied(args.out, "detect.lock") if ranks.is_first else nullcontext(),
        WorkLeft(images_of(args.images, args.out, WRITTEN), ranks, args.out) as work,
        Failures(args.out, ranks.rank) as failures,
    ):
        given = loaded(args, ranks)
        model, categories, proposals = given
        run = detection_run(model, categories, image_reading(args), proposals, args.min_score, args.every)
        check_run(args.out, run)
        forget_failures(args.out)
        # Those that other processes finished are left out too: there may have been more or fewer of them.
        done = done_keys(ranks.share_here(line_files(args.out)))
        work.leave_out(b"".join(ranks.exchange(done)))
        videos = [Path(path) for path in work if is_video(path)]
        counts = Counts(images=work.share - len(videos), videos=len(videos))
        counts.done_before = work.share - len(work)
        job = _Job(args, ranks, given, paths, counts, failures)
        try:
            _draw_earlier(job, work)
            _detect_in_images(job, work)
            _detect_in_videos(job, videos)
        except Stopped as stopped:
            kept = f"{args.out} keeps what was detected: the same command goes on with it"
            raise Stopped(stopped.signal, kept) from None
        parts = ranks.exchange(counts)
        return summed_up(args, parts) if ranks.is_first else DONE


def _draw_earlier(job: _Job, work: WorkLeft) -> None:
    """Make the pictures that are wanted and not there of those images of this process that are done."""
    args, counts = job.args, job.counts
    is_drawn = args.pictures or args.pictures is None and named_files(args.images)
    if not (counts.done_before and (is_drawn or args.save_masks)):
        return
    begun = run_begun(args.out)
    is_chosen = work.chosen()

    def left(path: Path) -> ImageToDetect:
        return left_to_draw(_wanted(job, path), begun)

    def is_left(name: str) -> bool:
        return is_chosen(name) and any(left(Path(name))[1:])

    count = sum(1 for _ in recorded_lines(line_files(args.out), is_left))
    if not count:
        return
    lines = recorded_lines(line_files(args.out), is_left)
    for image in job.shown(
        draw_recorded(lines, left, job.given.categories, args.min_score, image_reading(args)), count
    ):
        if isinstance(image, FailedFile):
            counts.failed += 1
            job.fail(image.path, image.error)
        else:
            counts.drawn += image.picture is not None


def _detect_in_images(job: _Job, work: WorkLeft) -> None:
    """Detect in the images that are left to this process."""
    args, counts, (model, categories, stored) = job.args, job.counts, job.given
    left = len(work) - counts.videos
    if not left:
        return
    beside_gpu = job.ranks.device.type != "cpu"
    proposals = None
    if stored is not None:
        every = map(Path, images_of(args.images, args.out, WRITTEN))
        proposals = FileProposals(stored, every, model.cfg.TEST.PROPOSAL_LIMIT)
    images = (_wanted(job, path) for path in map(Path, work) if not is_video(path))
    found = detect_in_files(
        model,
        images,
        categories,
        args.min_score,
        image_reading(args),
        proposals,
        workers=(4 if beside_gpu else 1) if args.workers is None else args.workers,
        threads=THREADS_BESIDE_A_GPU if beside_gpu else 0,
        batch=args.batch,
    )
    with DetectionLines(own_lines(args.out, job.ranks.rank)) as lines, closing(found):
        for image in job.shown(found, left):
            if isinstance(image, FailedFile):
                counts.failed += 1
                job.fail(image.path, image.error)
                continue
            lines.add(detection_line(str(image.path), image.height, image.width, image.detections))
            counts.detected += 1
            counts.detections += len(image.detections)
            counts.best_score = max(counts.best_score, best_score(image.detections))
            counts.drawn += image.picture is not None


def _detect_in_videos(job: _Job, videos: Sequence[Path]) -> None:
    """Detect in the videos of this process, one after another, and tell of each."""
    for path in videos:
        outputs = _video_outputs(job, path)
        if is_done(outputs.frames):
            job.counts.videos_done_before += 1
            begun = run_begun(job.args.out)
            if all(made is None or written_since(made, begun) for made in (outputs.overlay, outputs.masks)):
                continue
        try:
            told = _detect_in_video(job, path, outputs)
        except InputError as error:
            job.counts.videos_failed += 1
            job.fail(path, error)
        else:
            print(one_line(told), flush=True)


def _video_outputs(job: _Job, path: Path) -> VideoOutputs:
    """What is to be made of a video."""
    return VideoOutputs(
        job.paths.frames(path),
        job.paths.overlay(path) if _is_drawn(job, path) else None,
        job.paths.masks_of_frames(path) if job.args.save_masks else None,
    )


def _detect_in_video(job: _Job, path: Path, outputs: VideoOutputs) -> str:
    """Detect in a video, or draw one that is done; returns the line that tells of it."""
    args, counts = job.args, job.counts
    every = args.every or 1
    was_done = is_done(outputs.frames)
    threads = THREADS_BESIDE_A_GPU if job.ranks.device.type != "cpu" else 0
    reading = image_reading(args)
    found = detect_in_video(
        job.given.model, path, job.given.categories, outputs, args.min_score, reading, every, threads, args.batch
    )
    new = detections = 0
    with closing(found):
        for frame in job.shown(found, planned_frames(path, every, reading), "frame"):
            counts.best_score = max(counts.best_score, frame.best_score)
            if frame.is_new:
                new += 1
                detections += frame.detections
                counts.frames += 1
                counts.detections_in_frames += frame.detections
    drawn = f"; {outputs.overlay} shows {told_shown(args.min_score)}" if outputs.overlay else ""
    if was_done:
        return f"{path}: was done before{drawn}"
    counts.videos_detected += 1
    return f"{path}: {amount(new, 'frame')}, {amount(detections, 'detection')} in {outputs.frames}{drawn}"


def _wanted(job: _Job, path: Path) -> ImageToDetect:
    """An image with the pictures that are to be made of it."""
    picture = job.paths.picture(path) if _is_drawn(job, path) else None
    return ImageToDetect(path, picture, job.paths.masks(path) if job.args.save_masks else None)


def _is_drawn(job: _Job, path: Path) -> bool:
    pictures: bool | None = job.args.pictures
    return job.paths.is_named(path) if pictures is None else pictures
