"""RoI max pooling beside Caffe2's operator."""

import h5py
import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.ops.roi_pool import roi_pool


@pytest.mark.parametrize("resolution", [7, 14])
def test_the_maxima_of_bins_are_caffe2s(data, resolution):
    with h5py.File(data / "zoo" / "ops_two_stage.h5") as file:
        group = file["roi_pool"]
        features, rois = torch.from_numpy(group["x"][()]), torch.from_numpy(group["rois"][()])
        pooled = roi_pool(features, rois, float(group.attrs["spatial_scale"]), resolution)
        np.testing.assert_array_equal(pooled.numpy(), group[f"out_{resolution}"][()])


def test_halves_are_rounded_away_from_zero_and_both_corners_belong_to_the_roi():
    features = torch.arange(16.0).reshape(1, 1, 4, 4)
    # 0.5 and 1.5 become 1 and 2: rows and columns 1 to 2.
    pooled = roi_pool(features, torch.tensor([[0, 0.5, 0.5, 1.5, 1.5]]), 1.0, 1)
    assert pooled.item() == 10
