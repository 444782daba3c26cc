"""The whole promise on the embedded model, which Detectron itself trained: read, convert, run, compare with Caffe2.

The model tells four drawn shapes apart. Its pickle was written under Python 2.7, its results by Detectron on Caffe2.
"""

import json
import lzma
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycocotools.mask
from pycocotools.coco import COCO

from mrcnn.errors import InputError
from mrcnn.image import Image, read_image
from mrcnn.model import MaskRCNN
from mrcnn.visualize import DrawnObject, class_colour, draw_objects
from port.convert import build_model
from port.detectron_yaml import parse_config
from verify.ap import METRICS
from verify.blobs import ImageParity, compare_file, parity_holds, summary_table
from verify.coco_files import ResultRow, read_annotations
from verify.detections import DetectionParity, match_detections, parity_table
from verify.evaluation import Evaluation, Progress, evaluate, no_progress, write_evaluation
from verify.tables import text_table
from weights import read_blobs, write_blobs

BLOB_TOLERANCE = 1e-4
AP_TOLERANCE = 1e-4
PICTURES = 8
SHOWN_SCORE = 0.5


@dataclass(frozen=True)
class DemoOutcome:
    """What the demo found, and whether all of it agrees with Caffe2."""

    blobs: list[ImageParity]
    detections: list[DetectionParity]
    ap: dict[str, dict[str, tuple[float, float]]]
    pictures: list[Path]
    holds: bool


def run_demo(out: Path, say: Callable[[str], None], progress: Progress = no_progress) -> DemoOutcome:
    """Run the demo, telling each step as it is taken; pictures and result files go to `out`.

    Args:
        out: a folder that exists.
        say: is given the lines to show.
        progress: wraps the results as they come.
    """
    with as_file(files("verify") / "demo_model") as folder:
        pickle = out / "model_final.pkl"
        pickle.write_bytes(lzma.decompress((folder / "model_final.pkl.xz").read_bytes()))
        model = _converted(pickle, out / "model.pth", say)

        say("\nBlob by blob against Caffe2, every activation of two images:")
        blobs = list(compare_file(model, folder / "blobs.h5", folder / "val"))
        say(summary_table(blobs))

        say("\nDetecting in the 40 images of the validation set ...")
        evaluation = evaluate(model, folder / "instances_val.json", folder / "val", progress)
        assert evaluation is not None
        write_evaluation(evaluation, "coco_shapes_val", out)
        reference = {kind: _rows(folder / f"{kind}_coco_shapes_val_results.json") for kind in ("bbox", "segmentations")}
        detections = [
            match_detections(evaluation.boxes, reference["bbox"], "bbox"),
            match_detections(evaluation.segms, reference["segmentations"], "segm"),
        ]
        say("\nDetection by detection against the files Detectron wrote:")
        say(parity_table(detections))

        ap = _ap_pairs(evaluation, json.loads((folder / "ap.json").read_text())["coco_shapes_val"])
        say("\nAP by AP:")
        say(_ap_table(ap))
        pictures = _draw_pairs(evaluation, reference, folder, out)

    holds = (
        all(parity_holds(parity, BLOB_TOLERANCE) for parity in blobs)
        and all(parity.holds for parity in detections)
        and all(abs(a - b) <= AP_TOLERANCE for metrics in ap.values() for a, b in metrics.values())
    )
    return DemoOutcome(blobs, detections, ap, pictures, holds)


def _converted(pickle: Path, converted: Path, say: Callable[[str], None]) -> MaskRCNN:
    """Read the pickle, write it as a .pth, and build the model from that."""
    weights = read_blobs(pickle)
    values = sum(array.size for array in weights.blobs.values())
    say(f"{pickle}: {len(weights.blobs)} blobs, {values:,} values, and the configuration it was trained with")
    write_blobs(converted, weights)
    again = read_blobs(converted)
    equal = sum(np.array_equal(array, again.blobs[name]) for name, array in weights.blobs.items())
    say(f"{converted}: {equal} of {len(weights.blobs)} blobs equal to the bit")
    cfg = parse_config(again.cfg or "", f"the configuration in {converted}", saved_in_weights=True)
    return build_model(cfg, again)


def _ap_pairs(evaluation: Evaluation, reference: dict[str, Any]) -> dict[str, dict[str, tuple[float, float]]]:
    """Detectron's number and ours, for boxes and masks and each metric."""
    ours = {"box": evaluation.box_ap.metrics(), "mask": evaluation.mask_ap.metrics()}
    return {
        kind: {metric: (reference[kind][metric], metrics[metric]) for metric in METRICS}
        for kind, metrics in ours.items()
    }


def _ap_table(ap: dict[str, dict[str, tuple[float, float]]]) -> str:
    rows = []
    for kind, metrics in ap.items():
        for place, who in enumerate(("Detectron (Caffe2)", "detectron-gn")):
            rows.append([f"{kind} AP, {who}", *(_percent(metrics[metric][place]) for metric in METRICS)])
    return text_table(["", *METRICS], rows)


def _draw_pairs(evaluation: Evaluation, reference: dict[str, list[ResultRow]], folder: Path, out: Path) -> list[Path]:
    """Pictures of the images with most objects, Detectron's detections on the left, ours on the right."""
    coco = read_annotations(folder / "instances_val.json")
    by_objects = sorted(coco.imgs, key=lambda image_id: (-len(coco.getAnnIds(imgIds=image_id)), image_id))
    sources: dict[str, tuple[Sequence[Any], Sequence[Any]]] = {
        "Detectron (Caffe2)": (reference["bbox"], reference["segmentations"]),
        "detectron-gn": (evaluation.boxes, evaluation.segms),
    }
    paths = []
    for image_id in by_objects[:PICTURES]:
        image = read_image(folder / "val" / coco.imgs[image_id]["file_name"])
        sides = [
            _titled(draw_objects(image, _objects(coco, image_id, boxes, segms)), title)
            for title, (boxes, segms) in sources.items()
        ]
        gap = np.full((len(sides[0]), 12, 3), 255, dtype=np.uint8)
        path = out / f"{image_id}_detectron_and_ours.png"
        if not cv2.imwrite(str(path), np.concatenate([sides[0], gap, sides[1]], axis=1)):
            raise InputError(f"{path} cannot be written: is the disk full?")
        paths.append(path)
    return paths


def _objects(coco: COCO, image_id: int, boxes: Sequence[Any], segms: Sequence[Any]) -> list[DrawnObject]:
    """What to draw of the result rows of one image: those that score at least `SHOWN_SCORE`."""
    category_ids = coco.getCatIds()
    objects = []
    for box, segm in zip(boxes, segms, strict=True):
        if box["image_id"] == image_id and box["score"] >= SHOWN_SCORE:
            x, y, width, height = box["bbox"]
            objects.append(
                DrawnObject(
                    box=(x, y, x + width - 1, y + height - 1),
                    mask=pycocotools.mask.decode(segm["segmentation"]).astype(bool),
                    label=f"{coco.cats[box['category_id']]['name']} {box['score']:.2f}",
                    colour=class_colour(category_ids.index(box["category_id"]) + 1),
                )
            )
    return objects


def _titled(picture: Image, title: str) -> Image:
    """A picture under a white strip with its title."""
    strip = np.full((28, picture.shape[1], 3), 255, dtype=np.uint8)
    cv2.putText(strip, title, (4, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([strip, picture])


def _rows(path: Path) -> list[ResultRow]:
    rows: list[ResultRow] = json.loads(path.read_text())
    return rows


def _percent(value: float) -> str:
    return "-" if value < 0 else f"{100 * value:.4f}"
