"""Stops `train`, `test`, `detect` and `convert` at random moments, and says what was lost and what was left running.

    python -m benchmarks.kill_at_random [--stops 20] [--commands train test detect convert] [--signal SIGTERM]
        [--seed 0] [--json FILE]

On the demo's model and pictures, and on the twelve pictures of the tests. A process is stopped when it has used a
random part of the processor time that it takes when it is left in peace: the same moments on a busy machine.
Checked of every stop:

- all processes are gone 5 seconds later, and no temporary file or lock is left;
- train: the checkpoint is of the last iteration that was begun, and at the end of all stops the run that goes on is
  the uninterrupted one bit for bit;
- test: every image that was finished is on record, and the results at the end are those of one go;
- detect: detections.json has every image that has its picture, and no other;
- convert: the file of before is whole, or the new one is.

With SIGKILL, which nobody can handle, a temporary and the work since the last checkpoint may be lost; the rest holds.
Linux only: it looks for processes in /proc.
"""

import argparse
import json
import lzma
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from detectron_gn.port.config.read import bundled_config, dump_config
from detectron_gn.weights import read_blobs

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "verify" / "demo_model"
DATA = ROOT / "tests" / "data"
NARROW = (
    "FPN.DIM 16 FAST_RCNN.CONV_HEAD_DIM 16 FAST_RCNN.MLP_HEAD_DIM 16 MRCNN.DIM_REDUCED 16 RESNETS.WIDTH_PER_GROUP 8 "
    "GROUP_NORM.NUM_GROUPS 4 TRAIN.SCALES (64,80) TRAIN.MAX_SIZE 128 SOLVER.BASE_LR 0.001 SOLVER.WARM_UP_ITERS 0 "
    "SOLVER.STEPS [0] SOLVER.MAX_ITER {} TRAIN.SNAPSHOT_ITERS 100000"
)
SECONDS_TO_GO = 5.0


@dataclass
class Outcome:
    """What became of the stops of a command.

    Attributes:
        codes: how often each exit code came.
        faults: what did not hold, in sentences.
        seconds: from the signal to the end of the process, of every stop.
        processor_seconds: that it used of them. On a busy machine these are what can be compared.
    """

    codes: dict[int, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)


@dataclass
class Stopper:
    """Starts a command and stops it at a random moment."""

    number: signal.Signals
    moments: random.Random

    def stop(self, arguments: Sequence[object], seconds: float, outcome: Outcome) -> int:
        """Stop a command within its first `seconds` of processor time; returns its exit code."""
        moment = self.moments.uniform(0, seconds)
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(command(arguments), stdout=subprocess.DEVNULL, stderr=errors, env=ENVIRONMENT)
            while is_running(process.pid) and processor_seconds(process.pid) < moment:
                time.sleep(0.002)
            family, used = descendants(process.pid), processor_seconds(process.pid)
            os.kill(process.pid, self.number)  # process.send_signal would take its end away from wait4
            sent = time.monotonic()
            _, status, usage = os.wait4(process.pid, 0)
            outcome.seconds.append(time.monotonic() - sent)
            outcome.processor_seconds.append(usage.ru_utime + usage.ru_stime - used)
            code = process.returncode = os.waitstatus_to_exitcode(status)
            if outcome.seconds[-1] > SECONDS_TO_GO:
                outcome.faults.append(f"the process was there after {outcome.seconds[-1]:.1f} seconds")
            time.sleep(0.1)
            outcome.faults += [f"process {pid} outlived the command" for pid in family if is_running(pid)]
            errors.seek(0)
            said = errors.read().decode()
        if "Traceback" in said:
            outcome.faults.append(f"a traceback: {said.splitlines()[-1]}")
        outcome.codes[code] = outcome.codes.get(code, 0) + 1
        return code


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stops", type=int, default=20, metavar="N", help="of each command (default 20)")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--signal", default="SIGTERM", help="SIGINT, SIGHUP, SIGUSR1 or SIGKILL (default SIGTERM)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcomes to FILE")
    args = parser.parse_args()
    number = signal.Signals[args.signal]
    print(f"{number.name}, {args.stops} stops of each command, seed {args.seed}", flush=True)
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.commands:
            stopper = Stopper(number, random.Random(args.seed))
            place = Path(folder) / name
            place.mkdir()
            outcome = outcomes[name] = COMMANDS[name](place, args.stops, stopper)
            codes = ", ".join(f"{code}: {count}" for code, count in sorted(outcome.codes.items()))
            ends = f"{max(outcome.seconds):.1f} s, {max(outcome.processor_seconds):.1f} s of a processor"
            print(f"{name}: exit codes {codes}; slowest end {ends}; {len(outcome.faults)} faults", flush=True)
            for fault in outcome.faults:
                print(f"  {fault}")
    if args.json is not None:
        args.json.write_text(json.dumps({name: vars(outcome) for name, outcome in outcomes.items()}, indent=1))
    return int(any(outcome.faults for outcome in outcomes.values()))


def stopped_train(place: Path, stops: int, stopper: Stopper) -> Outcome:
    """One run, gone on with after every stop; longer by some iterations for each."""
    outcome, whole, out = Outcome(), place / "whole", place / "run"
    cfg = bundled_config("e2e_mask_rcnn_R-50-FPN_shapes_gn", NARROW.format(20 * stops).split())
    (place / "config.yaml").write_text(dump_config(cfg))
    data = ["--annotations", DATA / "train_images.json", "--images", DATA / "train_images"]
    train = ["train", "--config", place / "config.yaml", *data, "--resume", "--out"]
    # Twice what it takes to begin and to do an iteration: half of the stops come while it trains.
    seconds = 2 * finish([*train, place / "short", "--set", "SOLVER.MAX_ITER", "1"])
    finish([*train, whole])
    for _ in range(stops):
        before = newest(out)
        code = stopper.stop([*train, out], seconds, outcome)
        done = [json.loads(line)["iter"] for line in lines_of(out / "json_stats.jsonl")]
        if code == 128 + stopper.number and newest(out) < max(before, *done, -1):
            outcome.faults.append(f"iteration {max(done)} was done, and the checkpoint is of {newest(out)}")
        if stopper.number != signal.SIGKILL:
            outcome.faults += leavings(out)
    finish([*train, out])
    first, second = (read_blobs(folder / "model_final.pth").blobs for folder in (whole, out))
    if any(not np.array_equal(first[name], second[name]) for name in first):
        outcome.faults.append("the run ended in another model than the uninterrupted one")
    return outcome


def stopped_test(place: Path, stops: int, stopper: Stopper) -> Outcome:
    """One evaluation, gone on with after every stop, and begun again when it was complete."""
    outcome, whole, out = Outcome(), place / "whole", place / "out"
    data = ["--annotations", DEMO / "instances_val.json", "--images", DEMO / "val"]
    test = ["test", demo_weights(place), *data, "--out"]
    seconds = finish([*test, whole])
    recorded = 0
    for _ in range(stops):
        (out / "ap.json").unlink(missing_ok=True)
        stopper.stop([*test, out], seconds, outcome)
        now = len(lines_of(out / "partial_results_0.jsonl"))
        if now < recorded and not (out / "ap.json").exists():
            outcome.faults.append(f"{recorded} lines were on record, and {now} are now")
        recorded = now
        if stopper.number != signal.SIGKILL:
            outcome.faults += leavings(out)
    finish([*test, out])
    for name in ("bbox.json", "segm.json", "ap.json"):
        if (whole / name).read_bytes() != (out / name).read_bytes():
            outcome.faults.append(f"{name} is another than that of an evaluation in one go")
    return outcome


def stopped_detect(place: Path, stops: int, stopper: Stopper) -> Outcome:
    """Detection in all pictures of the demo, into a new folder each time."""
    outcome = Outcome()
    images = sorted((DEMO / "val").iterdir())
    detect = ["detect", demo_weights(place), *images, "--annotations", DEMO / "instances_val.json", "--out"]
    seconds = finish([*detect, place / "whole"])
    every = json.loads((place / "whole" / "detections.json").read_text())
    for stop in range(stops):
        out = place / f"out{stop}"
        stopper.stop([*detect, out], seconds, outcome)
        drawn = {path.name.removesuffix("_detections.png") for path in out.glob("*_detections.png")}
        if drawn and stopper.number != signal.SIGKILL:
            rows = json.loads((out / "detections.json").read_text())
            if rows != [row for row in every if row["file_name"] in drawn]:
                outcome.faults.append(f"detections.json does not hold what was found in the {len(drawn)} pictures")
            outcome.faults += leavings(out)
    return outcome


def stopped_convert(place: Path, stops: int, stopper: Stopper) -> Outcome:
    """Conversion over a file that is there already."""
    outcome, source, out = Outcome(), demo_weights(place), place / "out" / "model.pth"
    out.parent.mkdir()
    convert = ["convert", source, "--out"]
    seconds = finish([*convert, place / "whole.pth"])
    whole = (place / "whole.pth").read_bytes()
    for _ in range(stops):
        out.write_text("before")
        stopper.stop([*convert, out], seconds, outcome)
        if out.read_bytes() not in (b"before", whole):
            outcome.faults.append("the file is neither the old nor the new one")
        if stopper.number != signal.SIGKILL:
            outcome.faults += leavings(out.parent)
    return outcome


COMMANDS: dict[str, Callable[[Path, int, Stopper], Outcome]] = {
    "train": stopped_train,
    "test": stopped_test,
    "detect": stopped_detect,
    "convert": stopped_convert,
}


def command(arguments: Sequence[object]) -> list[str]:
    return [sys.executable, "-m", "detectron_gn", *map(str, arguments)]


def finish(arguments: Sequence[object]) -> float:
    """Run a command to its end; returns the processor time that it took, in seconds."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command(arguments), **quiet, env=ENVIRONMENT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (process.returncode, arguments)
    return usage.ru_utime + usage.ru_stime


def processor_seconds(pid: int) -> float:
    """What a process has used of the processor so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def demo_weights(place: Path) -> Path:
    path = place / "model_final.pkl"
    path.write_bytes(lzma.decompress((DEMO / "model_final.pkl.xz").read_bytes()))
    return path


def newest(run: Path) -> int:
    """The iteration of a run's newest checkpoint, or of its final model; -1 where there is none."""
    paths = [*run.glob("model_iter*.pth"), *run.glob("model_final.pth")]
    return max((read_blobs(path).iteration or 0 for path in paths), default=-1)


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def leavings(folder: Path) -> list[str]:
    left = [path.name for pattern in (".*", "*.lock") for path in folder.glob(pattern)]
    return [f"{name} was left in the folder" for name in left]


def descendants(pid: int) -> set[int]:
    """The processes that a process has started, and those that they have."""
    found: set[int] = set()
    for children in Path("/proc").glob(f"{pid}/task/*/children"):
        for child in map(int, children.read_text().split()):
            found |= {child, *descendants(child)}
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
