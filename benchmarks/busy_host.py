"""How long a picture takes where other processes want the processor too, by the settings of OpenMP.

    python -m benchmarks.busy_host [--neighbours 0 4] [--pictures 5] [--rounds 2]

PyTorch computes with a thread per core (OMP_NUM_THREADS). Unless OMP_WAIT_POLICY is PASSIVE, a thread that has finished
its share waits for the others by turning round and round. Where another process has the core of the one it waits for,
it turns until the system takes its own core away as well.

The demo's model detects in its own pictures, in a process for each setting; the settings take turns. The neighbours are
processes that only count.
"""

import argparse
import json
import lzma
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import detectron_gn
from benchmarks.common import Seconds
from benchmarks.help_text import FoldedHelp

DEMO = Path(__file__).resolve().parents[1] / "verify" / "demo_model"
VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MKL_NUM_THREADS")
SETTINGS: tuple[dict[str, str], ...] = ({}, {"OMP_WAIT_POLICY": "PASSIVE"}, {"OMP_NUM_THREADS": "1"})
COLUMNS = ("set", "s a picture", "slowest", "processor s")
HEADINGS, LINE = "{:14} {:24} {:>11} {:>8} {:>12}", "{:14} {:24} {:11.2f} {:8.2f} {:12.2f}"
COUNT = "n = 0\nwhile True: n += 1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=FoldedHelp)
    cores = len(os.sched_getaffinity(0))
    counts = [0, 2 * cores]
    parser.add_argument("--neighbours", type=int, nargs="+", default=counts, metavar="N", help="default 0, 2 a core")
    parser.add_argument("--pictures", type=int, default=5, help="measured of each turn (default 5)")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each setting (default 2)")
    parser.add_argument("--side", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side is not None:
        print(json.dumps(measured(args.side, args.pictures)))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model_final.pkl"
        model.write_bytes(lzma.decompress((DEMO / "model_final.pkl.xz").read_bytes()))
        print(HEADINGS.format(f"{cores} cores", *COLUMNS))
        for count in args.neighbours:
            with neighbours(count):
                for name, times in turns(model, args.pictures, args.rounds).items():
                    wall, used = times["wall"], times["processor"]
                    beside = f"{count} neighbours" if count else "as it was"
                    print(LINE.format(beside, name, statistics.median(wall), max(wall), statistics.median(used)))
        print(f"load of the last minute: {os.getloadavg()[0]:.0f}")


def turns(model: Path, pictures: int, rounds: int) -> dict[str, Seconds]:
    """The seconds of every picture under each setting, the settings taking turns."""
    times: dict[str, Seconds] = {}
    for _ in range(rounds):
        for setting in SETTINGS:
            name = " ".join(f"{key}={value}" for key, value in setting.items()) or "nothing"
            environment = {key: value for key, value in os.environ.items() if key not in VARIABLES} | setting
            command = [sys.executable, "-m", "benchmarks.busy_host", "--side", str(model), "--pictures", str(pictures)]
            printed = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
            for key, values in json.loads(printed).items():
                times.setdefault(name, {}).setdefault(key, []).extend(values)
    return times


def measured(model: Path, count: int) -> Seconds:
    """Seconds of the clock and of the processor for each of that many pictures, after one that does not count."""
    detector = detectron_gn.load(model, device="cpu")
    times: Seconds = {"wall": [], "processor": []}
    for number, path in enumerate(sorted((DEMO / "val").iterdir())[: count + 1]):
        start, used = time.perf_counter(), time.process_time()
        detector.detect(path)
        if number:
            times["wall"].append(time.perf_counter() - start)
            times["processor"].append(time.process_time() - used)
    return times


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Processes that take all the processor they get, while the context is open."""
    started = [subprocess.Popen([sys.executable, "-c", COUNT]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
