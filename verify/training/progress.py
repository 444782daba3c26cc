"""How far a run is, in a line for the screen, and how long it will take."""

from collections.abc import Mapping
from datetime import datetime, timedelta

# After so many iterations of a process, or a tenth of a short run's, the time left is said once.
_TIMED_AFTER = 100
# The time of fewer says nothing: the first one reads files and chooses algorithms.
_FEWEST_TIMED = 5


def progress_line(line: Mapping[str, float | int | str], max_iter: int, timed: int) -> str:
    """The figures of a `json_stats` line that a person looks at: iteration, loss, rate, time left.

    Args:
        line: as `TrainingStats.line` gives it.
        max_iter: SOLVER.MAX_ITER.
        timed: how many iterations the time left is estimated from; of too few it is left out.
    """
    iteration = int(line["iter"])
    rest = max_iter - iteration - 1
    told = f"iteration {iteration:,} of {max_iter:,}  loss {line['loss']:.4f}  rate {line['lr']:.3g}"
    if timed < _FEWEST_TIMED or not rest:
        return told
    return f"{told}  {span(timedelta(seconds=float(line['time']) * rest))} left"


def told_after(iterations: int) -> int:
    """After how many iterations of a process that has so many to do the time left is said."""
    return max(_FEWEST_TIMED, min(_TIMED_AFTER, iterations // 10))


def time_left(seconds: float, iterations: int) -> str:
    """A line about iterations that take so many seconds each."""
    left = timedelta(seconds=seconds * iterations)
    end = f"{datetime.now() + left:%H:%M}" if left < timedelta(hours=20) else f"{datetime.now() + left:%Y-%m-%d %H:%M}"
    return f"time left: about {span(left)} ({seconds:.3g} s an iteration), until {end}; evaluations not counted"


def span(time: timedelta) -> str:
    """A length of time in the two largest of its units: `2 d 5 h`, `1 h 20 min`, `40 s`."""
    seconds = round(time.total_seconds())
    for name, size, smaller, small_size in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            rest = seconds % size // small_size
            return f"{seconds // size} {name}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds} s"
