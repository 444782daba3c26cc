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


class KeypointRow(TypedDict):
    """One row of a COCO keypoint results file: `keypoints` is x, y and 1 for each, of a person 17."""

    image_id: int
    category_id: int
    keypoints: list[float]
    score: float


@dataclass(frozen=True)
class ImageResults:
    """The rows of one image in COCO's result files, with the class of each row.

    There are no masks without a mask head, and no keypoints without a keypoint head.
    """

    image_id: int
    classes: list[int]
    boxes: list[BoxRow]
    segms: list[SegmRow] | None
    keypoints: list[KeypointRow] | None = None


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
    segm_rows: list[SegmRow] | None = None
    if detections.mask_probs is not None:
        segm_rows = [
            {"image_id": image_id, "category_id": category, "segmentation": rle, "score": score}
            for category, rle, score in zip(categories, detections.rles(), scores, strict=True)
        ]
    return ImageResults(image_id, classes, box_rows, segm_rows, keypoint_rows(image_id, detections, categories))


def keypoint_rows(image_id: int, detections: Detections, categories: Sequence[int]) -> list[KeypointRow] | None:
    """The keypoint rows of one image, one per detection; None without a keypoint head.

    Args:
        categories: the category id of each detection.
    """
    if detections.keypoints is None:
        return None
    scores = detections.keypoint_scores().tolist()
    rows: list[KeypointRow] = []
    for category, (xs, ys), score in zip(categories, detections.keypoints[:, :2].tolist(), scores, strict=True):
        points = [number for x, y in zip(xs, ys, strict=True) for number in (x, y, 1)]
        rows.append({"image_id": image_id, "category_id": category, "keypoints": points, "score": score})
    return rows


def coco_results(
    images: Sequence[ImageResults], *, with_masks: bool, with_keypoints: bool = False
) -> dict[IouType, list[ResultRow]]:
    """The rows of all images in the order of Detectron's files: by class, then image id, then detection.

    Args:
        with_masks, with_keypoints: whether the model has a head for them. A data set without images does not show it.
    """
    order = [(image, place) for image in images for place in range(len(image.classes))]
    order.sort(key=lambda row: (row[0].classes[row[1]], row[0].image_id, row[1]))
    rows: dict[IouType, list[ResultRow]] = {"bbox": [dict(image.boxes[place]) for image, place in order]}
    if with_masks:
        rows["segm"] = [dict(image.segms[place]) for image, place in order if image.segms is not None]
    if with_keypoints:
        rows["keypoints"] = [dict(image.keypoints[place]) for image, place in order if image.keypoints is not None]
    return rows
