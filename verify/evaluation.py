"""Detection over a data set and its AP; answers to Detectron core/test_engine.py:test_net_on_dataset."""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from mrcnn.errors import InputError
from mrcnn.image import read_image
from mrcnn.model import MaskRCNN
from mrcnn.results import BoxRow, ImageResults, SegmRow, coco_results, image_results
from verify.ap import ApSummary, ap_document, score
from verify.coco_files import read_annotations
from verify.image_files import image_files

# Wraps the images to be worked through, to show how far the work is: tqdm, or nothing.
Progress = Callable[[list[int]], Iterable[int]]


@dataclass(frozen=True)
class Evaluation:
    """What a model finds in a data set: COCO result rows in Detectron's order, and their AP."""

    boxes: list[BoxRow]
    segms: list[SegmRow]
    box_ap: ApSummary
    mask_ap: ApSummary


def evaluate(model: MaskRCNN, annotations: Path, images: Path, progress: Progress = iter) -> Evaluation:
    """Detect in every image of an annotation file and score the results.

    Raises InputError before any work where the annotations or images are not as they should be, or where the data
    set has another number of categories than the model has classes.
    """
    coco = read_annotations(annotations)
    check_categories(model, coco, annotations)
    boxes, segms = coco_results(detect_images(model, coco, image_files(coco, images), progress))
    return Evaluation(boxes, segms, score(boxes, coco, "bbox"), score(segms, coco, "segm"))


def detect_images(
    model: MaskRCNN, coco: COCO, files: dict[int, Path], progress: Progress = iter
) -> Iterable[ImageResults]:
    """The results of each image, one at a time, in the order of `files`."""
    category_ids = coco.getCatIds()
    for image_id in progress(list(files)):
        image = read_image(files[image_id])
        expected = (coco.imgs[image_id].get("height"), coco.imgs[image_id].get("width"))
        if None not in expected and image.shape[:2] != expected:
            raise InputError(
                f"{files[image_id]} is {image.shape[0]} x {image.shape[1]} pixels, but the annotations say "
                f"{expected[0]} x {expected[1]} (height x width): it is another picture"
            )
        yield image_results(image_id, model.detect(image), category_ids)


def check_categories(model: MaskRCNN, coco: COCO, annotations: Path) -> None:
    """Class k of a model is category k of the data set, so there must be as many."""
    categories, classes = len(coco.getCatIds()), model.cfg.MODEL.NUM_CLASSES - 1
    if categories != classes:
        raise InputError(
            f"{annotations} has {categories} categories, but the model has {classes} classes besides the background: "
            "give the annotations of the data set the model was trained on"
        )


def write_evaluation(evaluation: Evaluation, name: str, folder: Path) -> dict[str, Any]:
    """Write `bbox.json`, `segm.json` and `ap.json` into a folder; returns what `ap.json` holds.

    Args:
        name: of the data set, the annotation file's stem.
    """
    document = ap_document(name, evaluation.box_ap, evaluation.mask_ap)
    for file, content in (("bbox", evaluation.boxes), ("segm", evaluation.segms), ("ap", document)):
        write_json(folder / f"{file}.json", content)
    return document


def write_json(path: Path, content: object) -> None:
    """Write a JSON file whole or not at all; numbers in full precision."""
    unfinished = path.with_name(f"{path.name}.part")
    try:
        unfinished.write_text(json.dumps(content), encoding="utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
