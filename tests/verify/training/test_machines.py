"""Runs on several machines: the step of one, a machine that dies, a slow one, one without the data."""

import signal
import sys
import time
from contextlib import nullcontext

import numpy as np
import pytest

from detectron_gn.weights import read_blobs
from tests.helpers.hosts import ended, hosts_are_possible, network, start_torchrun, stuttering
from tests.helpers.small_run import COMMAND, arguments, assert_equal_blobs, config, config_file, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux" or not hosts_are_possible(), reason="needs root and Linux's ip netns"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

LONG = ("NUM_GPUS", "3", "SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "[0]", "TRAIN.SNAPSHOT_ITERS", "3")


def start(hosts, given, data_on=None):
    """The command that trains, started by torchrun on each machine."""
    without = [each.replace("train_images", "none") for each in given]
    own = [given if data_on is None or host in data_on else without for host in hosts]
    return start_torchrun(hosts, [[*COMMAND[1:], *each] for each in own])


@pytest.mark.parametrize(("count", "is_slow"), [(2, True), (3, False)])
def test_machines_take_the_step_of_one_process(tmp_path, count, is_slow):
    run(tmp_path / "alone", config(*LONG))
    with network(count) as hosts:
        started = start(hosts, arguments(tmp_path / "shared", config_file(tmp_path, *LONG)))
        with stuttering(hosts[-1]) if is_slow else nullcontext():
            codes, told = ended(started)
    assert codes == [0] * count, told
    # Random weights make a hundredfold and more of a difference with the second iteration (docs/training_traces.md).
    for file, tolerance in (("model_iter0.pth", 1e-6), ("model_final.pth", 2e-3)):
        alone, shared = (read_blobs(tmp_path / name / file).blobs for name in ("alone", "shared"))
        for name, blob in alone.items():
            if name.endswith("_momentum") and np.linalg.norm(blob) > 1e-5:
                assert np.linalg.norm(shared[name] - blob) <= tolerance * np.linalg.norm(blob), (file, name)


def test_a_machine_that_dies_ends_the_job_which_goes_on_bit_for_bit(tmp_path):
    overrides = ("NUM_GPUS", "2", "SOLVER.MAX_ITER", "12", "SOLVER.STEPS", "[0]", "TRAIN.SNAPSHOT_ITERS", "4")
    file = config_file(tmp_path, *overrides)
    with network(2) as hosts:
        codes, told = ended(start(hosts, arguments(tmp_path / "whole", file)))
        assert codes == [0, 0], told
        first, second = start(hosts, arguments(tmp_path / "shared", file))
        deadline = time.monotonic() + 240
        while not (tmp_path / "shared" / "model_iter3.pth").exists():
            assert time.monotonic() < deadline and first.poll() is None
            time.sleep(0.05)
        hosts[1].signal(signal.SIGKILL)
        codes, told = ended([first, second])
        assert codes[0] != 0
        codes, told = ended(start(hosts, [*arguments(tmp_path / "shared", file), "--resume"]))
        assert codes == [0, 0], told
    assert_equal_blobs(tmp_path / "whole" / "model_final.pkl", tmp_path / "shared" / "model_final.pkl")


def test_a_machine_without_the_data_ends_the_job_and_says_what_is_not_there(tmp_path):
    with network(2) as hosts:
        given = arguments(tmp_path / "shared", config_file(tmp_path, *LONG))
        codes, told = ended(start(hosts, given, data_on=hosts[:1]))
    assert 0 not in codes and not (tmp_path / "shared" / "run.json").exists()
    assert "none: no such image folder" in told[1] and "Traceback" not in told[1].split("torch/distributed")[0]
