"""The training loop; answers to Detectron utils/train.py:train_model."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.minibatch import Minibatch, sampling_seed
from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.distributed import Ranks
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.training.network import TrainingNetwork
from detectron_gn.mrcnn.training.outputs import METRICS, losses_of
from detectron_gn.mrcnn.training.samplers import RandomSampler
from detectron_gn.mrcnn.training.solver import MomentumSGD, learning_rate


class NonFiniteLoss(InputError):
    """A loss became infinite or not a number; the parameters are those from before the iteration."""


@dataclass(frozen=True)
class IterationResult:
    """What an iteration gave: the losses summed over its minibatches, the metrics averaged, the learning rate.

    `momentum_scale` is what the momentum was multiplied by because the learning rate changed, 1.0 mostly.
    `stop` is whether a process was asked to stop; all processes get the same answer.
    """

    iteration: int
    lr: float
    momentum_scale: float
    outputs: dict[str, float]
    seconds: float
    stop: bool

    @property
    def loss(self) -> float:
        """The total loss."""
        return sum(losses_of(self.outputs).values())


def train(
    model: Detector,
    solver: MomentumSGD,
    minibatches: Iterator[Minibatch],
    start: int,
    ranks: Ranks,
    *,
    forward_context: Callable[[], AbstractContextManager[object]] = nullcontext,
    stop_asked: Callable[[], bool] = lambda: False,
) -> Iterator[IterationResult]:
    """Train from iteration `start` to `cfg.SOLVER.MAX_ITER`; yields after every step.

    Args:
        model: on the device of `ranks`.
        minibatches: this process's, in the order of `minibatch_numbers`.
        forward_context: wraps the forward passes, for autocast.
        stop_asked: whether this process was asked to stop; looked at once per iteration, before its step.

    An iteration has `cfg.NUM_GPUS` minibatches, whatever the number of processes: a process runs its share of them
    one after another, each normalised by itself, and one step is taken on the sum of all gradients.

    Raises NonFiniteLoss before a step on such a loss.
    """
    cfg = model.cfg
    network = ranks.share_gradients(TrainingNetwork(model))
    for iteration in range(start, cfg.SOLVER.MAX_ITER):
        began = time.perf_counter()
        lr = learning_rate(cfg, iteration)
        momentum_scale = solver.set_learning_rate(lr)
        solver.zero_grad(set_to_none=ranks.count == 1)
        numbers = ranks.minibatches(iteration, cfg.NUM_GPUS)
        names: list[str] = []
        outputs: dict[str, Tensor] = {}
        for number, minibatch in zip(numbers, minibatches):
            assert minibatch.number == number
            names += minibatch.names
            with _synchronised_last(network, is_last=number == numbers[-1]):
                for name, value in _backward(network, model, minibatch, cfg, forward_context).items():
                    outputs[name] = outputs[name] + value if name in outputs else value
        stop = torch.tensor(float(stop_asked()), device=ranks.device)
        *totals, stops = ranks.sum(torch.stack([*outputs.values(), stop])).tolist()
        summed = dict(zip(outputs, totals, strict=True))
        for name in summed.keys() & set(METRICS):
            summed[name] /= cfg.NUM_GPUS
        if not all(math.isfinite(value) for value in summed.values()):
            raise NonFiniteLoss(_sentence(iteration, lr, summed, names))
        solver.step()
        yield IterationResult(iteration, lr, momentum_scale, summed, time.perf_counter() - began, stops > 0)


def minibatch_numbers(cfg: Config, start: int, ranks: Ranks) -> Iterator[int]:
    """The numbers of the minibatches that a process trains on from iteration `start` to the end."""
    for iteration in range(start, cfg.SOLVER.MAX_ITER):
        yield from ranks.minibatches(iteration, cfg.NUM_GPUS)


def _backward(
    network: nn.Module,
    model: Detector,
    minibatch: Minibatch,
    cfg: Config,
    forward_context: Callable[[], AbstractContextManager[object]],
) -> dict[str, Tensor]:
    """Add the gradients of a minibatch to those there are; returns its losses and metrics."""
    sampler = RandomSampler(cfg, model.device, sampling_seed(cfg.RNG_SEED, minibatch.number))
    with model.products():
        with forward_context():
            outputs: dict[str, Tensor] = network(minibatch, sampler)
        loss = torch.stack(list(losses_of(outputs).values())).sum()
        loss.backward()  # type: ignore[no-untyped-call]
    return {name: value.detach() for name, value in outputs.items()}


def _synchronised_last(network: nn.Module, *, is_last: bool) -> AbstractContextManager[object]:
    """Let processes exchange gradients with the last minibatch of an iteration only."""
    if isinstance(network, DistributedDataParallel) and not is_last:
        return network.no_sync()
    return nullcontext()


def _sentence(iteration: int, lr: float, outputs: dict[str, float], names: Sequence[str]) -> str:
    parts = ", ".join(f"{name} {value:g}" for name, value in losses_of(outputs).items())
    return (
        f"the loss is not finite at iteration {iteration} (learning rate {lr:g}; {parts}; images {', '.join(names)}): "
        "look at these images with check-data, or lower SOLVER.BASE_LR"
    )
