"""Outlines of objects: flipped, and drawn as mask targets, to the pixel as Detectron does."""

import numpy as np
import pycocotools.mask
import pytest

from detectron_gn.mrcnn.data.segms import decode_rle, flip_segm, segm_boxes, segm_in_box

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def square(x1, y1, x2, y2):
    return np.array([x1, y1, x2, y1, x2, y2, x1, y2], dtype=np.float64)


def rle_of(mask):
    return pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def test_mask_targets_are_detectrons(ops):
    group = ops["mask_targets"]
    polygons = [(polygon,) for polygon in group["polygons"][:]]
    bounds = segm_boxes(polygons, fallback=np.zeros((len(polygons), 4), np.float32))
    np.testing.assert_array_equal(bounds, group["polys_boxes"][:])
    masks = [segm_in_box(polygon, box, 28) for polygon, box in zip(polygons, group["boxes"][:])]
    np.testing.assert_array_equal(masks, group["masks"][:])


def test_polygons_flip_by_width_minus_x_minus_1():
    (flipped,) = flip_segm((square(0, 0, 10, 5),), width=100)
    assert flipped.tolist() == [99, 0, 89, 0, 89, 5, 99, 5]


@pytest.mark.parametrize("as_list", [False, True])
def test_run_length_encodings_flip_by_pixel(as_list):
    mask = np.zeros((4, 6), dtype=bool)
    mask[1, 0:2] = True
    rle = {"counts": [1, 1, 3, 1, 18], "size": [4, 6]} if as_list else rle_of(mask)
    np.testing.assert_array_equal(decode_rle(rle), mask)
    np.testing.assert_array_equal(decode_rle(flip_segm(rle, 6)), mask[:, ::-1])


def test_several_polygons_are_one_object():
    segm = (square(0, 0, 10, 10), square(20, 0, 30, 10))
    mask = segm_in_box(segm, np.array([0, 0, 30, 10], np.float32), 30)
    assert mask[15].tolist() == [1] * 10 + [0] * 10 + [1] * 10
    assert segm_boxes([segm], np.zeros((1, 4), np.float32)).tolist() == [[0, 0, 30, 10]]


def test_the_side_of_a_box_is_without_plus_1_and_at_least_1():
    # A box of x 10 to 20 has ten columns for ten cells: cell k is the column 10 + k.
    mask = segm_in_box((square(13, 0, 14, 10),), np.array([10, 0, 20, 10], np.float32), 10)
    assert mask[5].nonzero()[0].tolist() == [3]
    point = segm_in_box((square(0, 0, 50, 50),), np.array([5, 5, 5, 5], np.float32), 4)
    assert point.min() == 1


def test_a_run_length_encoding_gives_the_mask_that_its_polygon_gives():
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:30, 20:50] = True
    box = np.array([15, 5, 55, 35], np.float32)
    from_rle = segm_in_box(rle_of(mask), box, 28)
    from_polygon = segm_in_box((square(20, 10, 50, 30),), box, 28)
    # Two borders may fall into the neighbouring cell: pycocotools rasterises a polygon on a finer grid.
    assert (from_rle != from_polygon).mean() < 0.06
    assert from_rle.sum() == pytest.approx(from_polygon.sum(), rel=0.15)
    assert segm_boxes([rle_of(mask)], np.zeros((1, 4), np.float32)).tolist() == [[20, 10, 50, 30]]


def test_an_outline_of_nothing_has_no_mask_and_takes_its_box():
    fallback = np.array([[1, 2, 3, 4]], np.float32)
    assert segm_boxes([()], fallback).tolist() == fallback.tolist()
    assert segm_in_box((), fallback[0], 28) is None
