"""The detections of a reference file and ours on the same images, as two COCO result files would hold them."""

import contextlib
import io
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from pycocotools.coco import COCO

from mrcnn.image import read_image
from mrcnn.model import MaskRCNN
from mrcnn.results import image_results
from verify.coco_files import ResultRow


class DumpResults(NamedTuple):
    """Result rows of both sides.

    Attributes:
        coco: the images and classes as a data set without annotations; the class's number is the category's id.
        files: the image files by image id.
        boxes, segms, reference_boxes, reference_segms: rows, those of a side in one order.
    """

    coco: COCO
    files: dict[int, Path]
    boxes: list[ResultRow]
    segms: list[ResultRow]
    reference_boxes: list[ResultRow]
    reference_segms: list[ResultRow]


@torch.inference_mode()
def dump_results(model: MaskRCNN, reference: Path, images: Path) -> DumpResults:
    """Detect in the images of a reference that `verify.blobs` has looked through, and read what it found there."""
    numbers = range(1, model.cfg.MODEL.NUM_CLASSES)
    found = DumpResults(COCO(), {}, [], [], [], [])
    shown = []
    with h5py.File(reference) as file:
        groups = {name: group for name, group in file.items() if isinstance(group, h5py.Group) and "det_boxes" in group}
        for image_id, (name, group) in enumerate(groups.items(), 1):
            image = read_image(images / name)
            size = (image.shape[0], image.shape[1])
            found.files[image_id] = images / name
            shown.append({"id": image_id, "file_name": name, "height": size[0], "width": size[1]})
            ours = image_results(image_id, model.detect(image), numbers)
            found.boxes.extend(map(dict, ours.boxes))
            found.segms.extend(map(dict, ours.segms))
            _add_reference(found, image_id, group, size)
    found.coco.dataset = {
        "images": shown,
        "annotations": [],
        "categories": [{"id": number, "name": f"class {number}"} for number in numbers],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        found.coco.createIndex()
    return found


def _add_reference(found: DumpResults, image_id: int, group: h5py.Group, size: tuple[int, int]) -> None:
    """Add the rows of one group; its boxes are corners, whose widths count both."""
    corners = np.asarray(group["det_boxes"][:], dtype=np.float64).reshape(-1, 4)
    boxes = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2] + 1), axis=1).tolist()
    scores, classes = group["det_scores"][:].astype(float).tolist(), group["det_classes"][:].tolist()
    for box, score, label, counts in zip(boxes, scores, classes, group["rle_counts"][:].tolist(), strict=True):
        row = {"image_id": image_id, "category_id": int(label), "score": score}
        text = counts.decode("ascii") if isinstance(counts, bytes) else str(counts)
        found.reference_boxes.append({**row, "bbox": box})
        found.reference_segms.append({**row, "segmentation": {"size": list(size), "counts": text}})
