"""The table at the start of a run: what it says, in 80 columns, and the time that is left."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from detectron_gn.mrcnn.config import with_values
from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.mrcnn.training.schedule import scaled_schedule
from detectron_gn.port.config.read import bundled_config, bundled_names
from detectron_gn.verify.training.inputs import with_names_of
from detectron_gn.verify.training.length import CheckpointRule, RunLength
from detectron_gn.verify.training.plan import Plan, changes, table
from detectron_gn.verify.training.progress import progress_line, span, time_left
from detectron_gn.verify.training.run_options import RunOptions
from tests.helpers.small_run import DATA, config, dataset

CLASSES = ("__background__", "circle", "square", "triangle", "star")
OPTIONS = RunOptions(Path("run"), command="detectron-gn train --resume --out run")


def rows(cfg, options=OPTIONS, start=0, classes=CLASSES):
    """The table as label -> text in one line."""
    roidb = training_roidb([dataset()], with_values(cfg, {"MODEL.NUM_CLASSES": 5}))
    lines = table(Plan(start, options.checkpoints.period(cfg), options), cfg, roidb, classes, 12_345, 678_901)
    assert max(map(len, lines)) <= 80
    found: dict[str, str] = {}
    label = ""
    for line in lines:
        label = line[:13].strip() or label
        found[label] = f"{found.get(label, '')} {line[13:].strip()}".strip()
    return found


def test_it_says_what_will_be_done_when_and_where():
    options = RunOptions(
        Path("run"),
        command="detectron-gn train --resume --out run",
        keep_best=True,
        patience=3,
        frozen=("fpn", "rpn"),
        checkpoints=CheckpointRule(None, True),
        evaluated_on="day, night",
        configured=config("SOLVER.MAX_ITER", "9", "NUM_GPUS", "8"),
    )
    cfg = config("SOLVER.MAX_ITER", "120", "SOLVER.STEPS", "[0,80,100]", "SOLVER.WARM_UP_ITERS", "10")
    assert rows(cfg, options) == {
        "model": "Mask R-CNN, R-50-FPN, GN; 4 classes: circle, square, triangle, star",
        "images": "12 of 12, each also mirrored",
        "pictures": "scaled to 64, 80 pixels at random (shorter side; the longer one to 128 at most)",
        "iterations": "120, each on 2 images; 20 epochs of 12 images as SOLVER.MAX_ITER of the configuration says: "
        "--epochs N fits its schedule into N passes over the images",
        "rate": "0.00333 rising to 0.01 at iteration 10, 0.001 from 80, 0.0001 from 100",
        "set here": "SOLVER.STEPS [0, 3] -> [0, 80, 100] SOLVER.MAX_ITER 9 -> 120 SOLVER.WARM_UP_ITERS 0 -> 10 "
        "NUM_GPUS 8 -> 1",
        "trained": "12,345 of 678,901 parameters (TRAIN.FREEZE_AT 0 and --freeze fpn,rpn, which Detectron has not)",
        "checkpoints": "every 2 iterations, and after half an hour without one; the last 3 and the best stay",
        "evaluation": "of every checkpoint, on day, night; 3 without a better one end the run",
        "written to": "run: model_final.pkl, checkpoints, json_stats.jsonl, curves.png",
        "to stop": "Ctrl-C: the iteration is finished and a checkpoint written",
        "to go on": "detectron-gn train --resume --out run",
    }


def test_pictures_that_lose_most_of_their_pixels_are_remarked_on():
    assert "times as large" not in rows(config())["pictures"]
    small = config("TRAIN.SCALES", "(48,)")
    assert "half of those here are 3.5 times as large or more, such as 169 x" in rows(small)["pictures"]


def test_pictures_that_are_trained_and_evaluated_on_are_counted(tmp_path):
    data = dataset()
    trained = [data.image_dir / name for name in data.image_names()]
    (tmp_path / "link").symlink_to(data.image_dir)
    linked = [tmp_path / "link" / trained[0].name, tmp_path / trained[1].name]
    options = RunOptions(Path("run"), evaluated_on="own, other", evaluated_files={"own": trained, "other": linked})
    told = rows(config(), options)["evaluation"]
    assert "12 of the 12 pictures of own are trained on too: the AP does not tell how other pictures will do" in told
    assert "1 of the 2 pictures of other is trained on too" in told
    assert "trained on" not in rows(config(), replace(options, evaluated_files={"other": linked[1:]}))["evaluation"]


def test_what_draws_the_curves_is_asked_for_before_training():
    roidb = training_roidb([dataset()], config())
    lines = table(Plan(0, 2, OPTIONS, can_draw=False), config(), roidb, CLASSES, 1, 2)
    assert "curves.png needs matplotlib: pip install matplotlib; --resume draws" in " ".join(map(str.strip, lines))


def test_a_run_that_goes_on_says_from_where_and_one_without_options_says_less():
    found = rows(config("NUM_GPUS", "3", "TRAIN.USE_FLIPPED", "False"), start=4)
    assert found["images"] == "12 of 12" and found["rate"] == "0.001"
    told = "2 of 6 are left (4 to 5, counted from 0), each on 3 x 2 images; 1 of 3 epochs of 12 images"
    assert found["iterations"] == told
    assert found["checkpoints"] == "every 1 iteration; the last 3 stay" and "set here" not in found
    assert found["evaluation"] == "none (--eval-annotations evaluates every checkpoint)"
    assert rows(config("TRAIN.SNAPSHOT_ITERS", "99"))["checkpoints"].startswith("at the end only (every 99 iterations)")


def test_a_run_that_is_complete_says_how_it_gets_longer_and_not_how_to_stop_it():
    found = rows(config(), start=6)
    assert found["iterations"].startswith("all 6 are done: the run is complete")
    assert not {"rate", "to stop", "to go on"} & found.keys()
    longer = "detectron-gn train --resume --out run --set SOLVER.MAX_ITER N, N above 6"
    anew = "detectron-gn train --weights run/model_final.pkl --epochs N --out OTHER"
    assert longer in found["to train on"] and anew in found["to train on"]
    of_length = rows(config("SOLVER.LR_POLICY", "cosine_decay"), start=6)["to train on"]
    assert "SOLVER.MAX_ITER" not in of_length and anew in of_length


@pytest.mark.parametrize(
    ("start", "warm_up", "steps", "said"),
    [
        (0, 9, "[0]", "0.00333 rising to 0.00704 at iteration 5"),
        (2, 2, "[0,3]", "0.01, 0.001 from 3"),
        (4, 9, "[0,3,6]", "0.00063 rising to 0.000704 at iteration 5"),
        # A step within the warm-up, which goes on at the lower rate.
        (0, 5, "[0,3]", "0.00333 rising to 0.006 at iteration 2, 0.000733 from 3 rising to 0.001 at iteration 5"),
    ],
)
def test_the_rate_is_told_of_iterations_that_the_run_has(start, warm_up, steps, said):
    assert rows(config("SOLVER.WARM_UP_ITERS", str(warm_up), "SOLVER.STEPS", steps), start=start)["rate"] == said


def test_steps_beyond_the_end_are_told_where_a_length_fits_them():
    cut = config("SOLVER.MAX_ITER", "2")
    options = RunOptions(Path("run"), length=RunLength(iterations=6), configured=cut)
    fitted = RunLength(iterations=6).fitted(cut, training_roidb([dataset()], cut))
    assert "SOLVER.STEPS reach to 3, beyond SOLVER.MAX_ITER 2" in rows(fitted, options)["rate"]


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("step", "0.01, 0.001 from 2, 0.0001 from 4"),
        ("cosine_decay", "0.01, then SOLVER.LR_POLICY cosine_decay"),
    ],
)
def test_every_policy_of_the_rate_is_told(policy, said):
    cfg = with_values(config(), {"SOLVER.LR_POLICY": policy, "SOLVER.STEP_SIZE": 2})
    assert rows(cfg)["rate"] == said


def test_many_classes_and_every_family_stay_within_80_columns():
    many = ("__background__", *(f"a long name of class {n}" for n in range(80)))
    for name in bundled_names():
        cfg = bundled_config(name)
        if cfg.MODEL.KEYPOINTS_ON:
            continue
        assert "80 classes: a long name of class 0," in rows(cfg, classes=many)["model"]


def test_checkpoints_come_as_in_detectron_or_ten_times_at_least():
    cfg = bundled_config("e2e_mask_rcnn_R-50-FPN_2x")  # 180,000 iterations on 8 GPUs, TRAIN.SNAPSHOT_ITERS 80,000
    assert CheckpointRule().period(cfg) == CheckpointRule(None, True).period(cfg) == 10_000
    short = with_values(cfg, {"SOLVER.MAX_ITER": 301})
    assert (CheckpointRule().period(short), CheckpointRule(None, True).period(short)) == (10_000, 31)
    # But not with every other iteration of a run of some minutes.
    assert CheckpointRule(None, True).period(with_values(cfg, {"SOLVER.MAX_ITER": 6})) == 20
    assert CheckpointRule(7, True).period(cfg) == 7


def test_an_epoch_is_every_image_once_without_its_mirrored_copy():
    cfg = config("NUM_GPUS", "3")
    roidb = training_roidb([dataset()], cfg)
    assert len(roidb) == 24
    assert RunLength(epochs=5).fitted(cfg, roidb).SOLVER.MAX_ITER == 10  # 60 images, 6 each
    assert RunLength(epochs=1).fitted(config("NUM_GPUS", "5"), roidb).SOLVER.MAX_ITER == 2  # rounded up
    assert RunLength(iterations=7).fitted(cfg, roidb).SOLVER.MAX_ITER == 7
    assert RunLength(iterations=7, keep_warm_up=True).fitted(cfg, roidb).SOLVER.WARM_UP_ITERS == 0


def test_what_changed_is_told_key_by_key():
    before, after = config(), config("SOLVER.BASE_LR", "0.0025", "TRAIN.SCALES", "(64,)")
    assert list(changes(before, after)) == ["TRAIN.SCALES [64, 80] -> [64]", "SOLVER.BASE_LR 0.01 -> 0.0025"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59.6, "1 min"), (60, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (5000, "1 h 23 min"),
     (90_000, "1 d 1 h"), (2_000_000, "23 d 3 h")],
)  # fmt: skip
def test_times_are_told_in_their_two_largest_units(seconds, said):
    assert span(timedelta(seconds=seconds)) == said


def test_a_line_of_progress_fits_a_terminal_and_tells_the_time_left_once_it_is_known():
    line = {"iter": 20, "lr": 0.00025, "loss": 1.23456, "time": 0.7, "eta": "0:06:45", "loss_cls": 0.4}
    assert progress_line(line, 600, 21) == "iteration 20 of 600  loss 1.2346  rate 0.00025  6 min 45 s left"
    assert "left" not in progress_line(line, 600, 1) and "left" not in progress_line({**line, "iter": 599}, 600, 20)
    longest = progress_line({**line, "iter": 1_000_000, "lr": 1 / 30_000, "time": 2.1}, 1_440_000, 21)
    assert longest.endswith("10 d 16 h left") and len(longest) <= 80


def test_the_time_left_says_until_when():
    assert time_left(0.5, 120).startswith("time left: about 1 min (0.5 s an iteration), until ")
    assert "about 11 d 13 h" in time_left(1, 1_000_000)


def test_the_table_in_the_documentation_is_the_one_that_is_printed(tmp_path):
    names = ("cup", "plate", "spoon")
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 480, "width": 640} for n in range(1, 32)],
        "categories": [{"id": n, "name": name} for n, name in enumerate(names, 1)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1 + n % 3, "bbox": [10, 10, 99, 99], "area": 9801, "iscrowd": 0,
             "segmentation": [[10, 10, 109, 10, 109, 109]]} for n in range(1, 31)
        ],
    }  # fmt: skip
    (tmp_path / "train.json").write_text(json.dumps(content))
    for image in content["images"]:
        (tmp_path / image["file_name"]).touch()
    published = bundled_config("e2e_mask_rcnn_R-50-FPN_2x_gn")
    cfg = with_values(scaled_schedule(published, 1), {"MODEL.NUM_CLASSES": 4})
    data = [read_dataset(tmp_path / "train.json", tmp_path)]
    roidb, length = training_roidb(data, cfg), RunLength(epochs=40)
    cfg = with_names_of(data, length.fitted(cfg, roidb), frozenset())
    options = RunOptions(
        Path("run"),
        command="detectron-gn train --resume --out run",
        keep_best=True,
        patience=3,
        checkpoints=CheckpointRule(None, True),
        evaluated_on="val",
        configured=published,
        length=length,
    )
    model = build_detector(cfg)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    plan = Plan(0, options.checkpoints.period(cfg), options)
    printed = "\n".join(table(plan, cfg, roidb, ("__background__", *names), trained, parameters))
    assert f"```\n{printed}\n```" in (DATA.parents[1] / "docs" / "training.md").read_text()
