"""Detection in image files: pictures with boxes, masks and skeletons, and COCO results."""

from collections.abc import Generator, Iterable
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from detectron_gn.mrcnn.data.categories import Categories
from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.data.read_image import AS_IMREAD, ImageReading
from detectron_gn.mrcnn.detectors import Boxes, Detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.inference.predict import predict
from detectron_gn.mrcnn.limits import MAX_IMAGE_PIXELS
from detectron_gn.mrcnn.prefetch import mapped_ahead, processes
from detectron_gn.mrcnn.structures import Detections
from detectron_gn.port.runs.batches import grouped, in_order
from detectron_gn.port.runs.drawn_rows import shown_rows, write_drawn
from detectron_gn.port.runs.file_proposals import FileProposals
from detectron_gn.port.runs.read_ahead import ImageToDetect, ReadFile, read_file
from detectron_gn.port.runs.result_rows import counted, result_rows

# Images that each process reads ahead.
AHEAD = 4
# Bytes of images that wait for others of their padded size.
_MOST_WAITING = 3 * MAX_IMAGE_PIXELS


class DetectedFile(NamedTuple):
    """What was found in an image file: its size, the picture, COCO's rows without the image's id, the best first.

    `drawn` of them score enough for the picture, which is None where none was to be drawn.
    """

    path: Path
    height: int
    width: int
    picture: Path | None
    drawn: int
    detections: list[dict[str, Any]]


class FailedFile(NamedTuple):
    """An image file in which nothing could be detected, and the sentence that names it and says why."""

    path: Path
    error: str


def detect_in_files(
    model: Detector,
    images: Iterable[ImageToDetect],
    categories: Categories,
    least_score: float | None = None,
    reading: ImageReading = AS_IMREAD,
    proposals: FileProposals | None = None,
    workers: int = 0,
    threads: int = 0,
    batch: int = 1,
) -> Generator[DetectedFile | FailedFile, None, None]:
    """Detect in each image, and draw what is found and its masks where that is wanted; yields each, in order.

    Memory does not grow with the number of images.

    Args:
        least_score: what counts scores at least so much. None counts everything that the model keeps, and draws what
            scores at least `drawn_rows.DRAWN_SCORE`.
        proposals: for a model that takes them.
        workers: processes that read images ahead; 0 reads each when its turn comes.
        threads: as in `mrcnn.inference.predict.predict`.
        batch: images of one padded size that run together, at most.
    """
    model.check_proposals(proposals is not None)

    def pixels_of(numbered: tuple[int, ReadFile]) -> Image:
        _, read = numbered
        if read.pixels is None:
            raise InputError(read.error)
        return read.pixels

    def finished(numbered: tuple[int, ReadFile], pixels: Image, found: Detections) -> DetectedFile | FailedFile:
        image = numbered[1].image
        rows = result_rows(counted(found, least_score), categories)
        shown = shown_rows(rows, least_score)
        write_drawn(image, pixels, shown, categories)
        height, width = pixels.shape[:2]
        drawn = 0 if image.picture is None else len(shown)
        return DetectedFile(image.path, height, width, image.picture, drawn, rows)

    def refused(numbered: tuple[int, ReadFile], error: InputError) -> DetectedFile | FailedFile:
        return FailedFile(numbered[1].image.path, str(error))

    def proposals_of(numbered: tuple[int, ReadFile], pixels: Image) -> Boxes:
        assert proposals is not None
        return proposals.of_image(numbered[1].image.path, pixels)

    files = mapped_ahead(partial(read_file, reading=reading), images, workers, AHEAD * workers, processes)
    predictions = predict(
        model,
        grouped(
            files,
            lambda read: None if read.pixels is None else model.padded_size(read.pixels),
            batch,
            lambda read: 0 if read.pixels is None else read.pixels.size,
            _MOST_WAITING,
        ),
        pixels_of,
        finished,
        refused=refused,
        proposals=None if proposals is None else proposals_of,
        name=lambda numbered: str(numbered[1].image.path),
        threads=threads,
    )
    results = ((number, result) for done in predictions for (number, _), result in zip(done.items, done.results))
    with closing(files):
        try:
            yield from in_order(results)
        except BrokenProcessPool:
            raise InputError(
                "a process that reads images ahead was ended by the system, as it does where memory is short: pass "
                "fewer --workers, or a lower --max-pixels"
            ) from None
