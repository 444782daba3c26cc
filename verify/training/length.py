"""How long a run is, and how often it keeps a checkpoint, where its user says so in other words than Detectron's."""

from dataclasses import dataclass
from math import ceil

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.roidb import Roidb
from detectron_gn.mrcnn.training.schedule import fitted_schedule

# A run writes at least so many checkpoints, its final model among them, where nobody says how often.
LEAST_CHECKPOINTS = 10
# But none more often than Detectron prints figures: a run of some minutes is as soon begun again.
SHORTEST_PERIOD = 20
# And one more whenever so many seconds have gone without.
MOST_SECONDS_WITHOUT = 30 * 60.0

# What a length sets in a configuration.
KEYS_OF_LENGTH = ("SOLVER.MAX_ITER", "SOLVER.STEPS", "SOLVER.STEP_SIZE", "SOLVER.WARM_UP_ITERS")
_POLICIES_OF_LENGTH = ("cosine_decay", "exp_decay")


@dataclass(frozen=True)
class RunLength:
    """A length in epochs or in iterations, into which the configuration's schedule is fitted.

    An epoch is as many images as are trained on, mirrored copies not counted, as papers count. (Detectron shows every
    image and its mirrored copy once before one comes again, which is two epochs.)

    Attributes:
        epochs, iterations: one of them.
        keep_warm_up: leave SOLVER.WARM_UP_ITERS as it is, because the user has set it.
    """

    epochs: int | None = None
    iterations: int | None = None
    keep_warm_up: bool = False

    @property
    def option(self) -> str:
        """The option that says it."""
        return "--epochs" if self.epochs is not None else "--iterations"

    def __str__(self) -> str:
        return f"{self.option} {self.epochs or self.iterations}"

    def fitted(self, cfg: Config, roidb: Roidb) -> Config:
        """The configuration with a schedule of this length."""
        count = self.iterations or ceil((self.epochs or 1) * image_count(roidb) / images_an_iteration(cfg))
        return fitted_schedule(cfg, count, keep_warm_up=self.keep_warm_up)


@dataclass(frozen=True)
class CheckpointRule:
    """When checkpoints are written; by default as Detectron does.

    Attributes:
        every: iterations between two of them, instead of TRAIN.SNAPSHOT_ITERS / NUM_GPUS.
        is_often: whether there are ten in a run at least, though none within 20 iterations of another, and one more,
            which is not evaluated, after half an hour without one.
    """

    every: int | None = None
    is_often: bool = False

    def period(self, cfg: Config) -> int:
        """Iterations between two checkpoints (Detectron utils/train.py:train_model)."""
        if self.every is not None:
            return self.every
        of_detectron = max(1, cfg.TRAIN.SNAPSHOT_ITERS // cfg.NUM_GPUS)
        often = max(SHORTEST_PERIOD, ceil(cfg.SOLVER.MAX_ITER / LEAST_CHECKPOINTS))
        return min(of_detectron, often) if self.is_often else of_detectron


def may_grow(cfg: Config) -> bool:
    """Whether a run may be made longer when it goes on: its length does not shape the rate from its beginning."""
    return cfg.SOLVER.LR_POLICY not in _POLICIES_OF_LENGTH


def image_count(roidb: Roidb) -> int:
    """The images that are trained on, mirrored copies not counted."""
    return sum(map(len, roidb.datasets))


def images_an_iteration(cfg: Config) -> int:
    """The images that one step is taken on."""
    return cfg.NUM_GPUS * cfg.TRAIN.IMS_PER_BATCH
