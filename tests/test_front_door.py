"""The command line as users and programs meet it: exit codes, one sentence an error, files whole or not at all."""

import argparse
import errno
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

import detectron_gn
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config
from detectron_gn.verify.parity.results import match_detections
from detectron_gn.weights import WeightsFile, read_blobs, write_blobs
from tests.helpers.recipe import recipe_weights

ROOT = Path(__file__).resolve().parents[1]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process; gives the exit code, what it printed, and its errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = detectron_gn.main([str(argument) for argument in arguments])
        except SystemExit as exit:
            code = int(exit.code or 0)
        return (code, *capsys.readouterr())

    return run


def assert_one_sentence(result: tuple[int, str, str], *parts: str) -> None:
    code, _, errors = result
    assert code == 2
    assert errors.startswith("detectron-gn: error: ") and errors.count("\n") == 1
    for part in parts:
        assert part in errors


def subparsers(parser: argparse.ArgumentParser, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from subparsers(child, (*prefix, name))
            return
    yield prefix


COMMANDS = list(subparsers(detectron_gn.command_line()))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_and_writes_json(run: Run, command: tuple[str, ...]) -> None:
    code, printed, _ = run(*command, "--help")
    assert code == 0
    assert f"example:\n  detectron-gn {' '.join(command)}" in printed
    assert "--json FILE" in printed


def test_the_readme_lists_every_command() -> None:
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `")]
    for command in COMMANDS:
        assert any(row.startswith(f"| `{' '.join(command)}") for row in rows), command


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["required: COMMAND"]),
        (["detonate"], ["invalid choice: 'detonate'"]),
        (["models", "--fast"], ["unrecognized arguments: --fast"]),
        (["score", "r.json"], ["required: --annotations"]),
        (["score", "r.json", "--annotations", "a.json", "--type", "keypoints"], ["invalid choice: 'keypoints'"]),
        (["score", "none.json", "--annotations", "a.json"], ["none.json cannot be read: No such file or directory"]),
        (["convert", "none.pkl", "--out", "o.pth"], ["none.pkl", "no such file"]),
        (["convert", "48616382", "--out", "o.pth"], ["48616382", "no model of the catalog"]),
        (["download", "56421872"], ["no file of it was ever published"]),
        (["detect", "none.pkl", "no.jpg", "--out", "o"], ["no.jpg: No such file or directory"]),
        (["verify"], ["required: WHAT"]),
        *(
            (["verify", *command, option, value], [f"argument {option}: {value!r} is no number from 0 {up_to}"])
            for command, option, up_to in [
                (["blobs", "m.pkl"], "--tolerance", "up"),
                (["all", "m.pkl"], "--tolerance", "up"),
                (["detections", "a.json", "b.json"], "--box-iou", "to 1"),
                (["detections", "a.json", "b.json"], "--mask-iou", "to 1"),
                (["detections", "a.json", "b.json"], "--score", "to 1"),
                (["ap", "m.pkl"], "--expect-box", "to 100"),
                (["all", "m.pkl"], "--expect-mask", "to 100"),
                (["imagenet", "m.pkl"], "--expect-error", "to 100"),
            ]
            for value in ("nan", "inf", "-5", "high")
        ),
        (["verify", "detections", "a.json", "b.json", "--box-iou", "1.5"], ["--box-iou: '1.5' is no number from 0 to"]),
        (["verify", "ap", "m.pkl", "--expect-box", "101"], ["--expect-box: '101' is no number from 0 to 100"]),
    ],
)
def test_bad_arguments_end_in_one_sentence_and_exit_code_2(
    run: Run, arguments: list[str], parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_sentence(run(*arguments), *parts)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def changed(weights: WeightsFile, **blobs: Any) -> WeightsFile:
    """The weights with some blobs replaced, or left out where None is given."""
    kept = {name: array for name, array in {**weights.blobs, **blobs}.items() if array is not None}
    return replace(weights, blobs=kept)


def narrow_r101() -> WeightsFile:
    with h5py.File(ROOT / "tests" / "data" / "tiny_gn_r101.h5") as file:
        opts = str(file.attrs["opts"]).split()
    cfg = bundled_config("e2e_mask_rcnn_R-101-FPN_2x_gn", [*opts, "MODEL.NUM_CLASSES", "5"])
    return recipe_weights(BlobTable.from_config(cfg), 0)


BAD_WEIGHTS: dict[str, tuple[Callable[[WeightsFile], WeightsFile], list[str], list[str]]] = {
    "a BN* config for GN weights": (
        lambda w: w, ["--config", "e2e_mask_rcnn_R-50-FPN_2x"], ["R-50 GN", "R-50 BN*"],
    ),
    "R-101 weights with an R-50 config": (
        lambda w: narrow_r101(), ["--config", "e2e_mask_rcnn_R-50-FPN_2x_gn"], ["R-101", "R-50"],
    ),
    "another number of classes": (
        lambda w: w, ["--set", "MODEL.NUM_CLASSES", "3"], ["has 5 classes", "MODEL.NUM_CLASSES is 3"],
    ),
    "a missing blob": (lambda w: changed(w, fc6_w=None), [], ["lacks fc6_w"]),
    "an extra blob": (lambda w: changed(w, fc9_w=np.zeros(3, np.float32)), [], ["holds fc9_w"]),
    "a shape that would broadcast": (
        lambda w: changed(w, fc6_b=np.zeros(1, np.float32)), [], ["fc6_b is [1]", "[64]"],
    ),
    "no configuration": (lambda w: replace(w, cfg=None), [], ["holds no configuration", "--config"]),
    "an unknown key": (lambda w: w, ["--set", "TEST.NSM", "0.5"], ["TEST.NSM", "TEST.NMS"]),
    "a wrong type": (lambda w: w, ["--set", "TEST.NMS", "high"], ["TEST.NMS", "high"]),
    "a key without a value": (lambda w: w, ["--set", "TEST.NMS"], ["TEST.NMS"]),
    "a key that is not served": (lambda w: w, ["--set", "MODEL.RETINANET_ON", "True"], ["RETINANET_ON"]),
    "an unknown configuration": (lambda w: w, ["--config", "R-50"], ["R-50 is no file and none of the configurations"]),
    "a configuration file that is missing": (lambda w: w, ["--config", "no.yaml"], ["no.yaml is no file"]),
    "a device that is not there": (lambda w: w, ["--device", "cuda:63"], ["device cuda:63"]),
    "a device that is none": (lambda w: w, ["--device", "gpu"], ["device gpu"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_weights_and_configurations_that_do_not_fit_are_refused(
    case: str, run: Run, pickle: Path, demo_model: Path, tmp_path: Path
) -> None:
    change, options, parts = BAD_WEIGHTS[case]
    path = tmp_path / "changed.pkl"
    write_blobs(path, change(read_blobs(pickle)))
    image = demo_model / "val" / "000000300000.png"
    assert_one_sentence(run("detect", path, image, "--out", tmp_path / "out", *options), *parts)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (lambda data: data[:100_000], ["broken.pkl"]),
        (lambda data: b"<!DOCTYPE html><html><body>404</body></html>", ["broken.pkl", "HTML"]),
        (lambda data: b"", ["broken.pkl"]),
    ],
    ids=["truncated", "an error page", "empty"],
)
def test_a_broken_weights_file_is_refused(
    content: Callable[[bytes], bytes], parts: list[str], run: Run, pickle: Path, tmp_path: Path
) -> None:
    path = tmp_path / "broken.pkl"
    path.write_bytes(content(pickle.read_bytes()))
    assert_one_sentence(run("convert", path, "--out", tmp_path / "o.pth"), *parts)
    assert [file.name for file in tmp_path.iterdir()] == ["broken.pkl"]


def test_an_unreadable_image_is_named(run: Run, pickle: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"no picture")
    result = run("detect", pickle, tmp_path / "photo.jpg", "--out", tmp_path / "out")
    assert_one_sentence(result, "photo.jpg cannot be decoded as an image")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("command", ["detect", "test", "demo"])
def test_an_output_folder_that_cannot_be_written_is_refused_before_any_work(
    command: str, run: Run, demo_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    out = ["--out", tmp_path / "file" / "out"]
    data = ["--annotations", demo_model / "instances_val.json"]
    arguments = {
        "detect": ["no_model.pkl", demo_model / "val" / "000000300000.png", *data],
        "test": ["no_model.pkl", *data, "--images", demo_model / "val"],
        "demo": [],
    }[command]
    assert_one_sentence(run(command, *arguments, *out), f"{out[1]}: Not a directory")


def test_a_json_file_that_cannot_be_written_is_refused_before_any_work(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_one_sentence(run("convert", "none.pkl", "--out", "o.pth", "--json", tmp_path / "file" / "j"), "file")


def test_detect_finds_what_detectron_found_and_draws_it(
    run: Run, pickle: Path, demo_model: Path, tmp_path: Path
) -> None:
    images = [demo_model / "val" / f"00000030000{n}.png" for n in (0, 9)]
    annotations = demo_model / "instances_val.json"
    out = tmp_path / "out"
    code, printed, errors = run("detect", pickle, *images, "--out", out, "--annotations", annotations)
    assert (code, errors) == (0, "") and printed.count("\n") == 2
    rows = json.loads((out / "detections.json").read_text())
    assert {row["file_name"] for row in rows} == {image.name for image in images}
    for iou_type, name in (("bbox", "bbox"), ("segm", "segmentations")):
        reference = json.loads((demo_model / f"{name}_coco_shapes_val_results.json").read_text())
        reference = [row for row in reference if row["image_id"] in (300000, 300009)]
        assert match_detections(rows, reference, iou_type).holds  # type: ignore[arg-type]
    for image in images:
        picture = cv2.imread(str(out / f"{image.stem}_detections.png"))
        plain = cv2.imread(str(image))
        factor = picture.shape[0] // plain.shape[0]
        assert picture.shape == (plain.shape[0] * factor, plain.shape[1] * factor, 3)
        enlarged = cv2.resize(plain, picture.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        assert (picture != enlarged).any()


def test_images_without_coco_names_are_numbered(run: Run, pickle: Path, demo_model: Path, tmp_path: Path) -> None:
    image = demo_model / "val" / "000000300000.png"
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "photo.png").write_bytes(image.read_bytes())
    paths = [tmp_path / folder / "photo.png" for folder in ("a", "b")]
    out = tmp_path / "out"
    assert run("detect", pickle, *paths, "--out", out)[0] == 0
    assert sorted(path.name for path in out.iterdir()) == ["1_detections.png", "2_detections.png", "detections.json"]
    rows = json.loads((out / "detections.json").read_text())
    assert {row["image_id"] for row in rows} == {1, 2}
    assert {row["category_id"] for row in rows} <= {1, 2, 3, 4}


def test_test_writes_results_and_ap_by_the_annotations_name(
    run: Run, pickle: Path, demo_model: Path, tmp_path: Path
) -> None:
    document = json.loads((demo_model / "instances_val.json").read_text())
    document["images"] = document["images"][:3]
    known = {image["id"] for image in document["images"]}
    document["annotations"] = [row for row in document["annotations"] if row["image_id"] in known]
    annotations, out = tmp_path / "few.json", tmp_path / "out"
    annotations.write_text(json.dumps(document))
    data = ["--annotations", annotations, "--images", demo_model / "val"]
    code, printed, _ = run("test", pickle, *data, "--out", out, "--json", tmp_path / "printed.json")
    assert code == 0 and "mask" in printed
    ap = json.loads((out / "ap.json").read_text())
    assert list(ap) == ["few"] and ap == json.loads((tmp_path / "printed.json").read_text())
    for kind, file in (("box", "bbox"), ("mask", "segm")):
        assert run("score", out / f"{file}.json", "--annotations", annotations, "--json", tmp_path / "s.json")[0] == 0
        assert json.loads((tmp_path / "s.json").read_text())["few"] == {kind: ap["few"][kind]}


def test_verify_detections_exits_with_1_where_they_differ(run: Run, demo_model: Path, tmp_path: Path) -> None:
    reference = demo_model / "bbox_coco_shapes_val_results.json"
    annotations = demo_model / "instances_val.json"
    code, printed, _ = run("verify", "detections", reference, reference, "--annotations", annotations)
    assert code == 0 and "The detections agree." in printed
    rows = json.loads(reference.read_text())
    rows[0]["bbox"][0] += 1
    ours, found = tmp_path / "ours.json", tmp_path / "found.json"
    ours.write_text(json.dumps(rows))
    arguments = ["verify", "detections", ours, reference, "--annotations", annotations, "--json", found]
    code, printed, _ = run(*arguments)
    assert code == 1 and "The detections do not agree." in printed and "000000300000.png" in printed
    document = json.loads(found.read_text())
    assert document["matched"] == 181 and document["max_box_difference"] == pytest.approx(1)
    assert set(document["ap"]) == {"ours", "reference"}
    assert run(*arguments, "--box-iou", "0.9")[0] == 0


@pytest.mark.slow
def test_verify_blobs_exits_with_1_and_names_the_first_difference(
    run: Run, pickle: Path, demo_model: Path, tmp_path: Path
) -> None:
    weights = read_blobs(pickle)
    off = weights.blobs["res3_0_branch2b_gn_s"] * np.float32(1.01)
    write_blobs(tmp_path / "off.pkl", changed(weights, res3_0_branch2b_gn_s=off))
    arguments = ["--reference", demo_model / "blobs.h5", "--images", demo_model / "val"]
    code, printed, _ = run("verify", "blobs", tmp_path / "off.pkl", *arguments)
    assert code == 1
    assert "first out of tolerance: res3_0_branch2b" in printed


def test_convert_gives_the_same_blobs_in_another_container(run: Run, pickle: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    code, printed, _ = run("convert", pickle, "--out", out)
    assert code == 0 and f"{out}: 223 blobs" in printed
    before, after = read_blobs(pickle), read_blobs(out)
    assert after.container == "safetensors" and after.cfg == before.cfg
    assert all(np.array_equal(after.blobs[name], array) for name, array in before.blobs.items())


def test_inspect_tells_what_a_file_is(run: Run, pickle: Path, tmp_path: Path) -> None:
    code, printed, _ = run("inspect", pickle, "--json", tmp_path / "summary.json")
    assert code == 0
    assert "detector, R-50 FPN, GN, 4conv1fc box head, masks, 5 classes" in printed.splitlines()[0]
    assert json.loads((tmp_path / "summary.json").read_text())["classes"] == 5


def test_load_gives_a_model_that_detects(pickle: Path, demo_model: Path) -> None:
    model = detectron_gn.load(pickle, overrides=["TEST.DETECTIONS_PER_IM", "1"], device="cpu")
    found = model.detect(cv2.imread(str(demo_model / "val" / "000000300000.png")))
    reference = json.loads((demo_model / "bbox_coco_shapes_val_results.json").read_text())
    best = max((row for row in reference if row["image_id"] == 300000), key=lambda row: row["score"])
    assert len(found) == 1
    np.testing.assert_allclose(found.boxes[0, :2], best["bbox"][:2], atol=0.02)
    with pytest.raises(InputError):
        detectron_gn.load(pickle, config="R-50")


def test_a_model_without_its_own_configuration_takes_the_one_it_is_given(
    run: Run, pickle: Path, demo_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bare.pth"
    write_blobs(path, replace(read_blobs(pickle), cfg=None))
    image = demo_model / "val" / "000000300000.png"
    name = "e2e_mask_rcnn_R-50-FPN_shapes_gn"
    for config in (name, ROOT / "yaml_configs" / "demo" / f"{name}.yaml"):
        assert run("detect", path, image, "--out", tmp_path / "out", "--config", config)[0] == 0


def test_an_interrupted_command_says_so_and_exits_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("detectron_gn.weights.catalog.table", interrupt)
    assert run("models") == (130, "", "detectron-gn: interrupted\n")


def test_errors_of_the_program_itself_are_not_hidden(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise ValueError("a bug")

    monkeypatch.setattr("detectron_gn.weights.catalog.table", fail)
    with pytest.raises(ValueError, match="a bug"):
        run("models")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = [sys.executable, "-c", "import detectron_gn, sys; sys.exit(detectron_gn.main(['models']))"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.is_char_device(), reason="needs Linux's device that is always full")
@pytest.mark.parametrize("arguments", [["models"], ["detections"]], ids=" ".join)
def test_an_output_that_cannot_be_written_is_one_sentence(arguments: list[str], demo_model: Path) -> None:
    if arguments == ["detections"]:
        file = str(demo_model / "bbox_coco_shapes_val_results.json")
        arguments = ["verify", "detections", file, file]
    code = f"import detectron_gn, sys; sys.exit(detectron_gn.main({arguments}))"
    with FULL.open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert_one_sentence((done.returncode, "", done.stderr), "the output cannot be written: No space left on device")


def test_a_demo_without_room_names_the_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert_one_sentence(run("demo", "--out", tmp_path), "model_final.pkl: could not be written: No space left")


def test_models_lists_the_catalog_without_torch() -> None:
    code = "import detectron_gn, sys; detectron_gn.main(['models']); print({'torch', 'cv2'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "48616381" in result.stdout and result.stdout.endswith("set()\n")
