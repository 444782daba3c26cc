"""COCO's result rows; answers to Detectron datasets/json_dataset_evaluator.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from detectron_gn.mrcnn.evaluation.results_files import IouType, ResultRow
from detectron_gn.mrcnn.ops.boxes import xyxy_to_xywh
from detectron_gn.mrcnn.ops.paste import Rle
from detectron_gn.mrcnn.structures import Detections


class BoxRow(TypedDict):
    """One row of a COCO box results file: `bbox` is (x, y, width, height), width = x2 - x1 + 1."""

    image_id: int
    category_id: int
    bbox: list[float]
    score: float


class SegmRow(TypedDict):
    """One row of a COCO mask results file."""

    image_id: int
    category_id: int
    segmentation: Rle
    score: float


@dataclass(frozen=True)
class ImageResults:
    """The rows of one image in COCO's result files, with the class of each row; no masks without a mask head."""

    image_id: int
    classes: list[int]
    boxes: list[BoxRow]
    segms: list[SegmRow] | None


def image_results(image_id: int, detections: Detections, category_ids: Sequence[int]) -> ImageResults:
    """The COCO result rows of one image, numbers in full precision.

    Args:
        category_ids: the data set's category id of classes 1, 2, ...

    Widths are computed in float64 from the float32 corners (Detectron datasets/json_dataset_evaluator.py).
    """
    corners = detections.boxes.astype(np.float64)
    boxes = xyxy_to_xywh(corners).tolist()
    scores = detections.scores.astype(np.float64).tolist()
    classes = detections.classes.tolist()
    categories = [category_ids[label - 1] for label in classes]
    box_rows: list[BoxRow] = [
        {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
        for category, box, score in zip(categories, boxes, scores, strict=True)
    ]
    if detections.mask_probs is None:
        return ImageResults(image_id, classes, box_rows, None)
    segm_rows: list[SegmRow] = [
        {"image_id": image_id, "category_id": category, "segmentation": rle, "score": score}
        for category, rle, score in zip(categories, detections.rles(), scores, strict=True)
    ]
    return ImageResults(image_id, classes, box_rows, segm_rows)


def coco_results(images: Sequence[ImageResults], *, with_masks: bool) -> dict[IouType, list[ResultRow]]:
    """The rows of all images in the order of Detectron's files: by class, then image id, then detection.

    Args:
        with_masks: whether the model has a mask head. A data set without images does not show it.
    """
    order = [(image, place) for image in images for place in range(len(image.classes))]
    order.sort(key=lambda row: (row[0].classes[row[1]], row[0].image_id, row[1]))
    rows: dict[IouType, list[ResultRow]] = {"bbox": [dict(image.boxes[place]) for image, place in order]}
    if with_masks:
        rows["segm"] = [dict(image.segms[place]) for image, place in order if image.segms is not None]
    return rows
