"""Detection in image files: pictures with boxes, masks and skeletons, and COCO results."""

import os
from collections import defaultdict
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from detectron_gn.mrcnn.data.annotations.json_file import read_annotation_file
from detectron_gn.mrcnn.data.categories import PROPOSALS, Categories, match_categories, numbered
from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.data.image_files import id_in_name
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.data.read_image import AS_IMREAD, ImageReading
from detectron_gn.mrcnn.detectors import Boxes, Detector, ProposalNetwork
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.coco_results import image_results
from detectron_gn.mrcnn.inference.predict import predict
from detectron_gn.mrcnn.limits import MAX_IMAGE_PIXELS
from detectron_gn.mrcnn.prefetch import mapped_ahead, processes
from detectron_gn.mrcnn.structures import Detections
from detectron_gn.port.runs.batches import grouped, in_order
from detectron_gn.port.runs.drawn_rows import shown_rows, write_drawn
from detectron_gn.port.runs.read_ahead import ImageToDetect, ReadFile, read_file

# Images that each process reads ahead.
AHEAD = 4
# Bytes of images that wait for others of their padded size.
_MOST_WAITING = 3 * MAX_IMAGE_PIXELS


def detected_categories(model: Detector, annotations: Path | None) -> Categories:
    """What detections are called: the model's classes, with the category ids of an annotation file where one is given.

    A model whose classes have no names takes those of the annotation file, class k of category k, or is numbered.
    Raises InputError where the categories of the file are not the model's classes.
    """
    if isinstance(model, ProposalNetwork):
        return PROPOSALS
    known = model.categories
    count = model.cfg.MODEL.NUM_CLASSES - 1
    if annotations is None:
        return known or numbered(count)
    categories = read_annotation_file(annotations)["categories"]
    given = [each.get("id") for each in categories]
    if not all(type(each) is int for each in given) or len(set(given)) < len(given):
        raise InputError(f"{annotations}: every category needs a whole number of its own as 'id', not {given}")
    ids = match_categories(None if known is None else known.names, count, categories, annotations)
    names = known.names if known is not None else tuple(str(each.get("name", each["id"])) for each in categories)
    return Categories(names, tuple(ids))


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
    proposals: "FileProposals | None" = None,
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


def counted(found: Detections, least_score: float | None) -> Detections:
    """The detections that count, the best first."""
    found = found.by_score()
    return found if least_score is None else found.above(least_score)


def check_masks(model: Detector) -> None:
    """Raise InputError where masks are asked of a model that has none."""
    if not model.cfg.MODEL.MASK_ON:
        raise InputError("--save-masks asks for masks, and the model has no mask head (MODEL.MASK_ON): leave it out")


def result_rows(found: Detections, categories: Categories) -> list[dict[str, Any]]:
    """COCO's result rows with the names of classes, and without the image's id.

    Keypoints have their logits beside them, which COCO's rows lack: what is above 2 is drawn.
    """
    results = image_results(0, found, categories.ids)
    rows: list[dict[str, Any]] = [
        {**box, "category_name": categories.classes[label]}
        for label, box in zip(results.classes, results.boxes, strict=True)
    ]
    for row, segm in zip(rows, results.segms or []):
        row["segmentation"] = segm["segmentation"]
    if found.keypoints is not None:
        for row, person, logits in zip(rows, results.keypoints or [], found.keypoints[:, 2].tolist(), strict=True):
            row["keypoints"], row["keypoint_logits"] = person["keypoints"], logits
    for row in rows:
        del row["image_id"]
    return rows


def image_ids(paths: Sequence[Path]) -> list[int]:
    """COCO's ids where all files are named by one and no two by the same, else 1, 2, ..."""
    ids = [number for path in paths if (number := id_in_name(path)) is not None]
    return ids if len(set(ids)) == len(paths) else list(range(1, len(paths) + 1))


class FileProposals:
    """The proposals of image files, by the ids in their names; never by their places in the command.

    An image without an id in its name, or with one that another file has as well, has none.
    """

    def __init__(self, stored: StoredProposals, paths: Iterable[Path], limit: int) -> None:
        self._stored, self._limit = stored, limit
        self._named: dict[int | None, set[str]] = defaultdict(set)
        for path in paths:
            self._named[id_in_name(path)].add(os.path.realpath(path))

    def of_image(self, path: Path, image: Image) -> Boxes:
        """`[R, 4]` float32; InputError where the name has no id, another file has the same, or there are none of it."""
        image_id = id_in_name(path)
        if image_id is None:
            raise InputError(
                "its proposals are found by the image's id, and its name has none: give it a name that ends in the id, "
                "such as COCO_val2014_000000000139.jpg"
            )
        if len(self._named[image_id]) > 1:
            raise InputError(
                f"its name has the id {image_id}, and so has that of another image, so that nothing tells whose the "
                "proposals of that id are: give each a name that ends in its own id"
            )
        height, width = image.shape[:2]
        return self._stored.of_image(image_id, height, width, self._limit)
