"""The picture of a run shows every value that its figures hold."""

import cv2
import numpy as np

from detectron_gn.mrcnn.training.curves import Panel, draw_curves


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


def test_curves_of_a_single_line_and_of_none_can_be_drawn():
    assert drawn(Panel("losses", [0], {"loss": [0.0]})).shape == (420, 900, 3)
    assert drawn(Panel("losses", [], {"loss": []})).shape == (420, 900, 3)
    assert drawn(Panel("losses", [0, 1], {"loss": [float("nan"), float("inf")]})).shape == (420, 900, 3)
