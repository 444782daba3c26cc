"""Every benchmark starts, and those parts of them in which a wrong number could hide are right."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import benchmarks
from benchmarks import detectron2_peer, evaluation, train_step
from benchmarks.common import options, paired_ratio, picture, timed_parts, turns
from benchmarks.inference_cpu import PRODUCTS, inference, inference_parts, recorded_products
from benchmarks.train_step import OBJECTS, SIZE, close_boxes, drawn_objects
from detectron_gn.mrcnn.ops.boxes import box_overlaps
from detectron_gn.port.runs.load import load_model


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(benchmarks.__path__)])
def test_every_benchmark_can_be_imported(name):
    importlib.import_module(f"benchmarks.{name}")


def test_the_help_of_a_benchmark_is_as_wide_as_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = options(train_step.__doc__).format_help().splitlines()
    assert max(map(len, lines)) < 80
    command = next(number for number, line in enumerate(lines) if "python -m benchmarks.train_step" in line)
    assert lines[command].startswith("    python") and lines[command + 1].startswith("        [--")


def test_after_the_first_turn_the_time_of_the_others_is_told(capsys):
    assert list(turns(3)) == [0, 1, 2] and list(turns(1)) == [0]
    told = capsys.readouterr().err
    assert told == "turn 1 of 3 took 0.0 s: about 0 s left\n"


def test_the_parts_of_an_evaluation_that_are_timed_are_there():
    assert [name for name, (owner, attribute) in evaluation.PARTS.items() if not hasattr(owner, attribute)] == []


def test_inference_spends_time_in_each_part_that_is_timed(pickle):
    model, seconds = load_model(pickle, device="cpu"), {}
    with timed_parts(inference_parts(model), seconds):
        assert inference(model, picture(180, 240))()
    assert [name for name, (value,) in seconds.items() if not value] == []


def test_the_floor_of_inference_holds_every_product(pickle):
    model = load_model(pickle, device="cpu")
    recorded = {module for module, _ in recorded_products(model, picture(180, 240))}
    products = {name: module for name, module in model.named_modules() if isinstance(module, PRODUCTS)}
    left_out = [name for name, module in products.items() if module not in recorded]
    # Of this one, only the rows of the detected classes are computed: fewer than the module would.
    assert left_out == ["mask_head.mask_fcn_logits"]


def test_the_overhead_of_an_evaluation_is_measured(demo_model):
    """Its detections and rows are made by hand, so it breaks when theirs change."""
    data = ["--annotations", str(demo_model / "instances_val.json"), "--images", str(demo_model / "val")]
    command = [sys.executable, "-m", "benchmarks.evaluation_overhead", *data, "--detections", "2", "--repeats", "1"]
    ran = subprocess.run(command, cwd=Path(__file__).parents[1], check=True, capture_output=True, text=True)
    assert "40 photos, 2 detections each" in ran.stdout and "together" in ran.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes as Linux lists them")
def test_a_conversion_that_is_stopped_leaves_nothing_behind():
    """The other commands are stopped by hand, as each stop takes their time; tests of their rooms stop them once."""
    command = [sys.executable, "-m", "benchmarks.kill_at_random", "--stops", "3", "--commands", "convert"]
    ran = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert ran.returncode == 0 and "; 0 faults" in ran.stdout, ran.stdout


class Owner:
    def double(self, value):
        return 2 * value

    @staticmethod
    def halve(value):
        return value / 2


def test_timed_parts_are_counted_and_put_back_even_after_a_fault():
    owner, times = Owner(), {}
    halve = vars(Owner)["halve"]
    for _ in range(2):
        with timed_parts({"double": (owner, "double"), "halve": (Owner, "halve")}, times):
            assert (owner.double(2), Owner.halve(2)) == (4, 1)
    with pytest.raises(TypeError), timed_parts({"double": (owner, "double")}, times):
        owner.double()
    assert [len(values) for values in times.values()] == [3, 2] and min(times["halve"]) > 0
    assert "double" not in vars(owner) and vars(Owner)["halve"] is halve


def test_a_ratio_is_of_pairs():
    assert paired_ratio([1, 10, 3], [2, 10, 30]) == 0.5


def test_boxes_close_to_an_object_overlap_it_by_more_than_half():
    _, objects = drawn_objects()
    close = close_boxes(objects)
    assert len(objects.boxes) == OBJECTS and objects.boxes.min() >= 0
    assert (objects.boxes[:, 2:] <= [SIZE[1] - 1, SIZE[0] - 1]).all()
    own = torch.arange(len(close)) % OBJECTS
    overlaps = box_overlaps(close, torch.from_numpy(objects.boxes))
    assert overlaps[torch.arange(len(close)), own].min() > 0.5


def test_the_peer_is_absent_without_detectron2(monkeypatch):
    monkeypatch.setitem(sys.modules, "detectron2", None)
    monkeypatch.delitem(sys.modules, "detectron2.modeling", raising=False)
    assert not detectron2_peer.available()
