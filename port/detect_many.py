"""`detect` in any number of images, of folders, patterns and lists or shared out by torchrun, and in videos.

Everything is put on record in JSON lines as it is done, a file for each process and one for each video, so that the
same command goes on where it was killed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from detectron_gn.mrcnn.data.categories import Categories
from detectron_gn.mrcnn.distributed import Ranks
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.evaluate import THREADS_BESIDE_A_GPU
from detectron_gn.mrcnn.stopping import Stopped, until_stopped
from detectron_gn.mrcnn.wording import amount
from detectron_gn.port.detect_model import Loaded, loaded, tell_unread, told_shown, told_unread, without_unread
from detectron_gn.port.options import image_reading
from detectron_gn.port.runs.detect import FileProposals, UnreadFile, detect_in_files
from detectron_gn.port.runs.detect_video import VideoOutputs, detect_in_video, planned_frames
from detectron_gn.port.runs.detection_lines import (
    DetectionLines,
    check_run,
    detection_line,
    detection_run,
    done_keys,
    gather_list,
    line_files,
    own_lines,
    recorded_lines,
    run_begun,
)
from detectron_gn.port.runs.draw_recorded import draw_recorded, left_to_draw
from detectron_gn.port.runs.drawn_rows import written_since
from detectron_gn.port.runs.image_inputs import images_of, is_video, named_files
from detectron_gn.port.runs.output_paths import COCO_LIST, WRITTEN, OutputPaths
from detectron_gn.port.runs.read_ahead import ImageToDetect
from detectron_gn.port.runs.video_lines import is_done
from detectron_gn.port.runs.work_left import WorkLeft
from detectron_gn.weights.command_line import DONE, write_json_option
from detectron_gn.weights.files.json_file import JsonList
from detectron_gn.weights.files.lock import occupied
from detectron_gn.weights.progress import progress_bar
from detectron_gn.weights.shown import one_line


@dataclass
class _Counts:
    """What a process has done of its share."""

    images: int = 0
    done_before: int = 0
    detected: int = 0
    detections: int = 0
    unread: int = 0
    drawn: int = 0
    videos: int = 0
    videos_done_before: int = 0
    videos_detected: int = 0
    videos_unread: int = 0
    frames: int = 0
    detections_in_frames: int = 0

    def is_all(self, count: int) -> bool:
        """Whether there are so many images and videos."""
        return self.images + self.videos == count

    def add(self, other: _Counts) -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


def detect_many(args: argparse.Namespace, ranks: Ranks) -> int:
    """Detect in everything that the inputs name; returns the exit code."""
    paths = OutputPaths(args.images, args.out)
    with (
        occupied(args.out, "detect.lock") if ranks.is_first else nullcontext(),
        WorkLeft(images_of(args.images, args.out, WRITTEN), ranks, args.out) as work,
    ):
        given = loaded(args, ranks)
        model, categories, proposals = given
        reading = image_reading(args)
        check_run(args.out, detection_run(model, categories, reading, proposals, args.min_score, args.every))
        # Those that other processes finished are left out too: there may have been more or fewer of them.
        done = done_keys(ranks.share_here(line_files(args.out)))
        work.leave_out(b"".join(ranks.exchange(done)))
        videos = [Path(path) for path in work if is_video(path)]
        counts = _Counts(images=work.share - len(videos), videos=len(videos))
        counts.done_before = work.share - len(work)
        try:
            _draw_earlier(args, ranks, categories, work, paths, counts)
            _detect_in_images(args, ranks, given, work, paths, counts)
            _detect_in_videos(args, ranks, given, videos, paths, counts)
        except Stopped as stopped:
            kept = f"{args.out} keeps what was detected: the same command goes on with it"
            raise Stopped(stopped.signal, kept) from None
        parts = ranks.exchange(counts)
        if not ranks.is_first:
            return DONE
        return _told(args, parts)


def _draw_earlier(
    args: argparse.Namespace,
    ranks: Ranks,
    categories: Categories,
    work: WorkLeft,
    paths: OutputPaths,
    counts: _Counts,
) -> None:
    """Make the pictures that are wanted and not there of those images of this process that are done."""
    is_drawn = args.pictures or args.pictures is None and named_files(args.images)
    if not (counts.done_before and (is_drawn or args.save_masks)):
        return
    begun = run_begun(args.out)
    is_chosen = work.chosen()

    def left(path: Path) -> ImageToDetect:
        return left_to_draw(_wanted(args, paths, path), begun)

    def is_left(name: str) -> bool:
        return is_chosen(name) and any(left(Path(name))[1:])

    count = sum(1 for _ in recorded_lines(line_files(args.out), is_left))
    if not count:
        return
    lines = recorded_lines(line_files(args.out), is_left)
    drawn = draw_recorded(lines, left, categories, args.min_score, image_reading(args))
    for image in until_stopped(progress_bar(drawn, count) if ranks.is_first else drawn):
        if isinstance(image, UnreadFile):
            tell_unread(image.error)
            counts.unread += 1
        else:
            counts.drawn += image.picture is not None


def _detect_in_images(
    args: argparse.Namespace, ranks: Ranks, given: Loaded, work: WorkLeft, paths: OutputPaths, counts: _Counts
) -> None:
    """Detect in the images that are left to this process."""
    model, categories, stored = given
    left = len(work) - counts.videos
    if not left:
        return
    beside_gpu = ranks.device.type != "cpu"
    proposals = None
    if stored is not None:
        every = map(Path, images_of(args.images, args.out, WRITTEN))
        proposals = FileProposals(stored, every, model.cfg.TEST.PROPOSAL_LIMIT)
    images = (_wanted(args, paths, path) for path in map(Path, work) if not is_video(path))
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
    with DetectionLines(own_lines(args.out, ranks.rank)) as lines, closing(found):
        for image in until_stopped(progress_bar(found, left) if ranks.is_first else found):
            if isinstance(image, UnreadFile):
                if counts.is_all(1) and ranks.count == 1:
                    raise InputError(image.error)
                tell_unread(image.error)
                counts.unread += 1
                continue
            lines.add(detection_line(str(image.path), image.height, image.width, image.detections))
            counts.detected += 1
            counts.detections += len(image.detections)
            counts.drawn += image.picture is not None


def _detect_in_videos(
    args: argparse.Namespace, ranks: Ranks, given: Loaded, videos: Sequence[Path], paths: OutputPaths, counts: _Counts
) -> None:
    """Detect in the videos of this process, one after another, and tell of each."""
    for path in videos:
        outputs = _video_outputs(args, paths, path)
        if is_done(outputs.frames):
            counts.videos_done_before += 1
            begun = run_begun(args.out)
            if all(made is None or written_since(made, begun) for made in (outputs.overlay, outputs.masks)):
                continue
        try:
            told = _detect_in_video(args, ranks, given, path, outputs, counts)
        except InputError as error:
            if counts.is_all(1) and ranks.count == 1:
                raise
            counts.videos_unread += 1
            tell_unread(error)
        else:
            print(one_line(told), flush=True)


def _video_outputs(args: argparse.Namespace, paths: OutputPaths, path: Path) -> VideoOutputs:
    """What is to be made of a video."""
    return VideoOutputs(
        paths.frames(path),
        paths.overlay(path) if _is_drawn(args, paths, path) else None,
        paths.masks_of_frames(path) if args.save_masks else None,
    )


def _detect_in_video(
    args: argparse.Namespace, ranks: Ranks, given: Loaded, path: Path, outputs: VideoOutputs, counts: _Counts
) -> str:
    """Detect in a video, or draw one that is done; returns the line that tells of it."""
    every = args.every or 1
    was_done = is_done(outputs.frames)
    threads = THREADS_BESIDE_A_GPU if ranks.device.type != "cpu" else 0
    reading = image_reading(args)
    found = detect_in_video(
        given.model, path, given.categories, outputs, args.min_score, reading, every, threads, args.batch
    )
    new = detections = 0
    with closing(found):
        shown = progress_bar(found, planned_frames(path, every, reading), "frame") if ranks.is_first else found
        for frame in until_stopped(shown):
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


def _wanted(args: argparse.Namespace, paths: OutputPaths, path: Path) -> ImageToDetect:
    """An image with the pictures that are to be made of it."""
    picture = paths.picture(path) if _is_drawn(args, paths, path) else None
    return ImageToDetect(path, picture, paths.masks(path) if args.save_masks else None)


def _is_drawn(args: argparse.Namespace, paths: OutputPaths, path: Path) -> bool:
    return paths.is_named(path) if args.pictures is None else bool(args.pictures)


def _told(args: argparse.Namespace, parts: Sequence[_Counts]) -> int:
    """Tell of what all processes have done, and write what is written at the end; returns the exit code."""
    total = _Counts()
    for part in parts:
        total.add(part)
    files = line_files(args.out)
    if total.images:
        found = f", with {amount(total.detections, 'detection')}" if total.detected else ""
        where = f"; in {files[0]}{f' and {len(files) - 1} more' * (len(files) > 1)}" if files else ""
        print(
            f"{amount(total.images, 'image')}: {_were_before(total.done_before)}, {total.detected:,} now{found}"
            f"{without_unread(total.unread)}{where}"
        )
    if args.coco:
        with JsonList(args.out) as rows:
            others = gather_list(files, rows) - total.done_before - total.detected
            rows.write(args.out / COCO_LIST)
        print(f"{args.out / COCO_LIST}: the same as COCO's list")
        if others > 0:
            images = amount(others, "image")
            print(f"{args.out / COCO_LIST} also has what was found in {images} that the inputs name no more")
    if total.drawn:
        print(f"{amount(total.drawn, 'picture')} drawn in {args.out}, of {told_shown(args.min_score)}")
    elif total.detected and args.pictures is None:
        print(f"no pictures: the same command with --pictures draws them, of {told_shown(args.min_score)}")
    if total.videos > 1 or total.videos_done_before:
        print(
            f"{amount(total.videos, 'video')}: {_were_before(total.videos_done_before)}, {total.videos_detected:,} now"
            f"{without_unread(total.videos_unread)}"
        )
    write_json_option(args, {**asdict(total), "files": [str(path) for path in files]})
    unread = {"images": (total.unread, total.images), "videos": (total.videos_unread, total.videos)}
    told = [told_unread(bad, count, kind, args.out) for kind, (bad, count) in unread.items() if bad]
    if told:
        raise InputError("; ".join(told))
    return DONE


def _were_before(count: int) -> str:
    return f"{count:,} {'was' if count == 1 else 'were'} done before"
