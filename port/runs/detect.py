"""Detection in image files: pictures with boxes, masks and skeletons, and COCO results."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from detectron_gn.mrcnn.data.annotations.json_file import read_annotation_file
from detectron_gn.mrcnn.data.categories import Categories, match_categories, numbered
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.data.read_image import AS_IMREAD, ImageReading, read_image
from detectron_gn.mrcnn.detectors import Detector, ProposalNetwork
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.coco_results import image_results
from detectron_gn.mrcnn.visualize import draw_detections
from detectron_gn.weights.files.atomic import replacing


def detected_categories(model: Detector, annotations: Path | None) -> Categories:
    """What detections are called: the model's classes, with the category ids of an annotation file where one is given.

    A model whose classes have no names takes those of the annotation file, class k of category k, or is numbered.
    Raises InputError where the categories of the file are not the model's classes.
    """
    if isinstance(model, ProposalNetwork):
        return Categories(("proposal",), (1,))
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
    """What was found in an image file: the picture, how many detections, how many of them drawn, COCO result rows."""

    path: Path
    picture: Path
    found: int
    drawn: int
    rows: list[dict[str, Any]]


class UnreadFile(NamedTuple):
    """An image file in which nothing could be detected, and the sentence that names it and says why."""

    path: Path
    error: str


def detect_in_files(
    model: Detector,
    paths: Sequence[Path],
    categories: Categories,
    out: Path,
    min_score: float,
    reading: ImageReading = AS_IMREAD,
    proposals: StoredProposals | None = None,
) -> Iterator[DetectedFile | UnreadFile]:
    """Detect in each image and draw what scores at least `min_score` into a PNG in `out`; yields as each is done.

    Args:
        proposals: for a model that takes them; images are found in them by the ids of `image_ids`.
    """
    model.check_proposals(proposals is not None)
    limit = model.cfg.TEST.PROPOSAL_LIMIT
    for path, image_id, picture in zip(paths, image_ids(paths), picture_paths(paths, out), strict=True):
        try:
            image = read_image(path, reading)
        except InputError as error:
            yield UnreadFile(path, str(error))
            continue
        try:
            height, width = image.shape[:2]
            given = None if proposals is None else proposals.of_image(image_id, height, width, limit)
            detections = model.detect(image, given)
        except InputError as error:  # too narrow to be scaled, or without proposals
            yield UnreadFile(path, f"{path}: {error}")
            continue
        pixels = draw_detections(image, detections, categories.names, min_score)
        with replacing(picture) as temporary:
            temporary.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        results = image_results(image_id, detections, categories.ids)
        rows: list[dict[str, Any]] = [
            {"file_name": path.name, **box, "category_name": categories.classes[label]}
            for label, box in zip(results.classes, results.boxes, strict=True)
        ]
        for row, segm in zip(rows, results.segms or []):
            row["segmentation"] = segm["segmentation"]
        for row, person in zip(rows, results.keypoints or []):
            row["keypoints"] = person["keypoints"]
        yield DetectedFile(path, picture, len(detections), int((detections.scores >= min_score).sum()), rows)


def picture_paths(paths: Sequence[Path], out: Path) -> list[Path]:
    """The picture of each image: named after it, or by its image id where several have one name."""
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [str(image_id) for image_id in image_ids(paths)]
    return [out / f"{name}_detections.png" for name in names]


def image_ids(paths: Sequence[Path]) -> list[int]:
    """COCO's ids where all files are named by one (`COCO_val2014_000000000139.jpg`), else 1, 2, ..."""
    numbers = [path.stem.rpartition("_")[2] for path in paths]
    if all(number.isdecimal() for number in numbers) and len(set(map(int, numbers))) == len(numbers):
        return [int(number) for number in numbers]
    return list(range(1, len(paths) + 1))
