"""`verify blobs` and `verify detections` as users meet them: what they say of a difference, and their exit codes."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detectron_gn.verify import reference as dump_blobs_folder
from detectron_gn.verify.parity import blobs
from detectron_gn.verify.parity.blobs import BlobParity, DetectionRowParity, ImageParity
from detectron_gn.verify.reference import weights_digests
from detectron_gn.verify.reference.weights_digests import ComparedWeights
from detectron_gn.weights import read_blobs, write_blobs
from tests.helpers.command_line import Run, assert_one_sentence


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
    assert run(*arguments, "--box-iou", "0.9")[0] == run(*arguments, "--box-px", "2")[0] == 1
    code, printed, _ = run(*arguments, "--box-iou", "0.9", "--box-px", "2")
    assert code == 0 and "within tolerance, but boxes are apart by up to 1 pixels, 1000 times the 0.001" in printed


@pytest.mark.slow
def test_verify_blobs_ends_in_one_sentence_and_no_table_is_wider_than_a_terminal(
    run: Run, pickle: Path, demo_model: Path, tmp_path: Path
) -> None:
    arguments = ["--reference", demo_model / "blobs.h5", "--images", demo_model / "val"]
    code, printed, _ = run("verify", "blobs", pickle, *arguments, "--blobs", "--json", tmp_path / "b.json")
    assert code == 0 and printed.endswith("\n\nThe blobs agree.\n")
    assert [line for line in printed.splitlines() if len(line) > 80] == []
    assert len(printed.splitlines()) > 690
    assert sum(len(image["blobs"]) for image in json.loads((tmp_path / "b.json").read_text())["images"]) == 690


def test_verify_blobs_says_what_is_known_of_the_weights(
    run: Run, pickle: Path, demo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agreeing = DetectionRowParity(1, 1, 1, 0.0, 0.0, 0.0, 1, 1.0)
    image = ImageParity("a.png", (BlobParity("conv1", (1,), 0.0, 0.0),), (), True, agreeing, ())
    monkeypatch.setattr(blobs, "compare_file", lambda *arguments: iter([image]))
    arguments = ["--reference", demo_model / "blobs.h5", "--images", demo_model / "val", "--json", tmp_path / "b.json"]
    known = [
        (ComparedWeights(3, 3, ()), 0, "The blobs agree."),
        (ComparedWeights(3, 2, ()), 0, "The blobs agree. Not compared: 1 of 3 parameters (no digests)."),
        (ComparedWeights(3, 0, ()), 0, "The blobs agree. Not compared: the weights themselves (no digests)."),
        (ComparedWeights(3, 3, ("fc6_w",)), 1, "but the weights are not those of the\nreference."),
    ]
    for weights, expected, verdict in known:
        monkeypatch.setattr(weights_digests, "compare_weights", lambda *arguments, found=weights: found)
        code, printed, _ = run("verify", "blobs", pickle, *arguments)
        assert code == expected and printed.endswith(f"{verdict}\n") and printed.count("The blobs") == 1
        assert json.loads((tmp_path / "b.json").read_text())["holds"] is (code == 0)


@pytest.mark.slow
def test_verify_blobs_exits_with_1_and_names_the_first_difference(
    run: Run, pickle: Path, demo_model: Path, tmp_path: Path
) -> None:
    weights = read_blobs(pickle)
    off = {"res3_0_branch2b_gn_s": weights.blobs["res3_0_branch2b_gn_s"] * np.float32(1.01)}
    write_blobs(tmp_path / "off.pkl", replace(weights, blobs={**weights.blobs, **off}))
    arguments = ["--reference", demo_model / "blobs.h5", "--images", demo_model / "val"]
    code, printed, _ = run("verify", "blobs", tmp_path / "off.pkl", *arguments)
    assert code == 1
    assert "first out of tolerance: res3_0_branch2b" in printed
    lines = printed.splitlines()
    parts = {line.split()[0]: line.split() for line in lines if line.startswith(("input ", "body "))}
    assert parts["input"][3] == "-" and parts["body"][3] == "8"
    worst = lines[next(row for row, line in enumerate(lines) if line.startswith("worst blobs")) :]
    assert worst[12] == "" and len(lines) < 50 and [line for line in lines if len(line) > 80] == []


def test_a_file_without_detections_is_nothing_to_compare(run: Run, demo_model: Path, tmp_path: Path) -> None:
    none, boxes = tmp_path / "none.json", demo_model / "bbox_coco_shapes_val_results.json"
    none.write_text("[]")
    for pair in ((none, none), (none, boxes), (boxes, none)):
        assert_one_sentence(run("verify", "detections", *pair), "none.json holds no detections", "nothing to compare")


@pytest.mark.slow
def test_a_reference_without_anything_of_the_network_is_no_success(
    run: Run, pickle: Path, demo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = blobs.compare_file

    def nothing(*arguments: Any) -> Iterator[ImageParity]:
        for parity in compare(*arguments):
            found = replace(parity.detections, count=0, reference_count=0, matched=0)
            yield replace(parity, blobs=(), proposals=(), detections=found)

    monkeypatch.setattr(blobs, "compare_file", nothing)
    arguments = ["--reference", demo_model / "blobs.h5", "--images", demo_model / "val", "--json", tmp_path / "b.json"]
    result = run("verify", "blobs", pickle, *arguments)
    assert_one_sentence(result, "nothing was compared: ", "blobs.h5 holds no blob that the network has")
    assert json.loads((tmp_path / "b.json").read_text())["holds"] is False


def test_max_dets_counts_in_both_files(run: Run, demo_model: Path, tmp_path: Path) -> None:
    file = demo_model / "bbox_coco_shapes_val_results.json"
    arguments = ["verify", "detections", file, file, "--annotations", demo_model / "instances_val.json"]
    found = []
    for options in ([], ["--max-dets", "1"]):
        assert run(*arguments, *options, "--json", tmp_path / "d.json")[0] == 0
        found.append(json.loads((tmp_path / "d.json").read_text())["ap"]["ours"]["instances_val"]["box"]["AP"])
    assert found[1] < found[0]


def test_the_script_that_records_references_is_written_where_it_is_asked_for(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script = Path(dump_blobs_folder.__file__).with_name("dump_blobs.py").read_bytes()
    for _ in range(2):  # a second time it is there already, and is the same
        code, printed, _ = run("verify", "dump-script", "--json", "d.json")
        assert code == 0 and Path("dump_blobs.py").read_bytes() == script
        assert "detectron-gn verify blobs model_final.pkl --reference blobs.h5 --images DIR" in printed
    assert json.loads(Path("d.json").read_text()) == {"out": "dump_blobs.py"}
    Path("mine.py").write_text("mine")
    assert_one_sentence(run("verify", "dump-script", "--out", "mine.py"), "mine.py is there already")
    assert_one_sentence(run("verify", "dump-script", "--out", tmp_path), "is a folder")
    assert Path("mine.py").read_text() == "mine"
