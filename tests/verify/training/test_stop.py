"""Runs that are stopped by a signal: what they leave, who agrees, and that they go on bit for bit."""

import os
import re
import shlex
import signal
import socket
import subprocess
import time

import pytest

import detectron_gn
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.stopping import Stopped
from detectron_gn.verify.training import say as spoken
from detectron_gn.weights import read_blobs
from detectron_gn.weights.errors import WeightsError
from detectron_gn.weights.files.lock import occupied
from tests.helpers.small_run import COMMAND, arguments, assert_equal_blobs, config, config_file, environment, run

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NO_CHECKPOINTS = ("TRAIN.SNAPSHOT_ITERS", "100")


class SignalOn(list):
    """Lines that are said; the first one that begins as given sends a signal to this process."""

    def __init__(self, beginning, number=signal.SIGTERM):
        super().__init__()
        self.beginning, self.number = beginning, number

    def append(self, line):
        super().append(line)
        if line.startswith(self.beginning) and self.number:
            self.number = signal.raise_signal(self.number)
            time.sleep(0.05)


def test_a_stopped_run_finishes_its_iteration_and_goes_on_bit_for_bit(tmp_path, whole_run):
    cfg, evaluated, lines = config(*NO_CHECKPOINTS), [], SignalOn("iteration 0 of ")

    def evaluate(_, iteration):
        evaluated.append(iteration)

    with pytest.raises(Stopped) as stopped:
        run(tmp_path, cfg, lines=lines, on_checkpoint=evaluate, workers=2)
    assert stopped.value.exit_code == 143 and evaluated == []
    at_once = "iteration 1, then a checkpoint; once more ends at once and loses what was done since the last checkpoint"
    assert f"finishing {at_once}" in lines
    assert lines[-1] == (
        "stopped by SIGTERM after iteration 1; --resume goes on from the last checkpoint, model_iter1.pth"
    )
    assert {path.name for path in tmp_path.iterdir()} == {
        "run.json", "json_stats.jsonl", "model_iter1.pth", "curves.png",
    }  # fmt: skip
    run(tmp_path, cfg, resume=True, on_checkpoint=evaluate)
    assert evaluated == [5]  # and no checkpoint that only a signal made
    assert_equal_blobs(tmp_path / "model_final.pth", whole_run / "model_final.pth")


def test_a_stop_during_an_evaluation_leaves_it_to_the_run_that_goes_on(tmp_path):
    evaluated = []

    def stopped_at_once(_, iteration):
        evaluated.append(iteration)
        if len(evaluated) == 1:
            raise Stopped(signal.SIGUSR1)

    lines = []
    with pytest.raises(Stopped):
        run(tmp_path, lines=lines, on_checkpoint=stopped_at_once)
    assert lines[-1].startswith("stopped by SIGUSR1 after iteration 1; ")
    run(tmp_path, resume=True, on_checkpoint=stopped_at_once)
    assert evaluated == [1, 1, 3, 5]


def test_the_command_that_a_stopped_run_prints_goes_on_with_it(tmp_path, monkeypatch, capsys, whole_run):
    lines = SignalOn("iteration 0 of ", signal.SIGHUP)
    monkeypatch.setattr(spoken, "print_line", lines.append)
    given = arguments(tmp_path / "my run", config_file(tmp_path, *NO_CHECKPOINTS))
    assert detectron_gn.main(["train", *given]) == 128 + signal.SIGHUP
    assert capsys.readouterr().err == "detectron-gn: stopped by SIGHUP\n"
    (command,) = re.findall(r"after iteration 1; go on with: detectron-gn (.*)", lines[-1])
    assert detectron_gn.main(shlex.split(command)) == 0
    assert_equal_blobs(tmp_path / "my run" / "model_final.pth", whole_run / "model_final.pth")


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_in_use_is_left_to_the_run_in_it(tmp_path, whole_run, resume):
    if resume:
        for name in ("run.json", "model_iter1.pth"):
            (tmp_path / name).write_bytes((whole_run / name).read_bytes())
        (tmp_path / f".model_iter3.pth.{'0' * 32}.tmp").touch()  # what the other one is writing
    before = sorted(path.name for path in tmp_path.iterdir())
    with occupied(tmp_path, "run.lock"):
        with pytest.raises(WeightsError, match="another process is at work in .*: stop it, .* choose another --out"):
            run(tmp_path, resume=resume)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_lock_goes_away_with_its_process(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from detectron_gn.weights.files.lock import occupied\n"
        "with occupied(Path(sys.argv[1]), 'run.lock'): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([COMMAND[0], "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(WeightsError), occupied(tmp_path, "run.lock"):
            pass
        holder.kill()
        holder.wait()
        with occupied(tmp_path, "run.lock"):
            pass
    assert list(tmp_path.iterdir()) == []


def pair(tmp_path):
    """Two processes that train together for good, without torchrun to end one when the other does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    file = config_file(tmp_path, "NUM_GPUS", "2", "SOLVER.MAX_ITER", "100000", *NO_CHECKPOINTS)
    shared = environment() | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        subprocess.Popen(
            [*COMMAND, *arguments(tmp_path / "run", file), "--device", "cpu"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=shared | {"RANK": str(rank)},
        )
        for rank in range(2)
    ]


def until(process, beginning):
    return next(line for line in process.stdout if line.startswith(beginning))


@pytest.mark.slow
def test_processes_that_train_together_stop_after_the_same_iteration_whoever_is_asked(tmp_path):
    first, second = pair(tmp_path)
    until(first, "iteration 0 of ")
    second.send_signal(signal.SIGUSR1)
    said, _ = first.communicate(timeout=30)
    assert (first.returncode, second.wait(30)) == (128 + signal.SIGUSR1,) * 2
    second.communicate()
    (iteration,) = re.findall(r"stopped by SIGUSR1 after iteration (\d+)", said)
    assert read_blobs(tmp_path / "run" / f"model_iter{iteration}.pth").iteration == int(iteration)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_process_whose_partner_is_lost_ends_in_one_sentence(tmp_path, lost):
    processes = pair(tmp_path)
    until(processes[0], "iteration 0 of ")
    processes[lost].kill()
    _, errors = processes[1 - lost].communicate(timeout=30)
    processes[lost].communicate()
    assert processes[1 - lost].returncode == 2
    sentences = [line for line in errors.splitlines() if line.startswith("detectron-gn: ")]
    assert len(sentences) == 1 and "another process of this run has ended" in sentences[0]
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "the processes cannot meet: .*MASTER_ADDR.*; start with torchrun"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "the environment variable RANK is 'one', not a whole number"),
    ],
)
def test_an_environment_that_no_torchrun_made_is_told(monkeypatch, variables, sentence):
    from detectron_gn.mrcnn.distributed import joined_ranks

    monkeypatch.delenv("MASTER_ADDR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert os.environ["RANK"] == variables["RANK"]
    with pytest.raises(InputError, match=sentence), joined_ranks("cpu"):
        pass
