"""Keypoints are read off heatmaps, compared and suppressed as Detectron does it (values computed by Detectron)."""

import h5py
import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.layers import FilledDeconv2d, bilinear_fill
from detectron_gn.mrcnn.ops.keypoints import decode_heatmaps, nms_oks, object_keypoint_similarity


@pytest.fixture(scope="module")
def values(data):
    with h5py.File(data / "zoo" / "ops_two_stage.h5") as file:
        yield file


@pytest.mark.parametrize("min_size", [0, 30, 100])
def test_keypoints_lie_where_detectron_finds_them_to_the_last_digit(values, min_size):
    group = values["keypoint_decode"]
    points = decode_heatmaps(group["heatmaps"][()].astype(np.float32), group["boxes"][()], min_size)
    expected = group[f"min_size_{min_size}"][()]
    np.testing.assert_array_equal(points[:, :3], expected[:, :3])
    np.testing.assert_allclose(points[:, 3], expected[:, 3], rtol=0, atol=5e-7)


def test_a_box_without_width_is_enlarged_to_one_pixel():
    heatmaps = np.zeros((1, 17, 4, 4), np.float32)
    heatmaps[0, :, 2] = 1
    points = decode_heatmaps(heatmaps, np.array([[10, 20, 10, 24]], np.float32), 0)
    np.testing.assert_array_equal(points[0, :2, 0], [10.5, 22.5])


def test_the_similarity_of_people_is_detectrons(values):
    group = values["oks"]
    points, boxes = group["keypoints"][()], group["boxes"][()]
    found = object_keypoint_similarity(points[0], boxes[0], points[1:])
    np.testing.assert_allclose(found, group["of_first"][()], rtol=1e-12, atol=0)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.6])
def test_people_who_are_too_similar_go_and_the_rest_stands_best_first(values, threshold):
    group = values["oks"]
    kept = nms_oks(group["keypoints"][()], group["boxes"][()], threshold)
    np.testing.assert_array_equal(kept, group[f"keep_{threshold}"][()])


def test_the_fixed_deconvolution_interpolates(values):
    group = values["kps_upsample"]
    layer = FilledDeconv2d(17, 17, bilinear_fill, 4, 2)
    with torch.no_grad():
        found = layer(torch.from_numpy(group["lowres"][:1])).numpy()
    np.testing.assert_allclose(found, group["heatmaps"][()], rtol=0, atol=1e-5)
