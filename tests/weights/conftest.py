"""What the tests of this room share: a small weights file with every kind of blob."""

import numpy as np
import pytest

from detectron_gn.weights import WeightsFile


@pytest.fixture
def small() -> WeightsFile:
    """One blob of every element type and of every strange but legal kind."""
    chance = np.random.default_rng(0)
    blobs = {
        "conv1_w": chance.standard_normal((4, 3, 2, 2)).astype("f4"),
        "conv1_w_momentum": chance.standard_normal((4, 3, 2, 2)).astype("f4"),
        "conv1_gn_s": np.array([np.nan, np.inf, -0.0, 1e-45], "f4"),
        "pred_w": chance.standard_normal((10, 4)).astype("f4"),
        "_[mask]_fcn1_w": np.ones((1, 1), "f4"),
        "__preserve__/a%2Fb": np.ones(2, "f4"),
        ".": np.ones(1, "f4"),
        "scalar": np.array(2.5, "f4"),
        "empty": np.zeros((0, 3), "f4"),
    }
    for code in ("f2", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"):
        blobs[f"of_{code}"] = chance.integers(0, 2, (2, 3)).astype(code)
    return WeightsFile(blobs, "MODEL:\n  TYPE: generalized_rcnn\n", 2399, "model_iter2399.pkl", "pkl")
