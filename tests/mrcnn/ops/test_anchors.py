"""Anchors are Detectron's in size, rounding and order."""

import h5py
import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.ops.anchors import anchor_grid, base_anchors, pyramid_anchors, retinanet_anchors
from detectron_gn.mrcnn.ops.boxes import box_sides


@pytest.mark.parametrize("level", range(2, 7))
def test_base_anchors_are_detectrons(ops, level):
    ours = base_anchors(2**level, 32 * 2 ** (level - 2), (0.5, 1.0, 2.0))
    np.testing.assert_array_equal(ours.numpy(), ops[f"anchors/fpn{level}"][:])


def test_sides_are_rounded_half_to_even_before_scaling():
    # On P5 a ratio of 0.5 gives 45.25 -> 45 by 22.5 -> 22 on the window, times 8: 360 x 176.
    widths, heights = box_sides(base_anchors(32, 256, (0.5,)))
    assert (widths.item(), heights.item()) == (360.0, 176.0)


def test_grid_runs_over_anchors_then_columns_then_rows():
    base = torch.tensor([[-1.0, -2.0, 3.0, 4.0], [0.0, 0.0, 1.0, 1.0]])
    grid = anchor_grid(base, 8, height=2, width=3)
    assert grid.shape == (12, 4)
    assert torch.equal(grid[:2], base)
    assert grid[2].tolist() == [7.0, -2.0, 11.0, 4.0]
    assert grid[6].tolist() == [-1.0, 6.0, 3.0, 12.0]


def test_pyramid_doubles_size_and_stride_with_each_level():
    levels = pyramid_anchors(Config())
    assert len(levels) == 5
    for level, anchors in enumerate(levels, 2):
        widths, heights = box_sides(anchors[1:2])
        assert widths.item() == heights.item() == 8 * 2**level


def test_anchors_of_retinanet_are_detectrons_to_the_last_digit(data):
    cfg = with_values(
        Config(), {"FPN.RPN_MIN_LEVEL": 3, "FPN.RPN_MAX_LEVEL": 7, "RETINANET.ASPECT_RATIOS": (1.0, 2.0, 0.5)}
    )
    with h5py.File(data / "ops_retinanet.h5") as file:
        for level, anchors in enumerate(retinanet_anchors(cfg), 3):
            np.testing.assert_array_equal(anchors.numpy(), file[f"retinanet_anchors/fpn{level}"][:])
        assert level == 7
