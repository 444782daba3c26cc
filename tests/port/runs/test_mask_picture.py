"""The picture of masks: the number of a detection in each of its pixels, the better one on top."""

import cv2
import numpy as np
import pytest

from detectron_gn.mrcnn.structures import Detections
from detectron_gn.port.runs.mask_picture import mask_numbers, mask_png


def squares(count: int) -> Detections:
    """Filled boxes of 20 pixels, each 10 pixels to the right of the one before, as far as the image goes."""
    left = (np.arange(count, dtype=np.float32) * 10) % 60
    return Detections(
        boxes=np.stack([left, np.zeros_like(left), left + 19, np.zeros_like(left) + 19], axis=1),
        scores=np.linspace(1, 0.5, count, dtype=np.float32),
        classes=np.ones(count, dtype=np.int64),
        image_size=(30, 80),
        mask_probs=np.ones((count, 28, 28), dtype=np.float32),
    )


def test_the_better_detection_has_the_pixels_that_two_share() -> None:
    numbers = mask_numbers(squares(3).rles(), (30, 80))
    assert numbers.dtype == np.uint8 and numbers[10, [5, 15, 25, 35, 45]].tolist() == [1, 1, 2, 3, 0]
    assert (numbers[25] == 0).all()
    masks = squares(3).masks()
    assert ((numbers > 0) == masks.any(axis=0)).all() and (numbers == 1)[masks[0]].all()


@pytest.mark.parametrize(("count", "depth"), [(0, np.uint8), (255, np.uint8), (256, np.uint16)])
def test_a_png_of_one_channel_holds_them_whole(count: int, depth: type) -> None:
    masks = squares(count).rles(), (30, 80)
    read = cv2.imdecode(np.frombuffer(mask_png(*masks), np.uint8), cv2.IMREAD_UNCHANGED)
    assert read.dtype == depth and (read == mask_numbers(*masks)).all()
