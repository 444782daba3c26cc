"""Soft masks become bitmaps and run lengths of the image to the pixel as Detectron's."""

import numpy as np
import pycocotools.mask
import pytest

from detectron_gn.mrcnn.ops.paste import Patch, paste_boxes, paste_mask, patch_bitmap, patch_rle, rle_patch


def test_pasted_masks_are_detectrons(ops):
    group = ops["mask_paste"]
    size = tuple(int(side) for side in group.attrs["im_shape"])
    boxes = paste_boxes(group["boxes"][:], 28)
    for mask, box, reference in zip(group["masks"][:], boxes, group["pasted"][:], strict=True):
        patch = paste_mask(mask, box, size, 0.5)
        np.testing.assert_array_equal(patch_bitmap(patch, size), reference.astype(bool))


def test_corners_are_truncated_toward_zero():
    # 28 bins grow to 30: a 28 pixel wide box grows by one on each side, to -1.46 .. 28.46.
    boxes = np.array([[-0.5, 10.0, 27.5, 38.0]], np.float32)
    assert paste_boxes(boxes, 28)[0].tolist() == [-1, 9, 28, 39]


def random_patch(rng, height, width):
    h, w = rng.integers(0, height + 1), rng.integers(0, width + 1)
    y, x = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    density = rng.choice([0.0, 0.05, 0.5, 0.95, 1.0])
    return Patch(rng.random((h, w)) < density, int(x), int(y))


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_are_those_of_the_whole_bitmap(seed):
    rng = np.random.default_rng(seed)
    for _ in range(200):
        size = (int(rng.integers(1, 12)), int(rng.integers(1, 12)))
        patch = random_patch(rng, *size)
        reference = pycocotools.mask.encode(np.asfortranarray(patch_bitmap(patch, size).astype(np.uint8)))
        rle = patch_rle(patch, size)
        assert rle == {"size": list(size), "counts": reference["counts"].decode()}
        for given in (rle, reference):
            np.testing.assert_array_equal(patch_bitmap(rle_patch(given), size), patch_bitmap(patch, size))
        rows, columns = rle_patch(rle).pixels.any(axis=1), rle_patch(rle).pixels.any(axis=0)
        assert not rows.size or rows[[0, -1]].all() and columns[[0, -1]].all()


@pytest.mark.parametrize("counts", ["", "3", "0d", "~"])
def test_what_are_no_run_lengths_of_the_image_is_refused(counts):
    with pytest.raises(ValueError, match="no run lengths of a mask of 4 x 5 pixels"):
        rle_patch({"size": [4, 5], "counts": counts})


def test_mask_outside_of_the_image_is_empty():
    patch = paste_mask(np.ones((28, 28), np.float32), np.array([-50, -50, -20, -20], np.int32), (30, 40), 0.5)
    assert patch.pixels.size == 0
    assert patch_bitmap(patch, (30, 40)).sum() == 0


def test_a_pixel_must_exceed_the_threshold():
    box = np.array([0, 0, 29, 29], np.int32)  # as large as the padded mask, so nothing is interpolated
    half = np.full((28, 28), 0.5, np.float32)
    assert not paste_mask(half, box, (30, 30), 0.5).pixels.any()
    assert paste_mask(half + np.float32(1e-6), box, (30, 30), 0.5).pixels.sum() == 28 * 28
