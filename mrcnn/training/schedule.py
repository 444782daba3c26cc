"""The schedule of a run in another form: on another number of GPUs by the linear rule, or of another length."""

from collections.abc import Iterable
from fractions import Fraction
from math import ceil

from detectron_gn.mrcnn.config import Config, with_values

# How much longer a schedule of Detectron is than its last step: 90,000 iterations for one at 80,000.
_OF_LAST_STEP = Fraction(9, 8)


def scaled_schedule(cfg: Config, num_gpus: int) -> Config:
    """The same training on `num_gpus` GPUs: the rate goes with their number, iterations go against it.

    The warm-up, in iterations, stays as it is, as in Detectron's own examples. Iterations are rounded up.
    """
    # Fractions, and rates as the decimals that they are written in: rounding would make of 300,000 iterations 300,001.
    share = Fraction(num_gpus, cfg.NUM_GPUS)

    def stretched(iterations: int) -> int:
        return ceil(iterations / share)

    def scaled(rate: float) -> float:
        return float(Fraction(str(rate)) * share)

    return with_values(
        cfg,
        {
            "NUM_GPUS": num_gpus,
            "SOLVER.BASE_LR": scaled(cfg.SOLVER.BASE_LR),
            "SOLVER.LRS": tuple(map(scaled, cfg.SOLVER.LRS)),
            "SOLVER.MAX_ITER": stretched(cfg.SOLVER.MAX_ITER),
            "SOLVER.STEPS": tuple(stretched(step) for step in cfg.SOLVER.STEPS),
            "SOLVER.STEP_SIZE": stretched(cfg.SOLVER.STEP_SIZE),
        },
    )


def fitted_schedule(cfg: Config, iterations: int, *, keep_warm_up: bool = False) -> Config:
    """The same shape of schedule in so many iterations: the rate changes at the same shares of the run.

    The warm-up is no longer than it was, and no longer than a tenth of the run, or than its own share where that is
    more. Detectron's 500 iterations do not hang on the length of a run, but would be most of a short one. What the
    shares are of says `shape_length`.

    Args:
        keep_warm_up: leave SOLVER.WARM_UP_ITERS as it is.
    """
    solver = cfg.SOLVER
    length = shape_length(cfg)
    share = Fraction(iterations, length)
    values: dict[str, object] = {"SOLVER.MAX_ITER": iterations}
    if solver.LR_POLICY == "step":
        values["SOLVER.STEP_SIZE"] = max(1, ceil(solver.STEP_SIZE * share))
    if solver.LR_POLICY in ("steps_with_decay", "steps_with_lrs"):
        # Two steps of a very short run must not fall together, nor one on the first, at 0.
        values["SOLVER.STEPS"] = _rising(ceil(step * share) for step in solver.STEPS)
    if not keep_warm_up:
        own = ceil(solver.WARM_UP_ITERS * share) if solver.WARM_UP_ITERS < length else 0
        longest = max(own, ceil(Fraction(iterations, 10)))
        values["SOLVER.WARM_UP_ITERS"] = min(solver.WARM_UP_ITERS, longest)
    return with_values(cfg, values)


def shape_length(cfg: Config) -> int:
    """The iterations that a schedule's steps are of: SOLVER.MAX_ITER, where all of them lie before it.

    Where they do not, somebody has cut MAX_ITER alone, and the steps are taken to be those of a longer schedule, whose
    last one comes at eight ninths of it, as in Detectron's 1x and 2x schedules.
    """
    solver = cfg.SOLVER
    stepped = solver.LR_POLICY in ("steps_with_decay", "steps_with_lrs")
    last = max(solver.STEPS, default=0) if stepped else 0
    return solver.MAX_ITER if last < solver.MAX_ITER else ceil(last * _OF_LAST_STEP)


def told_shape(cfg: Config) -> str | None:
    """A sentence about steps beyond SOLVER.MAX_ITER, and what a length makes of them; None where there are none."""
    length, solver = shape_length(cfg), cfg.SOLVER
    if length == solver.MAX_ITER:
        return None
    return (
        f"SOLVER.STEPS reach to {max(solver.STEPS)}, beyond SOLVER.MAX_ITER {solver.MAX_ITER}: fitted as the steps of "
        f"{length} iterations"
    )


def _rising(steps: Iterable[int]) -> tuple[int, ...]:
    found: list[int] = []
    for step in steps:
        found.append(max(step, found[-1] + 1) if found else step)
    return tuple(found)


def schedule_changes(before: Config, after: Config) -> list[str]:
    """Lines that show what `scaled_schedule` changed."""
    images = [cfg.NUM_GPUS * cfg.TRAIN.IMS_PER_BATCH for cfg in (before, after)]
    lines = [f"images an iteration: {images[0]} -> {images[1]}", f"NUM_GPUS: {before.NUM_GPUS} -> {after.NUM_GPUS}"]
    for key in ("BASE_LR", "LRS", "MAX_ITER", "STEPS", "STEP_SIZE"):
        old, new = getattr(before.SOLVER, key), getattr(after.SOLVER, key)
        if old != new:
            lines.append(f"SOLVER.{key}: {old} -> {new}")
    return lines
