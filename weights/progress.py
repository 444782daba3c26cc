"""How far long work is, on stderr: a bar on a terminal, above which all else is printed; in a log, plain whole lines.

A log gets a line every half minute, and none of work that takes less; --quiet leaves out both.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from detectron_gn.weights.shown import ShownStream, stream_for_progress

SECONDS_BETWEEN_LINES = 30.0


class Progress(Protocol):
    """What shows how much is done; `total` is None where nobody knows how much there is."""

    def begin(self, total: int | None, done: int) -> None:
        """Start, or start again, with so much done."""

    def update(self, more: int) -> None:
        """So much more is done."""


@contextmanager
def shown_progress(total: int | None, unit: str, name: str = "") -> Iterator[Progress]:
    """Show progress until the block ends.

    Args:
        unit: one of what is counted; "B" for bytes, which are shown in KiB, MiB and so on.
        name: of the work, where there may be several at once.
    """
    if getattr(sys.stderr, "is_quiet", False):
        yield _Nothing()
        return
    if not stream_for_progress().isatty():
        yield _Lines(total, unit, name)
        return
    bar = _Bar(total, unit, name)
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, ShownStream) and stream.isatty()]
    for stream in streams:
        stream.print_above(bar)
    try:
        yield bar
    finally:
        bar.close()
        for stream in streams:
            stream.print_above(None)


def progress_bar(results: Iterable[Any], count: int | None, unit: str = "image") -> Iterator[Any]:
    """The results as they come, of which there will be `count`, and meanwhile how many have come."""
    with shown_progress(count, unit) as progress:
        for result in results:
            yield result
            progress.update(1)


class _Bar:
    """tqdm's, on a terminal."""

    def __init__(self, total: int | None, unit: str, name: str) -> None:
        from tqdm import tqdm

        is_bytes = unit == "B"
        self._bar: tqdm[Any] = tqdm(
            total=total, unit=unit, desc=name or None, file=stream_for_progress(), unit_scale=is_bytes,
            unit_divisor=1024 if is_bytes else 1000,
        )  # fmt: skip

    def begin(self, total: int | None, done: int) -> None:
        self._bar.total, self._bar.n = total, done
        self._bar.refresh()

    def update(self, more: int) -> None:
        self._bar.update(more)

    def clear(self) -> None:
        """Take the bar away from the terminal's last line."""
        self._bar.clear()

    def refresh(self) -> None:
        """Show it again."""
        self._bar.refresh()

    def close(self) -> None:
        """Leave it as it is, and end its line."""
        self._bar.close()


class _Nothing:
    def begin(self, total: int | None, done: int) -> None: ...

    def update(self, more: int) -> None: ...


class _Lines:
    """Lines such as `12 of 40 images, 0.28 images/s, 01:40 left`."""

    def __init__(self, total: int | None, unit: str, name: str) -> None:
        self._unit, self._name = unit, name
        self.begin(total, 0)

    def begin(self, total: int | None, done: int) -> None:
        self._total, self._done, self._before = total, done, done
        self._start = self._last = time.monotonic()

    def update(self, more: int) -> None:
        self._done += more
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES and self._done != self._total:
            self._last = now
            print(self._line(now - self._start), file=sys.stderr, flush=True)

    def _line(self, seconds: float) -> str:
        from tqdm import tqdm

        rate = (self._done - self._before) / seconds
        units = self._unit + ("es" if self._unit.endswith("ch") else "s")

        def told(number: float, plain: str) -> str:
            return f"{tqdm.format_sizeof(number, divisor=1024)}B" if self._unit == "B" else plain

        done = told(self._done, f"{self._done:,}" if self._total is not None else f"{self._done:,} {units}")
        parts = [done if self._total is None else f"{done} of {told(self._total, f'{self._total:,} {units}')}"]
        parts.append(f"{told(rate, f'{rate:.3g} {units}')}/s")
        if self._total is not None and rate > 0:
            parts.append(f"{tqdm.format_interval((self._total - self._done) / rate)} left")
        return (f"{self._name}: " if self._name else "") + ", ".join(parts)
