"""How the verdict over a replayed training is worded: no stronger than what was compared."""

from detectron_gn.verify.parity.training_check import (
    FINAL_TOLERANCE,
    LOSS_TOLERANCE,
    UPDATE_TOLERANCE,
    TrainingParity,
)


def told_training_verdict(parity: TrainingParity) -> str:
    """Whether it is the same run, how many values say so, and that its start was taken on trust."""
    if not parity.holds:
        return "It is not the same run."
    kinds = (
        (parity.losses, f"losses to {LOSS_TOLERANCE:g}"),
        (parity.updates, f"updates to {UPDATE_TOLERANCE:g} of their norm"),
        (parity.parameters, f"final parameters to {FINAL_TOLERANCE:g} of their way"),
    )
    told = [f"{verdict.within:,} of {verdict.count:,} {kind}" for verdict, kind in kinds if verdict.count]
    rounding = sum(verdict.rounding for verdict, _ in kinds)
    others = f"; the other {rounding:,} differ by no more than rounding moves them" if rounding else ""
    first = parity.iterations[0]
    worst = max(map(first.loss_error, first.losses), default=0.0)
    return (
        f"It is the same run, as far as rounding lets one tell: {', '.join(told)}{others}. The weights that it starts "
        f"from are taken on trust, since a trace has no digests of them: its first losses, which agree to {worst:.1g}, "
        "show that they are near, and not that they are the same."
    )
