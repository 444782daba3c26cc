"""`detect` over folders, patterns and lists: JSON lines, gone on with, shared out; no image lost and none twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.prefetch import mapped_ahead, processes
from tests.helpers.command_line import Run, assert_one_sentence
from tests.helpers.pictures import encoded

ROOT = Path(__file__).resolve().parents[2]
HERE = ("--device", "cpu", "--workers", "0")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Path:
    """Six images in two folders, something that is no image, and a folder of nothing."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "below").mkdir()
    for number, image in enumerate(sorted((demo_model / "val").iterdir())[:6]):
        shutil.copy(image, folder / ("below" if number > 3 else ".") / image.name)
    (folder / "notes.txt").write_text("no image")
    return folder


def lines_of(out: Path) -> list[dict[str, Any]]:
    files = sorted(out.glob("detections_*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def names_of(out: Path) -> list[str]:
    return sorted(Path(line["file_name"]).name for line in lines_of(out))


@pytest.fixture(scope="module")
def names(photos: Path) -> list[str]:
    return sorted(path.name for path in photos.rglob("*.png"))


@pytest.mark.slow
def test_a_folder_gives_the_lines_of_what_its_images_give_and_coco_s_list_when_asked(
    run: Run, pickle: Path, photos: Path, tmp_path: Path
) -> None:
    many, few, document = tmp_path / "many", tmp_path / "few", tmp_path / "told.json"
    code, printed, _ = run(
        "detect", pickle, photos, "--out", many, "--coco", "--json", document, "--device", "cpu", "--workers", "2"
    )
    assert code == 0 and "6 images: 0 were done before, 6 now" in printed
    assert sorted(path.name for path in many.iterdir()) == [
        "detections.json", "detections_0.jsonl", "detections_run.json",
    ]  # fmt: skip
    images = sorted(photos.rglob("*.png"), key=str)
    assert run("detect", pickle, *images, "--out", few, "--no-pictures", "--device", "cpu")[0] == 0
    assert [path.name for path in few.iterdir()] == ["detections.json"]
    rows = json.loads((few / "detections.json").read_text())
    given = json.loads((many / "detections.json").read_text())
    assert [{**row, "file_name": Path(row["file_name"]).name} for row in given] == sorted(
        rows, key=lambda row: str(next(path for path in images if path.name == row["file_name"]))
    )
    lines = lines_of(many)
    assert {line["file_name"] for line in lines} == set(map(str, images))
    assert lines[0]["height"] == 180 and sum(len(line["detections"]) for line in lines) == len(rows)
    told = json.loads(document.read_text())
    assert (told["images"], told["detected"], told["detections"], told["failed"]) == (6, 6, len(rows), 0)


def test_a_run_goes_on_behind_a_torn_line_and_behind_bad_images(
    run: Run, pickle: Path, photos: Path, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, bad, document = tmp_path / "out", photos / "bad.jpg", tmp_path / "told.json"
    failures = out / "failures_0.jsonl"
    command = ["detect", pickle, photos, "--out", out, *HERE]
    bad.write_bytes(b"no picture")
    try:
        code, printed, errors = run(*command)
        assert code == 2 and "7 images: 0 were done before, 6 now" in printed
        assert f"detectron-gn: {bad} cannot be decoded" in errors
        assert errors.splitlines()[-1] == (
            f"detectron-gn: error: 1 of 7 images failed, as said above and in {failures}; "
            f"what was found in the others is in {out}"
        )
        (failed,) = map(json.loads, failures.read_text().splitlines())
        assert failed["file_name"] == str(bad) and failed["error"].startswith(f"{bad} cannot be decoded")
        lines = out / "detections_0.jsonl"
        whole = lines.read_bytes()
        lines.write_bytes(whole[:-30])
        code, printed, errors = run(*command, "--allow-failures", "--json", document)
        assert code == 0 and "7 images: 5 were done before, 1 now, with" in printed and f"{bad} cannot" in errors
        assert ", 1 failed; in" in printed and "detectron-gn: 1 of 7 images failed, as said above" in errors
        told = json.loads(document.read_text())
        assert told["failed"] == 1 and told["failures"] == [failed]
        assert lines.read_bytes() == whole
    finally:
        bad.unlink()
    # From another folder, by another name of the same one, all is known to be done.
    monkeypatch.chdir(photos.parent)
    code, printed, _ = run("detect", pickle, f"./{photos.name}", "--out", out, *HERE)
    assert code == 0 and "6 images: 6 were done before, 0 now" in printed and names_of(out) == names
    assert not failures.exists()


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_and_goes_on_with_as_many_processes_as_there_are(
    pickle: Path, photos: Path, names: list[str], tmp_path: Path
) -> None:
    out, environment = tmp_path / "out", {**os.environ, "OMP_NUM_THREADS": "1"}
    command = ["-m", "detectron_gn", "detect", str(pickle), str(photos), "--out", str(out), "--device", "cpu"]
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    lines = out / "detections_0.jsonl"
    while process.poll() is None and not (lines.exists() and lines.read_bytes().count(b"\n") >= 2):
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers = children.read_text().split() if children.exists() else []
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 2 <= len(lines_of(out)) < 6
    for _ in range(100):
        if not any(Path(f"/proc/{worker}").exists() for worker in workers):
            break
        time.sleep(0.1)
    else:
        pytest.fail("a process that reads images ahead is left")
    for ranks in (3, 2):
        launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(ranks)]
        done = subprocess.run(
            [sys.executable, *launch, *command], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert names_of(out) == names
    assert "6 images: 6 were done before, 0 now" in done.stdout


def test_a_list_names_each_image_once_and_folders_in_it_are_told(
    run: Run, pickle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *_ = sorted(photos.glob("*.png"))
    monkeypatch.chdir(photos)
    named = [first.name, "", f"./{first.name}", f"below/../{first.name}", str(second), "below", "nowhere.png"]
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(named).encode())
    out = tmp_path / "out"
    code, printed, errors = run("detect", pickle, f"@{tmp_path / 'list.txt'}", first, "--out", out, *HERE)
    assert code == 2 and "4 images: 0 were done before, 2 now" in printed
    assert "below is a folder, not an image file" in errors and "nowhere.png: no such image file" in errors
    assert Counter(line["file_name"] for line in lines_of(out)) == Counter(map(str, (first, second)))
    # Of a list that has become shorter, COCO's list has what was found before, and says so.
    (tmp_path / "list.txt").write_text(second.name)
    code, printed, _ = run("detect", pickle, f"@{tmp_path / 'list.txt'}", "--out", out, "--coco", *HERE)
    assert code == 0 and "detections.json also has what was found in 1 image that the inputs name no more" in printed
    assert {row["file_name"] for row in json.loads((out / "detections.json").read_text())} == {str(first), str(second)}


def test_pictures_are_drawn_when_asked_also_of_what_is_done_and_not_detected_in(
    run: Run, pickle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other = tmp_path / "mine", tmp_path / "other"
    for place in ("a", "b"):
        (folder / place).mkdir(parents=True)
        shutil.copy(sorted(photos.glob("*.png"))[0], folder / place / "same.png")
    whole = ["detect", pickle, folder, "--out", other, "--pictures", "--save-masks", *HERE]
    code, printed, _ = run(*whole)
    assert code == 0 and f"2 pictures drawn in {other}, of what scores at least 0.5" in printed
    code, printed, _ = run("detect", pickle, folder, "--out", folder, *HERE)
    assert code == 0 and "no pictures: the same command with --pictures draws them" in printed
    # Later they are drawn of the lines, without the network; what is there stays, unless another run has drawn it.
    monkeypatch.setattr("detectron_gn.port.runs.detect.predict", None)
    (folder / "pictures/a").mkdir(parents=True)
    (folder / "pictures/a/same.png_detections.png").write_bytes(b"of an earlier run")
    os.utime(folder / "pictures/a/same.png_detections.png", (0, 0))
    for drawn in (True, False):
        code, printed, _ = run("detect", pickle, folder, "--out", folder, "--pictures", "--save-masks", *HERE)
        assert code == 0 and "2 were done before, 0 now" in printed and ("2 pictures drawn" in printed) == drawn
    assert len(lines_of(folder)) == 2
    made = {path.relative_to(other): path.read_bytes() for path in other.glob("*/*/*.png")}
    assert set(map(str, made)) == {
        f"{kind}s/{place}/same.png_{ending}.png"
        for kind, ending in (("picture", "detections"), ("mask", "masks"))
        for place in "ab"
    }
    assert {path.relative_to(folder): path.read_bytes() for path in folder.glob("*/*/*.png")} == made
    # An image that is another one now is not drawn over.
    (folder / "pictures/a/same.png_detections.png").unlink()
    Path(folder / "a/same.png").write_bytes(encoded(".png", np.zeros((9, 9, 3), np.uint8)))
    code, printed, errors = run("detect", pickle, folder, "--out", folder, "--pictures", *HERE)
    assert code == 2 and "same.png has another size than when it was detected in" in errors


def test_detections_of_another_model_are_not_added_to(run: Run, pickle: Path, photos: Path, tmp_path: Path) -> None:
    image = sorted(photos.glob("*.png"))[0]
    (tmp_path / "list.txt").write_text(str(image))
    command = ["detect", pickle, f"@{tmp_path / 'list.txt'}", "--out", tmp_path / "out", "--quiet", *HERE]
    assert run(*command)[0] == 0
    changed = run(*command, "--set", "TEST.NMS", "0.4")
    assert_one_sentence(changed, "holds detections of a run with another configuration")
    (tmp_path / "out" / "detections_0.jsonl").write_text("{}\n")
    damaged = run(*command)
    assert_one_sentence(damaged, "detections_0.jsonl, line 1, is no line of detections")
    (tmp_path / "out" / "detections_run.json").unlink()
    unknown = run(*command)
    assert_one_sentence(unknown, "no detections_run.json that says which model")


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ("empty", "no image is in the folder"),
        ("none*.jpg", "nothing matches none*.jpg"),
        ("@list.txt", "list.txt names no image"),
        ("@nowhere.txt", "nowhere.txt, a list of images, cannot be read: No such file"),
        ("@empty", "empty is a folder, a pipe or a device, and no list of images"),
        ("@zeros.txt", "zeros.txt is no list of images: it holds a zero byte"),
    ],
)
def test_what_names_no_image_is_told_before_the_model_is_read(
    given: str, part: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("list.txt").write_text("\n\n")
    Path("zeros.txt").write_bytes(b"a.jpg\0b.jpg")
    assert_one_sentence(run("detect", "no_model.pkl", given, "--out", "out", "--device", "cpu"), part)
    assert not list(Path("out").iterdir())


def test_the_processes_that_read_ahead_are_small() -> None:
    names = "detectron_gn.port.runs.read_ahead, detectron_gn.mrcnn.prefetch"
    code = f"import sys, {names}; print([name for name in ('torch', 'pycocotools') if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed == "[]\n"


def end_the_process(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL if number == 2 else 0)
    return number


def test_processes_work_ahead_in_order_and_their_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(mapped_ahead(abs, range(-9, 0), 2, 8, processes)) == list(range(9, 0, -1))
    from detectron_gn.port.runs import detect

    class Model:
        def check_proposals(self, given: bool) -> None: ...

    def broken(*_args: object, **_kwargs: object) -> object:
        return (number for number in mapped_ahead(end_the_process, range(9), 1, 1, processes))

    monkeypatch.setattr(detect, "predict", lambda *_args, **_kwargs: map(Results, broken()))
    found = detect.detect_in_files(Model(), [], None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a process that reads images ahead was ended by the system"):
        list(found)


class Results:
    """What `predict` yields, as far as it is looked at."""

    def __init__(self, number: int) -> None:
        self.items, self.results = [(number, None)], [number]
