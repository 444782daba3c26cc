"""What the network hands on: the detections of an image; answers to the results of Detectron core/test.py."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.ops.paste import Patch, Rle, paste_boxes, paste_mask, patch_bitmap, patch_rle


@dataclass(frozen=True)
class Detections:
    """Detections of one image, ordered by class and within it as Detectron orders them.

    Attributes:
        boxes: `[D, 4]` float32, inclusive corners, in the image's own pixels.
        scores: `[D]` float32.
        classes: `[D]` int64, from 1 on; 0 would be the background.
        mask_probs: `[D, M, M]` float32, the soft mask of each detection's own class over its box.
        image_size: (height, width).
        mask_threshold: what a pasted mask's pixels must exceed (`cfg.MRCNN.THRESH_BINARIZE`).
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    mask_probs: npt.NDArray[np.float32]
    image_size: tuple[int, int]
    mask_threshold: float

    def __len__(self) -> int:
        return len(self.scores)

    def patches(self) -> list[Patch]:
        """Each detection's binary mask, cut to the part of the image it can cover."""
        boxes = paste_boxes(self.boxes, self.mask_probs.shape[-1])
        return [
            paste_mask(probabilities, box, self.image_size, self.mask_threshold)
            for probabilities, box in zip(self.mask_probs, boxes, strict=True)
        ]

    def masks(self) -> npt.NDArray[np.bool_]:
        """Binary masks `[D, height, width]` of the whole image."""
        bitmaps = [patch_bitmap(patch, self.image_size) for patch in self.patches()]
        return np.stack(bitmaps) if bitmaps else np.zeros((0, *self.image_size), dtype=bool)

    def rles(self) -> list[Rle]:
        """Binary masks as COCO's compressed run lengths."""
        return [patch_rle(patch, self.image_size) for patch in self.patches()]
