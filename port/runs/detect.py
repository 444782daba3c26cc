"""Detection in image files: pictures with boxes, masks and skeletons, and COCO results."""

import os
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2

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
from detectron_gn.mrcnn.prefetch import mapped_ahead, processes
from detectron_gn.mrcnn.structures import Detections
from detectron_gn.mrcnn.visualize import draw_detections
from detectron_gn.port.runs.read_ahead import ImageToDetect, ReadFile, read_file
from detectron_gn.weights.files.atomic import replacing

# Images that each process reads ahead.
AHEAD = 4


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
    """What was found in an image file: its size, the picture, COCO's rows without the image's id.

    `drawn` of them score enough for the picture, which is None where none was to be drawn.
    """

    path: Path
    height: int
    width: int
    picture: Path | None
    drawn: int
    detections: list[dict[str, Any]]


class UnreadFile(NamedTuple):
    """An image file in which nothing could be detected, and the sentence that names it and says why."""

    path: Path
    error: str


def detect_in_files(
    model: Detector,
    images: Iterable[ImageToDetect],
    categories: Categories,
    min_score: float,
    reading: ImageReading = AS_IMREAD,
    proposals: "FileProposals | None" = None,
    workers: int = 0,
    threads: int = 0,
) -> Generator[DetectedFile | UnreadFile, None, None]:
    """Detect in each image and draw what scores at least `min_score`; yields as each is done, in order.

    Memory does not grow with the number of images.

    Args:
        proposals: for a model that takes them.
        workers: processes that read images ahead; 0 reads each when its turn comes.
        threads: as in `mrcnn.inference.predict.predict`.
    """
    model.check_proposals(proposals is not None)

    def pixels_of(read: ReadFile) -> Image:
        if read.pixels is None:
            raise InputError(read.error)
        return read.pixels

    def finished(read: ReadFile, pixels: Image, found: Detections) -> DetectedFile | UnreadFile:
        path, picture = read.image
        if picture is not None:
            _draw(picture, pixels, found, categories, min_score)
        height, width = pixels.shape[:2]
        drawn = 0 if picture is None else int((found.scores >= min_score).sum())
        return DetectedFile(path, height, width, picture, drawn, _rows(found, categories))

    def refused(read: ReadFile, error: InputError) -> DetectedFile | UnreadFile:
        return UnreadFile(read.image.path, str(error))

    files = mapped_ahead(partial(read_file, reading=reading), images, workers, AHEAD * workers, processes)
    predictions = predict(
        model,
        ([file] for file in files),
        pixels_of,
        finished,
        refused=refused,
        proposals=None if proposals is None else lambda read, pixels: proposals.of_image(read.image.path, pixels),
        name=lambda read: str(read.image.path),
        threads=threads,
    )
    with closing(files):
        try:
            for batch in predictions:
                yield from batch.results
        except BrokenProcessPool:
            raise InputError(
                "a process that reads images ahead was ended by the system, as it does where memory is short: pass "
                "fewer --workers, or a lower --max-pixels"
            ) from None


def _draw(picture: Path, pixels: Image, found: Detections, categories: Categories, min_score: float) -> None:
    drawn = draw_detections(pixels, found, categories.names, min_score)
    picture.parent.mkdir(parents=True, exist_ok=True)
    with replacing(picture) as temporary:
        temporary.write_bytes(cv2.imencode(".png", drawn)[1].tobytes())


def _rows(found: Detections, categories: Categories) -> list[dict[str, Any]]:
    """COCO's result rows with the names of classes, and without the image's id."""
    results = image_results(0, found, categories.ids)
    rows: list[dict[str, Any]] = [
        {**box, "category_name": categories.classes[label]}
        for label, box in zip(results.classes, results.boxes, strict=True)
    ]
    for row, segm in zip(rows, results.segms or []):
        row["segmentation"] = segm["segmentation"]
    for row, person in zip(rows, results.keypoints or []):
        row["keypoints"] = person["keypoints"]
    for row in rows:
        del row["image_id"]
    return rows


def picture_paths(paths: Sequence[Path], out: Path) -> list[Path]:
    """The picture of each image: named after it, and by its image id too where several have one name."""
    stems = Counter(path.stem for path in paths)
    ids = image_ids(paths)
    names = [path.stem if stems[path.stem] == 1 else f"{path.stem}_{id}" for path, id in zip(paths, ids, strict=True)]
    if len(set(names)) < len(names):  # a_1.png beside a.png and a.jpg
        names = [str(image_id) for image_id in ids]
    return [out / f"{name}_detections.png" for name in names]


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
