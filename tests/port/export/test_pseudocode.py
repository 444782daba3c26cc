"""What docs/export.md tells programmers of other languages, run as it stands there."""

from typing import Any

import cv2
import numpy as np
import pytest

from detectron_gn.mrcnn.data.image_blob import image_blob, prepare_image
from detectron_gn.mrcnn.ops.paste import paste_boxes, paste_mask, patch_bitmap
from tests.helpers.markdown import ROOT, blocks

MEANS = (102.9801, 115.9465, 122.7717)


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The functions of the page."""
    told: dict[str, Any] = {}
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    exec(next(block.text for block in blocks(text) if "def prepared" in block.text), told)
    return told


def test_the_pages_lines_prepare_and_paste_as_we_do(page: dict[str, Any]) -> None:
    random = np.random.default_rng(0)
    for height, width, scale, limit in ((180, 155, 160, 256), (200, 320, 400, 666), (31, 147, 160, 256)):
        image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        data, im_info, image_size = page["prepared"](image, MEANS, scale, limit, 32)
        ours = prepare_image(image, MEANS, scale, limit)
        blob = image_blob([ours.pixels], 32).numpy()
        np.testing.assert_allclose(data, blob, rtol=0, atol=4e-5)
        assert im_info.tolist() == [[*blob.shape[2:], np.float32(ours.scale)]]
        assert image_size.tolist() == [height, width]
    others = 0
    for number in range(150):
        height, width = random.integers(20, 160, 2)
        xs, ys = (np.sort(random.uniform(-20, side + 20, 2)) for side in (width, height))
        # Boxes beyond the picture, and clipped ones as networks give them.
        box = np.array([xs[0], ys[0], xs[1], ys[1]], np.float32).clip(0 if number % 2 else None)
        soft = cv2.GaussianBlur(random.uniform(0, 1, (28, 28)).astype(np.float32), (5, 5), 0)
        patch = paste_mask(soft, paste_boxes(box[None], 28)[0], (height, width), 0.5)
        mask = page["pasted"](soft, box, height, width, 0.5)
        others += int((mask != patch_bitmap(patch, (height, width))).sum())
    assert others <= 1


@pytest.mark.parametrize("corner", [-0.7, 0.7])
def test_corners_are_cut_toward_zero(page: dict[str, Any], corner: float) -> None:
    box = np.array([corner, corner, 9.3, 9.3], np.float32)
    soft = np.ones((28, 28), np.float32)
    ours = patch_bitmap(paste_mask(soft, paste_boxes(box[None], 28)[0], (14, 14), 0.5), (14, 14))
    assert np.array_equal(page["pasted"](soft, box, 14, 14, 0.5), ours) and ours.any()
