"""Detection in image files: pictures with boxes, masks and skeletons, and COCO results."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from detectron_gn.mrcnn.data.annotations.json_file import read_annotation_file
from detectron_gn.mrcnn.data.categories import PROPOSALS, Categories, match_categories, numbered
from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.data.image_files import id_in_name
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.data.read_image import AS_IMREAD, ImageReading, read_image
from detectron_gn.mrcnn.detectors import Boxes, Detector, ProposalNetwork
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
        proposals: for a model that takes them. Those of an image are found by the id in its file's name; an image
            without one, or with one that another file has as well, is not detected in.
    """
    model.check_proposals(proposals is not None)
    find = None if proposals is None else _FoundProposals(proposals, paths, model.cfg.TEST.PROPOSAL_LIMIT)
    ids: Sequence[int | None] = image_ids(paths) if find is None else [id_in_name(path) for path in paths]
    for path, image_id, picture in zip(paths, ids, picture_paths(paths, out), strict=True):
        try:
            image = read_image(path, reading)
        except InputError as error:
            yield UnreadFile(path, str(error))
            continue
        try:
            detections = model.detect(image, None if find is None else find.of_image(path, image))
        except InputError as error:  # too narrow to be scaled, or without proposals
            yield UnreadFile(path, f"{path}: {error}")
            continue
        assert image_id is not None  # an image without an id has no proposals
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


class _FoundProposals:
    """The proposals of image files, by the ids in their names; never by their places in the command."""

    def __init__(self, stored: StoredProposals, paths: Sequence[Path], limit: int) -> None:
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
