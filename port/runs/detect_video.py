"""Detection in the frames of a video: JSON lines, the video with what was found drawn over it, and masks."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from detectron_gn.mrcnn.data.categories import Categories
from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.data.read_image import AS_IMREAD, ImageReading
from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.inference.predict import predict
from detectron_gn.mrcnn.structures import Detections
from detectron_gn.port.runs.drawn_rows import Row, best_score, draw_rows, make_folder, shown_rows, write_masks
from detectron_gn.port.runs.output_paths import MASKS
from detectron_gn.port.runs.result_rows import counted, result_rows
from detectron_gn.port.runs.video_file import Frame, VideoFile
from detectron_gn.port.runs.video_lines import VideoLines
from detectron_gn.port.runs.video_overlay import VideoOverlay


class VideoOutputs(NamedTuple):
    """Where what is made of a video goes: lines always; the overlay and the folder of masks where they are wanted."""

    frames: Path
    overlay: Path | None = None
    masks: Path | None = None


class DoneFrame(NamedTuple):
    """A frame that is done, in this run or an earlier one: the count and the best score of its detections."""

    number: int
    detections: int
    best_score: float
    is_new: bool


def detect_in_video(
    model: Detector,
    path: Path,
    categories: Categories,
    outputs: VideoOutputs,
    least_score: float | None = None,
    reading: ImageReading = AS_IMREAD,
    every: int = 1,
    threads: int = 0,
    batch: int = 1,
) -> Generator[DoneFrame, None, None]:
    """Detect in every `every`-th frame; yields each as it is done, in order, and goes on where a run was killed.

    What is drawn hangs on the frames and the lines only, so that frames which are on record are drawn without the
    network and a run that was killed gives the overlay and the masks of one that was not. Of a video that is done only
    these are made. Memory does not grow with the video.

    Args:
        least_score, threads, batch: as in `port.runs.detect.detect_in_files`.

    Raises InputError where the file is no video that can be decoded; where it is cut off, after the last frame that
    can: then the overlay is written, and the lines stay where another run goes on from.
    """
    if model.takes_proposals:
        raise InputError(f"{path}: the model takes proposals from a file, which has none of a video's frames")
    make_folder(outputs.frames.parent)
    with VideoFile(path, reading) as video, VideoLines(outputs.frames, every) as lines:
        overlay = None if outputs.overlay is None else VideoOverlay(outputs.overlay, video.rate / every)
        frames = video.frames(every, skipped=0 if overlay else lines.done)
        with overlay or nullcontext():
            try:
                if overlay or outputs.masks:
                    for line in lines.earlier():
                        shown = shown_rows(line["detections"], least_score)
                        _write_masks(outputs.masks, line["frame"], shown, (line["height"], line["width"]))
                        if overlay:
                            overlay.add(draw_rows(_next_done(frames, path, lines).pixels, shown, categories))
                        rows = line["detections"]
                        yield DoneFrame(line["frame"], len(rows), best_score(rows), False)
                if not lines.are_whole:
                    for frame, rows in _found(model, path, frames, categories, least_score, threads, batch):
                        shown = shown_rows(rows, least_score)
                        _write_masks(outputs.masks, frame.number, shown, frame.pixels.shape[:2])
                        lines.add(path, frame, rows)
                        if overlay:
                            overlay.add(draw_rows(frame.pixels, shown, categories))
                        yield DoneFrame(frame.number, len(rows), best_score(rows), True)
                    video.check_whole()
            except InputError as error:
                drawn = overlay is not None and overlay.finish()
                kept = f"; what was found until then is in {lines.place}" if lines.count else ""
                raise InputError(f"{error}{kept}{f', drawn in {outputs.overlay}' * drawn}") from None
            if overlay:
                overlay.finish()
        lines.finish()


def planned_frames(path: Path, every: int, reading: ImageReading) -> int:
    """How many frames of a video are to be detected in, as far as its container tells; 0 where it does not."""
    with VideoFile(path, reading) as video:
        return -(-video.announced // every)


def _next_done(frames: Iterator[Frame], path: Path, lines: VideoLines) -> Frame:
    frame = next(frames, None)
    if frame is None:
        raise InputError(
            f"{lines.place} has lines of {lines.done:,} frames, and {path} has fewer: it is of another video; delete it"
        )
    return frame


def _found(
    model: Detector,
    path: Path,
    frames: Iterable[Frame],
    categories: Categories,
    least_score: float | None,
    threads: int,
    batch: int,
) -> Iterator[tuple[Frame, list[dict[str, Any]]]]:
    """Each frame with its rows, in order."""

    def finished(frame: Frame, _pixels: Image, found: Detections) -> tuple[Frame, list[dict[str, Any]]]:
        return frame, result_rows(counted(found, least_score), categories)

    predictions = predict(
        model,
        _batches(frames, batch),
        lambda frame: frame.pixels,
        finished,
        name=lambda frame: f"{path}, frame {frame.number}",
        threads=threads,
    )
    for done in predictions:
        yield from done.results


def _batches(frames: Iterable[Frame], batch: int) -> Iterator[list[Frame]]:
    """Frames that follow each other, at most `batch` of one size; a few videos change theirs."""
    together: list[Frame] = []
    for frame in frames:
        if together and together[0].pixels.shape != frame.pixels.shape:
            yield together
            together = []
        together.append(frame)
        if len(together) == batch:
            yield together
            together = []
    if together:
        yield together


def _write_masks(folder: Path | None, frame: int, rows: Sequence[Row], size: Sequence[int]) -> None:
    if folder is not None:
        write_masks(folder / f"{frame:06d}{MASKS}", rows, size)
