"""NMS, soft NMS and box voting keep what Detectron keeps, in its order, ties included."""

import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.ops.box_voting import vote_boxes
from detectron_gn.mrcnn.ops.nms import nms
from detectron_gn.mrcnn.ops.soft_nms import soft_nms


def columns(dataset):
    rows = torch.from_numpy(dataset[:])
    return rows[:, :4], rows[:, 4]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_nms_keeps_what_detectron_keeps(ops, threshold):
    kept = nms(*columns(ops["nms/dets"]), threshold)
    np.testing.assert_array_equal(kept.numpy(), ops[f"nms/keep_{threshold}"][:])


def test_nms_suppresses_at_equal_overlap():
    # Two boxes of 2 x 1 that share one pixel: overlap 1 / 3 exactly in float32.
    boxes = torch.tensor([[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 2.0, 0.0]])
    scores = torch.tensor([0.9, 0.8])
    third = float(torch.tensor(1.0) / torch.tensor(3.0))
    assert nms(boxes, scores, third).tolist() == [0]
    assert nms(boxes, scores, float(np.nextafter(np.float32(third), np.float32(1)))).tolist() == [0, 1]


def test_nms_suppresses_at_equal_overlap_across_blocks_as_well():
    # The first and the last of many boxes share one pixel of two; those between lie far away.
    left = torch.cat((torch.tensor([0.0]), 100 + 10 * torch.arange(600.0), torch.tensor([1.0])))
    boxes = torch.stack((left, torch.zeros(602), left + 1, torch.zeros(602)), dim=1)
    scores = torch.linspace(1, 0.1, len(boxes))
    third = float(torch.tensor(1.0) / torch.tensor(3.0))
    assert nms(boxes, scores, third).tolist() == list(range(601))


def test_nms_returns_input_order_and_not_score_order():
    boxes = torch.tensor([[0.0, 0.0, 5.0, 5.0], [50.0, 0.0, 55.0, 5.0], [100.0, 0.0, 105.0, 5.0]])
    assert nms(boxes, torch.tensor([0.1, 0.9, 0.5]), 0.5).tolist() == [0, 1, 2]


def test_nms_prefers_the_later_of_equal_scores():
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 9.0]])
    assert nms(boxes, torch.tensor([0.5, 0.5]), 0.5).tolist() == [1]


def test_nms_does_not_let_a_suppressed_box_suppress():
    # A chain: each overlaps the next by 0.6; the second goes, so the third stays.
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [2.5, 0.0, 11.5, 9.0], [5.0, 0.0, 14.0, 9.0]])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.55).tolist() == [0, 2]


@pytest.mark.parametrize("wanted", [1, 7, 200, 5000])
@pytest.mark.parametrize("sort", ["best first", "best first, many equal", "shuffled"])
def test_the_first_that_nms_keeps_are_the_first_of_all_that_it_keeps(sort, wanted):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand((1200, 2), generator=generator) * 200
    boxes = torch.cat((corners, corners + 10 + torch.rand((1200, 2), generator=generator) * 60), dim=1)
    scores = torch.rand(1200, generator=generator)
    if sort != "shuffled":
        scores = scores.sort(descending=True).values
    if "equal" in sort:
        scores = (scores * 10).round()
    every = nms(boxes, scores, 0.5)
    assert 200 < len(every) < 1200
    assert nms(boxes, scores, 0.5, wanted).tolist() == every[:wanted].tolist()


def test_nms_of_nothing_is_nothing():
    assert nms(torch.zeros((0, 4)), torch.zeros(0), 0.5).tolist() == []


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_soft_nms_is_detectrons(ops, method):
    boxes, scores, index = soft_nms(
        *columns(ops["nms/dets"]), sigma=0.5, overlap_threshold=0.5, score_threshold=0.0001, method=method
    )
    group = ops[f"soft_nms/{method}"]
    np.testing.assert_array_equal(index.numpy(), group["keep"][:])
    np.testing.assert_array_equal(boxes.numpy(), group["dets"][:, :4])
    np.testing.assert_allclose(scores.numpy(), group["dets"][:, 4], rtol=1e-5)


def test_soft_nms_refuses_an_unknown_method():
    with pytest.raises(InputError, match="TEST.SOFT_NMS.METHOD"):
        soft_nms(torch.zeros((1, 4)), torch.ones(1), sigma=0.5, overlap_threshold=0.5, score_threshold=0, method="x")


@pytest.mark.parametrize("method", ["ID", "TEMP_AVG", "AVG", "IOU_AVG", "GENERALIZED_AVG", "QUASI_SUM"])
def test_box_voting_is_detectrons(ops, method):
    group = ops["box_voting"]
    boxes, scores = vote_boxes(
        *columns(group["top_dets"]),
        *columns(ops["nms/dets"]),
        threshold=float(group.attrs["thresh"]),
        method=method,
        beta=float(group.attrs["beta"]),
    )
    np.testing.assert_allclose(boxes.numpy(), group[method][:, :4], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(scores.numpy(), group[method][:, 4], rtol=1e-5)
