"""A schedule in another length: the shape stays, and the numbers by hand."""

import pytest

from detectron_gn.mrcnn.config import check_config, with_values
from detectron_gn.mrcnn.training.schedule import fitted_schedule, told_shape
from detectron_gn.mrcnn.training.solver import learning_rate
from detectron_gn.port.config.read import bundled_config, bundled_names

TWO_X = bundled_config("e2e_mask_rcnn_R-50-FPN_2x_gn")  # 180,000 iterations, steps at 120,000 and 160,000, 500 warm-up


@pytest.mark.parametrize(
    ("iterations", "steps", "warm_up"),
    [
        (180_000, (0, 120_000, 160_000), 500),
        (18_000, (0, 12_000, 16_000), 500),
        (1_800, (0, 1_200, 1_600), 180),
        (1_000, (0, 667, 889), 100),
        (360_000, (0, 240_000, 320_000), 500),
        (2, (0, 2, 3), 1),
    ],
)
def test_steps_keep_their_share_and_the_warm_up_takes_a_tenth_at_most(iterations, steps, warm_up):
    solver = fitted_schedule(TWO_X, iterations).SOLVER
    assert (solver.MAX_ITER, solver.STEPS, solver.WARM_UP_ITERS) == (iterations, steps, warm_up)


def test_a_warm_up_that_was_more_than_a_tenth_keeps_its_share():
    cfg = bundled_config("rpn_R-50-FPN_shapes_gn")  # 50 of 300
    assert fitted_schedule(cfg, 300) == cfg
    assert fitted_schedule(cfg, 60).SOLVER.WARM_UP_ITERS == 10
    assert fitted_schedule(cfg, 60, keep_warm_up=True).SOLVER.WARM_UP_ITERS == 50


def test_steps_beyond_an_end_that_was_cut_keep_their_shape_and_are_told():
    cut = with_values(TWO_X, {"SOLVER.MAX_ITER": 8})
    assert told_shape(TWO_X) is None and "reach to 160000, beyond SOLVER.MAX_ITER 8" in told_shape(cut)
    for iterations in (1, 600, 180_000):
        assert fitted_schedule(cut, iterations) == fitted_schedule(TWO_X, iterations)
    # Nor is a warm-up longer than the run the share of one.
    assert fitted_schedule(with_values(cut, {"SOLVER.LR_POLICY": "cosine_decay"}), 40).SOLVER.WARM_UP_ITERS == 4


@pytest.mark.parametrize("policy", ["step", "steps_with_lrs", "cosine_decay", "exp_decay"])
def test_of_every_policy_the_rate_is_the_same_at_the_same_share_of_the_run(policy):
    values = {
        "SOLVER.LR_POLICY": policy,
        "SOLVER.STEP_SIZE": 60_000,
        "SOLVER.LRS": (0.02, 0.01, 0.001),
        "SOLVER.WARM_UP_ITERS": 0,
    }
    cfg = with_values(TWO_X, values)
    short = fitted_schedule(cfg, 1_800)
    check_config(short)
    assert [learning_rate(short, n) for n in range(1_800)] == [learning_rate(cfg, 100 * n) for n in range(1_800)]


def test_every_configuration_can_be_of_any_length():
    for name in bundled_names():
        for iterations in (1, 7, 100, 12_345):
            check_config(fitted_schedule(bundled_config(name), iterations))
