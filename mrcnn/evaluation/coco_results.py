"""COCO's result rows; answers to Detectron datasets/json_dataset_evaluator.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from detectron_gn.mrcnn.evaluation.result_columns import ResultColumns
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


def result_columns(
    category_ids: Sequence[int], *, with_masks: bool, with_keypoints: bool = False
) -> dict[IouType, ResultColumns]:
    """Columns for the rows of images, which `add_image` fills.

    Args:
        category_ids: of classes 1, 2, ...
        with_masks, with_keypoints: whether the model has a head for them. A data set without images does not show it.
    """
    has: dict[IouType, bool] = {"bbox": True, "segm": with_masks, "keypoints": with_keypoints}
    return {iou_type: ResultColumns(iou_type, category_ids) for iou_type, wanted in has.items() if wanted}


def add_image(columns: Mapping[IouType, ResultColumns], image: ImageResults) -> None:
    """Add the rows of an image."""
    rows: dict[IouType, Sequence[ResultRow] | None] = {
        "bbox": image.boxes, "segm": image.segms, "keypoints": image.keypoints,
    }  # fmt: skip
    for iou_type, own in columns.items():
        own.extend(rows[iou_type] or ())


def coco_results(
    images: Sequence[ImageResults], *, with_masks: bool, with_keypoints: bool = False
) -> dict[IouType, ResultColumns]:
    """The rows of all images in the order of Detectron's files: by class, then image id, then detection.

    Args:
        with_masks, with_keypoints: as in `result_columns`.
    """
    classes: dict[int, int] = {}
    for image in images:
        classes |= {row["category_id"]: label for label, row in zip(image.classes, image.boxes, strict=True)}
    in_order = sorted(classes, key=classes.__getitem__)
    columns = result_columns(in_order, with_masks=with_masks, with_keypoints=with_keypoints)
    for image in images:
        add_image(columns, image)
    return {iou_type: own.sorted_rows() for iou_type, own in columns.items()}
