"""How many objects proposals cover; answers to Detectron datasets/json_dataset_evaluator.py:evaluate_box_proposals."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from pycocotools.coco import COCO

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.objects import are_trained, clean_boxes
from detectron_gn.mrcnn.data.proposals_file import usable_proposals
from detectron_gn.mrcnn.ops.boxes import box_overlaps
from detectron_gn.mrcnn.tables import text_table
from detectron_gn.mrcnn.wording import percent

Boxes = npt.NDArray[np.float32]

# Areas of objects in pixels, as the annotations give them; both ends belong to a range.
AREAS = {"": (0.0, 1e10), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}
LIMITS = (100, 1000)
# The number that papers print, and what ap.json calls the proposals that it is of.
RECALL_MEASURED = "AR@1000"
RECALL_JSON_KEY = "proposal"
THRESHOLDS = np.arange(0.5, 0.95 + 1e-5, 0.05)


def proposal_recall(proposals: Mapping[int, Boxes], coco: COCO, cfg: Config) -> dict[str, float]:
    """Average recall over IoU 0.50:0.05:0.95 of the first 100 and 1000 proposals of an image: `AR@100`, `ARs@100`, ...

    Args:
        proposals: by image id, `[R, 4]` in image pixels, best first, as an RPN gives them.
        coco: the data set, whose images have sizes.

    Proposals are clipped, those that are the same to the pixel count once, and small ones are left out, as where they
    are read from a file. Crowds are no objects. With `cfg.TEST.CLASS_SPECIFIC_AR` it is the mean over classes. -1 where
    there is no object.
    """
    objects = {image_id: _objects(coco, image_id, cfg) for image_id in sorted(coco.imgs)}
    usable = {
        image_id: usable_proposals(proposals[image_id], coco.imgs[image_id]["height"], coco.imgs[image_id]["width"], 0)
        for image_id in objects
    }
    return {
        f"AR{suffix}@{limit}": _recall(usable, objects, limit, area, cfg.TEST.CLASS_SPECIFIC_AR)
        for limit in LIMITS
        for suffix, area in AREAS.items()
    }


def recall_document(name: str, recall: Mapping[str, float]) -> dict[str, object]:
    """What ap.json holds of the recall of proposals for the data set `name`, the annotation file's stem."""
    return {name: {RECALL_JSON_KEY: dict(recall)}}


def recall_table(recall: Mapping[str, float]) -> str:
    """The eight numbers in percent, a row per number of proposals."""
    names = [f"AR{suffix}" for suffix in AREAS]
    rows = [[f"{limit} proposals", *(percent(recall[f"{name}@{limit}"]) for name in names)] for limit in LIMITS]
    return text_table(["", *names], rows)


def _objects(coco: COCO, image_id: int, cfg: Config) -> tuple[Boxes, npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Boxes `[G, 4]`, areas `[G]` and categories `[G]` of the objects of an image."""
    image = coco.imgs[image_id]
    objects = [annotation for annotation in coco.imgToAnns[image_id] if not annotation["iscrowd"]]
    boxes = np.array([each["bbox"] for each in objects], np.float64).reshape(-1, 4)
    boxes = clean_boxes(boxes, *(np.full(len(objects), size) for size in (image["height"], image["width"])))
    areas = np.array([each["area"] for each in objects], np.float64)
    kept = are_trained(boxes, areas, np.array([each.get("ignore", 0) == 1 for each in objects], np.bool_), cfg)
    categories = np.array([each["category_id"] for each in objects], np.int64)
    return boxes[kept].astype(np.float32), areas[kept].astype(np.float32), categories[kept]


def _recall(
    proposals: Mapping[int, Boxes],
    objects: Mapping[int, tuple[Boxes, npt.NDArray[np.float32], npt.NDArray[np.int64]]],
    limit: int,
    area: tuple[float, float],
    by_class: bool,
) -> float:
    found, classes = [np.zeros(0)], [np.zeros(0, np.int64)]
    for image_id, (boxes, areas, categories) in objects.items():
        inside = (areas >= area[0]) & (areas <= area[1])
        found.append(_covered(proposals[image_id][:limit], boxes[inside]))
        classes.append(categories[inside])
    overlaps, labels = np.concatenate(found), np.concatenate(classes)
    if not len(overlaps):
        return -1.0
    groups = [overlaps[labels == label] for label in np.unique(labels)] if by_class else [overlaps]
    recalls = [[(group >= threshold).sum() / float(len(group)) for threshold in THRESHOLDS] for group in groups]
    return float(np.array(recalls).mean(axis=1).mean())


def _covered(proposals: Boxes, objects: Boxes) -> npt.NDArray[np.float64]:
    """How far each of `[G, 4]` objects is covered by a proposal of its own, the best pair first.

    In the order in which they are paired; 0 for objects that none is left for.
    """
    covered = np.zeros(len(objects))
    if not len(proposals) or not len(objects):
        return covered
    overlaps = box_overlaps(torch.from_numpy(proposals), torch.from_numpy(objects)).numpy().copy()
    for number in range(min(overlaps.shape)):
        best_of_objects = overlaps.max(axis=0)
        chosen = best_of_objects.argmax()
        covered[number] = best_of_objects[chosen]
        overlaps[overlaps[:, chosen].argmax()] = -1
        overlaps[:, chosen] = -1
    return covered
