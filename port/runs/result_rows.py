"""What `detect` puts on record of an image: rows as COCO has them, with the names of classes, and the image's id."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron_gn.mrcnn.data.categories import Categories
from detectron_gn.mrcnn.data.image_files import id_in_name
from detectron_gn.mrcnn.evaluation.coco_results import image_results
from detectron_gn.mrcnn.structures import Detections


def counted(found: Detections, least_score: float | None) -> Detections:
    """The detections that count, the best first."""
    found = found.by_score()
    return found if least_score is None else found.above(least_score)


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


def image_ids(paths: Sequence[str | Path]) -> list[int]:
    """COCO's ids where all files are named by one and no two by the same, else 1, 2, ..."""
    ids = [number for path in paths if (number := id_in_name(path)) is not None]
    return ids if len(set(ids)) == len(paths) else list(range(1, len(paths) + 1))
