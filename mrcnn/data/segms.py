"""Outlines of objects: mirrored, bounded and rasterised; answers to Detectron utils/segms.py."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pycocotools.mask as coco_mask

from detectron_gn.mrcnn.data.coco import Segm
from detectron_gn.mrcnn.data.ground_truth import FloatArray

Mask = npt.NDArray[np.uint8]


def decode_rle(rle: Mapping[str, Any]) -> Mask:
    """A COCO run-length encoding, its counts a list or compressed text, as a `[H, W]` mask of 0 and 1."""
    height, width = rle["size"]
    encoded = coco_mask.frPyObjects(rle, height, width) if isinstance(rle["counts"], list) else rle
    return np.asarray(coco_mask.decode(encoded), dtype=np.uint8)


def flip_segm(segm: Segm, width: int) -> Segm:
    """Mirror an outline left to right in an image `width` pixels wide.

    Polygons go by `width - x - 1`, like inclusive boxes, although their coordinates are continuous
    (Detectron utils/segms.py:flip_segms).
    """
    if isinstance(segm, Mapping):
        encoded: dict[str, Any] = coco_mask.encode(np.asfortranarray(decode_rle(segm)[:, ::-1]))
        return encoded
    flipped = []
    for polygon in segm:
        mirrored = polygon.copy()
        mirrored[0::2] = width - polygon[0::2] - 1
        flipped.append(mirrored)
    return tuple(flipped)


def segm_boxes(segms: Sequence[Segm], fallback: FloatArray) -> FloatArray:
    """The tight box `[G, 4]` float32 around each outline's coordinates (Detectron utils/segms.py:polys_to_boxes).

    Detectron knows only polygons. A run-length encoding is bounded by the edges of its pixels, as its polygon would
    be; an outline of nothing, on which Detectron crashes, takes its row of `fallback [G, 4]`.
    """
    boxes: FloatArray = fallback.copy()
    for box, segm in zip(boxes, segms, strict=True):
        if isinstance(segm, Mapping):
            mask = decode_rle(segm)
            rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
            if len(rows):
                box[:] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        elif segm:
            xs = np.concatenate([polygon[0::2] for polygon in segm])
            ys = np.concatenate([polygon[1::2] for polygon in segm])
            box[:] = xs.min(), ys.min(), xs.max(), ys.max()
    return boxes


def segm_in_box(segm: Segm, box: FloatArray, resolution: int) -> Mask | None:
    """An outline cut to a box and rasterised to `[resolution, resolution]`, 0 and 1; None for an outline of nothing.

    Args:
        segm: the outline, in pixels of the image.
        box: `[4]` float32, same pixels. Its sides are x2 - x1 and y2 - y1, without + 1, and at least 1
            (Detectron utils/segms.py:polys_to_mask_wrt_box, in float32 as there).

    A run-length encoding, which Detectron cannot train on, is sampled at the middle of each cell.
    """
    width, height = np.maximum(box[2:] - box[:2], np.float32(1))
    if isinstance(segm, Mapping):
        mask = decode_rle(segm)
        middle = (np.arange(resolution) + 0.5) / resolution
        columns = np.clip(np.floor(box[0] + middle * width), 0, mask.shape[1] - 1).astype(np.int64)
        rows = np.clip(np.floor(box[1] + middle * height), 0, mask.shape[0] - 1).astype(np.int64)
        sampled: Mask = mask[rows[:, None], columns]
        return sampled
    if not segm:
        return None
    polygons = []
    for polygon in segm:
        scaled = polygon.astype(np.float32)
        scaled[0::2] = (scaled[0::2] - box[0]) * resolution / width
        scaled[1::2] = (scaled[1::2] - box[1]) * resolution / height
        polygons.append(scaled.astype(np.float64))
    encoded = coco_mask.frPyObjects(polygons, resolution, resolution)
    covered: Mask = np.any(coco_mask.decode(encoded), axis=2).astype(np.uint8)
    return covered
