"""Learning rates and momentum SGD are Caffe2's, bit for bit across a save and a change of rate."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.layers import AffineChannel
from detectron_gn.mrcnn.training.solver import MomentumSGD, learning_rate, parameter_groups

DECAY = {"LR_POLICY": "steps_with_decay", "MAX_ITER": 90, "BASE_LR": 0.02, "GAMMA": 0.1, "WARM_UP_ITERS": 20}
STEPS = {"STEPS": (0, 60, 80)}
POLICIES = {
    "steps": DECAY | STEPS,
    "steps_lrs": STEPS | {"LR_POLICY": "steps_with_lrs", "LRS": (0.02, 0.002, 0.0002), "WARM_UP_ITERS": 0},
    "cosine": {"LR_POLICY": "cosine_decay", "MAX_ITER": 90, "BASE_LR": 0.01, "WARM_UP_ITERS": 10},
    "exp": {"LR_POLICY": "exp_decay", "MAX_ITER": 90, "BASE_LR": 0.01, "GAMMA": 0.01, "WARM_UP_ITERS": 10},
    "step": {"LR_POLICY": "step", "STEP_SIZE": 30, "BASE_LR": 0.02, "GAMMA": 0.1, "WARM_UP_ITERS": 10},
    "const": DECAY | {"STEPS": (0,), "WARM_UP_METHOD": "constant"},
}


def config(**solver):
    cfg = Config()
    return replace(cfg, SOLVER=replace(cfg.SOLVER, **solver))


def one_parameter(value, **options):
    parameter = nn.Parameter(torch.tensor(value))
    return parameter, MomentumSGD([{"params": [parameter], **options}], momentum=0.9)


@pytest.mark.parametrize("name", POLICIES)
def test_learning_rates_are_detectrons(ops, name):
    cfg = config(**POLICIES[name])
    ours = np.array([learning_rate(cfg, iteration) for iteration in range(90)], dtype=np.float32)
    np.testing.assert_allclose(ours, ops[f"lr/{name}"][:], rtol=1.2e-7, atol=0)


def test_learning_rate_is_held_in_float32():
    cfg = config(LR_POLICY="steps_with_decay", STEPS=(0,), BASE_LR=0.02, WARM_UP_ITERS=0)
    assert learning_rate(cfg, 0) == float(np.float32(0.02)) != 0.02


def test_an_unknown_policy_is_refused_by_its_key():
    with pytest.raises(InputError, match="SOLVER.LR_POLICY is 'poly'"):
        learning_rate(config(LR_POLICY="poly"), 0)


def test_momentum_sgd_is_caffe2s_through_two_changes_of_learning_rate(ops):
    group = ops["momentum_sgd"]
    parameter, solver = one_parameter(group["p0"][:])
    for gradient, lr, expected, momentum in zip(
        group["grads"], group["lrs"], group["p"], group["m"], strict=True
    ):
        solver.set_learning_rate(float(np.float32(lr)))
        parameter.grad = torch.from_numpy(gradient)
        solver.step()
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(solver.momentum_of(parameter).numpy(), momentum, rtol=1e-5, atol=1e-8)


def test_momentum_is_scaled_only_when_the_rate_changes_by_more_than_a_tenth():
    parameter, solver = one_parameter([1.0])
    assert solver.set_learning_rate(0.1) == 1.0  # the rate before the first iteration is 0
    parameter.grad = torch.tensor([1.0])
    solver.step()
    assert solver.set_learning_rate(0.109) == 1.0
    assert solver.momentum_of(parameter).item() == pytest.approx(0.1)
    assert solver.set_learning_rate(0.0109) == pytest.approx(0.1)
    assert solver.momentum_of(parameter).item() == pytest.approx(0.01)
    assert solver.set_learning_rate(0.0218) == pytest.approx(2.0)


def test_scale_momentum_false_leaves_the_momentum_alone():
    parameter = nn.Parameter(torch.ones(1))
    solver = MomentumSGD([{"params": [parameter]}], momentum=0.9, scale_momentum=False)
    solver.set_learning_rate(0.1)
    assert solver.set_learning_rate(0.01) == 1.0


def test_the_rate_of_one_step_stays_in_the_momentum_of_the_next():
    # V1 = 0.1 * 1, V2 = 0.9 * 0.1 + 0.05 * 1 = 0.14: torch's SGD would move by 0.05 * 1.9 = 0.095.
    parameter = nn.Parameter(torch.zeros(1))
    solver = MomentumSGD([{"params": [parameter]}], momentum=0.9, scale_momentum=False)
    for lr, after in ((0.1, -0.1), (0.05, -0.24)):
        solver.set_learning_rate(lr)
        parameter.grad = torch.ones(1)
        solver.step()
        assert parameter.item() == pytest.approx(after)


def test_biases_learn_twice_as_fast_and_only_weights_and_gn_scales_decay():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.GroupNorm(1, 2), AffineChannel(2))
    cfg = config(WEIGHT_DECAY=0.5, WEIGHT_DECAY_GN=0.25)
    groups = parameter_groups(model, cfg)
    assert [(len(g["params"]), g["gradient_scale"], g["weight_decay"]) for g in groups] == [
        (1, 1.0, 0.5),
        (1, 1.0, 0.25),
        (2, 2.0, 0.0),
    ]
    values = [2.0, 2.0, 2.0, 2.0]  # conv weight, conv bias, gn scale, gn shift
    for parameter, value in zip(model[:2].parameters(), values, strict=True):
        parameter.data.fill_(value)
        parameter.grad = torch.ones_like(parameter)
    solver = MomentumSGD.from_config(model, cfg)
    solver.set_learning_rate(0.1)
    solver.step()
    moved = [2.0 - p.detach().flatten()[0].item() for p in model[:2].parameters()]
    assert moved == pytest.approx([0.1 * (1 + 0.5 * 2), 0.1 * 2, 0.1 * (1 + 0.25 * 2), 0.1 * 2])


def test_frozen_parameters_have_no_momentum():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1))
    model[0].requires_grad_(False)
    solver = MomentumSGD.from_config(model, Config())
    assert {id(p) for p in solver.parameters()} == {id(p) for p in model[1].parameters()}


def test_state_round_trip_goes_on_bit_for_bit():
    def run(solver, parameter, iterations):
        for iteration in iterations:
            solver.set_learning_rate(0.1 if iteration < 3 else 0.01)
            parameter.grad = torch.sin(torch.arange(5.0) + iteration)
            solver.step()

    parameter, solver = one_parameter([0.0] * 5)
    run(solver, parameter, range(6))
    first, interrupted = one_parameter([0.0] * 5)
    run(interrupted, first, range(3))  # stops just before the rate changes
    second, resumed = one_parameter(first.detach().tolist())
    resumed.load_state_dict(interrupted.state_dict())
    run(resumed, second, range(3, 6))
    assert torch.equal(parameter, second)
