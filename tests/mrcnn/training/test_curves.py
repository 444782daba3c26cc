"""The picture of a run shows every value that its figures hold."""

import cv2
import numpy as np

from detectron_gn.mrcnn.training.curves import Panel, draw_curves


def drawn(*panels):
    return cv2.imdecode(np.frombuffer(draw_curves(panels), np.uint8), cv2.IMREAD_COLOR)


BLUE, ORANGE = (178, 114, 0), (0, 94, 213)


def test_curves_show_every_series_in_its_own_colour():
    series = {"loss": [3.0, 2.0, 1.0], "loss_cls": [1.0, float("nan"), 0.5]}
    picture = drawn(Panel("losses", [0, 20, 40], series), Panel("AP", [40], {"box": [30.0], "mask": [25.0]}))
    assert picture.shape == (520, 800, 3)
    for panel in (picture[:260], picture[260:]):
        # Below the legend: a single value shows too, at the right end that both panels share.
        colours = {tuple(pixel) for pixel in panel[30:].reshape(-1, 3).tolist()}
        assert {BLUE, ORANGE} <= colours
    rows, columns = (picture[281:] == BLUE).all(axis=2).nonzero()
    assert columns.min() > 740 and columns.max() - columns.min() == rows.max() - rows.min()


def test_a_curve_shows_beneath_an_equal_one():
    picture = drawn(Panel("AP", [0, 20], {"box": [30.0, 30.0], "mask": [30.0, 30.0]}))[28:]
    assert (picture == BLUE).all(axis=2).any(axis=0).sum() > 600
    assert (picture == ORANGE).all(axis=2).any(axis=0).sum() > 600


def test_curves_of_a_single_line_and_of_none_can_be_drawn():
    assert drawn(Panel("losses", [0], {"loss": [0.0]})).shape == (260, 800, 3)
    assert drawn(Panel("losses", [], {"loss": []})).shape == (260, 800, 3)
    assert drawn(Panel("losses", [0, 1], {"loss": [float("nan"), float("inf")]})).shape == (260, 800, 3)


def test_a_noisy_curve_stands_pale_behind_its_running_mean_and_steps_stay_steps():
    iterations = list(range(0, 4000, 20))
    noise = np.random.default_rng(0).normal(1, 0.2, 200)
    rate = [0.02] * 100 + [0.002] * 100
    noisy, steps = (drawn(Panel("values", iterations, {"value": list(values)})) for values in (noise, rate))

    def is_pale(picture):
        blue, green, red = (picture[40:, :, channel].astype(int) for channel in range(3))
        return int(((red > 150) & (red < 200) & (blue > red + 20)).sum())

    assert is_pale(noisy) > 4 * is_pale(steps)
    # The mean of the noise stays near 1 of the 1.7 or so that the axis reaches.
    rows, _ = (noisy[40:] == BLUE).all(axis=2).nonzero()
    assert rows.max() - rows.min() < 60
