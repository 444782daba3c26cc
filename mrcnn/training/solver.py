"""Learning rates and Caffe2's momentum SGD; answers to Detectron utils/lr_policy.py and modeling/optimizer.py."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.layers import ParameterKind, parameter_kinds

# Below this learning rate Detectron takes the momentum for fresh and leaves it alone (modeling/detector.py:_SetNewLr).
_FRESH_LR = 1e-7
# Of a picture of a schedule; more than it has pixels from left to right.
_CURVE_POINTS = 1000


def learning_rate(cfg: Config, iteration: int) -> float:
    """The learning rate of an iteration (counted from 0), rounded to float32 as Caffe2 holds it.

    `cfg.SOLVER.LR_POLICY` gives the rate, the warm-up scales it (Detectron utils/lr_policy.py:get_lr_at_iter). What
    must hold among the keys is `check_config`'s to say.
    """
    solver = cfg.SOLVER
    rate = _policy_rate(cfg, iteration)
    if iteration < solver.WARM_UP_ITERS:
        alpha = iteration / solver.WARM_UP_ITERS if solver.WARM_UP_METHOD == "linear" else 0.0
        rate *= solver.WARM_UP_FACTOR * (1 - alpha) + alpha
    return float(np.float32(rate))


def rate_steps(cfg: Config) -> list[int]:
    """The iterations of a run at which the policy lets the rate jump, in rising order; none for a smooth policy."""
    solver = cfg.SOLVER
    if solver.LR_POLICY == "step":
        return list(range(solver.STEP_SIZE, solver.MAX_ITER, solver.STEP_SIZE))
    if solver.LR_POLICY in ("steps_with_decay", "steps_with_lrs"):
        return sorted(step for step in solver.STEPS if 0 < step < solver.MAX_ITER)
    return []


def rate_curve(cfg: Config, first: int, last: int) -> dict[int, float]:
    """Learning rates of iterations from `first` to `last`, enough of them that lines between them are the schedule."""
    # Between jumps a stepped rate is straight, but a smooth one is not.
    corners = [*rate_steps(cfg), cfg.SOLVER.WARM_UP_ITERS]
    smooth = [] if rate_steps(cfg) else np.linspace(first, last, _CURVE_POINTS).astype(int).tolist()
    iterations = {first, last, *smooth, *corners, *(corner - 1 for corner in corners)}
    return {each: learning_rate(cfg, each) for each in sorted(iterations) if first <= each <= last}


def _policy_rate(cfg: Config, iteration: int) -> float:
    solver = cfg.SOLVER
    match solver.LR_POLICY:
        case "step":
            return solver.BASE_LR * solver.GAMMA ** (iteration // solver.STEP_SIZE)
        case "steps_with_decay":
            return solver.BASE_LR * solver.GAMMA ** _step_index(cfg, iteration)
        case "steps_with_lrs":
            return solver.LRS[_step_index(cfg, iteration)]
        case "cosine_decay":
            return solver.BASE_LR * 0.5 * (math.cos(math.pi * iteration / solver.MAX_ITER) + 1)
        case "exp_decay":
            return solver.BASE_LR * math.exp(iteration / solver.MAX_ITER * math.log(solver.GAMMA))
        case other:
            raise InputError(f"SOLVER.LR_POLICY is {other!r}, which is no learning-rate policy of Detectron")


def _step_index(cfg: Config, iteration: int) -> int:
    """How many of `cfg.SOLVER.STEPS`, the first of which is 0, have begun, less one (lr_policy.py:get_step_index)."""
    return sum(step <= iteration for step in cfg.SOLVER.STEPS) - 1


def parameter_groups(model: nn.Module, cfg: Config) -> list[dict[str, Any]]:
    """The trainable parameters of a model in Detectron's three groups, for `MomentumSGD`.

    Biases, GroupNorm shifts among them, have twice the gradient and no decay; GroupNorm scales decay by
    `cfg.SOLVER.WEIGHT_DECAY_GN`; everything else by `cfg.SOLVER.WEIGHT_DECAY`. AffineChannels and frozen parameters
    are in none (Detectron modeling/optimizer.py:add_single_gpu_param_update_ops).
    """
    kinds = parameter_kinds(model)
    rules: list[tuple[tuple[ParameterKind, ...], float, float]] = [
        (("weight",), 1.0, cfg.SOLVER.WEIGHT_DECAY),
        (("gn_scale",), 1.0, cfg.SOLVER.WEIGHT_DECAY_GN),
        (("bias", "gn_shift"), 2.0, 0.0),
    ]
    groups: list[dict[str, Any]] = []
    for of_kinds, gradient_scale, weight_decay in rules:
        params = [p for name, p in model.named_parameters() if p.requires_grad and kinds[name] in of_kinds]
        if params:
            groups.append({"params": params, "gradient_scale": gradient_scale, "weight_decay": weight_decay})
    return groups


class MomentumSGD(torch.optim.Optimizer):
    """Caffe2's MomentumSGDUpdate: `g = scale * grad + decay * p; V = mu * V + lr * g; p = p - V`.

    The learning rate is inside the momentum, so a change of it calls for rescaling V: `set_learning_rate` does that
    by Detectron's rule. V exists, at zero, from the start, as Detectron's `*_momentum` blobs do.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        momentum: float,
        scale_momentum: bool = True,
        scale_momentum_threshold: float = 1.1,
    ) -> None:
        super().__init__(groups, {"gradient_scale": 1.0, "weight_decay": 0.0})
        self.lr = 0.0
        self._momentum = momentum
        self._scale_momentum = scale_momentum
        self._scale_momentum_threshold = scale_momentum_threshold
        for parameter in self.parameters():
            self.state[parameter]["momentum"] = torch.zeros_like(parameter)

    @classmethod
    def from_config(cls, model: nn.Module, cfg: Config) -> "MomentumSGD":
        """The solver that `cfg.SOLVER` describes, over the trainable parameters of a model."""
        return cls(
            parameter_groups(model, cfg),
            momentum=cfg.SOLVER.MOMENTUM,
            scale_momentum=cfg.SOLVER.SCALE_MOMENTUM,
            scale_momentum_threshold=cfg.SOLVER.SCALE_MOMENTUM_THRESHOLD,
        )

    def parameters(self) -> Iterator[Tensor]:
        """The parameters of all groups in turn."""
        for group in self.param_groups:
            yield from group["params"]

    def momentum_of(self, parameter: Tensor) -> Tensor:
        """V of a parameter, to read or to copy into."""
        momentum: Tensor = self.state[parameter]["momentum"]
        return momentum

    @torch.no_grad()
    def set_learning_rate(self, lr: float) -> float:
        """Use `lr` from the next step on; returns what V was multiplied by (1.0 when it was left alone).

        V is multiplied by new / old when they differ by more than `cfg.SOLVER.SCALE_MOMENTUM_THRESHOLD` either way.
        It is left alone while the old rate is 0, which it is before the first step and again after a Detectron
        checkpoint was loaded (Detectron modeling/detector.py:_SetNewLr, _CorrectMomentum).
        """
        old, self.lr = self.lr, lr
        if not self._scale_momentum or old <= _FRESH_LR:
            return 1.0
        if max(lr / old, old / max(lr, 1e-10)) <= self._scale_momentum_threshold:
            return 1.0
        correction = float(np.float32(lr) / np.float32(old))
        torch._foreach_mul_([self.momentum_of(p) for p in self.parameters()], correction)
        return correction

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the `.grad` of every parameter; the gradients are consumed (left in an undefined state)."""
        for group in self.param_groups:
            parameters: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients = [p.grad for p in parameters if p.grad is not None]
            momenta = [self.momentum_of(p) for p in parameters]
            if group["gradient_scale"] != 1.0:
                torch._foreach_mul_(gradients, group["gradient_scale"])
            if group["weight_decay"] > 0:
                torch._foreach_add_(gradients, parameters, alpha=group["weight_decay"])
            torch._foreach_mul_(momenta, self._momentum)
            torch._foreach_add_(momenta, gradients, alpha=self.lr)
            torch._foreach_sub_(parameters, momenta)

    def state_dict(self) -> dict[str, Any]:
        """The learning rate and V of every parameter, in the order of the groups."""
        return {"lr": self.lr, "momentum": [self.momentum_of(p) for p in self.parameters()]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave, from a solver of the same parameters."""
        self.lr = state_dict["lr"]
        for parameter, momentum in zip(self.parameters(), state_dict["momentum"], strict=True):
            self.momentum_of(parameter).copy_(momentum)
