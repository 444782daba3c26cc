"""The box around run lengths is that of the pixels they cover."""

import numpy as np
import pycocotools.mask
import pytest

from detectron_gn.mrcnn.data.run_lengths import decoded_runs, runs_bounds


@pytest.mark.parametrize("density", [0, 0.002, 0.02, 0.3, 1])
def test_bounds_are_those_of_the_mask(density):
    generator = np.random.default_rng(5)
    for height, width in ((1, 1), (1, 9), (9, 1), (13, 17), (60, 80)):
        for _ in range(20):
            mask = np.asfortranarray((generator.random((height, width)) < density).astype(np.uint8))
            runs = decoded_runs(pycocotools.mask.encode(mask)["counts"])
            rows, columns = np.nonzero(mask)
            expected = None
            if len(rows):
                expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert runs_bounds(runs, height) == expected


def test_empty_runs_change_nothing():
    # Two pixels from (x, y) = (1, 2) on, of columns 5 pixels high.
    assert runs_bounds(np.array([7, 2, 16]), 5) == (1, 2, 2, 4)
    assert runs_bounds(np.array([3, 0, 4, 1, 0, 1, 16, 0, 0, 0]), 5) == (1, 2, 2, 4)
