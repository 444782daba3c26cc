"""The detections of a reference file and ours on the same images, as two COCO result files would hold them."""

import contextlib
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pycocotools.coco import COCO

from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.data.read_image import AS_IMREAD, ImageReading
from detectron_gn.mrcnn.detectors import Boxes, Detector
from detectron_gn.mrcnn.evaluation.coco_results import image_results
from detectron_gn.mrcnn.evaluation.results_files import ResultRow
from detectron_gn.mrcnn.inference.predict import predict
from detectron_gn.mrcnn.ops.boxes import xyxy_to_xywh
from detectron_gn.mrcnn.ops.keypoints import KEYPOINT_NAMES
from detectron_gn.verify.reference.image_dump import ImageReference, read_references


class DumpResults(NamedTuple):
    """Result rows of both sides.

    Attributes:
        coco: the images and classes as a data set without annotations; the class's number is the category's id.
        files: the image files by image id.
        boxes, segms, keypoints: our rows, in one order; None without a head for them.
        reference_boxes, reference_segms, reference_keypoints: the reference's.
    """

    coco: COCO
    files: dict[int, Path]
    boxes: list[ResultRow]
    segms: list[ResultRow] | None
    keypoints: list[ResultRow] | None
    reference_boxes: list[ResultRow]
    reference_segms: list[ResultRow] | None
    reference_keypoints: list[ResultRow] | None


def dump_results(
    model: Detector, reference: Path, images: Path, reading: ImageReading = AS_IMREAD
) -> DumpResults:
    """Detect in the images of a reference that `parity.blobs` has looked through, and read what it found there."""
    with torch.inference_mode(), model.without_augmentation():
        return _dump_results(model, reference, images, reading)


def _dump_results(model: Detector, reference: Path, images: Path, reading: ImageReading) -> DumpResults:
    numbers = range(1, model.cfg.MODEL.NUM_CLASSES)
    made = model.cfg.MODEL
    # Those of other keypoints than a person's have no similarity, so nobody compares them.
    has_people = made.KEYPOINTS_ON and model.cfg.KRCNN.NUM_KEYPOINTS == len(KEYPOINT_NAMES)

    def rows(is_on: bool) -> list[ResultRow] | None:
        return [] if is_on else None

    found = DumpResults(COCO(), {}, [], rows(made.MASK_ON), rows(has_people), [], rows(made.MASK_ON), rows(has_people))
    shown = []
    references = ([numbered] for numbered in enumerate(read_references(reference, images, model.cfg, reading), 1))
    for done in predict(
        model,
        references,
        lambda numbered: numbered[1].image,
        lambda numbered, _, detections: image_results(numbered[0], detections, numbers),
        proposals=_given_proposals if model.takes_proposals else None,
        name=lambda numbered: numbered[1].name,
    ):
        ((image_id, theirs),), (ours,) = done.items, done.results
        height, width = theirs.image_size
        found.files[image_id] = images / theirs.name
        shown.append({"id": image_id, "file_name": theirs.name, "height": height, "width": width})
        found.boxes.extend(map(dict, ours.boxes))
        if found.segms is not None:
            found.segms.extend(map(dict, ours.segms or []))
        if found.keypoints is not None:
            found.keypoints.extend(map(dict, ours.keypoints or []))
        _add_reference(found, image_id, theirs)
    found.coco.dataset = {
        "images": shown,
        "annotations": [],
        "categories": [{"id": number, "name": f"class {number}"} for number in numbers],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        found.coco.createIndex()
    return found


def _given_proposals(numbered: tuple[int, ImageReference], _image: Image) -> Boxes:
    """Those that went into the reference's run, which is what the rungs before compared with."""
    proposals = numbered[1].proposals
    assert proposals is not None
    return proposals


def _add_reference(found: DumpResults, image_id: int, theirs: ImageReference) -> None:
    """Add the rows of one image; its boxes are corners, whose widths count both."""
    corners = theirs.det_boxes.astype(np.float64)
    boxes = xyxy_to_xywh(corners).tolist()
    scores, classes = theirs.det_scores.astype(float).tolist(), theirs.det_classes.tolist()
    rows = [{"image_id": image_id, "category_id": c, "score": s} for c, s in zip(classes, scores, strict=True)]
    found.reference_boxes.extend({**row, "bbox": box} for row, box in zip(rows, boxes, strict=True))
    if theirs.keypoints is not None and found.reference_keypoints is not None:
        for row, points in zip(rows, theirs.keypoints.astype(float), strict=True):
            triples = np.stack([points[0], points[1], np.ones_like(points[0])], axis=1)
            found.reference_keypoints.append({**row, "keypoints": triples.ravel().tolist()})
    if theirs.masks is not None and found.reference_segms is not None:
        masks = [{"size": list(theirs.image_size), "counts": counts} for counts in theirs.rle_counts]
        found.reference_segms.extend({**row, "segmentation": m} for row, m in zip(rows, masks, strict=True))
