"""What the parts of a network hand on: features, proposals, detections."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.ops.paste import Patch, Rle, paste_boxes, paste_mask, patch_bitmap, patch_rle


class Features(NamedTuple):
    """What a backbone makes of a batch: feature maps, finest first.

    Attributes:
        maps: `[N, C, H, W]` each; H and W are those of the padded batch divided by the map's stride.
        strides: network pixels per position of each map.
    """

    maps: list[Tensor]
    strides: tuple[int, ...]


class Proposals(NamedTuple):
    """RoIs `[R, 5]` float32 as (index of the image, x1, y1, x2, y2) in network pixels, and their objectness `[R]`."""

    rois: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Detections:
    """Detections of one image, ordered by class and within it as Detectron orders them.

    Attributes:
        boxes: `[D, 4]` float32, inclusive corners, in the image's own pixels.
        scores: `[D]` float32.
        classes: `[D]` int64, from 1 on; 0 would be the background.
        image_size: (height, width).
        mask_probs: `[D, M, M]` float32, the soft mask of each detection's own class over its box; None where the model
            has no mask head.
        mask_threshold: what a pasted mask's pixels must exceed (`cfg.MRCNN.THRESH_BINARIZE`).
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    image_size: tuple[int, int]
    mask_probs: npt.NDArray[np.float32] | None = None
    mask_threshold: float = 0.5

    @classmethod
    def from_tensors(
        cls,
        boxes: Tensor,
        scores: Tensor,
        classes: Tensor,
        mask_probs: Tensor | None,
        image_size: tuple[int, int],
        cfg: Config,
    ) -> "Detections":
        """The detections of one image from the network's tensors, brought to the host."""
        return cls(
            boxes=boxes.cpu().numpy(),
            scores=scores.cpu().numpy(),
            classes=classes.cpu().numpy(),
            image_size=image_size,
            mask_probs=None if mask_probs is None else mask_probs.cpu().numpy(),
            mask_threshold=cfg.MRCNN.THRESH_BINARIZE,
        )

    def __len__(self) -> int:
        return len(self.scores)

    def patches(self) -> Iterator[Patch]:
        """Each detection's binary mask, cut to the part of the image it can cover; InputError without a mask head.

        They are pasted one at a time, as they are asked for: of a large image each may take megabytes.
        """
        if self.mask_probs is None:
            raise InputError("these detections have no masks: the model has no mask head (MODEL.MASK_ON is False)")
        boxes = paste_boxes(self.boxes, self.mask_probs.shape[-1])
        return (
            paste_mask(probabilities, box, self.image_size, self.mask_threshold)
            for probabilities, box in zip(self.mask_probs, boxes, strict=True)
        )

    def row(self, number: int) -> "Detections":
        """One of the detections."""
        part = slice(number, number + 1)
        mask_probs = None if self.mask_probs is None else self.mask_probs[part]
        return replace(
            self, boxes=self.boxes[part], scores=self.scores[part], classes=self.classes[part], mask_probs=mask_probs
        )

    def masks(self) -> npt.NDArray[np.bool_]:
        """Binary masks `[D, height, width]` of the whole image."""
        masks = np.zeros((len(self), *self.image_size), dtype=bool)
        for mask, patch in zip(masks, self.patches(), strict=True):
            mask[:] = patch_bitmap(patch, self.image_size)
        return masks

    def rles(self) -> list[Rle]:
        """Binary masks as COCO's compressed run lengths."""
        return [patch_rle(patch, self.image_size) for patch in self.patches()]
