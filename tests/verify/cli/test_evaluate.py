"""`test` and `score` as users meet them: the files that they write, and that both give one AP."""

import json
from pathlib import Path

from tests.helpers.command_line import Run


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
