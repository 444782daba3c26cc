"""The table at the start of a run: what it says, in 80 columns, and the time that is left."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from detectron_gn.mrcnn.config import with_values
from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.mrcnn.training.schedule import scaled_schedule
from detectron_gn.port.config.read import bundled_config, bundled_names
from detectron_gn.verify.training.length import CheckpointRule, RunLength
from detectron_gn.verify.training.plan import Plan, changes, span, table, time_left
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
        "iterations": "120, each on 1 x 2 images; 20 epochs of 12 images",
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


def test_a_run_that_goes_on_says_from_where_and_one_without_options_says_less():
    found = rows(config("NUM_GPUS", "3", "TRAIN.USE_FLIPPED", "False"), start=4)
    assert found["images"] == "12 of 12" and found["rate"] == "0.01, 0.001 from 3"
    assert found["iterations"] == "4 to 6, each on 3 x 2 images; 1 epoch of 12 images"
    assert found["checkpoints"] == "every 1 iteration; the last 3 stay" and "set here" not in found
    assert found["evaluation"] == "none (--eval-annotations evaluates every checkpoint)"
    assert rows(config("TRAIN.SNAPSHOT_ITERS", "99"))["checkpoints"].startswith("at the end only (every 99 iterations)")


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
    roidb = training_roidb([read_dataset(tmp_path / "train.json", tmp_path)], cfg)
    cfg = RunLength(epochs=20).fitted(cfg, roidb)
    options = RunOptions(
        Path("run"),
        command="detectron-gn train --resume --out run",
        keep_best=True,
        patience=3,
        checkpoints=CheckpointRule(None, True),
        evaluated_on="val",
        configured=published,
    )
    model = build_detector(cfg)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    plan = Plan(0, options.checkpoints.period(cfg), options)
    printed = "\n".join(table(plan, cfg, roidb, ("__background__", *names), trained, parameters))
    assert f"```\n{printed}\n```" in (DATA.parents[1] / "docs" / "training.md").read_text()
