"""`train`, `check-data` and `verify training` through the front door."""

import json
import re
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import detectron_gn
from detectron_gn.mrcnn import distributed
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config, dump_config, read_config
from detectron_gn.verify.cli import train
from detectron_gn.verify.training.metrics import RunFigures
from detectron_gn.weights import read_blobs, write_blobs
from tests.helpers.recipe import recipe_weights

DATA = Path(__file__).resolve().parents[2] / "data"
TRAIN = ["--annotations", str(DATA / "train_images.json"), "--images", str(DATA / "train_images")]
SMALL = (
    "FPN.DIM 16 FAST_RCNN.CONV_HEAD_DIM 16 FAST_RCNN.MLP_HEAD_DIM 16 MRCNN.DIM_REDUCED 16 TRAIN.SCALES (64,) "
    "GROUP_NORM.NUM_GROUPS 4 TRAIN.MAX_SIZE 128 TEST.SCALE 64 TEST.MAX_SIZE 128 SOLVER.MAX_ITER 1 SOLVER.STEPS [0] "
    "TEST.RPN_POST_NMS_TOP_N 20"
).split()
CONFIG = ["--config", "e2e_mask_rcnn_R-50-FPN_shapes_gn", "--set", *SMALL]

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.slow
def test_train_prints_detectrons_lines_and_evaluates_what_it_trained(tmp_path, capsys):
    out, document = tmp_path / "run", tmp_path / "train.json"
    data = [*TRAIN, "--eval-annotations", TRAIN[1]]
    arguments = ["train", *CONFIG, *data, "--out", str(out), "--workers", "0", "--json", str(document)]
    assert detectron_gn.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "iteration 0 of 1  loss " in printed and "starting from scratch (RNG_SEED 3)" in printed
    content = json.loads(document.read_text())
    assert content["final"] == str(out / "model_final.pkl")
    assert set(content["ap"]["train_images"]) == {"box", "mask"}
    assert (out / "eval_iter0" / "bbox.json").exists()
    assert RunFigures(out).evaluations() == {0: {k: m["AP"] for k, m in content["ap"]["train_images"].items()}}
    assert len(read_blobs(out / "model_final.pkl").blobs) == 446


def test_train_takes_new_classes_from_a_file_of_names(tmp_path, capsys):
    cfg = bundled_config("e2e_mask_rcnn_R-50-FPN_shapes_gn", [*SMALL, "MODEL.NUM_CLASSES", "3"])
    weights = recipe_weights(BlobTable.from_config(cfg), 1)
    write_blobs(tmp_path / "model.pkl", weights)
    (tmp_path / "old.txt").write_text("star\ncircle\n")
    (tmp_path / "new.txt").write_text("circle\nsquare\ntriangle\nstar\n")
    names = ["--classes", str(tmp_path / "new.txt"), "--weights-classes", str(tmp_path / "old.txt")]
    start = [
        "--weights",
        str(tmp_path / "model.pkl"),
        *names,
        "--out",
        str(tmp_path / "run"),
        "--workers",
        "0",
    ]
    assert detectron_gn.main(["train", *CONFIG, *TRAIN, *start]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "where they are others, --weights-classes" not in printed
    assert "partly copied, the rows of the background, circle, star; the others begin at random: cls" in printed
    assert read_blobs(tmp_path / "run" / "model_final.pkl").blobs["cls_score_w"].shape[0] == 5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([*TRAIN, "--out", "run"], "nothing says what to train: pass --config"),
        ([*CONFIG, *TRAIN[:2], *TRAIN, "--out", "run"], "2 --annotations need as many --images, not 1"),
        ([*CONFIG, *TRAIN, "--out", "run", "--classes", "three.txt"], "three.txt names 3 classes"),
        (
            ["--config", "e2e_mask_rcnn_R-50-FPN_2x_gn", "--set", "MODEL.NUM_CLASSES", "81", *TRAIN, "--out", "run"],
            "but MODEL.NUM_CLASSES is 81: pass --set MODEL.NUM_CLASSES 5",
        ),
        ([*CONFIG, *TRAIN, "--out", "run", "--classes", "absent.txt"], "absent.txt"),
        ([*CONFIG, "TRAIN.FREEZE_AT", "2", *TRAIN, "--out", "run"], "36.2 instead of 39.5"),
        ([*CONFIG, *TRAIN, "--out", "run", "--eval-annotations", "absent.json"], "absent.json"),
        ([*CONFIG, *TRAIN, "--out", "run", "--eval-annotations", TRAIN[1], "--eval-images", "."], "is not in ."),
        ([*CONFIG, "TRAIN.IMS_PER_BATCH", "1000", *TRAIN, "--out", "run"], "do not fill one minibatch"),
        ([*CONFIG, "RNG_SEED", "-1", *TRAIN, "--out", "run"], "RNG_SEED is -1: set it to a whole number from 0"),
        ([*CONFIG, "NUM_GPUS", "0", *TRAIN, "--out", "run"], "error: NUM_GPUS is 0: set it to a number above 0"),
        ([*CONFIG, "NUM_GPUS", "0", *TRAIN, "--out", "run", "--scale-schedule", "1"], "error: NUM_GPUS is 0"),
        ([*CONFIG, "TRAIN.FREEZE_AT", "7", *TRAIN, "--out", "run"], "error: TRAIN.FREEZE_AT is 7: set it to the last"),
        ([*CONFIG, "SOLVER.BASE_LR", "-1.0", *TRAIN, "--out", "run"], "SOLVER.BASE_LR is -1.0: set it to a number"),
        ([*CONFIG, "SOLVER.BASE_LR", "-1", *TRAIN, "--out", "run"], "SOLVER.BASE_LR is the whole number -1"),
        ([*CONFIG, *TRAIN, "--out", "run", "--precision", "tf32"], "--precision tf32 needs an NVIDIA GPU"),
        ([*CONFIG, *TRAIN, "--out", "run", "--device", "gpu"], "device gpu cannot be used"),
        ([*CONFIG, *TRAIN, "--out", "run", "--device", "cuda:63"], "device cuda:63 cannot be used"),
        ([*CONFIG, *TRAIN, "--out", "run", "--classes", "binary.txt"], "binary.txt is no text in UTF-8"),
        ([*CONFIG, *TRAIN, "--out", "run", "--weights-classes", "binary.txt"], "binary.txt is no text in UTF-8"),
        ([*CONFIG, *TRAIN, "--out", "run", "--classes", "twice.txt"], "twice.txt: the class b is given twice"),
        ([*CONFIG, *TRAIN, "--out", "run", "--classes", "ground.txt"], "the class __background__ is what is no object"),
        ([*CONFIG, *TRAIN, "--out", "three.txt"], "three.txt: cannot be made"),
        (["--config", "broken.yaml", *TRAIN, "--out", "run"], "broken.yaml, line 1: it is not valid YAML"),
        (["--config", "tagged.yaml", *TRAIN, "--out", "run"], "tagged.yaml, line 1: the tag !!python/object"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence_and_leaves_nothing(
    tmp_path, monkeypatch, capsys, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    Path("three.txt").write_text("a\nb\nc\n")
    Path("binary.txt").write_bytes(b"\xff\xfe\x00\n")
    Path("twice.txt").write_text("a\nb\nb\nc\n")
    Path("ground.txt").write_text("a\nb\nc\n__background__\n")
    Path("broken.yaml").write_text("MODEL: [")
    Path("tagged.yaml").write_text("MODEL: !!python/object/apply:os.system ['true']")
    assert detectron_gn.main(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("detectron-gn: error: ") and error.count("\n") == 1 and sentence in error
    assert not Path("run").exists()


def test_train_stays_on_the_cpu_when_told_so(tmp_path, monkeypatch):
    trained_on, joined = [], distributed.joined_ranks

    @contextmanager
    def watched(*arguments):
        with joined(*arguments) as ranks:
            trained_on.append(ranks.device.type)
            yield ranks

    # A machine that has a GPU: without --device the run would go there.
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(distributed, "joined_ranks", watched)
    arguments = [*CONFIG, *TRAIN, "--out", str(tmp_path / "run"), "--workers", "0", "--device", "cpu"]
    assert detectron_gn.main(["train", *arguments]) == 0
    assert trained_on == ["cpu"]
    assert (tmp_path / "run" / "model_final.pkl").exists()


def test_processes_do_not_train_on_one_gpu_together(monkeypatch):
    monkeypatch.setattr(distributed, "usable_device", torch.device)
    monkeypatch.setattr("torch.cuda.set_device", lambda _: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="pass --device cuda, one GPU for each"), distributed.joined_ranks("cuda:1", 8):
        pass


def test_scale_schedule_writes_the_configuration_and_trains_nothing(tmp_path, capsys):
    scale = ["--config", "e2e_mask_rcnn_R-50-FPN_2x_gn", "--scale-schedule", "2", "--out", str(tmp_path)]
    assert detectron_gn.main(["train", *scale, *TRAIN]) == 0
    assert "SOLVER.BASE_LR: 0.02 -> 0.005" in capsys.readouterr().out
    cfg = read_config(tmp_path / "config_2gpu.yaml")
    assert (cfg.NUM_GPUS, cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (2, 720000, (0, 480000, 640000))
    assert cfg.MODEL.NUM_CLASSES == 5
    text = (tmp_path / "config_2gpu.yaml").read_text()
    assert "!!" not in text and "  BASE_LR: 0.005  # was 0.02\n" in text and text.startswith("# For 2 GPUs by the")
    assert detectron_gn.main(["train", *scale]) == 0
    assert read_config(tmp_path / "config_2gpu.yaml").MODEL.NUM_CLASSES == 81
    assert [path.name for path in tmp_path.iterdir()] == ["config_2gpu.yaml"]
    assert detectron_gn.main(["train", *scale[:3], "9" * 30, *scale[4:], *TRAIN]) == 2
    assert "NUM_GPUS is 9999" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["config_2gpu.yaml"]


@pytest.mark.parametrize(
    ("torchrun", "expected"),
    [
        ({}, "detectron-gn train --resume --out 'my run'"),
        ({"TORCHELASTIC_RUN_ID": "left over"}, "detectron-gn train --resume --out 'my run'"),
        (
            {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "1"},
            "torchrun --standalone --nproc_per_node 2 -m detectron_gn train --resume --out 'my run'",
        ),
        (
            {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "3"},
            "torchrun, as before, -m detectron_gn train --resume --out 'my run'",
        ),
    ],
)
def test_the_command_that_goes_on_is_that_of_the_launcher(monkeypatch, torchrun, expected):
    for name in ("TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    assert train._command_to_go_on(Path("my run")) == expected


def test_check_data_tells_errors_by_its_exit_code(tmp_path, capsys):
    document = tmp_path / "check.json"
    assert detectron_gn.main(["check-data", *TRAIN, "--json", str(document)]) == 0
    assert "trained on: 12 of 12 images" in capsys.readouterr().out
    assert json.loads(document.read_text())["trained_images"] == 12
    empty = tmp_path / "empty"
    empty.mkdir()
    assert detectron_gn.main(["check-data", *TRAIN[:3], str(empty)]) == 1
    printed = capsys.readouterr().out
    assert "none of the 12 images is in this folder" in printed
    assert printed.endswith("train refuses this file: 1 error\n")
    config = ["--config", "e2e_mask_rcnn_R-50-FPN_2x_gn"]
    assert detectron_gn.main(["check-data", *TRAIN, *config]) == 0
    assert detectron_gn.main(["check-data", *TRAIN, *config, "--set", "MODEL.NUM_CLASSES", "81"]) == 1
    capsys.readouterr()
    assert detectron_gn.main(["check-data", *TRAIN, "--set", "TRAIN.GT_MIN_AREA", "1000000"]) == 1
    assert "is under TRAIN.GT_MIN_AREA 1e+06" in capsys.readouterr().out


def test_check_data_looks_at_each_of_several_data_sets(tmp_path, capsys):
    broken = tmp_path / "broken.json"
    content = json.loads(Path(TRAIN[1]).read_text())
    content["annotations"][0]["bbox"] = [1, 2, 3]
    broken.write_text(json.dumps(content))
    document = tmp_path / "check.json"
    for order in ([str(broken), TRAIN[1]], [TRAIN[1], str(broken)]):
        pairs = [part for path in order for part in ("--annotations", path, *TRAIN[2:])]
        assert detectron_gn.main(["check-data", *pairs, "--json", str(document)]) == 1
        printed = capsys.readouterr().out
        assert all(path in printed for path in order) and "bbox has 3 numbers" in printed
        reports = json.loads(document.read_text())["data_sets"]
        assert [report["annotations_file"] for report in reports] == order
        assert sorted(report["trained_images"] for report in reports) == [11, 12]
    assert detectron_gn.main(["check-data", *TRAIN, *TRAIN]) == 0
    content["annotations"][0]["bbox"] = [1, 2, 3, 4]
    content["categories"][0]["name"] = "moon"
    broken.write_text(json.dumps(content))
    assert detectron_gn.main(["check-data", *TRAIN, "--annotations", str(broken), *TRAIN[2:]]) == 1
    assert f"lists other categories than {TRAIN[1]}" in capsys.readouterr().out
    content = json.loads(Path(TRAIN[1]).read_text())
    content["categories"].reverse()
    broken.write_text(json.dumps(content))
    both = [*TRAIN, "--annotations", str(broken), *TRAIN[2:]]
    assert detectron_gn.main(["check-data", *both]) == 1
    told = f"{broken}: lists the categories of {TRAIN[1]} in another order: data sets that are trained on together need"
    assert told in capsys.readouterr().out
    assert detectron_gn.main(["train", *CONFIG, *both, "--out", str(tmp_path / "run")]) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "run").exists()
    assert detectron_gn.main(["check-data", *TRAIN, *TRAIN[:2]]) == 2
    assert "2 --annotations need as many --images, not 1" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--eval-images", "--eval-proposals"])
def test_what_belongs_to_an_evaluation_is_refused_without_one(tmp_path, capsys, option):
    arguments = ["train", *CONFIG, *TRAIN, "--out", str(tmp_path / "run"), option, str(tmp_path)]
    assert detectron_gn.main(arguments) == 2
    assert f"{option} is of --eval-annotations, which is missing" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_check_data_shows_how_far_it_is_while_it_decodes(capsys, monkeypatch):
    monkeypatch.setattr("detectron_gn.weights.progress.SECONDS_BETWEEN_LINES", 0)
    assert detectron_gn.main(["check-data", *TRAIN]) == 0
    told = capsys.readouterr()
    assert "\n11 of 12 images, " in told.err and "of 12 images, " not in told.out
    for option in ("--no-decode", "--quiet"):
        assert detectron_gn.main(["check-data", *TRAIN, option]) == 0
        assert "of 12 images" not in capsys.readouterr().err


def test_boxes_without_outlines_train_a_model_of_boxes(tmp_path, capsys):
    boxes = tmp_path / "boxes.json"
    content = json.loads(Path(TRAIN[1]).read_text())
    for annotation in content["annotations"]:
        del annotation["segmentation"], annotation["area"], annotation["iscrowd"]
    boxes.write_text(json.dumps(content))
    data = ["--annotations", str(boxes), *TRAIN[2:], "--workers", "0"]
    assert detectron_gn.main(["train", *CONFIG, *data, "--out", str(tmp_path / "masks")]) == 2
    error = capsys.readouterr().err
    assert "no object has an outline" in error and "pass --set MODEL.MASK_ON False" in error
    assert not (tmp_path / "masks").exists()
    out = tmp_path / "run"
    evaluated = ["--eval-annotations", str(boxes)]
    arguments = ["train", *CONFIG, "MODEL.MASK_ON", "False", *data, *evaluated, "--out", str(out)]
    assert detectron_gn.main(arguments) == 0
    said = f"{boxes}: an annotation without an outline: its box is used"
    # Once for training and once for its evaluations.
    assert " ".join(capsys.readouterr().out.split()).count(said) == 2
    assert set(json.loads((out / "eval_iter0" / "ap.json").read_text())["boxes"]) == {"box"}


def test_detect_names_the_classes_that_a_run_was_trained_with(tmp_path, capsys):
    (tmp_path / "names.txt").write_text("moon\nsun\nstar\nsky\n")
    out = tmp_path / "run"
    names = ["--classes", str(tmp_path / "names.txt")]
    assert detectron_gn.main(["train", *CONFIG, *TRAIN, *names, "--out", str(out), "--workers", "0"]) == 0
    drawn, drawing = [], "detectron_gn.port.runs.drawn_rows.draw_rows"
    image = sorted((DATA / "train_images").iterdir())[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, lambda image, _rows, categories: drawn.append(categories.names) or image)
        detect = ["detect", str(out / "model_final.pth"), str(image), "--out", str(tmp_path / "found")]
        assert detectron_gn.main(detect) == 0
    assert drawn == [("moon", "sun", "star", "sky")]
    ids = {category["id"] for category in json.loads(Path(TRAIN[1]).read_text())["categories"]}
    found = {row["category_id"] for row in json.loads((tmp_path / "found" / "detections.json").read_text())}
    assert found and found <= ids


def test_an_evaluation_that_cannot_be_kept_does_not_end_a_run(tmp_path, capsys):
    out, document = tmp_path / "run", tmp_path / "train.json"
    # A file stands where the folder of the evaluation should be; a run leaves none, so it is put there meanwhile.
    data = [*TRAIN, "--eval-annotations", TRAIN[1], "--json", str(document)]

    def blocked(say):
        def line(text):
            if text.startswith("starting"):
                (out / "eval_iter0").touch()
            say(text)

        return line

    with pytest.MonkeyPatch.context() as patch:
        from detectron_gn.verify.training import say as spoken

        patch.setattr("detectron_gn.verify.training.say.print_line", blocked(spoken.print_line))
        assert detectron_gn.main(["train", *CONFIG, *data, "--out", str(out), "--workers", "0"]) == 0
    assert "this evaluation could not be kept" in capsys.readouterr().out
    assert set(json.loads(document.read_text())["ap"]["train_images"]) == {"box", "mask"}


@pytest.mark.parametrize(
    "option",
    [("--keep", "0"), ("--keep", "1" * 5000), ("--workers", "-1"), ("--scale-schedule", "0"), ("--keep", "x")],
)
def test_numbers_of_options_that_make_no_sense_are_refused(capsys, option):
    with pytest.raises(SystemExit) as leaving:
        detectron_gn.main(["train", *CONFIG, *TRAIN, "--out", "run", *option])
    assert leaving.value.code == 2
    shown = option[1] if len(option[1]) < 40 else option[1][:40] + "..."
    assert f"argument {option[0]}: {shown!r} is no whole number from" in capsys.readouterr().err


def test_an_empty_name_of_the_output_folder_is_refused(capsys):
    with pytest.raises(SystemExit) as leaving:
        detectron_gn.main(["train", *CONFIG, *TRAIN, "--out", ""])
    assert leaving.value.code == 2 and "argument --out: names no folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        "test m.pkl --annotations a.json --images i --out o --batch 0",
        "verify imagenet m.pkl --images i --batch -1",
        "verify training m.pkl --reference t.h5 --annotations a.json --images i --replicas -1",
        "check-data --annotations a.json --images i --most -1",
    ],
)
def test_counts_of_other_commands_that_make_no_sense_are_refused(capsys, command):
    with pytest.raises(SystemExit) as leaving:
        detectron_gn.main(command.split())
    assert leaving.value.code == 2 and "is no whole number from" in capsys.readouterr().err


@pytest.mark.slow
def test_verify_training_knows_the_same_run_from_another(tmp_path, capsys):
    narrow = (
        "MODEL.NUM_CLASSES 5 FPN.DIM 32 TRAIN.SCALES (160,) TRAIN.MAX_SIZE 256 FAST_RCNN.MLP_HEAD_DIM 64 NUM_GPUS 1 "
        "MRCNN.DIM_REDUCED 32 RESNETS.WIDTH_PER_GROUP 8 GROUP_NORM.NUM_GROUPS 8 FAST_RCNN.CONV_HEAD_DIM 32 "
        "FPN.ROI_CANONICAL_SCALE 60 TRAIN.RPN_POST_NMS_TOP_N 200 TRAIN.RPN_PRE_NMS_TOP_N 100 SOLVER.BASE_LR 0.005 "
        "SOLVER.WARM_UP_ITERS 4 TRAIN.RPN_BATCH_SIZE_PER_IM 64 TRAIN.BATCH_SIZE_PER_IM 48"
    ).split()
    cfg = bundled_config("scratch_e2e_mask_rcnn_R-50-FPN_3x_gn", narrow)
    (tmp_path / "config.yaml").write_text(dump_config(cfg))
    write_blobs(tmp_path / "start.pkl", recipe_weights(BlobTable.from_config(cfg), 10))
    source = [str(tmp_path / "start.pkl"), "--config", str(tmp_path / "config.yaml")]
    trace = ["--reference", str(DATA / "train_gn_sampled.h5"), *TRAIN]
    document = tmp_path / "training.json"
    assert detectron_gn.main(["verify", "training", *source, *trace, "--json", str(document)]) == 0
    verdict = " ".join(capsys.readouterr().out.partition("It is the same run, ")[2].split())
    assert re.match(r"as far as rounding lets one tell: \d+ of \d+ losses to 0.0001, \d+ of \d+ updates to", verdict)
    assert "The weights that it starts from are taken on trust, since a trace has no digests of them" in verdict
    content = json.loads(document.read_text())
    first = content["iterations"][0]
    assert first["loss_cls"] == pytest.approx(first["reference"]["loss_cls"], rel=1e-4)
    assert content["holds"] is True
    # With other samples in a bin of RoIAlign the run is another one, and rounding is no excuse.
    other = [*source, "--set", "FAST_RCNN.ROI_XFORM_SAMPLING_RATIO", "1", *trace, "--replicas", "2"]
    assert detectron_gn.main(["verify", "training", *other]) == 1
    assert "It is not the same run." in capsys.readouterr().out


def test_the_two_models_that_detectron_froze_by_mistake_can_be_reproduced_without_force(tmp_path, capsys):
    name = "scratch_e2e_mask_rcnn_R-50-FPN_3x_gn_freeze2"
    narrow = [*SMALL, "MODEL.NUM_CLASSES", "5", "NUM_GPUS", "1", "RESNETS.WIDTH_PER_GROUP", "8"]
    arguments = ["--config", name, "--set", *narrow, *TRAIN, "--out", str(tmp_path / "run"), "--workers", "0"]
    assert detectron_gn.main(["train", *arguments]) == 0
    assert "TRAIN.FREEZE_AT 2" in capsys.readouterr().out
    assert "conv1_w_momentum" not in read_blobs(tmp_path / "run" / "model_final.pkl").blobs


@pytest.mark.parametrize("change", [{"id": None}, {"id": [1]}, {"id": 17}])
def test_detect_refuses_categories_without_numbers_of_their_own(change, pickle, tmp_path, capsys):
    document = json.loads(Path(TRAIN[1]).read_text())
    document["categories"][0] |= change
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(document))
    image = str(sorted((DATA / "train_images").iterdir())[0])
    arguments = ["detect", str(pickle), image, "--annotations", str(broken), "--out", str(tmp_path / "out")]
    assert detectron_gn.main(arguments) == 2
    assert "broken.json: every category needs a whole number of its own as 'id'" in capsys.readouterr().err
