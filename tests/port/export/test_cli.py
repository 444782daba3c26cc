"""`export` as users meet it: files, the table of the check, exit codes, and what is refused."""

import importlib.util
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from detectron_gn.port.blobs.convert import model_blobs
from detectron_gn.port.config.yaml_dumper import dump_config
from detectron_gn.port.export import write as write_module
from detectron_gn.weights import WeightsFile, write_blobs
from tests.helpers.command_line import Run, assert_one_sentence
from tests.helpers.zoo_reference import zoo_model

DATA = Path(__file__).parents[2] / "data" / "zoo"


@pytest.fixture
def photos(demo_model: Path, tmp_path: Path) -> Path:
    """A folder with two pictures and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in (4, 7):
        name = f"00000030000{number}.png"
        (folder / name).write_bytes((demo_model / "val" / name).read_bytes())
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_what_is_written_is_checked_on_the_demos_pictures(run: Run, pickle: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "model.onnx"
    code, printed, _ = run("export", pickle, "--out", out, "--json", tmp_path / "e.json")
    assert code == 0 and out.is_file()
    lines = printed.splitlines()
    assert lines[0].startswith(f"{out}: 17.") and lines[-1] == "every detection of 8 pictures is the model's"
    assert "are called 'class 1'" in " ".join(lines[1:4]) and "hold no category ids" in lines[3]
    assert lines[4].split() == ["picture", "HxW", "ours", "exported", "matched", "box", "px", "score", "mask", "IoU"]
    told = json.loads((tmp_path / "e.json").read_text())
    assert told["files"] == [str(out)] and len(told["pictures"]) == 8
    assert sum(each["matched"] for each in told["pictures"]) == sum(each["ours"] for each in told["pictures"]) > 30


@pytest.mark.parametrize("options", [["--input", "blob"], []], ids=["blob", "image"])
def test_own_pictures_and_no_check(run: Run, pickle: Path, photos: Path, tmp_path: Path, options: list[str]) -> None:
    out = tmp_path / "model.onnx"
    code, printed, _ = run("export", pickle, "--out", out, "--images", photos, *options)
    assert code == 0 and "every detection of 2 pictures" in printed
    (tmp_path / "names.txt").write_text("disc\nsquare\ntriangle\nring\n")
    named = ["--classes", tmp_path / "names.txt"]
    code, printed, _ = run("export", pickle, "--out", out, "--no-check", *options, *named)
    assert code == 0 and printed.splitlines()[-1] == "not checked"
    assert "the names and the category ids of 4 classes: disc, square, triangle, ring" in " ".join(printed.split())


def test_a_torch_program_of_one_size(run: Run, pickle: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.pt2"
    code, printed, _ = run("export", pickle, "--out", out, "--images", photos, "--size", "160x256")
    assert code == 0 and "160x256" in printed and out.is_file()
    result = run("export", pickle, "--out", tmp_path / "x.pt2", "--size", "640x640")
    assert_one_sentence(result, "--size 640x640", "160x160")
    assert not (tmp_path / "x.pt2").exists()
    strip = np.zeros((20, 200, 3), np.uint8)
    cv2.imwrite(str(photos / "strip.png"), strip)
    assert_one_sentence(run("export", pickle, "--out", tmp_path / "x.pt2", "--images", photos), "strip.png", "32x256")


def test_a_network_that_takes_proposals_is_checked_on_boxes_all_over(run: Run, tmp_path: Path, photos: Path) -> None:
    model = zoo_model(DATA / "fast_dedup.h5")
    source = tmp_path / "fast.pkl"
    write_blobs(source, WeightsFile(model_blobs(model), dump_config(model.cfg), None, "", "pkl"))
    code, printed, _ = run("export", source, "--out", tmp_path / "fast.onnx", "--images", photos)
    assert code == 0 and "every detection of 2 pictures" in printed


def test_a_difference_is_a_check_that_does_not_hold(
    run: Run, pickle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = write_module.onnx_model

    def damaged(*arguments: object) -> object:
        made = original(*arguments)
        for tensor in made.graph.initializer:
            if tensor.name == "bbox_pred_b":
                values = np.frombuffer(tensor.raw_data, np.float32) + np.float32(0.3)
                tensor.raw_data = values.tobytes()
        return made

    monkeypatch.setattr(write_module, "onnx_model", damaged)
    code, printed, _ = run("export", pickle, "--out", tmp_path / "m.onnx", "--images", photos)
    assert code == 1 and "does not find what the model finds" in printed


def test_nothing_found_is_nothing_compared(run: Run, pickle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dull"
    folder.mkdir()
    cv2.imwrite(str(folder / "grey.png"), np.full((90, 120, 3), 128, np.uint8))
    out = tmp_path / "m.onnx"
    result = run("export", pickle, "--out", out, "--images", folder, "--set", "TEST.SCORE_THRESH", "0.99999")
    assert result[0] == 2 and "nothing was compared" in result[2] and out.is_file()


def test_what_cannot_be_exported_is_refused_before_anything_is_written(
    run: Run, pickle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "m.onnx"
    empty = tmp_path / "empty"
    empty.mkdir()
    refused = {
        "ends neither in .onnx nor in .pt2": ["--out", tmp_path / "out" / "m.bin"],
        "holds no picture": ["--out", out, "--images", empty],
        "is no folder": ["--out", out, "--images", photos / "notes.txt"],
        "--size is for .pt2": ["--out", out, "--size", "32x32"],
        "a .pt2 takes blobs": ["--out", out.with_suffix(".pt2"), "--input", "image"],
        "looks at an image once": ["--out", out, "--set", "TEST.BBOX_AUG.ENABLED", "True"],
        "makes its own proposals": ["--out", out, "--proposals", DATA / "proposals.pkl"],
    }
    for sentence, arguments in refused.items():
        assert_one_sentence(run("export", pickle, *arguments), sentence)
    for size in ("big", "0x0"):
        code, _, errors = run("export", pickle, "--out", out.with_suffix(".pt2"), "--size", size)
        assert code == 2 and f"{size!r} is no size" in errors
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    both = "needs onnx and onnxruntime, which are not installed: pip install onnx onnxruntime"
    assert_one_sentence(run("export", pickle, "--out", out), both)
    one = "needs onnx, which is not installed: pip install onnx"
    assert_one_sentence(run("export", pickle, "--out", out, "--no-check"), one)
    assert not out.exists()


def test_what_is_read_is_not_written_over(run: Run, pickle: Path, tmp_path: Path) -> None:
    link = tmp_path / "model.onnx"
    os.symlink(pickle, link)
    before = pickle.read_bytes()
    assert_one_sentence(run("export", pickle, "--out", link), "would be written over it")
    assert pickle.read_bytes() == before
    same = tmp_path / "same.onnx"
    assert_one_sentence(run("export", pickle, "--out", same, "--json", same), "pass another --json")
