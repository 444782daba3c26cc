"""`test` and `score` as users meet them: the files that they write, and that both give one AP."""

import json
import signal
import time
from pathlib import Path

import pytest

from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.evaluation.partial_results import PartialResults
from detectron_gn.weights.files.lock import occupied
from tests.helpers.command_line import Run, assert_one_sentence


def first_images(demo_model: Path, count: int, path: Path) -> Path:
    """The annotations of the first images, in a file."""
    document = json.loads((demo_model / "instances_val.json").read_text())
    document["images"] = document["images"][:count]
    known = {image["id"] for image in document["images"]}
    document["annotations"] = [row for row in document["annotations"] if row["image_id"] in known]
    path.write_text(json.dumps(document))
    return path


def test_test_writes_results_and_ap_by_the_annotations_name(
    run: Run, pickle: Path, demo_model: Path, tmp_path: Path
) -> None:
    annotations, out = first_images(demo_model, 3, tmp_path / "few.json"), tmp_path / "out"
    data = ["--annotations", annotations, "--images", demo_model / "val"]
    code, printed, _ = run("test", pickle, *data, "--out", out, "--json", tmp_path / "printed.json")
    assert code == 0 and "mask" in printed
    ap = json.loads((out / "ap.json").read_text())
    assert list(ap) == ["few"] and ap == json.loads((tmp_path / "printed.json").read_text())
    for kind, file in (("box", "bbox"), ("mask", "segm")):
        assert run("score", out / f"{file}.json", "--annotations", annotations, "--json", tmp_path / "s.json")[0] == 0
        assert json.loads((tmp_path / "s.json").read_text())["few"] == {kind: ap["few"][kind]}


def test_a_stopped_test_keeps_what_is_done_and_goes_on_with_it(
    run: Run, pickle: Path, demo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ["--annotations", first_images(demo_model, 4, tmp_path / "few.json"), "--images", demo_model / "val"]
    add, start, detected = PartialResults.add, Detector.start_batch, []

    def add_and_stop(partial: PartialResults, *results: object) -> None:
        add(partial, *results)  # type: ignore[arg-type]
        if len(detected) == 2:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(0.05)

    def count(*arguments: object) -> object:
        detected.append(arguments)
        return start(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(PartialResults, "add", add_and_stop)
    monkeypatch.setattr(Detector, "start_batch", count)
    code, _, errors = run("test", pickle, *data, "--out", tmp_path / "out")
    assert code == 143 and len(detected) == 2
    assert f"stopped by SIGTERM; {tmp_path / 'out'} keeps what was detected: the same command goes on" in errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["partial_results_0.jsonl"]
    assert run("test", pickle, *data, "--out", tmp_path / "out")[0] == 0 and len(detected) == 4
    assert run("test", pickle, *data, "--out", tmp_path / "whole")[0] == 0
    for name in ("bbox.json", "segm.json", "ap.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_two_tests_do_not_write_to_one_folder(run: Run, pickle: Path, demo_model: Path, tmp_path: Path) -> None:
    data = ["--annotations", demo_model / "instances_val.json", "--images", demo_model / "val"]
    with occupied(tmp_path, "test.lock"):
        assert_one_sentence(run("test", pickle, *data, "--out", tmp_path), f"another process is at work in {tmp_path}")
    assert list(tmp_path.iterdir()) == []
