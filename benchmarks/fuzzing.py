"""Reads thousands of strange and damaged files and counts what becomes of them: what the fuzz_* benchmarks share."""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.help_text import FoldedHelp
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.weights import WeightsError

LONGEST_SECONDS = 5.0

Content = dict[str, Any]
"""What was read, by name, in a form that `==` compares: digests and texts rather than arrays and numbers."""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        make: a file of it, drawn by chance.
        read: what ours reads; InputError or WeightsError where it refuses.
        real: what the real reader reads, of a file that ours has read; any Exception where it refuses.
        close: called when all files are read.
    """

    make: Callable[[random.Random], bytes]
    read: Callable[[Path], Content]
    real: Callable[[Path], Content] | None
    suffix: str
    close: Callable[[], None] = lambda: None


@dataclass
class Report:
    """What became of the files of a kind: how often each outcome, the slowest, the most memory, the findings.

    `only_ours` of those that ours reads the real reader refuses; `differences` it reads otherwise.
    """

    files: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    only_ours: int = 0
    differences: int = 0
    slowest_seconds: float = 0.0
    most_memory: int = 0
    findings: list[str] = field(default_factory=list)


class Hang(BaseException):
    """Reading took too long; no Exception, so that nobody on the way can catch it."""


def run(
    name: str, kind: Kind, seed: int, folder: Path, files: int | None = None, seconds: float | None = None
) -> Report:
    """Make and read files of a kind in `folder`: so many, or for so long."""

    def too_long(signum: int, frame: object) -> None:
        raise Hang

    report = Report()
    path = folder / f"damaged{kind.suffix}"
    end = None if seconds is None else time.monotonic() + seconds
    previous = signal.signal(signal.SIGALRM, too_long)
    try:
        while report.files != files and (end is None or time.monotonic() < end):
            number = report.files
            path.write_bytes(kind.make(random.Random(f"{seed} {number}")))
            wrong = _read(kind, path, report)
            if wrong is not None:
                kept = shutil.copy(path, folder / f"finding-{name}-{seed}-{number}{kind.suffix}")
                report.findings.append(f"{name}, seed {seed} file {number}: {wrong}, {kept}")
            report.files += 1
    finally:
        signal.signal(signal.SIGALRM, previous)
        kind.close()
    return report


def _read(kind: Kind, path: Path, report: Report) -> str | None:
    """Read a file with ours and the real reader; returns what is wrong, None where nothing is."""
    before, start = _memory("VmRSS"), time.perf_counter()
    _forget_peak()
    signal.setitimer(signal.ITIMER_REAL, LONGEST_SECONDS)
    wrong = ours = None
    try:
        ours = kind.read(path)
        outcome = "read"
    except (WeightsError, InputError) as error:
        outcome = type(error).__name__
        if "\n" in str(error):
            wrong = f"more than one line: {error!r}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome = f"unexpected {type(error).__name__}"
        where = traceback.extract_tb(error.__traceback__)[-1]
        wrong = f"{error!r} at {where.name}:{where.lineno}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    report.slowest_seconds = max(report.slowest_seconds, time.perf_counter() - start)
    report.most_memory = max(report.most_memory, _memory("VmHWM") - before)
    report.outcomes[outcome] += 1
    if ours is None or kind.real is None:
        return wrong
    report.compared += 1
    try:
        theirs = kind.real(path)
    except Exception:
        report.only_ours += 1
        return wrong
    if ours == theirs:
        return wrong
    report.differences += 1
    names = [name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name)]
    return f"{names[0]!a} is {ours.get(names[0])}, the real reader has {theirs.get(names[0])}"


def _memory(key: str) -> int:
    """VmRSS or VmHWM of this process, now or at most, in bytes; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)


def _forget_peak() -> None:
    if os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")


def main(description: str | None, kinds: Mapping[str, Kind], arguments: Sequence[str] | None) -> int:
    """Fuzz some of the kinds as the command line says and print what became of them; 1 where there is a finding."""
    parser = argparse.ArgumentParser(description=description, formatter_class=FoldedHelp)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each kind")
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=list(kinds))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    faulthandler.enable()
    logging.disable(logging.WARNING)
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    reports = {}
    for name in args.kinds:
        report = reports[name] = run(name, kinds[name], args.seed, folder, seconds=args.seconds)
        print(
            f"{name}: {report.files} files, {report.compared} held against the real reader, {report.differences} "
            f"differences, {report.only_ours} that it refuses; slowest {report.slowest_seconds:.3f} s, "
            f"most memory {report.most_memory / 2**20:.1f} MiB"
        )
        for outcome, count in report.outcomes.most_common():
            print(f"{count:8}  {outcome}")
        print(*report.findings[:20], sep="\n", flush=True)
    if args.json:
        args.json.write_text(json.dumps({name: vars(report) for name, report in reports.items()}, indent=1) + "\n")
    has_findings = any(report.findings for report in reports.values())
    if not has_findings:
        shutil.rmtree(folder)
    return 1 if has_findings else 0
