"""How `train` begins: what a person has to say, what follows from the data and the machine, and what is told."""

import argparse
from pathlib import Path

import pytest

import detectron_gn
from detectron_gn.mrcnn.distributed import process_count
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config, dump_config
from detectron_gn.verify.cli import train
from detectron_gn.verify.training.evaluation_data import named_path
from detectron_gn.verify.training.length import CheckpointRule, RunLength
from detectron_gn.weights import read_blobs, write_blobs
from tests.helpers.recipe import recipe_weights
from tests.helpers.small_run import DATA, SMALL

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TRAIN = ["--annotations", str(DATA / "train_images.json"), "--images", str(DATA / "train_images")]
ZOO = "e2e_mask_rcnn_R-50-FPN_2x_gn"  # 81 classes, 8 GPUs, rate 0.02, 180,000 iterations
NARROW = SMALL.partition(" SOLVER.BASE_LR")[0].split()


def source_of(*arguments):
    given = ["train", "--out", "run", *map(str, arguments)]
    return train._source(detectron_gn._parser().parse_args(given, argparse.Namespace(arguments=given)), None)


def schedule(cfg):
    return cfg.NUM_GPUS, cfg.SOLVER.BASE_LR


def test_finetuning_needs_no_more_than_weights_data_and_epochs(tmp_path, capsys, monkeypatch):
    cfg = bundled_config(ZOO, [*NARROW, "TRAIN.SCALES", "(64,)"])
    weights = recipe_weights(BlobTable.from_config(cfg), 1)
    write_blobs(tmp_path / "published.pkl", weights)
    blobs = read_blobs(tmp_path / "published.pkl")
    write_blobs(tmp_path / "published.pkl", type(blobs)(blobs.blobs, dump_config(cfg), None, "x", "pkl"))
    monkeypatch.chdir(tmp_path)
    command = ["train", "--weights", "published.pkl", "--epochs", "1", *TRAIN, "--out", "run"]
    assert detectron_gn.main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    table = lines[: next(n for n, line in enumerate(lines) if line.startswith("starting from"))]
    assert max(map(len, table)) <= 80
    text = " ".join(" ".join(table).split())
    for told in (
        "4 classes: circle, square, triangle, star",
        "6, each on 2 images; 1 epoch of 12 images",
        "TRAIN.DATASETS [coco_2014_train, coco_2014_valminusminival] -> [train_images]",
        "MODEL.NUM_CLASSES 81 -> 5",
        "NUM_GPUS 8 -> 1",
        "SOLVER.BASE_LR 0.02 -> 0.0025",
        "SOLVER.MAX_ITER 180000 -> 6",
        "SOLVER.STEPS [0, 120000, 160000] -> [0, 4, 6]",
        "detectron-gn train --resume --out run",
    ):
        assert told in text, told
    final = read_blobs("run/model_final.pkl")
    assert final.blobs["cls_score_w"].shape[0] == 5
    assert lines[-1] == "  detectron-gn convert run/model_final.pkl --out run/model_small.pth --strip"
    assert max(map(len, lines)) <= 80


def test_without_a_length_detectrons_keys_count_exactly_but_for_the_classes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    source = source_of("--config", ZOO)
    assert source.cfg == source.configured == bundled_config(ZOO) and source.length is None


@pytest.mark.parametrize(
    ("processes", "overrides", "expected"),
    [
        ("1", [], (1, 0.0025)),
        ("4", [], (4, 0.01)),
        ("1", ["NUM_GPUS", "8"], (8, 0.02)),
        ("2", ["SOLVER.BASE_LR", "0.001"], (2, 0.001)),
    ],
)
def test_with_a_length_the_rate_follows_the_number_of_processes_unless_it_is_set(
    monkeypatch, processes, overrides, expected
):
    monkeypatch.setenv("WORLD_SIZE", processes)
    assert process_count() == int(processes)
    source = source_of("--config", ZOO, "--epochs", "3", *(["--set", *overrides] if overrides else []))
    assert schedule(source.cfg) == expected and schedule(source.configured)[0] in (8, expected[0])
    assert source.length == RunLength(epochs=3)
    assert source_of("--config", ZOO, "--iterations", "9", "--set", "SOLVER.WARM_UP_ITERS", "7").length == RunLength(
        iterations=9, keep_warm_up=True
    )


def test_a_key_in_a_file_of_ones_own_is_set_and_one_of_a_published_configuration_is_not(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(dump_config(bundled_config(ZOO)))
    assert schedule(source_of("--config", own, "--epochs", "3").cfg) == (8, 0.02)
    assert "TRAIN.SNAPSHOT_ITERS" in source_of("--config", own).own_keys
    assert source_of("--config", ZOO, "--set", "TRAIN.SNAPSHOT_ITERS", "9").own_keys == {"TRAIN.SNAPSHOT_ITERS"}


@pytest.mark.parametrize(
    ("every", "own_keys", "rule"),
    [
        (None, frozenset(), CheckpointRule(None, True)),
        (None, frozenset({"TRAIN.SNAPSHOT_ITERS"}), CheckpointRule()),
        (7, frozenset(), CheckpointRule(7)),
        (7, frozenset({"TRAIN.SNAPSHOT_ITERS"}), CheckpointRule(7)),
    ],
)
def test_checkpoints_come_exactly_as_they_are_asked_for(every, own_keys, rule):
    assert train._checkpoint_rule(argparse.Namespace(checkpoint_every=every), own_keys) == rule


def test_evaluation_sets_have_names_and_a_file_may_have_any(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert named_path("val.json") == ("", Path("val.json"))
    assert named_path("day=a/val=1.json") == ("day", Path("a/val=1.json"))
    assert named_path("../day=a.json") == ("", Path("../day=a.json"))
    Path("lr=1.json").touch()
    assert named_path("lr=1.json") == ("", Path("lr=1.json"))


EVAL = ["--eval-annotations", TRAIN[1]]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--epochs", "1", "--set", "SOLVER.MAX_ITER", "9"], "--epochs and --set SOLVER.MAX_ITER both say how long"),
        (["--iterations", "1", "--set", "SOLVER.STEPS", "[0]"], "--iterations and --set SOLVER.STEPS both say"),
        (["--keep-best"], "--keep-best is of --eval-annotations, which is missing"),
        (["--early-stop", "3"], "--early-stop is of --eval-annotations, which is missing"),
        (["--eval-loss"], "--eval-loss is of --eval-annotations, which is missing"),
        ([*EVAL, *EVAL], "two evaluation sets are called train_images: give them names"),
        ([*EVAL, *EVAL, *EVAL, *["--eval-images", "a"] * 2], "3 --eval-annotations need as many --eval-images"),
        ([*EVAL, "--eval-images", "nowhere"], "--eval-images nowhere is no folder of images"),
        ([*EVAL, *["--eval-proposals", "a"] * 2], "1 --eval-annotations need as many --eval-proposals, not 2"),
        (["--freeze", "fpn,neck"], "--freeze neck: the model has no such part: choose from body, fpn, rpn, box, mask"),
        (["--freeze", "body,fpn,rpn,box,mask"], "leaves nothing to train"),
    ],
)
def test_options_that_cannot_be_are_one_sentence_and_leave_nothing(tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    config = ["--config", "e2e_mask_rcnn_R-50-FPN_shapes_gn"]
    assert detectron_gn.main(["train", *config, *TRAIN, "--out", "run", *arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not Path("run").exists()


def test_two_lengths_are_refused(capsys):
    with pytest.raises(SystemExit):
        detectron_gn.main(["train", *TRAIN, "--out", "run", "--epochs", "1", "--iterations", "2"])
    assert "not allowed with argument --epochs" in capsys.readouterr().err


def test_a_number_of_classes_that_is_set_and_is_another_one_is_refused(tmp_path, capsys):
    own = tmp_path / "own.yaml"
    own.write_text(dump_config(bundled_config("e2e_mask_rcnn_R-50-FPN_shapes_gn", ["MODEL.NUM_CLASSES", "7"])))
    assert detectron_gn.main(["train", "--config", str(own), *TRAIN, "--out", str(tmp_path / "run")]) == 2
    assert "4 categories, which with the background makes 5 classes, but MODEL.NUM_CLASSES is 7" in (
        capsys.readouterr().err
    )

