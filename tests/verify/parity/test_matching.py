"""Rows are paired one to one: the cheapest pair first, each row in one pair at most."""

import numpy as np
import torch

from detectron_gn.mrcnn.ops.pairs import pair_boxes, pair_one_to_one
from detectron_gn.verify.parity.matching import order_like, without_partner


def test_the_cheapest_pair_comes_first_and_takes_both_of_its_rows() -> None:
    cost = np.array([[2.0, 1.0, 9.0], [0.5, 1.5, 9.0]])
    assert pair_one_to_one(cost < 5, cost).tolist() == [[1, 0], [0, 1]]
    assert pair_one_to_one(cost < 1, cost).tolist() == [[1, 0]]
    assert pair_one_to_one(cost < 0, cost).shape == (0, 2)
    assert pair_one_to_one(np.zeros((0, 3), bool), np.zeros((0, 3))).shape == (0, 2)


def test_of_equal_costs_the_next_one_decides_and_then_the_order_of_the_rows() -> None:
    equal, further = np.zeros((2, 2)), np.array([[3.0, 1.0], [1.0, 3.0]])
    possible = np.ones((2, 2), bool)
    assert pair_one_to_one(possible, equal, further).tolist() == [[0, 1], [1, 0]]
    assert pair_one_to_one(possible, equal).tolist() == [[0, 0], [1, 1]]


def test_boxes_are_paired_by_label_and_corner_in_the_order_of_the_others() -> None:
    boxes = np.array([[0, 0, 9, 9], [0.25, 0, 9, 9], [50, 50, 60, 60]], np.float32)
    others = boxes[[2, 0, 0]] + np.array([[0.4], [0.25], [0]], np.float32)
    labels, other_labels = np.array([1, 1, 2]), np.array([2, 1, 1])
    # Boxes 0 and 1 are equally far from other 1; box 0 lies on other 2, so that box 1 takes other 1.
    assert pair_boxes(boxes, labels, others, other_labels).tolist() == [[2, 0], [1, 1], [0, 2]]
    assert pair_boxes(boxes, labels, others, 3 - other_labels).tolist() == []
    assert pair_boxes(boxes, None, others, None).tolist() == [[2, 0], [1, 1], [0, 2]]
    assert pair_boxes(boxes, labels, others, other_labels, tolerance=0.3).tolist() == [[1, 1], [0, 2]]
    assert pair_boxes(boxes * np.nan, labels, others, other_labels).tolist() == []


def test_rows_are_brought_into_the_order_of_the_reference_or_are_others() -> None:
    rows = torch.tensor([[0.0, 0], [1, 0], [2, 0], [3, 0]])
    order = order_like(rows[[2, 1, 3, 0]] + 0.1, rows)
    assert order is not None and order.tolist() == [3, 1, 0, 2]
    assert order_like(rows + 0.6, rows) is None
    assert order_like(rows[:3], rows) is None
    # The second of two that are near enough has a partner in its own place.
    same = order_like(rows * 0.1, rows * 0.1 + 0.05)
    assert same is not None and same.tolist() == [0, 1, 2, 3]


def test_coordinates_that_the_reference_does_not_know_tell_nothing() -> None:
    rows = torch.tensor([[0.0, 5], [0.3, 5], [0.6, 5]])
    known = torch.tensor([[0.3, torch.nan], [0.0, torch.nan], [torch.nan, 5]])
    order = order_like(rows, known)
    assert order is not None and order.tolist() == [1, 0, 2]
    assert without_partner(rows, known[:1]).tolist() == [False, False, False]
    assert without_partner(rows, torch.tensor([[0.7, 5.0]])).tolist() == [True, False, False]
    assert without_partner(rows, rows[:0]).tolist() == [True, True, True]
