"""What a network's RPN proposes in an image, in pixels of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.heads.rpn import RPN

if TYPE_CHECKING:
    from detectron_gn.mrcnn.detectors.detector import Detector


def proposed(model: Detector, rpn: RPN, image: Image) -> tuple[Tensor, Tensor]:
    """Boxes `[R, 4]` in pixels of an `[H, W, 3]` uint8 BGR image and objectness `[R]`, best first.

    Boxes are inclusive corners, clipped to the padded image and not to the image itself.
    """
    batch = model.network_input([image])
    features, info = model.features(batch.data), batch.im_info[0]
    with model.products():
        rois, scores = rpn.collected(rpn(features), features.strides, 0, info)
    return rois[:, 1:] / info.scale, scores
