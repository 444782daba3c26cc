"""Progress: whole lines in a log, a bar on a terminal with all else above it, and nothing with --quiet."""

import io
import itertools
import sys
from typing import TextIO, cast

import pytest

from detectron_gn.weights import progress
from detectron_gn.weights.progress import progress_bar, shown_progress
from detectron_gn.weights.shown import ShownStream


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A stderr that is no terminal, with a clock that is ten seconds further whenever it is looked at."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", ShownStream(cast(TextIO, stream)))
    clock = itertools.count(0, 10)
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    return stream


def test_a_log_gets_a_whole_line_every_half_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = log(monkeypatch)
    assert list(progress_bar(range(8), 8)) == [*range(8)]
    assert stream.getvalue() == "3 of 8 images, 0.1 images/s, 00:50 left\n6 of 8 images, 0.1 images/s, 00:20 left\n"


def test_nothing_is_said_of_short_work_or_twice_of_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = log(monkeypatch)
    list(progress_bar(range(3), 3))
    assert stream.getvalue() == ""


def test_units_and_totals_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = log(monkeypatch)
    list(progress_bar(range(3), None, "batch"))
    with shown_progress(None, "B", "48616381 model") as shown:
        shown.begin(170 << 20, 20 << 20)
        for _ in range(3):
            shown.update(10 << 20)
    batches, model = stream.getvalue().splitlines()
    assert batches == "3 batches, 0.1 batches/s"
    assert model == "48616381 model: 50.0MB of 170MB, 1.00MB/s, 02:00 left"


def test_what_is_said_meanwhile_stands_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, ShownStream(cast(TextIO, terminal)))
    for number in progress_bar(range(3), 3):
        if number == 1:
            print("an error", file=sys.stderr)
            print("a result", end="")
    print(" of the end")
    # What a terminal shows: what follows a return takes the place of what stood there.
    shown = [line.rpartition("\r")[2] for line in terminal.getvalue().split("\n")]
    assert shown[0] == "an error" and shown[1].startswith("100%") and shown[2:] == ["a result of the end", ""]


def test_quiet_work_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = log(monkeypatch)
    sys.stderr.is_quiet = True  # type: ignore[attr-defined]
    assert len(list(progress_bar(range(8), 8))) == 8
    assert stream.getvalue() == ""
