"""Reads thousands of damaged weights files and counts what becomes of them.

Usage: python -m benchmarks.fuzz_weights [--files 20000] [--seed 0] [--json FILE]

Small files of every format, and pickles of every protocol, are damaged in seeded ways and read. Each must be
read or refused with a WeightsError in under 5 seconds; anything else is a finding, printed with its seed and kept.
Exits with 1 if there was one.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from detectron_gn.weights import WeightsError, WeightsFile, read_blobs, write_blobs

LONGEST_SECONDS = 5.0

OPCODES = b"(.02IJKLMNRSTUVXabcdeghijlopqrstu}]Q\x80\x81\x85\x86\x87\x8a\x8b\x8c\x8d\x93\x94\x95\x96"
WORDS = (
    b"PK\x01\x02 PK\x03\x04 PK\x05\x06 TREE SNOD HEAP cos\nsystem\n cnumpy\ndtype\n cnumpy\nndarray\n q\0h\0 K\0\x85 "
    b'f4 O8 data.pkl "shape":[ "dtype":"F64" 18446744073709551615 \xff\xff\xff\xff \x7f\xff\xff\xff \0\0\0\0\0\0\0\0'
)
TOKENS = [*(bytes([code]) for code in OPCODES), *WORDS.split(b" "), b"\xff" * 8]
"""What has a meaning in one of the formats."""


@dataclass
class Report:
    """What became of the files: how often each outcome, the slowest, and the seeds of the findings."""

    files: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_seconds: float = 0.0
    findings: list[str] = field(default_factory=list)


class Hang(BaseException):
    """Reading took too long; no Exception, so that nobody on the way can catch it."""


def originals(folder: Path) -> list[bytes]:
    """Sound files: the four formats, and pickles of every protocol of Python 3."""
    chance = np.random.default_rng(0)
    blobs = {f"res{i}_branch2a_w": chance.standard_normal((2, i + 1)).astype("f4") for i in range(3)}
    blobs |= {"conv1_gn_s_momentum": np.ones(3, "f4"), "_[mask]_fcn1_w": np.zeros((0, 2), "f8")}
    weights = WeightsFile(blobs, "MODEL:\n  TYPE: x\n", 7, "fuzz", "pkl")
    found = []
    for suffix in (".pkl", ".h5", ".safetensors", ".pth"):
        write_blobs(folder / f"sound{suffix}", weights)
        found.append((folder / f"sound{suffix}").read_bytes())
    return found + [pickle.dumps({"blobs": blobs, "cfg": "a: 1"}, protocol) for protocol in range(6)]


def damage(content: bytes, chance: random.Random) -> bytes:
    """One to eight changes: bits, bytes, tokens, numbers, moved and lost pieces, a cut."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 3, 8])):
        at = chance.randrange(len(data) + 1)
        size = chance.choice([1, 1, 2, 4, 8, 40])
        match chance.randrange(8):
            case 0 | 1:
                data[min(at, len(data) - 1)] ^= 1 << chance.randrange(8)
            case 2:
                data[at : at + size] = chance.randbytes(size)
            case 3:
                token = chance.choice(TOKENS)
                data[at : at + chance.choice([0, len(token)])] = token
            case 4:
                data[at : at + size] = b""
            case 5:
                other = chance.randrange(len(data) + 1)
                data[at:at] = data[other : other + size * 4]
            case 6:
                number = chance.choice(
                    [0, 1, 255, 2**31 - 1, 2**31, 2**63, 2**64 - 1, len(data), chance.randrange(2**16)]
                )
                width = chance.choice([1, 2, 4, 8])
                data[at : at + width] = (number % 256**width).to_bytes(width, "little")
            case 7:
                del data[at:]
        if not data:
            data = bytearray(b"\x80")
    return bytes(data)


def run(files: int, seed: int, folder: Path) -> Report:
    """Damage and read `files` files in `folder`."""

    def too_long(signum: int, frame: object) -> None:
        raise Hang

    report = Report()
    sound = originals(folder)
    path = folder / "damaged.pkl"
    previous = signal.signal(signal.SIGALRM, too_long)
    try:
        for number in range(files):
            chance = random.Random(f"{seed} {number}")
            path.write_bytes(damage(sound[number % len(sound)], chance))
            start = time.perf_counter()
            signal.setitimer(signal.ITIMER_REAL, LONGEST_SECONDS)
            try:
                read_blobs(path)
                outcome = "read"
            except WeightsError as error:
                outcome = type(error).__name__
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                outcome = f"unexpected {type(error).__name__}"
                where = traceback.extract_tb(error.__traceback__)[-1]
                kept = shutil.copy(path, folder / f"finding-{seed}-{number}")
                report.findings.append(f"seed {seed} file {number}: {error!r} at {where.name}:{where.lineno}, {kept}")
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            report.files += 1
            report.outcomes[outcome] += 1
            report.slowest_seconds = max(report.slowest_seconds, time.perf_counter() - start)
    finally:
        signal.signal(signal.SIGALRM, previous)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-weights-"))
    report = run(arguments.files, arguments.seed, folder)
    print(f"{report.files} files, slowest {report.slowest_seconds:.3f} s")
    for outcome, count in report.outcomes.most_common():
        print(f"{count:8}  {outcome}")
    print(*report.findings, sep="\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(report), indent=1) + "\n")
    if not report.findings:
        shutil.rmtree(folder)
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
