"""What detectron2 finds with a `.pkl` that `convert` wrote, beside what we find, which is what Detectron finds.

`python -m benchmarks.detectron2_files SOURCE --images DIR`, for Faster and Mask R-CNN with a feature pyramid. The first
row has the keys without which detectron2 reads the file wrongly, each further one adds one thing to the row before:
first keys of its configuration, then lines of Python that no key stands for. Detections of one class are partners where
their boxes overlap by half. With `--annotations`, detectron2's AP of boxes and masks stands beside.
"""

import argparse
import contextlib
import importlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pycocotools.mask import encode

import detectron_gn
from benchmarks.detectron2_peer import HOW_TO_GET, available, peer_config_of
from benchmarks.help_text import FoldedHelp
from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.image_blob import Image, image_scale, prepare_image
from detectron_gn.mrcnn.ops.anchors import pyramid_anchors
from detectron_gn.mrcnn.ops.pairs import pair_one_to_one
from detectron_gn.mrcnn.structures import Detections
from detectron_gn.mrcnn.tables import text_table
from detectron_gn.port.runs.load import load_model

CHANGES = ("needed", "RoIAlign", "anchors' offset", "anchors", "image", "RoIs", "boxes")
MEANING = {
    "needed": "shape of the network, norms, strides, mean, thresholds",
    "RoIAlign": "POOLER_TYPE ROIAlign of both heads",
    "anchors' offset": "ANCHOR_GENERATOR.OFFSET 0.5",
    "anchors": "Python: Detectron's rounded anchors",
    "image": "Python: images resized by Detectron's arithmetic",
    "RoIs": "Python: RoIs end a pixel earlier, at inclusive corners",
    "boxes": "Python: boxes end so, too, before they are scaled back",
}


def main() -> int:
    """Print a row for each change."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=FoldedHelp)
    parser.add_argument("source", help="a model id or a file, with its configuration inside")
    parser.add_argument("--images", type=Path, required=True, help="a folder")
    parser.add_argument("--limit", type=int, default=40, help="the first N images (default 40)")
    parser.add_argument("--annotations", type=Path, help="COCO annotations of the folder, category k for class k")
    parser.add_argument("--json", type=Path, help="write the rows here")
    args = parser.parse_args()
    if not available():
        parser.error(HOW_TO_GET)
    read = {path.name: cv2.imread(str(path)) for path in sorted(args.images.iterdir())[: args.limit]}
    images = {name: image for name, image in read.items() if image is not None}
    ours = load_model(args.source, device="cpu")
    found = [ours.detect(image) for image in images.values()]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model_final.pkl"
        with contextlib.redirect_stdout(io.StringIO()):
            if detectron_gn.main(["convert", args.source, "--out", str(file)]):
                return 2
        rows = [
            compared(ours.cfg, file, images, found, CHANGES[: number + 1], args.annotations)
            for number in range(len(CHANGES))
        ]
    header = ["and with", "ours", "theirs", "partners", "median corner", "largest", "median score", "mask IoU", "AP"]
    cells = [[row["change"], *(str(row[key]) for key in ("ours", "theirs", "partners")),
              *(f"{row[key]:.3g}" for key in ("corner", "largest_corner", "score")),
              "-" if row["mask_iou"] is None else f"{row['mask_iou']:.3f}",
              ", ".join(f"{ap:.3f}" for ap in row["ap"])] for row in rows]  # fmt: skip
    print(text_table(header, cells))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    return 0


def compared(
    cfg: Config,
    file: Path,
    images: dict[str, Image],
    found: list[Detections],
    changes: tuple[str, ...],
    annotations: Path | None,
) -> dict[str, Any]:
    """How far detectron2's detections are from ours, with some changes made to it."""
    model = network(cfg, file, changes)
    corners, scores, overlaps = [], [], []
    counts = [0, 0]
    of_detectron2 = {}
    for (name, image), own in zip(images.items(), found, strict=True):
        theirs = of_detectron2[name] = detected(model, cfg, image, "image" in changes)
        # Their corners are edges, ours are pixels: of the image, or of the image as the network sees it.
        scale = image_scale(*image.shape[:2], cfg.TEST.SCALE, cfg.TEST.MAX_SIZE) if "boxes" in changes else 1.0
        boxes = theirs.pred_boxes.tensor.numpy() - np.array([0, 0, 1 / scale, 1 / scale], np.float32)
        classes = theirs.pred_classes.numpy() + 1
        counts = [counts[0] + len(own), counts[1] + len(boxes)]
        overlap = _overlap(own.boxes, boxes)
        pairs = pair_one_to_one((overlap >= 0.5) & (own.classes[:, None] == classes), -overlap)
        corners += list(np.abs(own.boxes[pairs[:, 0]] - boxes[pairs[:, 1]]).max(axis=1, initial=0))
        scores += list(np.abs(own.scores[pairs[:, 0]] - theirs.scores.numpy()[pairs[:, 1]]))
        if own.mask_probs is not None:
            masks = own.masks()
            overlaps += [_mask_iou(masks[a], theirs.pred_masks[b].numpy()) for a, b in pairs]
    return {
        "change": MEANING[changes[-1]],
        "ours": counts[0],
        "theirs": counts[1],
        "partners": len(corners),
        "corner": float(np.median(corners)),
        "largest_corner": float(np.max(corners)),
        "score": float(np.median(scores)),
        "mask_iou": float(np.mean(overlaps)) if overlaps else None,
        "ap": [] if annotations is None else average_precisions(annotations, of_detectron2),
    }


def average_precisions(annotations: Path, instances: dict[str, Any]) -> list[float]:
    """AP of boxes, and of masks where there are any, of detectron2's instances by the name of their image."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        categories = sorted(truth.getCatIds())
        ids = {image["file_name"]: image["id"] for image in truth.dataset["images"]}
        rows = []
        for name, each in instances.items():
            edges, scores, classes = (getattr(each, field) for field in ("pred_boxes", "scores", "pred_classes"))
            corners = edges.tensor.numpy().astype(float)
            for place, (x1, y1, x2, y2) in enumerate(corners.tolist()):
                row = {"image_id": ids[name], "category_id": categories[classes[place]], "score": float(scores[place])}
                row["bbox"] = [x1, y1, x2 - x1, y2 - y1]
                if each.has("pred_masks"):
                    row["segmentation"] = encode(np.asfortranarray(each.pred_masks[place].numpy().astype(np.uint8)))
                rows.append(row)
        found = []
        for kind in ("bbox", "segm")[: 1 + ("segmentation" in rows[0])]:
            # loadRes takes the areas of boxes where there are boxes.
            kept = [{key: row[key] for key in row if key != "bbox" or kind == "bbox"} for row in rows]
            evaluation = COCOeval(truth, truth.loadRes(kept), kind)
            evaluation.params.imgIds = [ids[name] for name in instances]
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            found.append(float(evaluation.stats[0]))
    return found


def network(cfg: Config, file: Path, changes: tuple[str, ...]) -> Any:
    """detectron2's network with the weights of a file; SystemExit where it leaves one of its own unfilled."""
    peer = peer_config_of(cfg)
    if "RoIAlign" in changes:
        peer.MODEL.ROI_BOX_HEAD.POOLER_TYPE = peer.MODEL.ROI_MASK_HEAD.POOLER_TYPE = "ROIAlign"
    if "anchors' offset" in changes:
        peer.MODEL.ANCHOR_GENERATOR.OFFSET = 0.5
    peer.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS = cfg.MODEL.BBOX_REG_WEIGHTS
    group_norm = torch.nn.GroupNorm
    # Its GN always has 32 groups.
    with mock.patch.object(torch.nn, "GroupNorm", lambda _, channels: group_norm(cfg.GROUP_NORM.NUM_GROUPS, channels)):
        model = importlib.import_module("detectron2.modeling").build_model(peer).eval()
    checkpointer = importlib.import_module("detectron2.checkpoint").DetectionCheckpointer(model)
    incompatible = checkpointer._load_model(checkpointer._load_file(str(file)))
    if incompatible.missing_keys:
        raise SystemExit(f"detectron2 found nothing for {incompatible.missing_keys}")
    if "anchors" in changes:
        generator = model.proposal_generator.anchor_generator
        generator.offset = 0.0
        for cell, anchors in zip(generator.cell_anchors, pyramid_anchors(cfg), strict=True):
            cell.copy_(anchors + torch.tensor([0.0, 0.0, 1.0, 1.0]))
    if "RoIs" in changes:
        for name in ("box_pooler", "mask_pooler"):
            if hasattr(model.roi_heads, name):
                getattr(model.roi_heads, name).register_forward_pre_hook(_with_inclusive_corners)
    return model


@torch.no_grad()
def detected(model: Any, cfg: Config, image: Image, as_detectron: bool) -> Any:
    """detectron2's instances in an image, resized as its predictor does or as Detectron does."""
    size, most = cfg.TEST.SCALE, cfg.TEST.MAX_SIZE
    if as_detectron:
        pixels = prepare_image(image, cfg.PIXEL_MEANS, size, most).pixels + np.array(cfg.PIXEL_MEANS, np.float32)
    else:
        resize = importlib.import_module("detectron2.data.transforms").ResizeShortestEdge([size, size], most)
        pixels = resize.get_transform(image).apply_image(image).astype(np.float32)
    tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return model([{"image": tensor, "height": image.shape[0], "width": image.shape[1]}])[0]["instances"]


def _with_inclusive_corners(_pooler: Any, inputs: tuple[Any, Any]) -> tuple[Any, Any]:
    maps, lists = inputs
    boxes = importlib.import_module("detectron2.structures").Boxes
    return maps, [boxes(each.tensor - torch.tensor([0.0, 0.0, 1.0, 1.0])) for each in lists]


def _overlap(boxes: Any, others: Any) -> Any:
    """IoU `[N, M]` of boxes with inclusive corners."""
    corner = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - np.maximum(boxes[:, None, :2], others[None, :, :2])
    both = np.prod(np.maximum(corner + 1, 0), axis=2)
    areas = [np.prod(each[:, 2:] - each[:, :2] + 1, axis=1) for each in (boxes, others)]
    return both / (areas[0][:, None] + areas[1][None] - both)


def _mask_iou(mask: Any, other: Any) -> float:
    either = np.count_nonzero(mask | other)
    return np.count_nonzero(mask & other) / either if either else 1.0


if __name__ == "__main__":
    sys.exit(main())
