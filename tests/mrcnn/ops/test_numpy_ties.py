"""Equal scores are ordered as the numpy that Detectron ran on ordered them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.ops.numpy_ties import argsort, argtop

# Made with numpy 1.19.5, the last kind that sorted float32 as Detectron's did: for each case the scores, what
# `argpartition(-scores, k)[:k]` then `argsort` chose of them, and the reversed `argsort` of the chosen scores.
CASES = np.load(Path(__file__).parents[2] / "data" / "numpy_1_19_order.npz")


@pytest.mark.parametrize("case", range(len(CASES.files) // 3))
def test_ties_fall_as_numpy_1_19_let_them_fall(case):
    scores = torch.from_numpy(CASES[f"scores{case}"].astype(np.float32))
    best = CASES[f"best{case}"]
    ours = argtop(scores, len(best))
    np.testing.assert_array_equal(ours.numpy(), best)
    np.testing.assert_array_equal(argsort(scores[ours]).flip(0).numpy(), CASES[f"reversed{case}"])


def test_without_ties_the_order_is_that_of_the_scores():
    scores = torch.randperm(5000, generator=torch.Generator().manual_seed(1)).float()
    assert torch.equal(argtop(scores, 300), scores.argsort(descending=True)[:300])


@pytest.mark.parametrize("count", [0, 3, 9])
def test_a_count_of_zero_or_too_many_takes_all(count):
    scores = torch.tensor([0.1, 0.9, 0.5])
    assert argtop(scores, count).tolist() == [1, 2, 0]
