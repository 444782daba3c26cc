"""What was found in an image, and COCO's result rows; answers to Detectron datasets/json_dataset_evaluator.py."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from mrcnn.paste import Patch, Rle, paste_boxes, paste_mask, patch_bitmap, patch_rle


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
class Detections:
    """Detections of one image, ordered by class and within it as Detectron orders them.

    Attributes:
        boxes: `[D, 4]` float32, inclusive corners, in the image's own pixels.
        scores: `[D]` float32.
        classes: `[D]` int64, from 1 on; 0 would be the background.
        mask_probs: `[D, M, M]` float32, the soft mask of each detection's own class over its box.
        image_size: (height, width).
        mask_threshold: what a pasted mask's pixels must exceed (`cfg.MRCNN.THRESH_BINARIZE`).
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    mask_probs: npt.NDArray[np.float32]
    image_size: tuple[int, int]
    mask_threshold: float

    def __len__(self) -> int:
        return len(self.scores)

    def patches(self) -> list[Patch]:
        """Each detection's binary mask, cut to the part of the image it can cover."""
        boxes = paste_boxes(self.boxes, self.mask_probs.shape[-1])
        return [
            paste_mask(probabilities, box, self.image_size, self.mask_threshold)
            for probabilities, box in zip(self.mask_probs, boxes, strict=True)
        ]

    def masks(self) -> npt.NDArray[np.bool_]:
        """Binary masks `[D, height, width]` of the whole image."""
        bitmaps = [patch_bitmap(patch, self.image_size) for patch in self.patches()]
        return np.stack(bitmaps) if bitmaps else np.zeros((0, *self.image_size), dtype=bool)

    def rles(self) -> list[Rle]:
        """Binary masks as COCO's compressed run lengths."""
        return [patch_rle(patch, self.image_size) for patch in self.patches()]


@dataclass(frozen=True)
class ImageResults:
    """The rows of one image in COCO's two result files, with the class each row belongs to."""

    image_id: int
    classes: list[int]
    boxes: list[BoxRow]
    segms: list[SegmRow]


def image_results(image_id: int, detections: Detections, category_ids: Sequence[int]) -> ImageResults:
    """The COCO result rows of one image, numbers in full precision.

    Args:
        category_ids: the data set's category id of classes 1, 2, ...

    Widths are computed in float64 from the float32 corners (Detectron datasets/json_dataset_evaluator.py).
    """
    corners = detections.boxes.astype(np.float64)
    boxes = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2] + 1), axis=1).tolist()
    scores = detections.scores.astype(np.float64).tolist()
    classes = detections.classes.tolist()
    categories = [category_ids[label - 1] for label in classes]
    box_rows: list[BoxRow] = [
        {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
        for category, box, score in zip(categories, boxes, scores, strict=True)
    ]
    segm_rows: list[SegmRow] = [
        {"image_id": image_id, "category_id": category, "segmentation": rle, "score": score}
        for category, rle, score in zip(categories, detections.rles(), scores, strict=True)
    ]
    return ImageResults(image_id, classes, box_rows, segm_rows)


def coco_results(images: Iterable[ImageResults]) -> tuple[list[BoxRow], list[SegmRow]]:
    """The rows of all images in the order of Detectron's files: by class, then image id, then detection."""
    rows = [
        (label, image.image_id, place, box, segm)
        for image in images
        for place, (label, box, segm) in enumerate(zip(image.classes, image.boxes, image.segms, strict=True))
    ]
    rows.sort(key=lambda row: row[:3])
    return [row[3] for row in rows], [row[4] for row in rows]
