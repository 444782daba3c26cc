"""The iterations of a run and what follows them: figures, checkpoints, evaluations, the best of these, the end."""

import shlex
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import torch

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.distributed import Ranks
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.stopping import Stopped, StopRequest
from detectron_gn.mrcnn.training.loop import IterationResult, NonFiniteLoss, train
from detectron_gn.mrcnn.training.stats import TrainingStats
from detectron_gn.mrcnn.wording import amount
from detectron_gn.verify.training.best import BestCheckpoint
from detectron_gn.verify.training.length import MOST_SECONDS_WITHOUT
from detectron_gn.verify.training.metrics import RunFigures
from detectron_gn.verify.training.progress import progress_line, time_left, told_after
from detectron_gn.verify.training.run_dir import RunFolder
from detectron_gn.verify.training.run_options import RunOptions
from detectron_gn.verify.training.start import TrainingRun
from detectron_gn.weights.errors import WeightsError
from detectron_gn.weights.shown import folded

# Seconds after which curves.png is drawn again with a checkpoint; half a second each, and always at the end.
DRAWN_AGAIN = 10


class Course:
    """A run that is ready to go, in its folder.

    Args:
        stop: the signal that has come, if any.
        say: prints a line in the first process.
        on_checkpoint: called in every process with the model and the last iteration whenever a checkpoint was written.

    Attributes:
        figures: the run's.
    """

    def __init__(
        self,
        run: TrainingRun,
        cfg: Config,
        folder: RunFolder,
        ranks: Ranks,
        options: RunOptions,
        stop: StopRequest,
        say: Callable[[str], None],
        on_checkpoint: Callable[[Detector, int], None] | None,
    ) -> None:
        self._run, self._cfg, self._folder, self._ranks = run, cfg, folder, ranks
        self._options, self._stop, self._say, self._on_checkpoint = options, stop, say, on_checkpoint
        self.figures = RunFigures(options.out, say)
        self._best = BestCheckpoint(folder, self.figures, options.keep_best, options.patience, options.judged_by)
        self._period = options.checkpoints.period(cfg)
        self._last = run.start - 1
        self._stats = TrainingStats(run.start, cfg.SOLVER.MAX_ITER)
        self._saved_at = self._drawn_at = time.monotonic()
        self._is_saving = self._has_scaled = False
        stop.tell = self._tell_stopping

    @property
    def has_ended_early(self) -> bool:
        """Whether the evaluations on record ended the run at the checkpoint that it begins with."""
        return self._best.is_enough(self._last)

    def run(
        self, batches: Iterator[Minibatch], say_in_each: Callable[[str], None], *, is_resumed: bool
    ) -> Path | None:
        """Train to the end, or as long as the evaluations get better; returns the path of `model_final.pkl`.

        Args:
            batches: of this process.
            say_in_each: prints a line in each process.
            is_resumed: whether the run goes on from a checkpoint of its own.
        """
        try:
            is_enough = is_resumed and self._look_again()
            if not is_enough:
                is_enough = self._train(_with_remarks(batches, say_in_each))
            return self._finish(is_enough)
        except Stopped as stopped:
            if self._ranks.is_first:
                self.figures.draw(self._cfg)
            command = self._options.command
            how = f"go on with: {command}" if command else self._folder.how_to_go_on()
            self._say(f"{stopped} after iteration {self._last}; {how}")
            raise
        except NonFiniteLoss as error:
            if not self._ranks.is_first:
                raise
            raise NonFiniteLoss(f"{error}; {self._keep_diverged()}") from None
        except InputError as error:
            # The run's data: images may be mended, and with other annotations it is another run.
            raise InputError(
                f"{error}; check-data lists all such files; once the file is mended, {self._folder.how_to_go_on()}; "
                f"where you change the annotations instead, {self._folder.how_to_go_on_with_other_data()}"
            ) from None
        except WeightsError as error:
            raise InputError(f"{error}; once that is mended, {self._folder.how_to_go_on()}") from None

    def _train(self, batches: Iterator[Minibatch]) -> bool:
        """The iterations that are left; returns whether the evaluations ended them early."""
        end = self._cfg.SOLVER.MAX_ITER
        steps = train(
            self._run.model,
            self._run.solver,
            batches,
            self._run.start,
            self._ranks,
            forward_context=forward_context(self._options, self._ranks),
            stop_asked=lambda: self._stop.signal != 0,
        )
        for result in steps:
            self._last = result.iteration
            done = result.iteration + 1
            if self._ranks.is_first:
                self._record(result)
            if done == end:
                break
            if result.stop or done % self._period == 0:
                if self._ranks.is_first:
                    self._save()
                if self._look_at():
                    return True
            elif self._ranks.is_first and self._has_waited():
                self._save(" (half an hour without one)")
        return False

    def _finish(self, is_enough: bool) -> Path | None:
        final = None
        if self._ranks.is_first:
            if is_enough:
                patience = amount(self._options.patience or 0, "evaluation")
                self._say(
                    f"ended early after iteration {self._last}: {patience} without a better one "
                    "(--resume --early-stop 0 goes on)"
                )
            self._is_saving = True
            final, _ = self._folder.save_final(self._run.weights(self._last))
            self._is_saving = False
            self._say(f"final model: {final}")
        if not is_enough:
            self._look_at()
        if final is not None:
            self.figures.draw(self._cfg)
            if (best := self._best.kept_after(self._last)) is not None:
                self._say(best)
            self._say("half of a file is momentum, which only training needs; to leave it out:")
            source, small = final if best is None else self._best.path, final.with_name("model_small.pth")
            self._say(f"  {shlex.join(['detectron-gn', 'convert', str(source), '--out', str(small), '--strip'])}")
        return final

    def _look_again(self) -> bool:
        """What a run looks at that goes on from its checkpoint; returns whether it has done enough."""
        is_due = 0 <= self._last < self._cfg.SOLVER.MAX_ITER - 1 and (self._last + 1) % self._period == 0
        # A kill may have come before its evaluation was done; what the first process sees counts for all.
        if is_due and self._ranks.exchange(self._last not in self.figures.evaluations())[0]:
            return self._look_at()
        return self._judge()

    def _look_at(self) -> bool:
        """What follows a checkpoint: the end, where any process was asked to stop, or else its evaluation.

        Returns whether the run has done enough.
        """
        asked = max(self._ranks.exchange(self._stop.signal))
        if asked:
            raise Stopped(asked)
        if self._on_checkpoint is not None:
            self._on_checkpoint(self._run.model, self._last)
            self._run.model.train()
        if self._ranks.is_first and time.monotonic() - self._drawn_at >= DRAWN_AGAIN:
            self.figures.draw(self._cfg)
            self._drawn_at = time.monotonic()
        return self._judge()

    def _judge(self) -> bool:
        """Keep the best checkpoint so far; returns whether the run has done enough."""
        if self._ranks.is_first:
            try:
                line = self._best.keep(self._last)
            except (WeightsError, OSError) as error:
                # The checkpoint itself is there: no reason to end hours of training.
                line = f"the best checkpoint could not be kept: {error}; training goes on"
            if line is not None:
                self._say(folded(line, "  "))
        if not self._options.patience:
            return False
        return self._ranks.exchange(self._ranks.is_first and self._best.is_enough(self._last))[0]

    def _save(self, why: str = "") -> None:
        self._is_saving = True
        path = self._folder.save(self._run.weights(self._last))
        self._is_saving = False
        self._say(f"checkpoint: {path}{why}")
        self._saved_at = time.monotonic()

    def _tell_stopping(self) -> None:
        """Say, as soon as a signal has come, what is done before the end: an iteration may take minutes."""
        left = "the checkpoint" if self._is_saving else f"iteration {self._last + 1}, then a checkpoint"
        self._say(f"finishing {left}; once more ends at once and loses what was done since the last checkpoint")

    def _has_waited(self) -> bool:
        """Whether there has been no checkpoint for too long."""
        return self._options.checkpoints.is_often and time.monotonic() - self._saved_at > MOST_SECONDS_WITHOUT

    def _keep_diverged(self) -> str:
        """Keep the state before a loss that is not finite; returns what to say of it."""
        try:
            path = self._folder.save_as(f"diverged_iter{self._last}.pth", self._run.weights(self._last))
        except WeightsError as no_room:
            return f"the state before it is not kept: {no_room}"
        return f"the state before it is in {path}"

    def _record(self, result: IterationResult) -> None:
        """Keep the figures of an iteration, print them when a line is due, and once the time that is left."""
        stats, end = self._stats, self._cfg.SOLVER.MAX_ITER
        stats.add(result.iteration, result.outputs, result.seconds)
        if result.momentum_scale != 1.0:
            self._tell_scaled(result)
        if stats.is_due(result.iteration):
            line = stats.line(result.iteration, result.lr, self._ranks.device)
            self.figures.add(line)
            self._say(progress_line(line, end, stats.timed_iterations))
        left = end - result.iteration - 1
        if left and result.iteration == self._run.start + told_after(end - self._run.start) - 1:
            self._say(folded(time_left(stats.seconds_an_iteration, left), "  "))

    def _tell_scaled(self, result: IterationResult) -> None:
        """Say that the momentum was scaled with the rate; of a warm-up, in most iterations of which it is, once."""
        is_warm_up = result.iteration < self._cfg.SOLVER.WARM_UP_ITERS
        if is_warm_up and self._has_scaled:
            return
        self._has_scaled = True
        also = ", as often in the warm-up" if is_warm_up else ""
        scaled = f"momentum times {result.momentum_scale:g} to fit it"
        self._say(f"iteration {result.iteration}: rate {result.lr:g}; {scaled}{also}")


def forward_context(options: RunOptions, ranks: Ranks) -> Callable[[], AbstractContextManager[object]]:
    """What to wrap each forward pass in."""
    if options.precision == "bf16":
        return partial(torch.autocast, ranks.device.type, torch.bfloat16)
    return nullcontext


def _with_remarks(batches: Iterable[Minibatch], say: Callable[[str], None]) -> Generator[Minibatch, None, None]:
    """The minibatches, each remark about an image file said once."""
    said: set[str] = set()
    for minibatch in batches:
        for remark in minibatch.remarks:
            if remark not in said:
                said.add(remark)
                say(remark)
        yield minibatch
