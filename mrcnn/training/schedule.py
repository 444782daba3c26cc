"""Another number of GPUs by the linear rule: a step on fewer images, so a lower rate and more steps."""

from fractions import Fraction
from math import ceil

from detectron_gn.mrcnn.config import Config, with_values


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


def schedule_changes(before: Config, after: Config) -> list[str]:
    """Lines that show what `scaled_schedule` changed."""
    images = [cfg.NUM_GPUS * cfg.TRAIN.IMS_PER_BATCH for cfg in (before, after)]
    lines = [f"images an iteration: {images[0]} -> {images[1]}", f"NUM_GPUS: {before.NUM_GPUS} -> {after.NUM_GPUS}"]
    for key in ("BASE_LR", "LRS", "MAX_ITER", "STEPS", "STEP_SIZE"):
        old, new = getattr(before.SOLVER, key), getattr(after.SOLVER, key)
        if old != new:
            lines.append(f"SOLVER.{key}: {old} -> {new}")
    return lines
