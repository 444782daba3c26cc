"""What `benchmarks.many_gpus` says of N GPUs: published rows come out as published, and each part by hand."""

import argparse
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import many_gpus
from benchmarks.many_gpus import cells, check, known_row, options, published, schedule_of, setting, table
from benchmarks.scaling_model import (
    BUCKET,
    FIRST_BUCKET,
    Cluster,
    Extras,
    Gpu,
    all_reduce,
    buckets,
    calibrated,
    efficiency,
    exposed,
    iteration_parts,
    iterations_of,
    loader_threads,
    moment,
    run_on,
    slowest,
)
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.training.schedule import scaled_schedule
from detectron_gn.port.config.read import bundled_config
from detectron_gn.weights.catalog import catalog

ROOT = Path(__file__).parents[1]
MIB = 2**20
# Hosts of two GPUs; 100 bytes a second inside, 10 outside.
SMALL = Cluster(2, 10.0, 100.0, 0.0, 1000.0, 1)
NOTHING = Extras(0.0, 0, 0.0, 0, 0.0, 0.0)
EVENLY = ((0.5, 0.0), (1.0, 1.0))


def given(config: str, **other: object) -> argparse.Namespace:
    values = {
        "config": config, "gpus": [8], "step": None, "images_per_gpu": None, "gpus_per_host": 8, "network": 25.0,
        "inside": 80.0, "latency": 2e-5, "pictures_per_second": 199.0, "workers": 2, "start": 11.0, "checkpoint": 1.5,
        "evaluated_images": 5000, "detection": None, "scoring": 0.0092, "plot": None, "json": None,
    }  # fmt: skip
    return argparse.Namespace(**{**values, **other})


# Detectron's tables: model, schedule, hours.
@pytest.mark.parametrize(
    ("name", "schedule", "hours"),
    [
        ("e2e_mask_rcnn_R-50-FPN_2x", 2, 44.9),
        ("e2e_mask_rcnn_R-101-FPN_2x", 2, 49.7),
        ("e2e_mask_rcnn_X-101-64x4d-FPN_2x", 2, 121.0),
        ("e2e_mask_rcnn_R-50-FPN_2x_gn", 2, 50.8),
        ("scratch_e2e_mask_rcnn_R-50-FPN_3x_gn", 3, 81.5),
        ("retinanet_R-50-FPN_2x", 2, 24.1),
        ("e2e_faster_rcnn_R-101-FPN_1x", 1, 16.2),
        ("rpn_R-50-C4_1x", 1, 4.7),
    ],
)
def test_eight_gpus_take_the_published_hours(name: str, schedule: float, hours: float) -> None:
    gpu, cluster, extras = setting(given(name), bundled_config(name))
    assert schedule_of(bundled_config(name)) == schedule
    row = run_on(8, schedule, gpu, cluster, extras)
    seconds = published(name).train_seconds_per_iteration
    assert seconds is not None
    assert row.iteration == pytest.approx(seconds, rel=1e-9)
    assert abs(row.training / 3600 - hours) <= 0.051
    # The step of one GPU is less: it waits for no other, and the published one has its exchange inside.
    assert gpu.step < seconds


TIMED = [entry for entry in catalog().entries if entry.train_seconds_per_iteration is not None]


def test_every_model_whose_time_was_published_has_its_hours() -> None:
    """Seconds of an iteration, rounded to a thousandth, times the configuration's iterations: to a tenth of an hour."""
    page = (ROOT / "docs" / "many_machines.md").read_text(encoding="utf-8")
    assert f"of {len(TIMED)} models" in page and len(TIMED) > 80
    for entry in TIMED:
        cfg = bundled_config(entry.config)
        assert published(entry.name) == published(entry.config) == entry
        assert cfg.TRAIN.IMS_PER_BATCH == entry.images_per_gpu
        iterations = iterations_of(schedule_of(cfg), 8 * entry.images_per_gpu)
        assert iterations == cfg.SOLVER.MAX_ITER
        assert abs(iterations * entry.train_seconds_per_iteration / 3600 - entry.train_hours) <= 0.1
        assert many_gpus.detection_seconds(entry) > 0


@pytest.mark.parametrize(
    "name",
    [
        "e2e_mask_rcnn_R-50-FPN_2x_gn", "e2e_mask_rcnn_X-101-64x4d-FPN_1x", "e2e_keypoint_rcnn_R-50-FPN_s1x",
        "scratch_e2e_mask_rcnn_R-50-FPN_3x_gn", "fast_rcnn_R-50-C4_2x",
    ],
)  # fmt: skip
def test_iterations_and_rates_are_those_of_the_linear_rule(name: str) -> None:
    cfg = bundled_config(name)
    schedule = schedule_of(cfg)
    for gpus in (1, 8, 512):
        images = gpus * cfg.TRAIN.IMS_PER_BATCH
        assert iterations_of(schedule, images) == scaled_schedule(cfg, gpus).SOLVER.MAX_ITER
    gpu, cluster, extras = setting(given(name), cfg)
    told = cells(run_on(16, schedule, gpu, cluster, extras), run_on(1, schedule, gpu, cluster, extras), gpu, cfg, "")
    assert float(told[2]) == pytest.approx(2 * cfg.SOLVER.BASE_LR)


def test_the_page_has_what_is_computed() -> None:
    """The table of docs/many_machines.md, whose cells hold one or two numbers each."""
    name = "e2e_mask_rcnn_R-50-FPN_2x"
    cfg = bundled_config(name)
    gpu, cluster, extras = setting(given(name), cfg)
    alone = run_on(1, 2, gpu, cluster, extras)
    page = (ROOT / "docs" / "many_machines.md").read_text(encoding="utf-8")
    for gpus in (2**power for power in range(10)):
        found = cells(run_on(gpus, 2, gpu, cluster, extras), alone, gpu, cfg, "")
        count, images, rate, warm_up, two, three, *rest = found
        seconds, hours, longer, whole, in_all, share, limit, _, known = rest
        row = [
            count, f"{int(images):,}", rate, warm_up, f"{int(two):,}, {int(three):,}", seconds, f"{hours}, {longer}",
            whole, in_all, share, limit, known,
        ]  # fmt: skip
        assert f"| {' | '.join(row)} |" in page.replace("**", ""), f"{gpus} GPUs: python -m benchmarks.many_gpus"


def test_a_ring_passes_each_link_twice_but_for_one_share() -> None:
    assert all_reduce(100, 1, SMALL) == 0
    assert all_reduce(100, 2, SMALL) == pytest.approx(2 * 1 / 2 * 100 / 100)
    # From the third GPU on there are two hosts.
    assert all_reduce(100, 4, SMALL) == pytest.approx(2 * 3 / 4 * 100 / 10)
    assert all_reduce(0, 4, replace(SMALL, latency=0.1)) == pytest.approx(2 * 3 * 0.1)


def test_buckets_are_ddp_s() -> None:
    assert buckets(MIB // 2) == [MIB // 2]
    assert buckets(60 * MIB) == [FIRST_BUCKET, BUCKET, BUCKET, 9 * MIB]
    assert sum(buckets(181_960_660)) == 181_960_660


def test_gradients_come_as_the_progress_says() -> None:
    progress = ((0.2, 0.0), (0.4, 0.5), (0.4, 0.6), (1.0, 1.0))
    assert moment(progress, 0) == pytest.approx(0.2)
    assert moment(progress, 0.25) == pytest.approx(0.3)
    assert moment(progress, 0.6) == pytest.approx(0.4)
    assert moment(progress, 0.8) == pytest.approx(0.7)
    assert moment(progress, 1) == 1


def test_what_the_backward_pass_hides_costs_nothing_and_the_rest_waits_its_turn() -> None:
    # Buckets of 1, 25 and 24 MiB that are there at 0.51, 0.76 and 1.0 of a step of 100 s.
    gpu = Gpu(100.0, 2, 50 * MIB, EVENLY)
    fast = replace(SMALL, gpus_per_host=1, network=MIB, inside=100 * MIB)
    # Two GPUs send 1 MiB a second: the second bucket from 76 to 101 s, the last one until 125 s.
    assert exposed(100, gpu, 2, fast) == pytest.approx(25)
    # Twice as fast, the last one waits for nothing but its gradients.
    assert exposed(100, gpu, 2, replace(fast, network=2 * MIB)) == pytest.approx(12)
    # Half as fast: from 76 s on the second takes 50 s, and the last one 48 s after that.
    assert exposed(100, gpu, 2, replace(fast, network=MIB / 2)) == pytest.approx(76 + 50 + 48 - 100)
    assert exposed(100, gpu, 1, fast) == 0


def test_the_slowest_of_many_is_the_mean_of_the_largest_draw() -> None:
    costs = (1.0, 2.0, 3.0)
    assert slowest(costs, 1) == pytest.approx(1)
    # Of nine pairs the largest is 1 once, 2 three times, 3 five times.
    assert slowest(costs, 2) == pytest.approx((1 + 3 * 2 + 5 * 3) / 9 / 2)
    assert slowest(costs, 10_000) == pytest.approx(3 / 2)


def test_a_loader_that_is_slower_than_the_gpu_is_waited_for() -> None:
    gpu = Gpu(0.1, 4, 0, EVENLY)
    parts = iteration_parts(gpu, 1, replace(SMALL, loaded=10, threads=2))
    assert parts == {"computing": 0.1, "slowest GPU": 0.0, "network": 0.0, "loader": pytest.approx(0.1)}
    assert loader_threads(0.1, 4, 10) == 4 and loader_threads(0.897, 2, 199) == 1


def test_a_calibrated_gpu_takes_the_measured_iteration() -> None:
    gpu = Gpu(0.0, 2, 5, EVENLY, (0.9, 1.1))
    found = calibrated(2.0, gpu, 4, SMALL)
    assert sum(iteration_parts(found, 4, SMALL).values()) == pytest.approx(2.0) and found.step < 2


def test_a_run_is_its_iterations_and_what_does_not_shrink() -> None:
    gpu = Gpu(1.0, 2, 0, EVENLY)
    extras = Extras(start=10, checkpoints=3, checkpoint=2, evaluated_images=101, detection=1, scoring=0.5)
    one, two = (run_on(gpus, 1, gpu, SMALL, extras) for gpus in (1, 2))
    assert (one.iterations, two.iterations) == (720_000, 360_000)
    serial = 10 + 3 * 2 + 3 * 101 * 0.5
    assert one.total == pytest.approx(720_000 + serial + 3 * 101)
    assert two.total == pytest.approx(360_000 + serial + 3 * 51)
    assert one.training == pytest.approx(720_000) and one.limit == "detection" and two.limit == "detection"
    assert efficiency(two, one) == pytest.approx(one.total / 2 / two.total) and efficiency(one, one) == 1
    assert run_on(2, 1, gpu, SMALL, NOTHING).total == pytest.approx(360_000)


def test_the_table_says_what_limits_and_what_is_known_of_the_linear_rule() -> None:
    name = "e2e_mask_rcnn_R-50-FPN_2x"
    gpu, cluster, extras = setting(given(name, network=0.5), bundled_config(name))
    rows = [run_on(gpus, 2, gpu, cluster, extras) for gpus in (1, 8, 16, 128, 256)]
    lines = table(rows, rows[0], gpu, bundled_config(name), known_row(given(name))).splitlines()[2:]
    assert [line.split()[0] for line in lines] == ["1", "8", "16", "128", "256"]
    assert lines[1].split()[-4:] == ["slowest", "GPU", "published", "tested"] and " 44.85 " in lines[1]
    assert "computed" in lines[0] and "computed" in lines[2]
    assert [line.split()[-1] for line in lines[2:]] == ["more", "more", "unknown"] and "network" in lines[2]


def test_what_is_published_is_of_one_host_of_eight_and_a_row_of_others_is_computed() -> None:
    name = "e2e_mask_rcnn_R-50-FPN_2x"
    cfg = bundled_config(name)
    for hosted, word in ((8, "published"), (16, "published"), (4, "computed")):
        gpu, cluster, extras = setting(given(name, gpus_per_host=hosted, network=1.0), cfg)
        row = run_on(8, 2, gpu, cluster, extras)
        assert f" {word} " in table([row], row, gpu, cfg, known_row(given(name))).splitlines()[2]


def test_a_schedule_that_ends_before_its_warm_up_is_no_training() -> None:
    name = "e2e_mask_rcnn_R-50-FPN_2x"
    cfg = bundled_config(name)
    gpu, cluster, extras = setting(given(name), cfg)
    rows = [run_on(gpus, 2, gpu, cluster, extras) for gpus in (2880, 2886, 10**9)]
    told = [cells(row, rows[0], gpu, cfg, "")[-1] for row in rows]
    assert told == ["unknown", *["none: warm-up is longer than the schedule"] * 2]


def test_a_3x_schedule_stands_there_once() -> None:
    name = "e2e_mask_rcnn_R-50-FPN_3x_gn"
    cfg = bundled_config(name)
    gpu, cluster, extras = setting(given(name), cfg)
    row = run_on(8, 3, gpu, cluster, extras)
    header, _, line = table([row], row, gpu, cfg, known_row(given(name))).splitlines()
    assert header.split().count("3x") == 3 and "270000" in line and " 77.47 " in line


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e999", "many"])
@pytest.mark.parametrize("option", ["step", "network", "inside", "pictures-per-second", "gpus", "images-per-gpu"])
def test_a_number_that_is_none_is_told(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        options().parse_args([f"--{option}", value])
    assert end.value.code == 2
    assert f"argument --{option}: '{value}' is no " in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("option", ["latency", "start", "checkpoint", "scoring", "detection"])
def test_a_time_may_be_nothing_and_not_less(option: str) -> None:
    assert getattr(options().parse_args([f"--{option}", "0"]), option) == 0
    with pytest.raises(SystemExit):
        options().parse_args([f"--{option}", "-1"])


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"config": "nonsense"}, "nonsense is no file and none of the configurations"),
        ({"config": "mask_rcnn_R-50-FPN_1x_gn"}, "published no time of training for mask_rcnn_R-50-FPN_1x_gn"),
        ({"config": "test_time_aug/e2e_mask_rcnn_R-50-FPN_2x"}, "Detectron published no time of training"),
        ({"images_per_gpu": 3}, "what is published is of 2 images a GPU"),
        ({"step": 0.5}, "with --step pass --detection"),
    ],
)
def test_options_that_do_not_go_together_are_told(other: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        check(given(**{"config": "e2e_mask_rcnn_R-50-FPN_2x", **other}))  # type: ignore[arg-type]


def test_a_loader_that_no_published_iteration_would_have_had_time_for_is_refused() -> None:
    name = "e2e_mask_rcnn_R-50-FPN_2x"
    with pytest.raises(InputError, match="0.897 s for an iteration, and 1 s go into loading"):
        setting(given(name, pictures_per_second=1.0), bundled_config(name))


@pytest.mark.slow
def test_a_step_of_one_s_own_stands_for_itself_and_what_is_missing_is_said() -> None:
    command = [sys.executable, "-m", "benchmarks.many_gpus", "--gpus", "1", "--step", "0.25"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "with --step pass --detection" in done.stderr
    done = subprocess.run([*command[:3], "--config", "nonsense"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "nonsense is no file" in done.stderr and "Traceback" not in done.stderr
    done = subprocess.run([*command, "--evaluated-images", "0"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(r"0\.250 s +given", done.stdout) and re.search(r" 0\.250 +100\.00 .* given ", done.stdout)


def test_the_areas_of_minibatches_have_the_mean_that_the_step_is_of() -> None:
    assert sum(many_gpus.AREAS) / len(many_gpus.AREAS) == pytest.approx(1, abs=1e-3)
    assert many_gpus.PROGRESS[0][1] == 0 and many_gpus.PROGRESS[-1][1] == 1
    for one, other in zip(many_gpus.PROGRESS, many_gpus.PROGRESS[1:]):
        assert one[0] <= other[0] <= 1 and one[1] < other[1]
