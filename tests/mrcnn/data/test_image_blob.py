"""The image blob is Detectron's in scale, padding and mean colour; what is no image is refused."""

import numpy as np
import pytest

from detectron_gn.mrcnn.data.image_blob import image_blob, image_scale, prepare_image
from detectron_gn.mrcnn.errors import InputError

PIXEL_MEANS = (102.9801, 115.9465, 122.7717)


@pytest.mark.parametrize("case", range(4))
def test_prepared_image_is_detectrons(ops, case):
    group = ops[f"prep_image/{case}"]
    prepared = prepare_image(group["image"][:], PIXEL_MEANS, int(group.attrs["target"]), int(group.attrs["max_size"]))
    assert prepared.scale == group.attrs["scale"]
    blob = image_blob([prepared.pixels], stride=32).numpy()
    assert blob.shape == group["blob"].shape
    # OpenCV 4.5.5 made the reference; its float resize differs from 5.0 by 1e-5 grey levels.
    np.testing.assert_allclose(blob, group["blob"][:], atol=1e-4)


def test_long_side_is_rounded_before_it_is_compared():
    # 800 / 600 * 999.9 would exceed 1333 unrounded; numpy rounds 1333.33 to 1333, so the short side rules.
    assert image_scale(600, 1000, 800, 1333) == 800 / 600
    assert image_scale(600, 1001, 800, 1333) == 1333 / 1001


def test_images_are_stacked_top_left_with_zeros_around():
    small, large = np.ones((3, 40, 3), np.float32), np.full((33, 5, 3), 2, np.float32)
    blob = image_blob([small, large], stride=32)
    assert blob.shape == (2, 3, 64, 64)
    assert blob[0].sum() == small.sum() and blob[0, :, :3, :40].min() == 1
    assert blob[1].sum() == large.sum() and blob[1, :, :33, :5].min() == 2


def test_array_of_another_kind_is_refused():
    with pytest.raises(InputError, match=r"not \[4, 5\] uint8"):
        prepare_image(np.zeros((4, 5), np.uint8), PIXEL_MEANS, 8, 8)
    with pytest.raises(InputError, match="not NoneType: was it read"):
        prepare_image(None, PIXEL_MEANS, 8, 8)
    with pytest.raises(InputError, match=r"not \[0, 0, 3\] uint8"):
        prepare_image(np.zeros((0, 0, 3), np.uint8), PIXEL_MEANS, 8, 8)


def test_image_too_narrow_to_be_scaled_is_refused():
    with pytest.raises(InputError, match=r"10 x 20000 pixels \(width x height\) .* cut it into pieces"):
        prepare_image(np.zeros((20000, 10, 3), np.uint8), PIXEL_MEANS, 160, 256)
    assert prepare_image(np.zeros((1, 300, 3), np.uint8), PIXEL_MEANS, 160, 256).pixels.shape == (1, 256, 3)
