"""Published beside measured AP; the demo's data set stands in for minival, Detectron's results on it for published."""

import dataclasses
import json
import lzma
import re
from pathlib import Path

import pytest

from detectron_gn import main
from detectron_gn.mrcnn.data.categories import Categories
from detectron_gn.mrcnn.data.coco import read_annotations
from detectron_gn.mrcnn.data.image_files import image_files, naming_used
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.verify import published as published_module
from detectron_gn.verify.published import (
    PUBLISHED,
    ApComparison,
    Expectation,
    check_comparable,
    compare_ap,
    comparison_table,
    expectation,
    known_expectation,
)
from detectron_gn.weights.catalog import catalog, lookup

SHAPES = Categories(("circle", "square", "triangle", "star"), (3, 17, 44, 62))
RESULTS = {"boxes": "bbox_coco_shapes_val_results.json", "masks": "segmentations_coco_shapes_val_results.json"}


@pytest.fixture
def demo_is_minival(monkeypatch, demo_model):
    """48616381 with the demo's results, AP as its authors would print it, and data set."""
    entry = dataclasses.replace(lookup(48616381), box_ap=90.8, mask_ap=88.9)
    monkeypatch.setattr(published_module, "lookup", lambda source: entry)
    monkeypatch.setattr(published_module, "MINIVAL_IMAGES", 40)
    monkeypatch.setattr(published_module, "COCO_CATEGORIES", SHAPES)
    monkeypatch.setattr(published_module, "fetch", lambda source, item: demo_model / RESULTS[item])
    return entry


def test_published_results_score_the_published_ap(demo_is_minival, demo_model, tmp_path, capsys):
    out = tmp_path / "p.json"
    annotations = str(demo_model / "instances_val.json")
    assert main(["verify", "published", "48616381", "--annotations", annotations, "--json", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    title = lines.index("R-50-FPN, GN, model 48616381")
    assert lines[title + 1].split() == ["schedule", "seconds", "per", "image", "box", "AP", "mask", "AP"]
    assert lines[title + 3].split() == ["published", "2x", "0.146", "+", "0.017", "90.8", "88.9"]
    assert max(map(len, lines)) <= 80 and lines[-1].startswith("They agree within 0.1 points (")
    document = json.loads(out.read_text())
    assert document["holds"] and document["model"] == 48616381
    assert document["measured"]["box"] == pytest.approx(0.9079807369923488, abs=1e-12)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({3: "square", 17: "circle"}, "category 3 'square', but in the published detections it is 'circle'"),
        ({62: "moon"}, "category 62 'moon', but in the published detections it is 'star'"),
        ({44: "Triangle"}, "category 44 'Triangle', but in the published detections it is 'triangle'"),
    ],
)
def test_annotations_whose_ids_mean_other_categories_are_refused(
    change, sentence, demo_is_minival, demo_model, tmp_path, capsys
):
    document = json.loads((demo_model / "instances_val.json").read_text())
    for category in document["categories"]:
        category["name"] = change.get(category["id"], category["name"])
    (tmp_path / "val.json").write_text(json.dumps(document))
    assert main(["verify", "published", "48616381", "--annotations", str(tmp_path / "val.json")]) == 2
    assert sentence in capsys.readouterr().err


def test_published_results_that_score_otherwise_fail_the_check(demo_is_minival, demo_model, monkeypatch, capsys):
    entry = dataclasses.replace(demo_is_minival, mask_ap=89.1)
    monkeypatch.setattr(published_module, "lookup", lambda source: entry)
    assert main(["verify", "published", "48616381", "--annotations", str(demo_model / "instances_val.json")]) == 1
    assert "do not agree within 0.1 points (box AP +0.00, mask AP -0.24)" in capsys.readouterr().out


def test_another_data_set_than_minival_is_refused(demo_model):
    coco = read_annotations(demo_model / "instances_val.json")
    with pytest.raises(InputError, match=r"a\.json has 40 images, but published AP is of the 5000 of coco_"):
        check_comparable(coco, Path("a.json"), expectation("48616381"))
    check_comparable(coco, Path("a.json"), expectation("48616381", {"box": 40}))


def test_without_an_object_there_is_no_ap_to_compare(demo_model):
    coco = read_annotations(demo_model / "instances_val.json")
    for annotation in coco.anns.values():
        annotation["iscrowd"] = 1
    with pytest.raises(InputError, match=r"a\.json has no object to find, so there is no AP"):
        check_comparable(coco, Path("a.json"), expectation("model_final.pkl", {"box": 40}))


def test_an_ap_that_is_given_is_not_passed_over_where_it_cannot_be_compared(tmp_path, demo_model):
    document = json.loads((demo_model / "instances_val.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps({**document, "annotations": []}))
    assert known_expectation("48616381", tmp_path / "a.json") is None
    with pytest.raises(InputError, match=r"a\.json has no object to find, so there is no AP"):
        known_expectation("model_final.pkl", tmp_path / "a.json", {"box": 40})


def test_what_is_expected_comes_from_the_catalog_or_the_user():
    assert expectation("48616381").ap == {"box": 40.3, "mask": 35.7}
    assert expectation("model_final.pkl", {"box": 90.8, "mask": 0.889}).ap == {"box": 90.8, "mask": pytest.approx(88.9)}
    with pytest.raises(InputError, match="nothing says which AP to expect: pass --expect-box"):
        expectation("model_final.pkl")
    with pytest.raises(InputError, match="`verify imagenet` checks a classifier"):
        expectation("R-50-GN")


@pytest.mark.parametrize("source", ["48616381", "model_final.pkl"])
def test_verify_published_advises_no_option_that_it_lacks(source, demo_model, capsys):
    assert main(["verify", "published", source, "--annotations", str(demo_model / "instances_val.json")]) == 2
    said = capsys.readouterr().err
    assert "--expect" not in said and said.count("\n") == 1


def test_the_catalogs_ap_is_not_compared_with_one_of_more_detections(demo_is_minival, demo_model, tmp_path, capsys):
    data = ["--annotations", str(demo_model / "instances_val.json"), "--images", str(demo_model / "val")]
    for command in ("ap", "all"):
        arguments = ["verify", command, "48616381", *data, "--out", str(tmp_path), "--max-dets", "300"]
        assert main(arguments) == 2
        assert "published AP counts 100 detections of an image and category: leave --max" in capsys.readouterr().err


@pytest.mark.parametrize(("measured", "holds"), [(40.2, True), (40.4, True), (40.19, False), (40.41, False)])
def test_a_tenth_of_a_point_is_what_a_rerun_may_differ_by(measured, holds):
    comparison = ApComparison("x", Expectation({"box": 40.3, "mask": 35.7}), {"box": measured, "mask": 35.7})
    assert comparison.holds is holds


def test_only_what_is_expected_is_compared():
    comparison = ApComparison("x.pkl", Expectation({"box": 40.3}), {"box": 40.3, "mask": 1.0})
    assert comparison.holds
    lines = comparison_table(comparison).splitlines()
    assert lines[0] == "x.pkl" and lines[3].split() == ["expected", "40.30", "-"]
    assert len(lines) == 5 and lines[1].split() == ["box", "AP", "mask", "AP"]


def test_the_longest_name_of_the_catalog_fits_into_80_columns():
    for entry in catalog().entries:
        ap = {kind: 40.0 for kind, field in PUBLISHED.items() if getattr(entry, field) is not None}
        if ap:
            measured = dict.fromkeys(ap, 0.4)
            comparison = compare_ap(entry.name, Expectation(ap, entry), measured, "123.456 + 12.345")
            assert max(map(len, comparison_table(comparison).splitlines())) <= 80


@pytest.mark.slow
def test_verify_ap_runs_the_model_and_fails_where_the_ap_is_another(demo_model, tmp_path, capsys):
    pickle = tmp_path / "model_final.pkl"
    pickle.write_bytes(lzma.decompress((demo_model / "model_final.pkl.xz").read_bytes()))
    arguments = ["verify", "ap", str(pickle), "--annotations", str(demo_model / "instances_val.json"), "--images"]
    arguments += [str(demo_model / "val"), "--out", str(tmp_path / "out"), "--expect-box", "90.8", "--device", "cpu"]
    assert main([*arguments, "--expect-mask", "88.9", "--json", str(tmp_path / "ap.json")]) == 0
    assert "40 images found by their file_name (such as 000000300000.png)" in capsys.readouterr().out
    assert json.loads((tmp_path / "ap.json").read_text())["measured"]["box"] == pytest.approx(0.90798, abs=1e-4)
    assert main([*arguments, "--expect-mask", "88.5"]) == 1


def test_the_page_tells_configuration_precision_and_both_ap_side_by_side(pickle, demo_model, tmp_path):
    document = json.loads((demo_model / "instances_val.json").read_text())
    document["images"] = document["images"][:1]
    document["annotations"] = [row for row in document["annotations"] if row["image_id"] == 300000]
    annotations = tmp_path / "one.json"
    annotations.write_text(json.dumps(document))
    arguments = ["verify", "ap", str(pickle), "--annotations", str(annotations), "--images", str(demo_model / "val")]
    arguments += ["--out", str(tmp_path), "--expect-box", "12.34", "--device", "cpu"]
    assert main([*arguments, "--precision", "bf16", "--set", "TEST.NMS", "0.45"]) == 1
    page = (tmp_path / "report.html").read_text()
    facts = dict(re.findall(r'<dt>([^<]*)</dt><dd class="mono">([^<]*)</dd>', page))
    assert facts["precision"] == "bf16"
    assert re.fullmatch(r"the one in the file with TEST\.NMS 0\.45, sha256 [0-9a-f]{64}", facts["configuration"])
    # A line for each number and a column for each side: seven columns would not fit a phone.
    table = page[page.index("Expected and measured") :]
    header, box = (re.findall(r"<t[hd][^>]*>([^<]*)<", row) for row in re.findall(r"<tr>.*?</tr>", table)[:3:2])
    assert header == ["model_final.pkl", "expected", "measured"]
    assert box[:2] == ["box AP", "12.34"] and float(box[2]) > 50


def test_the_naming_that_was_used_is_told(tmp_path, demo_model):
    coco = read_annotations(demo_model / "instances_val.json")
    for image_id in coco.imgs:
        (tmp_path / f"COCO_val2014_{image_id:012d}.jpg").write_bytes(b"")
    told = naming_used(coco, image_files(coco, tmp_path))
    assert told == "40 images found by their id, as COCO names files (such as COCO_val2014_000000300000.jpg)"
