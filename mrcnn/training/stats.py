"""The running figures of a training run; answers to Detectron utils/training_stats.py and utils/logging.py."""

import datetime
from collections import deque
from collections.abc import Mapping
from statistics import median

import torch

from detectron_gn.mrcnn.training.outputs import losses_of

PERIOD = 20
"""Iterations that medians are of, and between two lines of a run of a thousand iterations and more, as in Detectron."""

_LEAST_LINES = 50


class TrainingStats:
    """Medians of the losses over the last 20 iterations, as Detectron's `json_stats` lines give them.

    There is a line every 20 iterations, as in Detectron; of a run of less than 1000 iterations, one every fiftieth of
    it. `time` and `eta` are of the iterations of this process, from the 22nd on without those up to there.
    """

    def __init__(self, start: int, max_iter: int) -> None:
        self._start, self._max_iter = start, max_iter
        self._period = max(1, min(PERIOD, max_iter // _LEAST_LINES))
        self._values: dict[str, deque[float]] = {}
        self._seconds, self._iterations = 0.0, 0

    def add(self, iteration: int, outputs: Mapping[str, float], seconds: float) -> None:
        """Take in the losses and metrics of an iteration and the time it took."""
        total = sum(losses_of(outputs).values())
        for name, value in {**outputs, "loss": total}.items():
            self._values.setdefault(name, deque(maxlen=PERIOD)).append(value)
        if iteration == self._start + PERIOD + 1:
            # The first iterations are slower: files are not cached yet, libraries choose their algorithms. Detectron
            # forgets them after its second line, too (utils/train.py:train_model).
            self._seconds, self._iterations = 0.0, 0
        self._seconds += seconds
        self._iterations += 1

    def is_due(self, iteration: int) -> bool:
        """Whether a line is due after this iteration."""
        return iteration % self._period == 0 or iteration == self._max_iter - 1

    @property
    def seconds_an_iteration(self) -> float:
        """The mean of this process's iterations, without the first ones after the start."""
        return self._seconds / max(self._iterations, 1)

    @property
    def timed_iterations(self) -> int:
        """How many iterations that mean is of."""
        return self._iterations

    def line(self, iteration: int, lr: float, device: torch.device) -> dict[str, float | int | str]:
        """The figures of Detectron's line; `mem` in MiB, 0 on a CPU. Its queue length `mb_qsize` has no counterpart.

        `eta` is of the iterations that are left; Detectron counts the one that was just done, too.
        """
        seconds = self.seconds_an_iteration
        memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
        return {
            "iter": iteration,
            "lr": lr,
            "time": seconds,
            "eta": str(datetime.timedelta(seconds=int(seconds * (self._max_iter - iteration - 1)))),
            "mem": -(-memory // 2**20),
            **{name: median(values) for name, values in self._values.items()},
        }
