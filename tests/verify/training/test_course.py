"""What happens between the iterations of a run: the time left, checkpoints by the clock, parts that stay, negatives."""

import json
import os
import re
import signal
import subprocess
import time

import numpy as np
import pytest

from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.verify.training import course
from detectron_gn.verify.training.fingerprint import data_fingerprint
from detectron_gn.verify.training.length import CheckpointRule, RunLength
from detectron_gn.weights import read_blobs
from tests.helpers.dense_run import FAMILIES as DENSE
from tests.helpers.dense_run import dense_config
from tests.helpers.roi_run import FAMILIES, roi_config, roi_data
from tests.helpers.small_run import COMMAND, DATA, arguments, assert_equal_blobs, config, config_file, environment, run

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ONE_STEP = ("SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "[0]")


def test_a_checkpoint_by_the_clock_is_not_evaluated_and_the_run_goes_on_from_it(tmp_path, monkeypatch, whole_run):
    monkeypatch.setattr(course, "MOST_SECONDS_WITHOUT", 0.0)
    cfg, often = config("TRAIN.SNAPSHOT_ITERS", "100"), CheckpointRule(3, True)
    evaluated, lines = [], []

    def killed(_, iteration):
        evaluated.append(iteration)
        if iteration == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, cfg, lines=lines, checkpoints=often, on_checkpoint=killed, keep=9)
    assert evaluated == [2, 5]
    by_clock = [int(found[1]) for line in lines if (found := re.search(r"iter(\d).pth \(half an hour", line))]
    assert by_clock == [0, 1, 3, 4]
    for path in (*tmp_path.glob("model_final.*"), tmp_path / "model_iter2.pth", tmp_path / "model_iter3.pth"):
        path.unlink()
    monkeypatch.setattr(course, "MOST_SECONDS_WITHOUT", 1e9)
    run(tmp_path, cfg, lines=lines, checkpoints=often, on_checkpoint=lambda _, n: evaluated.append(n), resume=True)
    assert evaluated == [2, 5, 5] and any("at iteration 5" in line for line in lines)
    assert_equal_blobs(tmp_path / "model_final.pth", whole_run / "model_final.pth")


def test_the_time_left_is_said_once_when_a_short_run_can_tell(tmp_path):
    lines = []
    run(tmp_path, config("SOLVER.MAX_ITER", "20", "TRAIN.SNAPSHOT_ITERS", "100"), lines=lines)
    (said,) = [line for line in lines if line.startswith("time left: about")]
    assert re.search(r"\(\S+ s an iteration\), until [\d: -]+; evaluations\s+not\s+counted", said)
    assert lines.index(said) > next(n for n, line in enumerate(lines) if line.startswith("iteration 0 of "))


def test_a_length_is_on_record_as_the_keys_that_it_sets_and_goes_on(tmp_path):
    run(tmp_path, length=RunLength(epochs=1), checkpoints=CheckpointRule(4))
    record = json.loads((tmp_path / "run.json").read_text())["config"]
    assert record["SOLVER.MAX_ITER"] == 6 and record["SOLVER.STEPS"] == [0, 3]
    assert "MAX_ITER: 6" in read_blobs(tmp_path / "model_final.pkl").cfg
    with pytest.raises(InputError, match="--epochs 2 is a schedule of 12 .* another one, of 6: ") as refused:
        run(tmp_path, length=RunLength(epochs=2), resume=True)
    assert "go on without --epochs, or with --set SOLVER.MAX_ITER N" in str(refused.value)


def test_a_run_of_its_own_length_begins_at_iteration_0_whatever_the_weights_have_done(tmp_path, whole_run):
    weights = read_blobs(whole_run / "model_final.pth")
    assert weights.iteration == 5
    options = {"weights": weights, "length": RunLength(iterations=2), "starts_anew": True}
    run(tmp_path, lines=(lines := []), **options)
    assert "model_final.pth at iteration 0" in " ".join(" ".join(lines).split())
    final = read_blobs(tmp_path / "model_final.pth")
    assert final.iteration == 1
    # One that was killed before its first checkpoint begins there again.
    for path in tmp_path.glob("model_*"):
        path.unlink()
    run(tmp_path, resume=True, **options)
    again = read_blobs(tmp_path / "model_final.pth").blobs
    assert all(np.array_equal(blob, again[name]) for name, blob in final.blobs.items())


def test_frozen_parts_stay_and_have_no_momentum(tmp_path):
    cfg = config(*ONE_STEP)
    run(tmp_path / "free", cfg)
    run(tmp_path / "frozen", cfg, frozen=("fpn", "rpn", "mask"), lines=(lines := []))
    assert "--freeze fpn,rpn,mask, which Detectron has not" in " ".join(" ".join(lines).split())
    free, frozen = (read_blobs(tmp_path / name / "model_final.pth").blobs for name in ("free", "frozen"))
    gone = {name.removesuffix("_momentum") for name in free.keys() - frozen.keys()}
    of_parts = ("fpn_", "conv_rpn", "rpn_", "_mask_fcn", "conv5_mask", "mask_")
    assert gone and all(name.startswith(of_parts) for name in gone)
    changed = {name for name in frozen if not name.endswith("_momentum") and (frozen[name] != free[name]).any()}
    assert changed == {name for name in gone if (free[f"{name}_momentum"] != 0).any()}
    with pytest.raises(InputError, match="--freeze is not given now and was fpn,rpn,mask when the run"):
        run(tmp_path / "frozen", cfg, resume=True)


def test_a_body_and_its_pyramid_can_be_frozen_as_a_whole(tmp_path):
    cfg = config(*ONE_STEP)
    run(tmp_path, cfg, frozen=("body", "fpn"))
    names = [name for name in read_blobs(tmp_path / "model_final.pth").blobs if name.endswith("_momentum")]
    assert names and not [name for name in names if name.startswith(("conv1", "res", "fpn"))]


def with_empty_images(folder, data, count=2):
    """A data set without the annotations of its first images."""
    content = json.loads(data.annotation_file.read_text())
    empty = {image["id"] for image in sorted(content["images"], key=lambda image: image["id"])[:count]}
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] not in empty]
    (folder / "empty.json").write_text(json.dumps(content))
    return read_dataset(folder / "empty.json", data.image_dir)


@pytest.mark.parametrize("name", [*DENSE, *FAMILIES, "mask_fpn"])
def test_images_without_objects_are_background_for_every_family(name, tmp_path):
    proposals = ()
    if name in FAMILIES:
        data, proposals = roi_data(name)
        cfg = roi_config(name, *ONE_STEP, "TRAIN.USE_FLIPPED", "False")
    else:
        data = read_dataset(DATA / "train_images.json", DATA / "train_images")
        make = dense_config if name in DENSE else lambda _, *overrides: config(*overrides)
        cfg = make(name, *ONE_STEP, "TRAIN.USE_FLIPPED", "False")
    data = with_empty_images(tmp_path, data, 11)
    kept = training_roidb([data], cfg, proposals, keep_empty=True)
    left = training_roidb([data], cfg, proposals)
    assert len(kept) == len(data.images) and (len(left) < len(kept) or proposals)
    assert (data_fingerprint(kept) != data_fingerprint(left)) or proposals
    # Both images of the first minibatch may be empty; in three iterations some are, whatever the order.
    lines = []
    run(tmp_path / "run", cfg, data=data, proposals=proposals, keep_empty=True, lines=lines)
    line = json.loads((tmp_path / "run" / "json_stats.jsonl").read_text().splitlines()[0])
    assert all(np.isfinite(value) for key, value in line.items() if key != "eta")
    if not proposals:
        assert any("without objects, as background (--keep-empty)" in line for line in lines)


def test_what_is_left_out_is_said(tmp_path):
    data = with_empty_images(tmp_path, read_dataset(DATA / "train_images.json", DATA / "train_images"), 3)
    content = json.loads(data.annotation_file.read_text())
    last = max(image["id"] for image in content["images"])
    for annotation in content["annotations"]:
        annotation["iscrowd"] = int(annotation["image_id"] == last)
    data.annotation_file.write_text(json.dumps(content))
    data = read_dataset(data.annotation_file, data.image_dir)
    cfg = config(*ONE_STEP)
    for keep_empty, told in (
        (False, ["images       8 of 12, each also mirrored", "3 without objects left out, as in Detectron"]),
        (True, ["images       11 of 12, each also mirrored", "3 of them without objects, as background"]),
    ):
        run(tmp_path / f"run{keep_empty}", cfg, data=data, keep_empty=keep_empty, lines=(lines := []))
        text = "\n".join(lines)
        assert all(each in text for each in (*told, "1 without an object that counts left out, as in Detectron"))


def test_a_data_set_of_nothing_but_negatives_is_refused(tmp_path):
    data = with_empty_images(tmp_path, read_dataset(DATA / "train_images.json", DATA / "train_images"), 12)
    with pytest.raises(InputError, match="no image has an object to train on"):
        run(tmp_path / "run", config(), data=data, keep_empty=True)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for processes as Linux lists them")
def test_a_second_signal_leaves_no_process_behind(tmp_path):
    """Two processes under torchrun, with threads that load; Ctrl-C comes twice."""
    file = config_file(tmp_path, "NUM_GPUS", "2", "SOLVER.MAX_ITER", "100000", "TRAIN.SNAPSHOT_ITERS", "1000000")
    given = [part if part != "0" else "2" for part in arguments(tmp_path / "run", file)]
    torchrun = [COMMAND[0], "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    process = subprocess.Popen(
        [*torchrun, *COMMAND[1:], *given, "--device", "cpu"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(),
    )  # fmt: skip
    try:
        assert any(line.startswith("iteration 0 of ") for line in process.stdout)
        assert len(processes_with(tmp_path)) == 3
        process.send_signal(signal.SIGINT)
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        until = time.monotonic() + 30
        while processes_with(tmp_path) and time.monotonic() < until:
            time.sleep(0.1)
        assert processes_with(tmp_path) == []
    finally:
        for left in processes_with(tmp_path):
            os.kill(left, signal.SIGKILL)


def processes_with(path):
    """The processes that have a path among their arguments."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as arguments_of_process:
                if bytes(path) in arguments_of_process.read() and int(name) != os.getpid():
                    found.append(int(name))
        except OSError:
            continue
    return found
