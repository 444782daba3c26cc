"""`verify blobs` and `verify detections` as users meet them: what they say of a difference, and their exit codes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detectron_gn.weights import read_blobs, write_blobs
from tests.helpers.command_line import Run


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
    off = {"res3_0_branch2b_gn_s": weights.blobs["res3_0_branch2b_gn_s"] * np.float32(1.01)}
    write_blobs(tmp_path / "off.pkl", replace(weights, blobs={**weights.blobs, **off}))
    arguments = ["--reference", demo_model / "blobs.h5", "--images", demo_model / "val"]
    code, printed, _ = run("verify", "blobs", tmp_path / "off.pkl", *arguments)
    assert code == 1
    assert "first out of tolerance: res3_0_branch2b" in printed
