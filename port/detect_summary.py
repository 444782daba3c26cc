"""What a bulk `detect` has done: counts of each process, and what is printed and written of all when it ends."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from detectron_gn.mrcnn.wording import amount
from detectron_gn.port.detect_told import code_of_failures, note_undrawn, told_failed, told_files, told_shown
from detectron_gn.port.runs.detection_lines import gather_list, line_files
from detectron_gn.port.runs.failures import failure_files, read_failures
from detectron_gn.port.runs.output_paths import COCO_LIST
from detectron_gn.weights.command_line import write_json_option
from detectron_gn.weights.files.json_file import JsonList


@dataclass
class Counts:
    """What a process has done of its share."""

    images: int = 0
    done_before: int = 0
    detected: int = 0
    detections: int = 0
    failed: int = 0
    drawn: int = 0
    videos: int = 0
    videos_done_before: int = 0
    videos_detected: int = 0
    videos_failed: int = 0
    frames: int = 0
    detections_in_frames: int = 0
    best_score: float = 0.0

    def is_all(self, count: int) -> bool:
        """Whether there are so many images and videos."""
        return self.images + self.videos == count

    def is_any_done(self) -> bool:
        """Whether any was detected in, by this run or an earlier one."""
        return self.done_before + self.detected + self.videos_done_before + self.videos_detected > 0

    def add(self, other: Counts) -> None:
        """Count what another process has done as well."""
        best = max(self.best_score, other.best_score)
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        self.best_score = best


def summed_up(args: argparse.Namespace, parts: Sequence[Counts]) -> int:
    """Tell of what all processes have done, and write what is written at the end; returns the exit code."""
    total = Counts()
    for part in parts:
        total.add(part)
    files, failures = line_files(args.out), failure_files(args.out)
    if total.images:
        found = f", with {amount(total.detections, 'detection')}" if total.detected else ""
        where = f"; in {told_files(files)}" if files else ""
        print(
            f"{amount(total.images, 'image')}: {_were_before(total.done_before)}, {total.detected:,} now{found}"
            f"{told_failed(total.failed)}{where}"
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
            f"{told_failed(total.videos_failed)}"
        )
    note_undrawn(args, total.best_score, is_another_folder=True)
    if args.json is not None:
        written = {"files": [str(path) for path in files], "failures": read_failures(failures)}
        write_json_option(args, {**asdict(total), **written})
    failed = {"image": (total.failed, total.images), "video": (total.videos_failed, total.videos)}
    return code_of_failures(args, failed, failures, total.is_any_done())


def _were_before(count: int) -> str:
    return f"{count:,} {'was' if count == 1 else 'were'} done before"
