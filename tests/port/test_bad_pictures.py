"""`detect` among pictures that cannot be read: it names them, goes on, writes the rest, and exits 2."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers.command_line import Run, assert_one_sentence
from tests.helpers.pictures import encoded, png_that_declares


@pytest.fixture
def photo(demo_model: Path) -> bytes:
    return (demo_model / "val" / "000000300000.png").read_bytes()


def test_bad_pictures_are_named_and_the_others_are_detected_in(
    run: Run, pickle: Path, photo: bytes, tmp_path: Path
) -> None:
    pixels = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR)
    bad = {
        "cut.jpg": (encoded(".jpg", pixels)[:-200], "ends early"),
        "empty.jpg": (b"", "is empty"),
        "page.jpg": (b"<html>", "no image of a format"),
        "bomb.png": (png_that_declares(60000, 60000), "more than the limit"),
        "deep.png": (encoded(".png", pixels.astype(np.uint16) * 16), "almost black"),
        "narrow.png": (encoded(".png", np.zeros((20000, 10, 3), np.uint8)), "cut it into pieces"),
    }
    for name, (content, _) in bad.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe.jpg")
    good = [tmp_path / "first.png", tmp_path / "last.png"]
    for path in good:
        path.write_bytes(photo)
    names = [*bad, "pipe.jpg", "nowhere.jpg"]
    out, document = tmp_path / "out", tmp_path / "rows.json"
    paths = [good[0], *(tmp_path / name for name in names), good[1]]
    code, printed, errors = run("detect", pickle, *paths, "--out", out, "--json", document, "--quiet")
    assert code == 2
    *lines, last = errors.splitlines()
    assert len(lines) == 8
    for line, name in zip(lines, names, strict=True):
        assert line.startswith(f"detectron-gn: {tmp_path / name}") and bad.get(name, ("", ""))[1] in line
    assert last == (
        f"detectron-gn: error: 8 of 10 images failed, as said above and in {out / 'failures_0.jsonl'}; "
        f"what was found in the others is in {out}"
    )
    assert printed.count(" detections, ") == 2
    assert sorted(path.name for path in out.iterdir()) == [
        "detections.json", "failures_0.jsonl", "first.png_detections.png", "last.png_detections.png",
    ]  # fmt: skip
    failed = [json.loads(line) for line in (out / "failures_0.jsonl").read_text().splitlines()]
    assert [line["file_name"] for line in failed] == [str(tmp_path / name) for name in names]
    assert [f"detectron-gn: {line['error']}" for line in failed] == lines
    rows = json.loads((out / "detections.json").read_text())
    assert {row["file_name"] for row in rows} == {"first.png", "last.png"} and json.loads(document.read_text()) == rows


@pytest.mark.parametrize("names", [["nowhere.jpg"], ["pipe.jpg", "nowhere.jpg"], ["cut.jpg"]])
def test_where_no_picture_can_be_read_nothing_is_written(
    names: list[str], run: Run, pickle: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "cut.jpg").write_bytes(encoded(".jpg", np.zeros((9, 9, 3), np.uint8))[:-2])
    result = run("detect", pickle, *(tmp_path / name for name in names), "--out", tmp_path / "out", "--quiet")
    assert_one_sentence(result, names[0])
    assert not list((tmp_path / "out").iterdir())


def test_two_bad_pictures_and_no_good_one_are_both_named(run: Run, pickle: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for path in paths:
        path.write_bytes(b"no picture")
    code, printed, errors = run("detect", pickle, *paths, "--out", tmp_path / "out")
    assert (code, printed) == (2, "") and "--classes NAMES.txt" in errors
    assert not list((tmp_path / "out").iterdir())
    told = ("a.jpg", "b.jpg", "all 2 images failed, as said above, so nothing was written")
    assert [part in errors for part in told] == [True] * 3


@pytest.mark.parametrize(
    "second, options",
    [
        ("x.png_detections.png", ["--out", "."]),
        ("detections.json", ["--out", "."]),
        ("y.png", ["--out", "out", "--json", "y.png"]),
        ("y.png", ["--out", "out", "--json", "link.png"]),
        ("y.png", ["--out", "linked"]),
    ],
)
def test_no_input_is_written_over(
    second: str,
    options: list[str],
    run: Run,
    pickle: Path,
    photo: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x.png", second):
        Path(name).write_bytes(photo)
    Path("link.png").symlink_to("y.png")
    Path("linked").mkdir()
    Path("linked/x.png_detections.png").symlink_to("../y.png")
    result = run("detect", pickle, "x.png", second, *options)
    assert_one_sentence(result, f"{second} is to be read, and a result would be written over it: pass another --")
    assert Path(second).read_bytes() == photo and not Path("out/x.png_detections.png").exists()
    assert run("detect", pickle, "x.png", second, "--out", "elsewhere")[0] == 0


def test_a_name_that_is_no_utf8_goes_all_the_way(run: Run, pickle: Path, photo: bytes, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9\xff.png")
    (tmp_path / name).write_bytes(photo)
    (tmp_path / "plain.png").write_bytes(photo)
    images = [tmp_path / name, tmp_path / "plain.png"]
    code, _, errors = run("detect", pickle, *images, "--out", tmp_path / "out", "--quiet")
    assert (code, errors) == (0, "")
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {row["file_name"] for row in rows} == {name, "plain.png"}
    assert (tmp_path / "out" / os.fsdecode(b"caf\xe9\xff.png_detections.png")).is_file()


def test_max_pixels_and_exif_are_options(run: Run, pickle: Path, photo: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photo)
    options = ["--out", tmp_path / "out", "--exif", "ignore", "--quiet", "--max-pixels"]
    command = ["detect", pickle, tmp_path / "a.png", *options]
    assert_one_sentence(run(*command, "1000"), "more than the limit of 1,000: scale it down, or pass --max-pixels")
    assert run(*command, "100000")[0] == 0


def test_a_name_with_an_end_of_line_is_told_in_one_line(pickle, demo_model, tmp_path, run):
    first = sorted((demo_model / "val").iterdir())[0]
    shutil.copy(first, tmp_path / "a\nb.png")
    (tmp_path / "c\nd.png").write_bytes(b"no picture")
    images = [tmp_path / "a\nb.png", tmp_path / "c\nd.png"]
    code, out, err = run("detect", pickle, *images, "--out", tmp_path / "out", "--device", "cpu")
    assert code == 2 and "a\\nb.png: " in out and "c\\nd.png cannot be decoded" in err
