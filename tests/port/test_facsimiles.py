"""Facsimiles of the files that people have go through inspect, convert, detect, train and verify, or are refused so
that one knows what they are."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from _pytest.mark import ParameterSet

from detectron_gn.mrcnn.evaluation.results_files import read_results
from detectron_gn.port.config.read import bundled_config
from detectron_gn.port.runs.load import load_model
from detectron_gn.weights import read_blobs
from detectron_gn.weights.catalog import lookup
from detectron_gn.weights.weights_file import WeightsFile
from tests.helpers.command_line import Run
from tests.helpers.facsimile import (
    BN_50,
    GN_50,
    NARROW,
    Blobs,
    Facsimile,
    april,
    baseline,
    classifier,
    config,
    detector,
    full_width,
    gn_baseline,
    january,
    parameters,
)
from tests.helpers.facsimiles import STRANGERS, all_facsimiles
from tests.helpers.saved_config import Values, dumped, january_2018

DATA = Path(__file__).parents[1] / "data"
FACSIMILES = all_facsimiles()
SMALL_TEST = (
    "TEST.SCALE 64 TEST.MAX_SIZE 96 TEST.RPN_PRE_NMS_TOP_N 100 TEST.RPN_POST_NMS_TOP_N 50 TEST.SCORE_THRESH 0.02"
).split()
SMALL_TRAINING = (
    "MODEL.NUM_CLASSES 5 NUM_GPUS 1 TRAIN.SCALES (64,) TRAIN.MAX_SIZE 96 TRAIN.IMS_PER_BATCH 1 "
    "TRAIN.BATCH_SIZE_PER_IM 8 TRAIN.RPN_BATCH_SIZE_PER_IM 16 TRAIN.RPN_PRE_NMS_TOP_N 50 TRAIN.RPN_POST_NMS_TOP_N 20 "
    "SOLVER.BASE_LR 0.0001 SOLVER.MAX_ITER 1"
).split()
# What has another body, or takes a while to be read, and says nothing that an R-50 does not.
SLOW = ("R-101", "X-101", "35861858", "48616724", "protocol 0")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    cv2.imwrite(str(path), np.random.RandomState(0).randint(0, 255, (60, 80, 3)).astype(np.uint8))
    return path


@pytest.fixture
def told(run: Run, caplog: pytest.LogCaptureFixture) -> Run:
    """Runs a command; what it warns of comes before its errors, as a user sees them."""

    def told(*arguments: object) -> tuple[int, str, str]:
        caplog.clear()
        code, printed, errors = run(*arguments)
        return code, printed, caplog.text + errors

    return told


def with_config(facsimile: Facsimile) -> tuple[str, ...]:
    return ("--config", *facsimile.config) if facsimile.config else ()


def parameters_of_test(facsimiles: list[Facsimile]) -> list[ParameterSet]:
    return [
        pytest.param(each, id=each.name, marks=[pytest.mark.slow] * any(word in each.name for word in SLOW))
        for each in facsimiles
    ]


@pytest.mark.parametrize("facsimile", parameters_of_test(FACSIMILES))
def test_a_facsimile_goes_through_every_command(
    facsimile: Facsimile, told: Run, tmp_path: Path, picture: Path
) -> None:
    path = tmp_path / facsimile.file
    facsimile.write(path)
    held = read_blobs(path)
    is_told(facsimile, path, told)
    comes_back_whole(facsimile, path, held, told)
    detects(facsimile, path, picture, told)
    has_the_right_names(facsimile, path, told)
    trains(facsimile, path, held, told)
    shutil.rmtree(tmp_path)


def is_told(facsimile: Facsimile, path: Path, told: Run) -> None:
    document = path.with_suffix(".json")
    code, printed, errors = told("inspect", path, "--json", document)
    assert code == 0, errors
    assert printed.startswith(f"{path}: {facsimile.title}\n")
    found = json.loads(document.read_text())
    assert len(found["blobs"]) == sum(facsimile.counts)
    assert found["momentum"] == facsimile.counts[1]


def comes_back_whole(facsimile: Facsimile, path: Path, held: WeightsFile, told: Run) -> None:
    if facsimile.title == "unknown" and facsimile.detect == "works":
        # PyTorch's names become Detectron's by a configuration.
        out = path.parent / "converted.pkl"
        assert told("convert", path, "--out", out)[0] == 2
        code, _, errors = told("convert", path, "--out", out, *with_config(facsimile))
        assert (code, errors) == (0, "") and "res2_0_branch2a_w" in read_blobs(out).blobs
        return
    other, back = path.parent / "model.safetensors", path.parent / "back.pkl"
    for source, out in ((path, other), (other, back)):
        code, printed, errors = told("convert", source, "--out", out)
        assert code == 0 and ("which are written as they are" in errors) == facsimile.detect.startswith("has the")
        assert not errors or errors.count("\n") == 1
        assert printed.startswith(f"{out}: {len(held.blobs)} blobs\n")
    found = read_blobs(back)
    assert found.cfg == held.cfg
    assert found.blobs.keys() == held.blobs.keys()
    different = [name for name, blob in held.blobs.items() if found.blobs[name].tobytes() != blob.tobytes()]
    assert not different
    back.unlink()


def detects(facsimile: Facsimile, path: Path, picture: Path, told: Run) -> None:
    out = path.parent / "detected"
    given = () if facsimile.detect.startswith(("is a", "has the")) else with_config(facsimile)
    result = told("detect", path, picture, "--out", out, *given, "--set", *SMALL_TEST)
    if facsimile.detect == "works":
        code, _, errors = result
        assert code == 0, errors
        assert facsimile.remark in errors
        assert json.loads((out / "detections.json").read_text())
    else:
        is_refused(result, facsimile.detect)
        assert not list(out.glob("*"))


def has_the_right_names(facsimile: Facsimile, path: Path, told: Run) -> None:
    out = path.parent / "verified"
    code, printed, errors = told("verify", "all", path, "--out", out, *with_config(facsimile))
    if facsimile.detect == "works":
        # The names hold; without Caffe2's values nothing else could be compared, and that is no success.
        assert code == 2 and "Nothing was compared with Caffe2's values." in printed and "error" not in errors
        rungs = " ".join(printed.split())
        assert f"{facsimile.counts[0]} parameters of the right shape" in rungs
        if facsimile.counts[2]:
            assert f"{facsimile.counts[2]} unused blobs preserved" in rungs
    else:
        assert code != 0
        assert facsimile.detect.split()[-1] in printed + errors


def trains(facsimile: Facsimile, path: Path, held: WeightsFile, told: Run) -> None:
    out = path.parent / "run"
    data = ("--annotations", DATA / "train_images.json", "--images", DATA / "train_images", "--workers", 0)
    options = (*with_config(facsimile), "--set", *SMALL_TRAINING)
    result = told("train", "--weights", path, *data, "--out", out, *options)
    if facsimile.train != "works":
        is_refused(result, facsimile.train)
        assert not out.exists()
        return
    code, printed, errors = result
    assert code == 0, errors
    if facsimile.remark:
        assert f"{facsimile.counts[2]} blobs that the network does not use are preserved" in printed
    if facsimile.file.endswith(".pth"):
        return
    trained = read_blobs(out / "model_final.pkl").blobs
    # What was not trained is kept to the bit: frozen stages, AffineChannels and all that the network does not use.
    kept = [name for name in held.blobs if f"{name}_momentum" not in trained and not name.endswith("_momentum")]
    assert len(kept) > facsimile.counts[2]
    assert not [name for name in kept if name not in trained or trained[name].tobytes() != held.blobs[name].tobytes()]


def is_refused(result: tuple[int, str, str], *parts: str) -> None:
    code, _, errors = result
    last = errors.splitlines()[-1]
    assert code == 2, errors
    assert last.startswith("detectron-gn: error: ") and "Traceback" not in errors
    for part in parts:
        assert part in last


def detections(path: Path, picture: Path, *overrides: str) -> tuple[bytes, ...]:
    model = load_model(path, overrides=[*SMALL_TEST, *overrides], device="cpu")
    found = model.detect(cv2.imread(str(picture)))
    assert len(found) > 0 and found.mask_probs is not None
    return found.boxes.tobytes(), found.scores.tobytes(), found.classes.tobytes(), found.mask_probs.tobytes()


@pytest.mark.parametrize(
    "preserved",
    [
        lambda: without_parameters(baseline(BN_50)),
        lambda: without_parameters(baseline(BN_50)) | STRANGERS,
        lambda: classifier("fc1000"),
        lambda: {"kps_score_lowres_w": np.ones((16, 17, 4, 4), np.float32), "conv1_b": np.full(64, np.nan, np.float32)},
    ],
    ids=["biases and classifier", "strangers", "the classifier", "keypoints and NaN"],
)
def test_preserved_blobs_change_no_bit_of_a_detection(
    preserved: Callable[[], Blobs], tmp_path: Path, picture: Path
) -> None:
    bare, full = tmp_path / "bare.pkl", tmp_path / "full.pkl"
    blobs = parameters(config(BN_50))
    detector(lambda: blobs, lambda: january(BN_50))(bare)
    detector(lambda: blobs | preserved(), lambda: january(BN_50))(full)
    assert len(read_blobs(full).blobs) > len(read_blobs(bare).blobs)
    assert detections(full, picture) == detections(bare, picture)


def without_parameters(blobs: Blobs) -> Blobs:
    known = parameters(config(BN_50))
    return {name: blob for name, blob in blobs.items() if name not in known}


@pytest.mark.parametrize("suffix", [".pth", ".h5"])
def test_every_other_format_keeps_every_blob_too(suffix: str, told: Run, tmp_path: Path) -> None:
    path, other, back = tmp_path / "model_final.pkl", tmp_path / f"model{suffix}", tmp_path / "back.pkl"
    detector(lambda: baseline(BN_50) | STRANGERS, lambda: january(BN_50))(path)
    for source, out in ((path, other), (other, back)):
        assert told("convert", source, "--out", out)[0] == 0
    held, found = read_blobs(path), read_blobs(back)
    assert found.blobs.keys() == held.blobs.keys() and len(held.blobs) == 343
    assert not [name for name, blob in held.blobs.items() if found.blobs[name].tobytes() != blob.tobytes()]
    assert found.cfg == held.cfg


def unheard_of(values: Values) -> None:
    values["GROUP_NORM"] = {"GROUPS_OF": 32, "VARIANT": "spatial"}
    values["FAST_RCNN"]["ROI_BOX_HEAD"] = "fast_rcnn_heads.add_roi_Xconv1fc_groupnorm_head"
    values["RESNETS"]["TRANS_FUNC"] = "bottleneck_groupnorm_transformation"


@pytest.mark.parametrize(
    "number", ["48616381", "48734751", pytest.param("48616724", marks=pytest.mark.slow)]
)
def test_a_gn_model_runs_by_its_id_whatever_its_own_configuration_says(
    number: str, told: Run, tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = lookup(number)
    name = Path(str(entry.config)).stem
    narrow = GN_50 if "R-50" in name else name
    detector(lambda: gn_baseline(narrow), lambda: april(narrow, unheard_of))(tmp_path / "cache" / str(entry.path))
    monkeypatch.setenv("DETECTRON_GN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DETECTRON_GN_OFFLINE", "1")
    out = tmp_path / "out"
    code, _, errors = told("detect", number, picture, "--out", out, "--set", *NARROW, *SMALL_TEST)
    assert code == 0, errors
    assert "groupnorm" in errors and "the catalog's configuration" in errors
    assert json.loads((out / "detections.json").read_text())


@pytest.mark.parametrize(
    ("key", "value", "advice", "followed"),
    [
        ("FAST_RCNN.NUM_STACKED_CONVS", 10**6, "pass --config", ("--config", BN_50, "--set", *NARROW)),
        ("MRCNN.ROI_XFORM_SAMPLING_RATIO", 3000, "pass --config", ("--config", BN_50, "--set", *NARROW)),
        ("FPN.RPN_ASPECT_RATIOS", (0.5,) * 2000, "pass --config", ("--config", BN_50, "--set", *NARROW)),
        ("TEST.SCALE", 40_000, "pass --set TEST.SCALE 10000", ("--set", "TEST.SCALE", "10000")),
        ("TRAIN.MAX_SIZE", 10**9, "pass --set TRAIN.MAX_SIZE 10000", ("--set", "TRAIN.MAX_SIZE", "10000")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_strangers_configuration_that_asks_for_everything_is_refused_with_a_way_out(
    key: str, value: object, advice: str, followed: tuple[str, ...], told: Run, tmp_path: Path, picture: Path
) -> None:
    path, out = tmp_path / "model_final.pkl", tmp_path / "out"
    section, name = key.split(".")

    def boast(values: Values) -> None:
        values["TEST"].pop("SCALES")
        values["TEST"]["SCALE"] = 64
        values[section][name] = value

    detector(lambda: baseline(BN_50), lambda: january(BN_50, change=boast))(path)
    is_refused(told("detect", path, picture, "--out", out), f"{key} ", "more than can be meant", advice)
    assert not list(out.glob("*"))
    code, _, errors = told("detect", path, picture, "--out", out, *followed, "--set", "TEST.MAX_SIZE", "96")
    assert code == 0, errors


@pytest.mark.slow
def test_a_baseline_of_full_size_is_told_converted_detected_with_and_verified(
    told: Run, tmp_path: Path, picture: Path
) -> None:
    path = tmp_path / "model_final.pkl"
    detector(lambda: baseline(BN_50, full_width(BN_50)), january_of_full_size)(path)
    assert round(path.stat().st_size / 1e6) == 362
    facsimile = replace(next(each for each in FACSIMILES if each.name == "35859007"), config=())
    held = read_blobs(path)
    is_told(facsimile, path, told)
    comes_back_whole(facsimile, path, held, told)
    detects(facsimile, path, picture, told)
    has_the_right_names(facsimile, path, told)
    shutil.rmtree(tmp_path)


def january_of_full_size() -> str:
    return dumped(january_2018(bundled_config(BN_50)))


def test_a_results_file_as_python_2_wrote_it_is_scored_row_for_row(told: Run, tmp_path: Path) -> None:
    """Rows by class and then by image, more than 100 of an image by ties, images without rows, 17 digits."""
    annotations = DATA / "train_images.json"
    truth = json.loads(annotations.read_text())
    image, other = truth["images"][0]["id"], truth["images"][3]["id"]
    rows = [
        {
            "image_id": each["image_id"],
            "category_id": each["category_id"],
            "bbox": [float(np.float32(side)) for side in each["bbox"]],
            "score": float(np.float32(0.9)),
        }
        for each in truth["annotations"]
        if each["image_id"] in (image, other)
    ]
    tied = {"image_id": image, "category_id": 62, "bbox": [1.0, 2.0, 3.5, 4.25], "score": 0.10000000149011612}
    rows = sorted(rows + [tied] * 120, key=lambda row: (row["category_id"], row["image_id"]))
    path, written = tmp_path / "bbox_coco_2014_minival_results.json", tmp_path / "ap.json"
    path.write_text(json.dumps(rows))
    assert "0.8999999761581421" in path.read_text()
    assert read_results(path) == rows
    code, printed, errors = told("score", path, "--annotations", annotations, "--json", written)
    assert code == 0, errors
    assert 0 < json.loads(written.read_text())["train_images"]["box"]["AP"] < 0.9
