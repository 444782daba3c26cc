"""Reads thousands of strange and damaged data files and configurations and counts what becomes of them.

Usage: python -m benchmarks.fuzz_data [--seconds 60] [--kinds annotations results yaml pictures] [--seed 0] 2>/dev/null

Annotations, results, configurations and pictures are made and damaged in seeded ways (benchmarks/fuzz_json.py,
fuzz_texts.py, fuzz_pictures.py) and go through what the commands do with them. Each must be read or refused with one
sentence in under 5 seconds. What is read must be what the real readers make of it: `json` with pycocotools (outlines,
boxes, categories and AP), `yaml.safe_load`, `cv2.imread`. Anything else is a finding, printed with its seed and kept.
Exits with 1 if there was one.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")

import cv2
import numpy as np
import pycocotools.mask as coco_mask
import yaml
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks import fuzz_json, fuzz_pictures, fuzz_texts, fuzzing
from benchmarks.fuzzing import Content, Kind
from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.check import check_dataset, report_text
from detectron_gn.mrcnn.data.coco import quiet, read_annotations, read_dataset
from detectron_gn.mrcnn.data.ground_truth import TrainedObjects
from detectron_gn.mrcnn.data.read_image import ImageReading, read_image, read_training_image
from detectron_gn.mrcnn.data.segms import flip_segm, segm_boxes, segm_in_box
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.ap import score, scoring_remarks
from detectron_gn.mrcnn.evaluation.mask_encoding import encode_masks
from detectron_gn.mrcnn.evaluation.results_files import IouType, read_results, results_iou_type
from detectron_gn.port.config.read import dump_config, parse_config, read_config
from detectron_gn.port.config.yaml_loader import load_yaml

_READING = ImageReading(max_pixels=1_000_000)


def read_annotation_files(path: Path) -> Content:
    """What `train`, `check-data` and `score` make of an annotation file; all of them take it or none."""
    dataset = read_dataset(path, path.parent)
    report_text(check_dataset(dataset, Config(), read_images=False, threads=1))
    trained = TrainedObjects(dataset, Config())
    for image in dataset.images:
        objects = trained.of_image(image.place)
        segm_boxes(objects.segms, objects.boxes)
        for box, segm in zip(objects.boxes, objects.segms):
            if image.height * image.width <= _READING.max_pixels:
                segm_in_box(flip_segm(segm, image.width), box, 28)
    try:
        index = read_annotations(path)
    except InputError:
        if dataset.faults:
            raise
        raise AssertionError("refused for scoring and not for training") from None
    assert not dataset.faults, "refused for training and not for scoring"
    rows = _detections(index.dataset)
    list(scoring_remarks(index, rows))
    ap = score(rows, index, "bbox").metrics() if rows else {}
    encode_masks(index)
    return _described(index, ap)


def real_annotations(path: Path) -> Content:
    """What json and pycocotools make of it, of the forms that COCO's own files have."""
    index = _coco(json.loads(path.read_bytes()))
    for annotation in index.dataset["annotations"]:
        if annotation["id"] <= 0:
            raise ValueError("pycocotools takes the id 0 for no match")
        if isinstance(annotation["segmentation"], list) and any(len(each) < 6 for each in annotation["segmentation"]):
            raise ValueError("pycocotools takes a polygon of two points for a box")
    rows = _detections(index.dataset)
    ap = _real_ap(index, rows, "bbox") if rows else {}
    for annotation in index.dataset["annotations"]:
        if annotation["segmentation"]:
            annotation["segmentation"] = index.annToRLE(annotation)
    described = _described(index, ap)
    if any(value is None for values in described.values() if isinstance(values, list) for value in values[:5]):
        raise ValueError("ours takes null for what is left out")
    return described


def read_results_files(path: Path) -> Content:
    """The AP of a results file, as `score` tells it."""
    truth = path.with_name("truth.json")
    if not truth.exists():
        truth.write_text(json.dumps(fuzz_json.fixed_truth()))
    rows = read_results(path)
    iou_type = results_iou_type(rows, str(path))
    return {iou_type: score(path, truth, iou_type).metrics()}


def real_results(path: Path) -> Content:
    """The AP as pycocotools tells it."""
    rows = json.loads(path.read_bytes())
    iou_type: IouType = "segm" if "segmentation" in rows[0] else "bbox"
    return {iou_type: _real_ap(_coco(fuzz_json.fixed_truth()), rows, iou_type)}


def read_configurations(path: Path) -> Content:
    """The values of a configuration; what else is made of it must end in a sentence, and be the same once written."""
    text = path.read_bytes().decode("utf-8", "replace")
    for attempt in (lambda: read_config(path), lambda: parse_config(text, "cfg", saved_in_weights=True)):
        try:
            cfg = attempt()
        except InputError:
            continue
        assert repr(parse_config(dump_config(cfg), "what was written")) == repr(cfg), "it is another once it is written"
    return {"values": repr(load_yaml(text, str(path)).values)}


def real_yaml(path: Path) -> Content:
    """The values as PyYAML's safe loader has them."""
    return {"values": repr(yaml.safe_load(path.read_bytes().decode("utf-8", "replace")))}


def read_pictures(path: Path) -> Content:
    """The pixels of an image file, as all commands but `train` read it; training must end in a sentence, too."""
    try:
        read_training_image(path, _READING)
    except InputError:
        pass
    found = {exif: _pixels(read_image(path, ImageReading(exif, _READING.max_pixels))) for exif in ("apply", "ignore")}
    return dict(found)


def real_pictures(path: Path) -> Content:
    """The pixels that Detectron's own call gives."""
    ignore = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return {"apply": _pixels(cv2.imread(str(path))), "ignore": _pixels(cv2.imread(str(path), ignore))}


KINDS = {
    "annotations": Kind(fuzz_json.annotation_files, read_annotation_files, real_annotations, ".json"),
    "results": Kind(fuzz_json.results_files, read_results_files, real_results, ".json"),
    "yaml": Kind(fuzz_texts.yaml_texts, read_configurations, real_yaml, ".yaml"),
    "pictures": Kind(fuzz_pictures.pictures, read_pictures, real_pictures, ".picture"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    return fuzzing.main(__doc__, KINDS, arguments)


def _coco(content: dict[str, Any]) -> COCO:
    index = COCO()
    index.dataset = content
    with quiet():
        index.createIndex()
    return index


def _detections(dataset: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Detections that are the annotations' own boxes, each a little less certain than the one before."""
    return [
        {
            "image_id": annotation["image_id"],
            "category_id": annotation["category_id"],
            "bbox": annotation["bbox"],
            "score": 1 / number,
        }
        for number, annotation in enumerate(dataset["annotations"], 1)
        if min(annotation["bbox"][2:]) >= 0
    ]


def _real_ap(truth: COCO, rows: list[dict[str, Any]], iou_type: IouType) -> dict[str, float]:
    # Of rows with both shapes it would take the area of the box for that of the mask.
    other = "bbox" if iou_type == "segm" else "segmentation"
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluation = COCOeval(
            truth, truth.loadRes([{key: row[key] for key in row if key != other} for row in rows]), iou_type
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(("AP", "AP50", "AP75", "APs", "APm", "APl"), evaluation.stats[:6].tolist()))


def _described(index: COCO, ap: Mapping[str, float]) -> Content:
    """Images, categories and objects as they are compared."""
    content: Content = {"ap": dict(ap)}
    for number, image in index.imgs.items():
        content[f"image {int(number)}"] = [image["height"], image["width"], image["file_name"]]
    for number, category in index.cats.items():
        content[f"category {int(number)}"] = [category["name"] if category["name"] is None else str(category["name"])]
    for place, annotation in enumerate(index.dataset["annotations"]):
        values = [annotation[key] for key in ("image_id", "category_id", "bbox", "area", "iscrowd")]
        content[f"object {place}"] = [*values, _mask(annotation["segmentation"])]
    return content


def _mask(segmentation: Any) -> Any:
    """Run lengths as size and text; None for those of nothing and for what has none."""
    if not isinstance(segmentation, dict):
        return None
    counts = segmentation["counts"]
    encoded = {**segmentation, "counts": counts.encode() if isinstance(counts, str) else counts}
    return [list(encoded["size"]), encoded["counts"]] if coco_mask.area(encoded) else None


def _pixels(image: np.ndarray) -> list[object]:
    return [image.shape, hashlib.sha256(image.tobytes()).hexdigest()]


if __name__ == "__main__":
    sys.exit(main())
