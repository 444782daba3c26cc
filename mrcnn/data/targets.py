"""A minibatch of images and targets that a caller has in memory, as torchvision's detectors take them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pycocotools.mask
import torch

from detectron_gn.mrcnn.config import Config, padding_stride, takes_proposals
from detectron_gn.mrcnn.data.any_image import AnyImage, as_image
from detectron_gn.mrcnn.data.coco import Segm
from detectron_gn.mrcnn.data.ground_truth import GroundTruth
from detectron_gn.mrcnn.data.image_blob import image_blob, prepare_image
from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.data.proposal_matches import MatchedProposals, match_stored_proposals
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.ops.proposals import ImInfo

Target = Mapping[str, Any]


def minibatch_of(images: Sequence[AnyImage], targets: Sequence[Target], cfg: Config) -> Minibatch:
    """Images, scaled and padded for training as files are, with their objects.

    The short side becomes one of `cfg.TRAIN.SCALES`, drawn from torch's own generator; nothing is mirrored.

    Args:
        images: in any form of `as_image`.
        targets: of each image a dictionary:

            - `boxes`: `[G, 4]`, (x1, y1, x2, y2) in pixels of the image. Corners are inclusive, as in `Detections` and
              in Detectron: torchvision's and detectron2's `x2`, `y2` are larger by one.
            - `labels`: `[G]` whole numbers, from 1 to the number of classes.
            - `masks`, for a model with a mask head: `[G, H, W]` of zeros and others, or of each object its COCO
              `segmentation`, polygons or run lengths.
            - `iscrowd`: `[G]`, left out where there is no crowd.
            - `keypoints`, for a model with a keypoint head: `[G, K, 3]`, x, y and a visibility above 0 of each keypoint
              that is trained on; a person's 17 in COCO's order.
            - `proposals`, for a model without an RPN: `[P, 4]`, inclusive corners in pixels of the image.

    Raises InputError, naming the image and the key, for targets that are not so, and for images without an object.
    """
    if len(images) != len(targets):
        raise InputError(f"{len(images)} images and {len(targets)} targets: give one for each")
    if not images:
        raise InputError("there are no images to train on")
    pixels, im_info, objects = [], [], []
    proposals: list[MatchedProposals] = []
    drawn = torch.randint(len(cfg.TRAIN.SCALES), (len(images),)).tolist()
    for number, (given, target, scale) in enumerate(zip(images, targets, drawn, strict=True)):
        image = as_image(given)
        height, width = image.shape[:2]
        prepared = prepare_image(image, cfg.PIXEL_MEANS, cfg.TRAIN.SCALES[scale], cfg.TRAIN.MAX_SIZE)
        pixels.append(prepared.pixels)
        scaled_height, scaled_width = (float(np.round(side * prepared.scale)) for side in (height, width))
        im_info.append(ImInfo(scaled_height, scaled_width, prepared.scale))
        reader = _Reader(target, f"targets[{number}]", height, width, cfg)
        objects.append(reader.read())
        if takes_proposals(cfg):
            found, stored = objects[-1], reader.read_proposals()
            proposals.append(match_stored_proposals(stored, found.boxes, found.is_crowd, height, width, cfg))
    names = [f"images[{number}]" for number in range(len(images))]
    data = image_blob(pixels, padding_stride(cfg))
    return Minibatch(0, data, im_info, objects, names, proposals=proposals or None)


class _Reader:
    """Takes the parts of one target, each of them checked."""

    def __init__(self, target: Target, name: str, height: int, width: int, cfg: Config) -> None:
        self._target, self._name, self._size, self._cfg = target, name, (height, width), cfg

    def read(self) -> GroundTruth:
        boxes = self._array("boxes", np.float32)
        if boxes.ndim != 2 or boxes.shape[1:] != (4,) or not len(boxes):
            raise self._fault("boxes", f"is {list(boxes.shape)}, not [G, 4] with at least one object")
        height, width = self._size
        if not np.isfinite(boxes).all() or (boxes[:, 2:] < boxes[:, :2]).any():
            raise self._fault("boxes", "holds a box whose corners are not in order, or are not finite")
        if boxes.min() < 0 or boxes[:, 2].max() > width - 1 or boxes[:, 3].max() > height - 1:
            raise self._fault("boxes", f"reaches beyond the image, whose last pixel is ({width - 1}, {height - 1})")
        labels = self._array("labels", np.int64, len(boxes))
        most = self._cfg.MODEL.NUM_CLASSES - 1
        if labels.min() < 1 or labels.max() > most:
            raise self._fault("labels", f"holds {labels.min()} to {labels.max()}, but the classes are 1 to {most}")
        crowd = np.zeros(len(boxes), bool)
        if "iscrowd" in self._target:
            crowd = self._array("iscrowd", np.bool_, len(boxes))
        if crowd.all():
            raise self._fault("iscrowd", "calls every object a crowd, so that there is none to train on")
        return GroundTruth(boxes, labels, crowd, self._outlines(len(boxes)), self._keypoints(len(boxes)))

    def read_proposals(self) -> npt.NDArray[np.float32]:
        if "proposals" not in self._target:
            raise InputError(f"{self._name} has no 'proposals', which a model without an RPN is trained on")
        proposals: npt.NDArray[np.float32] = self._array("proposals", np.float32)
        if proposals.ndim != 2 or proposals.shape[1:] != (4,) or not np.isfinite(proposals).all():
            raise self._fault("proposals", f"is {list(proposals.shape)}, not [P, 4] of finite numbers")
        return proposals

    def _keypoints(self, count: int) -> npt.NDArray[np.int32] | None:
        if not self._cfg.MODEL.KEYPOINTS_ON:
            return None
        if "keypoints" not in self._target:
            raise InputError(f"{self._name} has no 'keypoints', which a model with a keypoint head is trained on")
        keypoints = self._array("keypoints", np.float64)
        wanted = (count, self._cfg.KRCNN.NUM_KEYPOINTS, 3)
        if keypoints.shape != wanted or not np.isfinite(keypoints).all() or np.abs(keypoints).max(initial=0) >= 2**31:
            raise self._fault("keypoints", f"is {list(keypoints.shape)}, not {list(wanted)} of places in an image")
        return np.ascontiguousarray(keypoints.astype(np.int32).transpose(0, 2, 1))

    def _outlines(self, count: int) -> tuple[Segm, ...]:
        if not self._cfg.MODEL.MASK_ON:
            return ((),) * count
        if "masks" not in self._target:
            raise InputError(f"{self._name} has no 'masks', which a model with a mask head is trained on")
        masks = self._target["masks"]
        if len(masks) != count:
            raise self._fault("masks", f"has {len(masks)} rows, boxes has {count}")
        if hasattr(masks, "shape"):
            bitmaps = self._array("masks", np.bool_)
            if bitmaps.shape[1:] != self._size:
                raise self._fault("masks", f"is {list(bitmaps.shape)}, not [G, {self._size[0]}, {self._size[1]}]")
            return tuple(pycocotools.mask.encode(np.asfortranarray(mask, np.uint8)) for mask in bitmaps)
        return tuple(self._outline(number, mask) for number, mask in enumerate(masks))

    def _outline(self, number: int, segmentation: Any) -> Segm:
        if isinstance(segmentation, Mapping):
            if list(segmentation.get("size", [])) != list(self._size) or "counts" not in segmentation:
                raise self._fault("masks", f"row {number} is no run-length encoding of an image of {self._size}")
            return segmentation
        polygons = tuple(np.asarray(polygon, np.float64).reshape(-1) for polygon in segmentation)
        if not polygons or any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
            raise self._fault("masks", f"row {number} is no list of polygons of three points or more")
        return polygons

    def _array(self, key: str, dtype: npt.DTypeLike, count: int | None = None) -> npt.NDArray[Any]:
        if key not in self._target:
            raise InputError(f"{self._name} has no {key!r}: give boxes, labels and, for masks, masks")
        value = self._target[key]
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy()
        try:
            values = np.asarray(value)
            if np.issubdtype(np.dtype(dtype), np.integer) and not np.array_equal(values, values.astype(np.int64)):
                raise ValueError("numbers are not whole")
            values = values.astype(dtype)
        except (TypeError, ValueError) as error:
            raise self._fault(key, f"cannot be read ({error})") from None
        if count is not None and values.shape != (count,):
            raise self._fault(key, f"is {list(values.shape)}, not [{count}], one for each box")
        return values

    def _fault(self, key: str, what: str) -> InputError:
        return InputError(f"{self._name}[{key!r}] {what}")
