"""The `json_stats` lines are Detectron's, and the curves show what they hold."""

import json

import cv2
import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.training.curves import Panel, draw_curves, round_ticks
from detectron_gn.mrcnn.training.stats import TrainingStats, json_stats

CPU = torch.device("cpu")


def test_a_line_holds_medians_of_the_last_20_iterations_and_their_total():
    stats = TrainingStats(0, 100)
    for iteration in range(41):
        stats.add(iteration, {"loss_cls": float(iteration), "loss_mask": 1.0, "accuracy_cls": 0.5}, 2.0)
    line = stats.line(40, 0.02, CPU)
    assert (line["loss_cls"], line["loss"], line["accuracy_cls"]) == (30.5, 31.5, 0.5)
    assert (line["iter"], line["lr"], line["time"], line["eta"]) == (40, 0.02, 2.0, "0:02:00")


def test_lines_are_due_every_20_iterations_and_after_the_last():
    stats = TrainingStats(0, 45)
    assert [i for i in range(45) if stats.is_due(i)] == [0, 20, 40, 44]


def test_the_slow_first_iterations_leave_the_average():
    stats = TrainingStats(100, 200)
    for iteration in range(100, 130):
        stats.add(iteration, {"loss_cls": 1.0}, 60.0 if iteration < 120 else 1.0)
    assert stats.line(129, 0.1, CPU)["time"] == 1.0


def test_json_stats_are_written_as_detectron_writes_them():
    text = json_stats({"loss": 0.123456789, "iter": 20, "eta": "1:00:00"})
    assert text == 'json_stats: {"eta": "1:00:00", "iter": 20, "loss": "0.123457"}'
    assert json.loads(text.removeprefix("json_stats: "))["iter"] == 20


def drawn(*panels):
    return cv2.imdecode(np.frombuffer(draw_curves(panels), np.uint8), cv2.IMREAD_COLOR)


BLUE, ORANGE = (180, 119, 31), (14, 127, 255)


def test_curves_show_every_series_in_its_own_colour():
    series = {"loss": [3.0, 2.0, 1.0], "loss_cls": [1.0, float("nan"), 0.5]}
    picture = drawn(Panel("losses", [0, 20, 40], series), Panel("AP", [40], {"box": [30.0], "mask": [25.0]}))
    assert picture.shape == (840, 900, 3)
    for panel in (picture[:420], picture[420:]):
        # Below the legend: a single value shows too, at the right end that both panels share.
        colours = {tuple(pixel) for pixel in panel[40:].reshape(-1, 3).tolist()}
        assert {BLUE, ORANGE} <= colours
    rows, columns = (picture[460:] == BLUE).all(axis=2).nonzero()
    assert columns.min() > 840 and columns.max() - columns.min() == rows.max() - rows.min()


def test_a_curve_shows_beneath_an_equal_one():
    picture = drawn(Panel("AP", [0, 20], {"box": [30.0, 30.0], "mask": [30.0, 30.0]}))[40:]
    assert (picture == BLUE).all(axis=2).any(axis=0).sum() > 700
    assert (picture == ORANGE).all(axis=2).any(axis=0).sum() > 700


@pytest.mark.parametrize(
    ("first", "last", "ticks"),
    [
        (0, 5.56, [0, 1, 2, 3, 4, 5]),
        (0, 0.0105, [0, 0.002, 0.004, 0.006, 0.008, 0.01]),
        (0, 299, [0, 50, 100, 150, 200, 250]),
        (79000, 90000, [80000, 82000, 84000, 86000, 88000, 90000]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ],
)
def test_ticks_are_round_numbers(first, last, ticks):
    assert round_ticks(first, last) == pytest.approx(ticks)


def test_curves_of_a_single_line_and_of_none_can_be_drawn():
    assert drawn(Panel("losses", [0], {"loss": [0.0]})).shape == (420, 900, 3)
    assert drawn(Panel("losses", [], {"loss": []})).shape == (420, 900, 3)
    assert drawn(Panel("losses", [0, 1], {"loss": [float("nan"), float("inf")]})).shape == (420, 900, 3)
