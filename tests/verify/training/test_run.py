"""Whole runs on twelve small images: going on, sharing out, stopping."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.config import with_values
from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.data.minibatch import MinibatchSchedule
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.mrcnn.distributed import Ranks
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.training.loop import NonFiniteLoss, minibatch_numbers
from detectron_gn.port.config.read import bundled_config
from detectron_gn.verify.training.run import run_training
from detectron_gn.verify.training.run_options import RunOptions
from detectron_gn.weights import WeightsFile, read_blobs, write_blobs
from detectron_gn.weights.errors import WeightsError
from tests.helpers.small_run import (
    ALONE,
    COMMAND,
    DATA,
    arguments,
    assert_equal_blobs,
    config,
    config_file,
    dataset,
    environment,
    run,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_a_run_leaves_detectrons_pickle_with_momentum_and_config_and_its_figures(whole_run):
    final = read_blobs(whole_run / "model_final.pkl")
    assert final.format == "pkl"
    momenta = [name for name in final.blobs if name.endswith("_momentum")]
    assert len(momenta) == 223 and len(final.blobs) == 446
    # P5 and P6 have no anchor inside images this small, so a few parameters have no gradient.
    assert sum(bool(final.blobs[name].any()) for name in momenta) > 200
    assert "BASE_LR: 0.01" in final.cfg
    assert_equal_blobs(whole_run / "model_final.pkl", whole_run / "model_final.pth")
    assert (whole_run / "curves.png").read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in (whole_run / "json_stats.jsonl").read_text().splitlines()]
    assert [line["iter"] for line in lines] == [0, 1, 2, 3, 4, 5]


def test_a_frozen_stem_has_no_momentum_and_does_not_move(tmp_path):
    cfg = config("TRAIN.FREEZE_AT", "2", "SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "[0]")
    run(tmp_path, cfg, force=True)
    blobs = read_blobs(tmp_path / "model_final.pkl").blobs
    assert "conv1_w_momentum" not in blobs and "res2_2_branch2c_gn_s_momentum" not in blobs
    assert "res3_0_branch2a_w_momentum" in blobs
    assert (blobs["conv1_gn_s"] == 1).all() and (blobs["res3_0_branch2a_gn_s"] != 1).any()


@pytest.mark.slow
def test_a_run_that_stopped_goes_on_bit_for_bit_across_the_change_of_rate(tmp_path, whole_run):
    # Stopped after the checkpoint of iteration 1, then after that of iteration 3, in the middle of everything.
    for stop in ("2", "4", "6"):
        lines = []
        run(tmp_path, config("SOLVER.MAX_ITER", stop), resume=True, lines=lines)
        for final in tmp_path.glob("model_final.*"):
            final.rename(tmp_path / f"old_{final.name}") if stop != "6" else None
        if stop != "6":
            # What a run writes at its very end stands in for the checkpoint it would have written there.
            last = read_blobs(tmp_path / "old_model_final.pth")
            write_blobs(tmp_path / f"model_iter{last.iteration}.pth", last)
    assert any("at iteration 4" in line for line in lines)
    assert_equal_blobs(tmp_path / "model_final.pth", whole_run / "model_final.pth")


@pytest.mark.slow
def test_a_finished_run_has_nothing_left_to_do_and_can_be_made_longer(tmp_path, whole_run):
    short = config("SOLVER.MAX_ITER", "5", "TRAIN.SNAPSHOT_ITERS", "100")
    lines = []
    run(tmp_path, short)
    run(tmp_path, short, resume=True, lines=lines)
    assert any(line.startswith("the run is complete: ") for line in lines)
    assert not any(line.startswith("iteration ") for line in lines)
    assert len((tmp_path / "json_stats.jsonl").read_text().splitlines()) == 5
    run(tmp_path, resume=True)
    assert_equal_blobs(tmp_path / "model_final.pth", whole_run / "model_final.pth")


@pytest.mark.slow
def test_a_run_goes_on_exactly_where_the_rate_changes_with_its_momentum_rescaled(tmp_path, whole_run):
    cfg = config("TRAIN.SNAPSHOT_ITERS", "3")
    run(tmp_path, cfg)
    checkpoint = tmp_path / "model_iter2.pth"
    assert checkpoint.exists()
    for file in tmp_path.glob("model_final.*"):
        file.unlink()
    unfinished = tmp_path / f".model_iter5.pth.{32 * 'a'}.tmp"
    unfinished.touch()
    lines = []
    run(tmp_path, cfg, resume=True, lines=lines)
    assert not unfinished.exists()
    assert any(line.startswith("iteration 3: rate 0.001; momentum times 0.1") for line in lines)
    assert_equal_blobs(tmp_path / "model_final.pth", whole_run / "model_final.pth")


@pytest.mark.slow
def test_only_the_newest_checkpoints_are_kept_and_detectrons_beside_them(tmp_path):
    run(tmp_path, config("TRAIN.SNAPSHOT_ITERS", "1"), keep=2, detectron_checkpoints=True)
    names = sorted(path.name for path in tmp_path.glob("model_iter*"))
    assert names == ["model_iter3.pkl", "model_iter3.pth", "model_iter4.pkl", "model_iter4.pth"]
    assert_equal_blobs(tmp_path / "model_iter4.pkl", tmp_path / "model_iter4.pth")


@pytest.mark.slow
def test_a_checkpoint_of_detectron_goes_on_after_its_iteration_with_its_momentum(tmp_path):
    run(tmp_path / "first", config("TRAIN.SNAPSHOT_ITERS", "4"), detectron_checkpoints=True)
    weights = read_blobs(tmp_path / "first" / "model_iter3.pkl")
    assert weights.iteration == 3
    lines = []
    run(tmp_path / "second", weights=weights, lines=lines)
    text = " ".join(" ".join(lines).split())
    assert "at iteration 4" in text and "223 of them with their momentum" in text
    # Nothing changes at iteration 4, so it ends where the first run ended.
    assert_equal_blobs(tmp_path / "first" / "model_final.pkl", tmp_path / "second" / "model_final.pkl")


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (("SOLVER.BASE_LR", "0.02"), "SOLVER.BASE_LR is 0.02 now and was 0.01"),
        (("TRAIN.SCALES", "(64,)"), "TRAIN.SCALES"),
        (("NUM_GPUS", "2"), "NUM_GPUS"),
        (("RNG_SEED", "5"), "RNG_SEED"),
    ],
)
def test_a_config_that_changed_what_matters_is_refused_by_name(whole_run, overrides, key):
    with pytest.raises(InputError, match=key):
        run(whole_run, config(*overrides), resume=True)


def changed_dataset(folder, change, images=DATA / "train_images"):
    """The small data set after a change of its file's content."""
    content = json.loads((DATA / "train_images.json").read_text())
    change(content)
    (folder / "changed.json").write_text(json.dumps(content))
    return read_dataset(folder / "changed.json", images)


def test_another_data_set_is_refused_when_a_run_goes_on(whole_run, tmp_path):
    def without_first(content):
        first = content["images"].pop(0)["id"]
        content["annotations"] = [each for each in content["annotations"] if each["image_id"] != first]

    changed = changed_dataset(tmp_path, without_first)
    with pytest.raises(InputError, match="annotations, images or proposals are not those"):
        run_training(config(), [changed], None, ALONE, RunOptions(whole_run, resume=True, workers=0), say=str)


def test_a_folder_with_a_run_is_not_written_over(whole_run):
    with pytest.raises(InputError, match="holds a run already: go on with --resume"):
        run(whole_run)


@pytest.mark.slow
def test_an_image_that_goes_missing_stops_the_run_with_its_name_and_the_run_can_go_on(tmp_path, whole_run):
    images = tmp_path / "images"
    shutil.copytree(DATA / "train_images", images)
    data = read_dataset(DATA / "train_images.json", images)

    def lose_the_images(line):
        if line.startswith("checkpoint: ") and images.exists():
            images.rename(tmp_path / "elsewhere")

    options = RunOptions(tmp_path / "run", workers=0)
    with pytest.raises(InputError, match=r"\.png: no such image file; check-data .* mended, --resume goes on"):
        run_training(config(), [data], None, ALONE, options, say=lose_the_images)
    (tmp_path / "elsewhere").rename(images)
    run_training(config(), [data], None, ALONE, replace(options, resume=True), say=str)
    assert_equal_blobs(tmp_path / "run" / "model_final.pth", whole_run / "model_final.pth")


@pytest.mark.slow
def test_a_run_that_ends_at_a_wrong_size_goes_on_with_mended_annotations_as_it_says(tmp_path):
    images = tmp_path / "images"
    shutil.copytree(DATA / "train_images", images)
    data = read_dataset(DATA / "train_images.json", images)

    def enlarge_the_images(line):
        if line.startswith("checkpoint: "):
            for path in images.iterdir():
                picture = cv2.imread(str(path))
                cv2.imwrite(str(path), np.pad(picture, ((0, 1), (0, 0), (0, 0))))

    first = tmp_path / "first"
    with pytest.raises(InputError, match="but the annotations say") as ended:
        run_training(config(), [data], None, ALONE, RunOptions(first, workers=0), say=enlarge_the_images)
    way = f"where you change the annotations instead, pass --weights {first / 'model_iter1.pth'} and another --out"
    assert str(ended.value).endswith(way)

    def with_new_sizes(content):
        for image in content["images"]:
            image["height"], image["width"] = cv2.imread(str(images / image["file_name"])).shape[:2]
        for each in content["annotations"]:
            if isinstance(each["segmentation"], dict):
                each["segmentation"] = []

    mended = changed_dataset(tmp_path, with_new_sizes, images)
    with pytest.raises(InputError, match=r"are not those .*, or pass --weights .*model_iter1\.pth and another --out"):
        run(first, data=mended, resume=True)
    lines = []
    run(tmp_path / "second", weights=read_blobs(first / "model_iter1.pth"), data=mended, lines=lines)
    assert "model_iter1.pth at iteration 2" in " ".join(" ".join(lines).split())


def test_weights_that_are_past_the_end_are_refused_with_the_way_out(tmp_path, whole_run):
    weights = replace(read_blobs(whole_run / "model_final.pth"), source="model_iter5.pth")
    sentence = "has done iteration 5 and SOLVER.MAX_ITER is 6: pass --epochs N .* or --set SOLVER.MAX_ITER above 6"
    with pytest.raises(InputError, match=sentence):
        run(tmp_path, weights=weights)
    assert not (tmp_path / "run.json").exists()


def test_a_final_model_begins_a_run_of_its_own_in_either_format(tmp_path, whole_run):
    cfg = config("SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "[0]")
    for suffix in ("pkl", "pth"):
        weights, lines = read_blobs(whole_run / f"model_final.{suffix}"), []
        run(tmp_path / suffix, cfg, weights, lines)
        assert f"model_final.{suffix} at iteration 0" in " ".join(" ".join(lines).split())
        assert read_blobs(tmp_path / suffix / "model_final.pth").iteration == 0
    assert_equal_blobs(tmp_path / "pkl" / "model_final.pth", tmp_path / "pth" / "model_final.pth")


def test_from_scratch_with_a_frozen_stem_needs_force(tmp_path):
    cfg = config("TRAIN.FREEZE_AT", "2")
    with pytest.raises(InputError, match="36.2 instead of 39.5"):
        run(tmp_path, cfg)
    assert not (tmp_path / "run.json").exists()


def test_a_loss_that_is_not_finite_stops_with_its_parts_and_the_state_before_it(tmp_path):
    cfg = config("SOLVER.BASE_LR", "1e20", "SOLVER.STEPS", "[0]")
    with pytest.raises(
        NonFiniteLoss, match=r"not finite at iteration \d .*loss_cls .*images 0000.*diverged_iter"
    ):
        run(tmp_path, cfg)
    (diverged,) = tmp_path.glob("diverged_iter*.pth")
    assert read_blobs(diverged).iteration is not None
    assert not list(tmp_path.glob("model_final*"))


@pytest.mark.slow
def test_virtual_gpus_sum_gradients_of_minibatches_that_are_normalised_by_themselves(tmp_path):
    """Two virtual GPUs at rate lr take the step of the mean of the two minibatches' gradients."""
    base = ("SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "[0]", "SOLVER.WEIGHT_DECAY", "0.0")
    run(tmp_path / "both", config("NUM_GPUS", "2", *base))
    together = read_blobs(tmp_path / "both" / "model_final.pth").blobs

    gradients = []
    for number in range(2):
        from detectron_gn.mrcnn.data.minibatch import minibatches, sampling_seed
        from detectron_gn.mrcnn.training.network import TrainingNetwork
        from detectron_gn.mrcnn.training.samplers import RandomSampler

        cfg = config(*base)
        torch.manual_seed(cfg.RNG_SEED)
        model = build_detector(cfg).to(memory_format=torch.channels_last)
        (minibatch,) = minibatches(training_roidb([dataset()], cfg), cfg, cfg.RNG_SEED, [number], workers=0)
        sampler = RandomSampler(cfg, model.device, sampling_seed(cfg.RNG_SEED, number))
        outputs = TrainingNetwork(model)(minibatch, sampler)
        sum(value for name, value in outputs.items() if name.startswith("loss")).backward()
        gradients.append(model.box_head.fc6.weight.grad)
    expected = 0.01 * (gradients[0] + gradients[1]) / 2
    np.testing.assert_allclose(together["fc6_w_momentum"], expected.numpy(), rtol=1e-4, atol=1e-8)


@pytest.mark.slow
def test_a_run_that_is_killed_at_random_moments_ends_as_if_it_had_not_been(tmp_path, whole_run):
    command = [*COMMAND, *arguments(tmp_path / "run", config_file(tmp_path)), "--resume"]
    rng = np.random.default_rng(0)
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
        for _ in range(int(rng.integers(1, 8))):
            if not process.stdout.readline():
                break
        time.sleep(float(rng.uniform(0, 1)))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, env=environment(), stdout=subprocess.DEVNULL)
    assert_equal_blobs(tmp_path / "run" / "model_final.pth", whole_run / "model_final.pth")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_minibatches_out_and_take_the_same_step(tmp_path, processes):
    """Three virtual GPUs in one process, two and three: equal losses and updates but for the order of float32 sums."""
    overrides = ("NUM_GPUS", "3", "SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "[0]", "TRAIN.SNAPSHOT_ITERS", "3")
    run(tmp_path / "alone", config(*overrides))
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={processes}",
    ]
    command = [*torchrun, *COMMAND[1:], *arguments(tmp_path / "shared", config_file(tmp_path, *overrides))]
    subprocess.run(command, check=True, env=environment(), stdout=subprocess.DEVNULL, timeout=300)
    # Random weights make a hundredfold and more of a difference with the second iteration (docs/training_traces.md).
    for file, tolerance in (("model_iter0.pth", 1e-6), ("model_final.pth", 2e-3)):
        alone, shared = (read_blobs(tmp_path / name / file).blobs for name in ("alone", "shared"))
        for name, blob in alone.items():
            if name.endswith("_momentum") and np.linalg.norm(blob) > 1e-5:
                assert np.linalg.norm(shared[name] - blob) <= tolerance * np.linalg.norm(blob), (file, name)
    first, second = (
        json.loads((tmp_path / name / "json_stats.jsonl").read_text().splitlines()[0])
        for name in ("alone", "shared")
    )
    for name in first:
        if name.startswith("loss"):
            assert second[name] == pytest.approx(first[name], rel=1e-5, abs=1e-7)


def test_more_processes_than_minibatches_are_refused(monkeypatch):
    from detectron_gn.mrcnn.distributed import joined_ranks

    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match="4 processes for NUM_GPUS 1"), joined_ranks("cpu", 1):
        pass


def test_processes_share_an_iteration_without_gap_or_overlap():
    shares = [list(Ranks(rank, 3, torch.device("cpu")).minibatches(5, 8)) for rank in range(3)]
    assert sorted(sum(shares, [])) == list(range(40, 48))
    assert [len(share) for share in shares] == [3, 3, 2]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_together_see_every_image_of_an_epoch_once_wherever_they_start(processes):
    cfg = config("NUM_GPUS", "3", "SOLVER.MAX_ITER", "40")
    roidb = training_roidb([dataset()], cfg)
    shares = [list(minibatch_numbers(cfg, 5, Ranks(rank, processes, ALONE.device))) for rank in range(processes)]
    assert sorted(sum(shares, [])) == list(range(15, 120))
    schedules = [MinibatchSchedule(roidb.is_horizontal, cfg, cfg.RNG_SEED) for _ in shares]
    seen = {n: schedule.images(n).tolist() for schedule, share in zip(schedules, shares) for n in share}
    epoch = schedules[0].minibatches_per_epoch
    per_epoch = [sum((seen[n] for n in range(e * epoch, (e + 1) * epoch)), []) for e in range(2, 120 // epoch)]
    # An orientation of an odd number of images leaves one out, another one every epoch (Detectron's loader does so).
    assert len(per_epoch) > 3 and all(len(set(images)) == len(images) == 2 * epoch for images in per_epoch)
    assert len(roidb) - 2 * epoch <= 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    """A limit on the size of files stands in for the full disk: the second checkpoint cannot be written."""
    run(tmp_path, config("SOLVER.MAX_ITER", "3"))
    before = (tmp_path / "model_iter1.pth").read_bytes()
    program = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20)); "
        "import detectron_gn; sys.exit(detectron_gn.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "train", "--resume"]
    command += arguments(tmp_path, config_file(tmp_path))
    outcome = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert outcome.returncode == 2
    assert outcome.stderr.count("\n") == 1 and "model_iter3.pth" in outcome.stderr
    assert "could not be written" in outcome.stderr and "--resume goes on from the last" in outcome.stderr
    assert (tmp_path / "model_iter1.pth").read_bytes() == before
    assert not (tmp_path / "model_iter3.pth").exists() and not list(tmp_path.glob(".*.tmp"))


def test_the_error_of_a_write_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="could not be written"):
        write_blobs(
            tmp_path / "file" / "model.pth", WeightsFile({"a": np.zeros(1, np.float32)}, None, None, "x", "pth")
        )


def test_values_of_the_schedule_follow_the_linear_rule():
    from detectron_gn.mrcnn.training.schedule import scaled_schedule, schedule_changes

    cfg = bundled_config("e2e_mask_rcnn_R-50-FPN_2x_gn")
    scaled = scaled_schedule(cfg, 1)
    solver = scaled.SOLVER
    assert (scaled.NUM_GPUS, solver.BASE_LR, solver.MAX_ITER) == (1, 0.0025, 1440000)
    assert solver.STEPS == (0, 960000, 1280000) and solver.WARM_UP_ITERS == cfg.SOLVER.WARM_UP_ITERS
    assert with_values(scaled, {"NUM_GPUS": 8, "SOLVER.BASE_LR": 0.02}).SOLVER.GAMMA == cfg.SOLVER.GAMMA
    assert "images an iteration: 16 -> 2" in schedule_changes(cfg, scaled)


def test_the_schedule_is_scaled_in_whole_numbers_and_decimals():
    from detectron_gn.mrcnn.training.schedule import scaled_schedule

    changes = {"NUM_GPUS": 10, "SOLVER.BASE_LR": 0.1, "SOLVER.MAX_ITER": 90000, "SOLVER.STEPS": (0, 60000, 80000)}
    cfg = with_values(bundled_config("e2e_mask_rcnn_R-50-FPN_2x_gn"), changes)
    solver = scaled_schedule(cfg, 3).SOLVER
    assert (solver.BASE_LR, solver.MAX_ITER, solver.STEPS) == (0.03, 300000, (0, 200000, 266667))
    assert solver.STEP_SIZE == 100000


@pytest.mark.slow
def test_recomputed_activations_give_the_same_run(tmp_path, whole_run):
    run(tmp_path, recompute=True)
    assert_equal_blobs(tmp_path / "model_final.pth", whole_run / "model_final.pth")


def test_a_run_in_bf16_keeps_float32_parameters_and_comes_near(tmp_path):
    cfg = config("SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "[0]")
    losses = []
    for precision in ("fp32", "bf16"):
        run(tmp_path / precision, cfg, precision=precision)
        losses.append(json.loads((tmp_path / precision / "json_stats.jsonl").read_text())["loss"])
        assert read_blobs(tmp_path / precision / "model_final.pkl").blobs["fc6_w"].dtype == np.float32
    assert losses[1] != losses[0] and losses[1] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.slow
def test_processes_share_the_evaluation_of_a_checkpoint_out(tmp_path):
    """Two processes train and evaluate; one evaluates the same checkpoints to the same bytes."""
    out, record = tmp_path / "run", tmp_path / "detected"
    overrides = ("NUM_GPUS", "2", "SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "[0]", "TRAIN.SNAPSHOT_ITERS", "2")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    evaluation = ["--eval-annotations", str(DATA / "train_images.json"), "--device", "cpu"]
    command = [*launcher, "-m", "tests.helpers.counted_train", str(record), "train"]
    command += [*arguments(out, config_file(tmp_path, *overrides)), *evaluation]
    subprocess.run(command, check=True, env=environment(), stdout=subprocess.DEVNULL, timeout=300, cwd=DATA.parents[1])
    counts = [int(record.with_suffix(f".{rank}").read_text()) for rank in range(2)]
    assert counts == [12, 12]  # half of 12 images, of two checkpoints

    for iteration, checkpoint in ((0, "model_iter0.pth"), (1, "model_final.pth")):
        alone = tmp_path / f"alone{iteration}"
        arguments_of_test = ["--annotations", str(DATA / "train_images.json"), "--images", str(DATA / "train_images")]
        test = [sys.executable, "-m", "detectron_gn", "test", str(out / checkpoint), *arguments_of_test]
        subprocess.run([*test, "--out", str(alone)], check=True, env=environment(), stdout=subprocess.DEVNULL)
        for name in ("bbox.json", "segm.json", "ap.json"):
            assert (alone / name).read_bytes() == (out / f"eval_iter{iteration}" / name).read_bytes()
