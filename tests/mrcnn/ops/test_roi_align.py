"""RoIAlign, its gradient and the choice of the pyramid level are Caffe2's and Detectron's."""

import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.ops.roi_align import align_from_one_table, pyramid_roi_align, roi_align
from detectron_gn.mrcnn.ops.roi_levels import roi_levels
from detectron_gn.mrcnn.structures import Features

KINDS = [(7, 2), (14, 2), (7, 0)]

STRIDES = (4, 8, 16, 32, 64)


@pytest.mark.parametrize(("resolution", "sampling_ratio"), KINDS)
def test_roi_align_is_caffe2s(ops, resolution, sampling_ratio):
    group = ops["roi_align"]
    features, rois = torch.from_numpy(group["x"][:]), torch.from_numpy(group["rois"][:])
    ours = roi_align(features, rois, float(group.attrs["spatial_scale"]), resolution, sampling_ratio)
    np.testing.assert_allclose(ours.numpy(), group[f"out_{resolution}_{sampling_ratio}"][:], atol=2e-5)


@pytest.mark.parametrize(("resolution", "sampling_ratio"), KINDS)
def test_gradient_of_roi_align_is_caffe2s(ops, resolution, sampling_ratio):
    group = ops["roi_align"]
    features, rois = torch.from_numpy(group["x"][:]).requires_grad_(), torch.from_numpy(group["rois"][:])
    ours = roi_align(features, rois, float(group.attrs["spatial_scale"]), resolution, sampling_ratio)
    ours.backward(torch.from_numpy(group[f"dy_{resolution}_{sampling_ratio}"][:]))
    reference = group[f"dx_{resolution}_{sampling_ratio}"][:]
    np.testing.assert_allclose(features.grad.numpy(), reference, atol=1e-5 * np.abs(reference).max())


def test_samples_of_a_ramp_lie_at_quarters_of_a_bin_without_a_half_pixel_shift():
    # A map whose value is its column; a RoI from column 2 to 6 has one bin of 4 with samples at 3 and 5.
    ramp = torch.arange(10.0).repeat(10, 1)[None, None]
    aligned = roi_align(ramp, torch.tensor([[0.0, 2.0, 2.0, 6.0, 6.0]]), 1.0, 1, 2)
    assert aligned.item() == pytest.approx(4.0)


def test_roi_smaller_than_a_position_is_grown_to_one():
    ramp = torch.arange(10.0).repeat(10, 1)[None, None]
    aligned = roi_align(ramp, torch.tensor([[0.0, 2.0, 2.0, 2.1, 2.1]]), 1.0, 1, 2)
    assert aligned.item() == pytest.approx(2.5)


def test_roi_reads_the_image_its_first_column_names():
    features = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    rois = torch.tensor([[1.0, 0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 0.0, 4.0, 4.0]])
    assert roi_align(features, rois, 1.0, 1, 2).flatten().tolist() == [1.0, 0.0]


def test_levels_are_detectrons(ops):
    levels = roi_levels(torch.from_numpy(ops["fpn_level/boxes"][:]), Config())
    np.testing.assert_array_equal(levels.numpy(), ops["fpn_level/level"][:])


def test_pyramid_takes_each_roi_from_its_level_and_keeps_the_order():
    levels = [torch.full((1, 3, 512 // 2**level, 512 // 2**level), float(level)) for level in range(2, 7)]
    rois = torch.tensor(
        [[0, 0, 0, 447, 447], [0, 0, 0, 55, 55], [0, 0, 0, 223, 223], [0, 0, 0, 111, 111]], dtype=torch.float32
    )
    rois = torch.cat((torch.zeros(4, 1), rois[:, 1:]), dim=1)
    pooled = pyramid_roi_align(Features(levels, STRIDES), rois, Config(), 7, 2)
    assert pooled.shape == (4, 3, 7, 7)
    assert pooled[:, 0, 0, 0].tolist() == pytest.approx([5.0, 2.0, 4.0, 3.0])


def test_pyramid_of_no_rois_is_empty():
    levels = [torch.zeros((1, 3, 8, 8))] * 5
    assert pyramid_roi_align(Features(levels, STRIDES), torch.zeros((0, 5)), Config(), 7, 2).shape == (0, 3, 7, 7)


def test_maps_in_one_table_give_what_they_give_one_by_one():
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randn((2, 3, 256 // 2**level, 320 // 2**level), generator=generator) for level in range(2, 7)]
    corners = torch.rand((200, 2), generator=generator) * torch.tensor([320.0, 256.0])
    sides = torch.rand((200, 2), generator=generator).square() * 600
    rois = torch.cat((torch.randint(2, (200, 1), generator=generator), corners, corners + sides), dim=1)
    cfg = Config()
    numbers = roi_levels(rois[:, 1:], cfg)
    assert set(numbers.tolist()) == {2, 3, 4, 5}
    scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    for resolution in (7, 14):
        together = align_from_one_table(levels[:4], scales, numbers - 2, rois, resolution, 2)
        assert torch.equal(together, pyramid_roi_align(Features(levels, STRIDES), rois, cfg, resolution, 2))


def test_a_box_of_negative_sides_is_read_from_the_finest_level():
    # What detection finds in a picture of a few pixels, scaled to the network.
    rois = torch.tensor([[0.0, 80.0, 80.0, 40.0, 130.0], [0.0, 10.0, 10.0, 200.0, 200.0]])
    assert roi_levels(rois[:, 1:], Config()).tolist() == [2, 3]
    levels = [torch.full((1, 3, 256 // 2**level, 256 // 2**level), float(level)) for level in range(2, 7)]
    pooled = pyramid_roi_align(Features(levels, STRIDES), rois, Config(), 7, 2)
    assert pooled[:, 0, 0, 0].tolist() == pytest.approx([2.0, 3.0])


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("count", [0, 1])
def test_a_level_without_a_roi_has_a_gradient_of_zero(sampling_ratio, count):
    """As in Caffe2, where it makes weights decay; several processes need a gradient of every parameter, too."""
    maps = [torch.ones(1, 3, 512 // stride, 512 // stride, requires_grad=True) for stride in STRIDES]
    rois = torch.tensor([[0.0, 0.0, 0.0, 30.0, 30.0]])[:count]
    pooled = pyramid_roi_align(Features(maps, STRIDES), rois, Config(), 7, sampling_ratio)
    assert pooled.shape == (count, 3, 7, 7)
    pooled.sum().backward()
    assert [float(each.grad.sum()) for each in maps[:4]] == pytest.approx([3 * 49.0 * count, 0, 0, 0], rel=1e-5)
