"""RoIs of the second stage: where they come from, and how they lie in the image; answers to Detectron core/test.py."""

from typing import NamedTuple

import torch
from torch import Tensor

from detectron_gn.mrcnn.ops.proposals import first_of_equal


class ImageRois(NamedTuple):
    """The RoIs of one image that heads are run on.

    Attributes:
        rois: `[R, 5]` float32, (index of the image, x1, y1, x2, y2) in network pixels.
        boxes: `[R, 4]` float32, the same in image pixels, where they are known to be others than `rois` divided by the
            scale: proposals from outside.
        restore: `[P]` int64, the RoI that stands for each proposal; None where each RoI is one.
    """

    rois: Tensor
    boxes: Tensor | None = None
    restore: Tensor | None = None

    def in_image(self, scale: float) -> Tensor:
        """`[R, 4]` in image pixels."""
        return self.rois[:, 1:] / scale if self.boxes is None else self.boxes

    def restored(self, of_rois: Tensor) -> Tensor:
        """What was computed of each RoI, `[R, ...]`, as rows of the proposals that the RoIs stand for."""
        return of_rois if self.restore is None else of_rois[self.restore]


def given_rois(proposals: Tensor, index: int, scale: float, dedup: float) -> ImageRois:
    """The RoIs of `[P, 4]` proposals in image pixels, those that count as equal only once.

    Args:
        index: of the image in its batch.
        scale: network pixels per image pixel.
        dedup: proposals are equal when their corners times this round to the same numbers (`cfg.DEDUP_BOXES`); 0
            keeps all. All of them then become the boxes of the first, and RoIs stand in the order of Detectron's
            hash (core/test.py:im_detect_bbox).
    """
    rois = rois_of_boxes(proposals, scale, 0)
    restore = None
    if dedup > 0:
        first, kind = first_of_equal((rois * dedup).cpu().numpy())
        chosen = torch.from_numpy(first).to(rois.device)
        rois, proposals, restore = rois[chosen], proposals[chosen], torch.from_numpy(kind).to(rois.device)
    rois[:, 0] = index
    return ImageRois(rois, proposals, restore)


def rois_of_boxes(boxes: Tensor, scale: float, image_index: int) -> Tensor:
    """RoIs `[D, 5]` of `[D, 4]` boxes in image pixels.

    Args:
        scale: network pixels per image pixel; the product is in float64, and rounded to float32 afterwards
            (Detectron core/test.py:_project_im_rois).
        image_index: of the image in its batch.
    """
    index = boxes.new_full((len(boxes), 1), image_index)
    return torch.cat((index, (boxes.double() * scale).float()), dim=1)
