"""Training on several machines beside one process: losses, updates, a machine that dies, a slow one.

    python -m benchmarks.machines [--hosts 2 3] [--iterations 41]

The twelve pictures and the small network of the tests, from random weights of a seed. The machines are network
namespaces, each with a process that torchrun starts; they meet as machines do, and exchange gradients over gloo. Linux,
as root.
"""

import argparse
import json
import signal
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.help_text import FoldedHelp
from detectron_gn.mrcnn.tables import text_table
from detectron_gn.weights import read_blobs
from detectron_gn.weights.command_line import at_least
from tests.helpers.hosts import ended, network, start_torchrun, stuttering
from tests.helpers.small_run import COMMAND, arguments, config_file

# Minibatches of an iteration: as many for each of 1, 2 and 3 machines.
MINIBATCHES = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=FoldedHelp)
    parser.add_argument("--hosts", type=at_least(2), nargs="+", default=[2, 3])
    parser.add_argument("--iterations", type=at_least(21), default=41, help="beside a slow machine (default 41)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print_updates(Path(folder), args.hosts)
        print_death(Path(folder))
        print_slow(Path(folder), args.iterations)


def print_updates(folder: Path, hosts: list[int]) -> None:
    """Losses and updates of two iterations beside those of one process."""
    file = settings(folder, minibatches=MINIBATCHES, iterations=2, checkpoint_every=1)
    train(1, file, folder / "alone")
    rows = []
    for count in hosts:
        out = folder / f"hosts{count}"
        train(count, file, out)
        for number, name in ((1, "model_iter0.pth"), (2, "model_final.pth")):
            lines = [stats(each)[number - 1 :] for each in (folder / "alone", out)]
            losses = [difference(*pair) for pair in zip(*lines, strict=True)][:1]
            shown = f"{losses[0]:.1e}" if losses else "-"
            rows.append([str(count), str(number), shown, f"{updates_apart(folder / 'alone' / name, out / name):.1e}"])
    print(text_table(["machines", "iteration", "largest of losses", "largest of updates"], rows))


def print_death(folder: Path) -> None:
    """Kill a machine in the middle, and go on."""
    file = settings(folder, minibatches=2, iterations=12, checkpoint_every=4)
    train(2, file, folder / "whole")
    out = folder / "died"
    with network(2) as machines:
        first, second = start_torchrun(machines, [words(file, out)] * 2)
        while not (out / "model_iter3.pth").exists():
            if first.poll() is not None:
                raise SystemExit(f"the run ended before its first checkpoint:\n{ended([first])[1][0]}")
            time.sleep(0.05)
        machines[1].signal(signal.SIGKILL)
        killed = time.monotonic()
        codes, _ = ended([first, second])
        print(f"killed machine 2 of 2: the other ended after {time.monotonic() - killed:.0f} s, exit code {codes[0]}")
    train(2, file, out, "--resume")
    one, other = (read_blobs(each / "model_final.pkl").blobs for each in (folder / "whole", out))
    same = sum(np.array_equal(one[name], other[name]) for name in one)
    print(f"gone on with --resume: {same} of {len(one)} arrays are those of a run in one go, bit for bit")


def print_slow(folder: Path, iterations: int) -> None:
    """Seconds of an iteration with a machine that stands still two thirds of the time."""
    file = settings(folder, minibatches=2, iterations=iterations, checkpoint_every=iterations)
    rows, finals = [], []
    for name in ("equal", "one slow"):
        out = folder / name
        train(2, file, out, is_slow=name == "one slow")
        rows.append([name, f"{stats(out)[-1]['time']:.3f}"])
        finals.append(read_blobs(out / "model_final.pkl").blobs)
    print(text_table(["two machines", "s an iteration"], rows))
    same = sum(np.array_equal(finals[0][name], finals[1][name]) for name in finals[0])
    print(f"{same} of {len(finals[0])} arrays are the same, bit for bit")


def settings(folder: Path, minibatches: int, iterations: int, checkpoint_every: int) -> Path:
    """The file of the small network's configuration."""
    keys = {
        "NUM_GPUS": minibatches, "SOLVER.MAX_ITER": iterations, "SOLVER.STEPS": "[0]",
        # Detectron divides by the GPUs.
        "TRAIN.SNAPSHOT_ITERS": checkpoint_every * minibatches,
    }  # fmt: skip
    return config_file(folder, *(str(word) for pair in keys.items() for word in pair))


def words(file: Path, out: Path, *more: str) -> list[str]:
    """What follows `python`."""
    return [*COMMAND[1:], *arguments(out, file), *more]


def train(count: int, file: Path, out: Path, *more: str, is_slow: bool = False) -> None:
    """A run on so many machines, to its end."""
    with network(count) as machines:
        started = start_torchrun(machines, [words(file, out, *more)] * count)
        with stuttering(machines[-1]) if is_slow else nullcontext():
            codes, told = ended(started)
    if any(codes):
        raise SystemExit("\n".join(told))


def stats(out: Path) -> list[dict[str, Any]]:
    """The lines of figures of a run."""
    return [json.loads(line) for line in (out / "json_stats.jsonl").read_text(encoding="utf-8").splitlines()]


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference between losses of two lines, as a share of the first one's."""
    losses = [name for name, value in one.items() if "loss" in name and value]
    return max(abs(other[name] - one[name]) / abs(one[name]) for name in losses)


def updates_apart(one: Path, other: Path) -> float:
    """The largest difference between updates (momentum) of two checkpoints, as a share of the first one's norm."""
    first, second = (read_blobs(each).blobs for each in (one, other))
    momenta = [name for name in first if name.endswith("_momentum") and np.linalg.norm(first[name]) > 1e-5]
    return max(float(np.linalg.norm(second[name] - first[name]) / np.linalg.norm(first[name])) for name in momenta)


if __name__ == "__main__":
    main()
