"""`test` and `score` as users meet them: the files that they write, and that both give one AP."""

import json
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.evaluation.partial_results import PartialResults
from detectron_gn.weights import read_blobs, write_blobs
from detectron_gn.weights.categories import Category
from detectron_gn.weights.files.lock import occupied
from tests.helpers.command_line import Run, assert_one_sentence


def first_images(demo_model: Path, count: int, path: Path, **changes: Any) -> Path:
    """The annotations of the first images, in a file; `changes` are made to each annotation."""
    document = json.loads((demo_model / "instances_val.json").read_text())
    document["images"] = document["images"][:count]
    known = {image["id"] for image in document["images"]}
    document["annotations"] = [{**row, **changes} for row in document["annotations"] if row["image_id"] in known]
    path.write_text(json.dumps(document))
    return path


SHAPES = (Category(3, "circle"), Category(17, "square"), Category(44, "triangle"), Category(62, "star"))


def test_test_writes_results_and_ap_by_the_annotations_name(
    run: Run, pickle: Path, demo_model: Path, tmp_path: Path
) -> None:
    annotations, out = first_images(demo_model, 3, tmp_path / "few.json"), tmp_path / "out"
    data = ["--annotations", annotations, "--images", demo_model / "val"]
    code, printed, _ = run("test", pickle, *data, "--out", out, "--json", tmp_path / "printed.json")
    assert code == 0 and "mask" in printed
    # No detections.pkl: what it holds is in the two files of results.
    assert sorted(path.name for path in out.iterdir()) == ["ap.json", "bbox.json", "segm.json"]
    ap = json.loads((out / "ap.json").read_text())
    assert list(ap) == ["few"] and ap == json.loads((tmp_path / "printed.json").read_text())
    for kind, file in (("box", "bbox"), ("mask", "segm")):
        assert run("score", out / f"{file}.json", "--annotations", annotations, "--json", tmp_path / "s.json")[0] == 0
        assert json.loads((tmp_path / "s.json").read_text())["few"] == {kind: ap["few"][kind]}


@pytest.mark.parametrize("command", ["test {}", "verify all {} --expect-box 90"])
def test_a_stopped_evaluation_keeps_what_is_done_and_goes_on_with_it(
    command: str, run: Run, pickle: Path, demo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ["--annotations", first_images(demo_model, 4, tmp_path / "few.json"), "--images", demo_model / "val"]
    words, out = (*command.format(pickle).split(), *data), tmp_path / "out"
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
    code, _, errors = run(*words, "--out", out)
    assert code == 143 and len(detected) == 2
    assert f"stopped by SIGTERM; {out} keeps what was detected: the same command goes on" in errors
    assert [path.name for path in out.iterdir()] == ["partial_results_0.jsonl"]
    code, _, errors = run(*words, "--out", out)
    assert code in (0, 1) and len(detected) == 4 and "2 of 4 images were done before\n" in errors
    if command == "test {}":
        assert run(*words, "--out", tmp_path / "whole")[0] == 0
        for name in ("bbox.json", "segm.json", "ap.json"):
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_two_tests_do_not_write_to_one_folder(run: Run, pickle: Path, demo_model: Path, tmp_path: Path) -> None:
    data = ["--annotations", demo_model / "instances_val.json", "--images", demo_model / "val"]
    with occupied(tmp_path, "test.lock"):
        assert_one_sentence(run("test", pickle, *data, "--out", tmp_path), f"another process is at work in {tmp_path}")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def named(pickle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with the names of its classes in the file."""
    path = tmp_path_factory.mktemp("named") / "model.pkl"
    write_blobs(path, replace(read_blobs(pickle), categories=SHAPES))
    return path


def few(demo_model: Path, path: Path, ids: dict[int, int], names: dict[int, str] | None = None) -> list[object]:
    """Options for two images whose categories stand in the order of `ids`, old to new, under other names."""
    document = json.loads((demo_model / "instances_val.json").read_text())
    known = {category["id"]: category["name"] for category in document["categories"]}
    document["categories"] = [{"id": new, "name": (names or {}).get(old, known[old])} for old, new in ids.items()]
    document["images"] = document["images"][:2]
    images = {image["id"] for image in document["images"]}
    document["annotations"] = [
        {**row, "category_id": ids[row["category_id"]]} for row in document["annotations"] if row["image_id"] in images
    ]
    path.write_text(json.dumps(document))
    return ["--annotations", path, "--images", demo_model / "val"]


def boxes(out: Path, ids: dict[int, int]) -> list[object]:
    old = {new: was for was, new in ids.items()}
    rows = json.loads((out / "bbox.json").read_text())
    return [[old[row["category_id"]], row["bbox"], row["score"]] for row in rows]


OWN = {3: 3, 17: 17, 44: 44, 62: 62}


@pytest.mark.parametrize(
    "ids",
    [{62: 62, 44: 44, 17: 17, 3: 3}, {3: 17, 17: 3, 44: 62, 62: 44}, {44: 1, 3: 2, 62: 3, 17: 90}],
    ids=["reversed", "ids of others", "shuffled and renumbered"],
)
def test_the_order_and_the_ids_of_categories_change_no_ap(
    ids: dict[int, int], run: Run, named: Path, demo_model: Path, tmp_path: Path
) -> None:
    found = []
    for name, mapping in (("own", OWN), ("other", ids)):
        data = few(demo_model, tmp_path / f"{name}.json", mapping)
        code, printed, _ = run("test", named, *data, "--out", tmp_path / name)
        assert code == 0 and "not known" not in printed
        found.append((json.loads((tmp_path / name / "ap.json").read_text())[name], boxes(tmp_path / name, mapping)))
    assert found[0] == found[1] and found[0][0]["box"]["AP"] > 0.8  # type: ignore[call-overload]


def test_other_names_are_refused_with_a_way_out_that_works(
    run: Run, named: Path, demo_model: Path, tmp_path: Path
) -> None:
    names = {3: "Kreis", 17: "Quadrat", 44: "Dreieck", 62: "Stern"}
    ids = {62: 4, 44: 3, 17: 2, 3: 1}
    data = few(demo_model, tmp_path / "val.json", ids, names)
    out = ["--out", tmp_path / "out"]
    expected = ("val.json has no category 'circle', which is class 1 of the model; it has 'Stern'", "--classes")
    assert_one_sentence(run("test", named, *data, *out), *expected)
    assert_one_sentence(run("verify", "ap", named, *data, *out, "--expect-box", "90"), *expected)
    assert_one_sentence(run("verify", "all", named, *data, *out, "--expect-box", "90"), *expected)
    (tmp_path / "names.txt").write_text("\n".join(names.values()))
    classes = ["--classes", tmp_path / "names.txt"]
    assert run("test", named, *data, *out, *classes)[0] == 0
    own = few(demo_model, tmp_path / "own.json", OWN)
    assert run("test", named, *own, "--out", tmp_path / "own")[0] == 0
    assert boxes(tmp_path / "out", ids) == boxes(tmp_path / "own", OWN)


def test_classes_without_names_go_by_their_places_and_a_line_says_so(
    run: Run, pickle: Path, demo_model: Path, tmp_path: Path
) -> None:
    data = few(demo_model, tmp_path / "val.json", OWN)
    code, _, errors = run("test", pickle, *data, "--out", tmp_path / "out")
    assert code == 0 and "class k is taken to be the k-th category in the list" in errors.splitlines()[0]
    (tmp_path / "names.txt").write_text("circle\nsquare\ntriangle\nstar\n")
    reversed_data = few(demo_model, tmp_path / "val.json", dict(reversed(OWN.items())))
    classes = ["--classes", tmp_path / "names.txt"]
    code, _, errors = run("test", pickle, *reversed_data, "--out", tmp_path / "named", *classes)
    assert code == 0 and "not known" not in errors
    assert boxes(tmp_path / "named", OWN) == boxes(tmp_path / "out", OWN)


def test_partial_results_under_other_names_are_of_another_run(
    run: Run, pickle: Path, named: Path, demo_model: Path, tmp_path: Path
) -> None:
    """Their rows carry the category ids of the names that the classes had."""
    data = few(demo_model, tmp_path / "val.json", OWN)
    out = tmp_path / "out"
    assert run("test", pickle, *data, "--out", out)[0] == 0
    kept = out / "partial_results_0.jsonl"
    from detectron_gn.mrcnn.evaluation.partial_results import PartialResults, run_identity
    from detectron_gn.port.runs.load import load_model

    with PartialResults(out, run_identity(load_model(pickle, device="cpu"), tmp_path / "val.json", 1), {}):
        pass
    assert kept.exists()
    result = run("test", named, *data, "--out", out, "--device", "cpu")
    assert_one_sentence(result, "holds partial results of a run with another classes")


def test_a_model_that_finds_nothing_scores_zero_and_so_do_its_files(
    run: Run, pickle: Path, demo_model: Path, tmp_path: Path
) -> None:
    annotations, out = first_images(demo_model, 3, tmp_path / "few.json"), tmp_path / "out"
    data = ["--annotations", annotations, "--images", demo_model / "val"]
    code, printed, _ = run("test", pickle, *data, "--out", out, "--set", "TEST.SCORE_THRESH", "0.99999")
    objects = len(json.loads(annotations.read_text())["annotations"])
    assert code == 0 and f"there are no detections: all {objects} objects are missed" in printed
    ap = json.loads((out / "ap.json").read_text())["few"]
    assert (ap["box"]["AP"], ap["mask"]["AP"]) == (0, 0)
    for name in ("bbox", "segm"):
        assert (out / f"{name}.json").read_text().strip() == "[]"
        code, printed, _ = run("score", out / f"{name}.json", *data[:2], "--json", tmp_path / "s.json")
        assert code == 0 and "there are no detections" in printed
        # An empty file holds neither boxes nor masks.
        assert json.loads((tmp_path / "s.json").read_text())["few"] == ap
        code, _, _ = run("score", out / f"{name}.json", *data[:2], "--type", "segm", "--json", tmp_path / "s.json")
        assert code == 0 and json.loads((tmp_path / "s.json").read_text())["few"] == {"mask": ap["mask"]}


def test_masks_are_not_scored_on_boxes_without_outlines(
    run: Run, pickle: Path, demo_model: Path, tmp_path: Path
) -> None:
    data = ["--images", demo_model / "val", "--out", tmp_path / "out"]
    boxes = first_images(demo_model, 3, tmp_path / "few.json", segmentation=[])
    code, printed, _ = run("test", pickle, "--annotations", boxes, *data)
    assert code == 0 and "an annotation without an outline: its box is used" in printed
    ap = json.loads((tmp_path / "out" / "ap.json").read_text())["few"]
    assert set(ap) == {"box"} and ap["box"]["AP"] > 0.5
    assert json.loads((tmp_path / "out" / "segm.json").read_text())
    code, _, errors = run("score", tmp_path / "out" / "segm.json", "--annotations", boxes)
    assert code == 2 and "no object has an outline, so there is no mask AP" in errors


def test_results_for_a_part_of_the_images_are_told(run: Run, demo_model: Path, tmp_path: Path) -> None:
    rows = json.loads((demo_model / "bbox_coco_shapes_val_results.json").read_text())
    annotations = first_images(demo_model, 3, tmp_path / "few.json")
    images = [image["id"] for image in json.loads(annotations.read_text())["images"]]
    results = tmp_path / "part.json"
    results.write_text(json.dumps([row for row in rows if row["image_id"] == images[0]]))
    missed = sum(row["image_id"] != images[0] for row in json.loads(annotations.read_text())["annotations"])
    code, printed, _ = run("score", results, "--annotations", annotations)
    assert code == 0 and f"2 of 3 images have no detections: their {missed} objects are missed" in printed
    results.write_text(json.dumps([row for row in rows if row["image_id"] in images]))
    assert "have no detections" not in run("score", results, "--annotations", annotations)[1]


OTHER_BOXES = [
    (lambda x, y, w, h, width, height: [x, y, x + w, y + h], "seem to be x1, y1, x2, y2"),
    (lambda x, y, w, h, width, height: [x / width, y / height, w / width, h / height], "seem to be shares of"),
]


@pytest.mark.parametrize(("form", "words"), OTHER_BOXES)
def test_results_whose_boxes_are_not_cocos_are_told(
    run: Run, demo_model: Path, tmp_path: Path, form: Callable[..., list[float]], words: str
) -> None:
    annotations = demo_model / "instances_val.json"
    images = {image["id"]: image for image in json.loads(annotations.read_text())["images"]}
    sound = json.loads((demo_model / "bbox_coco_shapes_val_results.json").read_text())
    results = tmp_path / "bbox.json"

    def scored(rows: list[dict[str, Any]]) -> str:
        results.write_text(json.dumps(rows))
        code, out, _ = run("score", results, "--annotations", annotations)
        assert code == 0
        return str(out)

    assert str(results) not in scored(sound)
    other = []
    for row in sound:
        image = images[row["image_id"]]
        other.append({**row, "bbox": form(*row["bbox"], image["width"], image["height"])})
    assert f"{results}: its 'bbox' numbers {words}" in scored(other)


def test_single_boxes_of_results_beyond_their_image_are_counted(run: Run, demo_model: Path, tmp_path: Path) -> None:
    rows = json.loads((demo_model / "bbox_coco_shapes_val_results.json").read_text())
    rows[2]["bbox"] = [100, 100, 1000, 10]
    results = tmp_path / "bbox.json"
    results.write_text(json.dumps(rows))
    code, out, _ = run("score", results, "--annotations", demo_model / "instances_val.json")
    assert code == 0
    assert f"{results}: 1 of {len(rows)} boxes leave their image, as COCO reads them (first: row 2)" in out


def test_no_objects_are_said_to_have_no_ap(run: Run, tmp_path: Path) -> None:
    content = {"images": [], "categories": [{"id": 1, "name": "dot"}], "annotations": []}
    (tmp_path / "none.json").write_text(json.dumps(content))
    (tmp_path / "bbox.json").write_text("[]")
    code, out, _ = run("score", tmp_path / "bbox.json", "--annotations", tmp_path / "none.json")
    assert code == 0 and "the annotations have no object to find, so there is no AP" in out and "missed" not in out


def test_max_dets_counts_more_than_cocos_hundred_detections(run: Run, tmp_path: Path) -> None:
    objects = [
        {"id": n + 1, "image_id": 1, "category_id": 1, "bbox": [5 * (n % 20), 5 * (n // 20), 3, 3]} for n in range(300)
    ]
    annotations, results = tmp_path / "many.json", tmp_path / "bbox.json"
    images = [{"id": 1, "file_name": "1.png", "height": 100, "width": 100}]
    content = {"images": images, "categories": [{"id": 1, "name": "dot"}], "annotations": objects}
    annotations.write_text(json.dumps(content))
    results.write_text(
        json.dumps([{"image_id": 1, "category_id": 1, "bbox": row["bbox"], "score": 0.5} for row in objects])
    )
    printed = {}
    for most in (None, 100, 200, 300):
        arguments = [] if most is None else ["--max-dets", most]
        code, printed[most], _ = run("score", results, "--annotations", annotations, *arguments)
        assert code == 0
    assert printed[None] == printed[100]
    assert "1.png has 300 objects of dot, and the best 100 detections" in printed[None]
    assert "pass --max-dets 300 to count more" in printed[None] and "33.66" in printed[None]
    one = run("score", results, "--annotations", annotations, "--max-dets", 1)[1]
    assert "300 objects of dot, and the best detection of an image and category counts, as COCO" in one
    assert "66.34" in printed[200] and "pass --max-dets 300" in printed[200]
    assert "100.00" in printed[300] and "COCO's own AP counts 100" in printed[300] and "pass" not in printed[300]


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("test model.pkl --annotations a.json --images b --out o", "--annotations"),
        ("test model.pkl --annotations a.json --images b --out o", "--images"),
        ("test model.pkl --annotations a.json --images b --out o", "--config"),
        ("score r.json --annotations a.json", "--annotations"),
        ("train --annotations a.json --images b --out o --weights w.pkl", "--weights"),
        ("train --annotations a.json --images b --out o --keep 3", "--keep"),
        ("verify ap model.pkl --annotations a.json --images b", "--annotations"),
        ("convert model.pkl --out a.h5", "--out"),
    ],
)
def test_an_option_with_one_value_is_refused_a_second_time(run: Run, command: str, option: str) -> None:
    given = [] if option in command else [option, "x"]
    code, _, errors = run(*command.split(), *given, option, "3")
    assert code == 2 and f"argument {option}: is given twice, and only one can count: give it once" in errors


def test_each_command_line_is_looked_at_for_itself(run: Run, demo_model: Path) -> None:
    results, annotations = demo_model / "bbox_coco_shapes_val_results.json", demo_model / "instances_val.json"
    for _ in range(2):
        assert run("score", results, "--annotations", annotations)[0] == 0
