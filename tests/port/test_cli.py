"""`inspect` and `detect` as users meet them: what they write, and weights and configurations that do not fit."""

import hashlib
import json
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config
from detectron_gn.verify.parity.results import match_detections
from detectron_gn.weights import WeightsFile, read_blobs, write_blobs
from detectron_gn.weights.categories import Category
from tests.helpers.command_line import Run, assert_one_sentence
from tests.helpers.recipe import recipe_weights

ROOT = Path(__file__).resolve().parents[2]


def test_inspect_tells_what_a_file_is(run: Run, pickle: Path, tmp_path: Path) -> None:
    code, printed, _ = run("inspect", pickle, "--json", tmp_path / "summary.json")
    assert code == 0
    assert "detector, R-50 FPN, GN, 4conv1fc box head, masks, 5 classes" in printed.splitlines()[0]
    document = json.loads((tmp_path / "summary.json").read_text())
    assert document["classes"] == 5
    title, *rest = printed.splitlines()
    assert [line for line in rest if len(line) > 80] == []
    assert "  pkl, 18,085,097 bytes, 223 blobs, 4,515,533 values, float32" in rest
    digest = hashlib.sha256(pickle.read_bytes()).hexdigest()
    assert f"  sha256: {digest}" in rest and document["sha256"] == digest
    parts = [line.split("  ") for line in rest[rest.index("") + 1 :]]
    assert [row[0] for row in parts[2:-2]] == ["body", "pyramid", "RPN", "box head", "mask head", "all"]
    assert rest[-1] == "--blobs lists every blob." and not any("head_conv4_gn_s" in line for line in rest)
    blobs = run("inspect", pickle, "--blobs")[1].splitlines()
    assert blobs[: len(printed.splitlines()) - 1] == printed.splitlines()[:-1]
    row = next(line for line in blobs if line.startswith("head_conv4_gn_s "))
    assert row.split() == ["head_conv4_gn_s", "32", "0.03", "1.1"]
    assert [line for line in blobs[1:] if len(line) > 80] == []
    order = [line.split()[0] for line in blobs if line.startswith(("res2_0_branch2a_w", "res4_5_", "conv1_w", "fpn_"))]
    assert order[:2] == ["conv1_w", "res2_0_branch2a_w"] and order[-1].startswith("fpn_")
    blob = next(each for each in document["blobs"] if each["name"] == "head_conv4_gn_s")
    assert {"mean", "std", "min", "max", "dtype", "nan", "inf"} < blob.keys()


def test_inspect_tells_the_type_of_each_blob_where_they_are_several(run: Run, pickle: Path, tmp_path: Path) -> None:
    weights = read_blobs(pickle)
    wide = {"conv1_w": weights.blobs["conv1_w"].astype("float64")}
    write_blobs(tmp_path / "mixed.safetensors", replace(weights, blobs={**weights.blobs, **wide}))
    lines = run("inspect", tmp_path / "mixed.safetensors", "--blobs")[1].splitlines()
    assert next(line for line in lines if line.startswith("conv1_w ")).split()[2] == "f64"
    assert next(line for line in lines if line.startswith("fc6_b ")).split()[2] == "f32"


@pytest.mark.parametrize(
    "source", ["e2e_mask_rcnn_R-50-FPN_2x_gn.yaml", "own.yaml", "tutorial_1gpu_e2e_faster_rcnn_R-50-FPN"]
)
def test_inspect_tells_what_network_a_yaml_asks_for(run: Run, source: str, tmp_path: Path) -> None:
    if source == "own.yaml":
        bundled = ROOT / "yaml_configs" / "04_2018_gn_baselines" / "e2e_mask_rcnn_R-50-FPN_2x_gn.yaml"
        source = str(tmp_path / source)
        Path(source).write_bytes(bundled.read_bytes())
    code, printed, _ = run("inspect", source, "--json", tmp_path / "architecture.json")
    document = json.loads((tmp_path / "architecture.json").read_text())
    assert code == 0
    is_mask = "tutorial" not in source
    family, count = ("Mask R-CNN", 223) if is_mask else ("Faster R-CNN", 189)
    assert printed.startswith(f"{source}: {family}, 81 classes")
    assert document["family"] == family and len(document["blobs"]) == count
    assert document["blobs"][0] == {"name": "conv1_w", "shape": [64, 3, 7, 7], "kind": "weight"}
    assert document["blobs"][1]["kind"] == ("gn_scale" if is_mask else "affine")
    assert sum(part["blobs"] for part in document["parts"]) == count
    assert len(printed.splitlines()) < 15 and len(run("inspect", source, "--blobs")[1].splitlines()) > count


def test_inspect_of_a_yaml_that_is_not_there_or_of_another_network_is_one_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "rfcn.yaml").write_text("MODEL: {TYPE: rfcn, NUM_CLASSES: 81}")
    assert_one_sentence(run("inspect", tmp_path / "rfcn.yaml"), "rfcn.yaml, line 1", "MODEL.TYPE", "not supported")
    assert_one_sentence(run("inspect", "nothing.yaml"), "nothing.yaml", "none of the configurations")


def test_detect_finds_what_detectron_found_and_draws_it(
    run: Run, pickle: Path, demo_model: Path, tmp_path: Path
) -> None:
    images = [demo_model / "val" / f"00000030000{n}.png" for n in (0, 9)]
    annotations = demo_model / "instances_val.json"
    out = tmp_path / "out"
    code, printed, errors = run("detect", pickle, *images, "--out", out, "--annotations", annotations)
    # A line per image, and one of the list; a note of three says how classes found their categories.
    assert code == 0 and errors.count("\n") == 3 and printed.count("\n") == 3
    rows = json.loads((out / "detections.json").read_text())
    told = f"{len(rows)} detections in 2 images; pictures show what scores at least 0.5"
    assert printed.splitlines()[-1] == f"{out / 'detections.json'}: {told}"
    assert {row["file_name"] for row in rows} == {image.name for image in images}
    for image in images:
        scores = [row["score"] for row in rows if row["file_name"] == image.name]
        assert scores == sorted(scores, reverse=True)
    for iou_type, name in (("bbox", "bbox"), ("segm", "segmentations")):
        reference = json.loads((demo_model / f"{name}_coco_shapes_val_results.json").read_text())
        reference = [row for row in reference if row["image_id"] in (300000, 300009)]
        assert match_detections(rows, reference, iou_type).holds  # type: ignore[arg-type]
    for image in images:
        picture = cv2.imread(str(out / f"{image.name}_detections.png"))
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
    other = tmp_path / "other.png"
    other.write_bytes(image.read_bytes())
    paths = [tmp_path / "a" / "photo.png", other, tmp_path / "b" / "photo.png"]
    out = tmp_path / "out"
    assert run("detect", pickle, *paths, "--out", out)[0] == 0
    made = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert made == {"detections.json", *(f"{name}.png_detections.png" for name in ("other", "a/photo", "b/photo"))}
    rows = json.loads((out / "detections.json").read_text())
    assert {row["image_id"] for row in rows} == {1, 2, 3}
    assert {row["category_id"] for row in rows} <= {1, 2, 3, 4}


def test_a_stopped_detect_writes_what_it_has_found(
    run: Run, pickle: Path, demo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, drawn, out = sorted((demo_model / "val").iterdir())[:4], [], tmp_path / "out"
    whole = tmp_path / "whole"
    assert run("detect", pickle, *images[:2], "--out", whole)[0] == 0

    def draw_and_stop(image: object, *_: object) -> object:
        drawn.append(image)
        if len(drawn) == 2:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.2)
        return image

    monkeypatch.setattr("detectron_gn.port.runs.drawn_rows.draw_rows", draw_and_stop)
    code, printed, errors = run("detect", pickle, *images, "--out", out, "--quiet")
    assert (code, len(drawn), printed.count("_detections.png\n")) == (130, 2, 2)
    assert errors.splitlines() == [
        "detectron-gn: finishing what is in hand; once more ends at once",
        f"detectron-gn: interrupted; {out / 'detections.json'} holds what was found until then",
    ]
    assert (out / "detections.json").read_bytes() == (whole / "detections.json").read_bytes()


SHAPES = (Category(3, "circle"), Category(17, "square"), Category(44, "triangle"), Category(62, "star"))


@pytest.mark.parametrize("suffix", [".pkl", ".h5", ".safetensors", ".pth"])
def test_detections_carry_the_names_and_ids_that_are_in_the_file(
    suffix: str, run: Run, pickle: Path, demo_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"model{suffix}"
    write_blobs(path, replace(read_blobs(pickle), categories=SHAPES))
    image = demo_model / "val" / "000000300000.png"
    code, printed, _ = run("detect", path, image, "--out", tmp_path / "out")
    assert code == 0 and printed.count("\n") == 2
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert rows and {(row["category_id"], row["category_name"]) for row in rows} <= {each[:2] for each in SHAPES}
    code, printed, _ = run("inspect", path, "--json", tmp_path / "i.json")
    assert "  classes: circle (3), square (17), triangle (44), star (62)\n" in printed
    document = json.loads((tmp_path / "i.json").read_text())
    assert document["class_names"][3] == "star" and document["category_ids"] == [3, 17, 44, 62]


def test_names_are_given_by_a_file_or_by_annotations_and_never_guessed(
    run: Run, pickle: Path, demo_model: Path, tmp_path: Path
) -> None:
    image = demo_model / "val" / "000000300000.png"
    out = tmp_path / "out"
    (tmp_path / "names.txt").write_text("Kreis\nQuadrat\nDreieck\nStern\n")
    shapes = ["--annotations", demo_model / "instances_val.json"]
    cases: list[tuple[list[Any], str, set[tuple[int, str]]]] = [
        ([], "they are called 'class 1', 'class 2'", {(n, f"class {n}") for n in range(1, 5)}),
        (shapes, ":\n  1 circle, 2 square, 3 triangle, 4 star\n", {each[:2] for each in SHAPES}),
        (["--classes", tmp_path / "names.txt"], "", {(1, "Kreis"), (2, "Quadrat"), (3, "Dreieck"), (4, "Stern")}),
    ]
    for options, line, names in cases:
        code, printed, errors = run("detect", pickle, image, "--out", out, *options)
        said = 2 * bool(line) + (options is shapes)
        assert code == 0 and printed.count("\n") == 2 and errors.count("\n") == said and line in errors
        rows = json.loads((out / "detections.json").read_text())
        assert rows and {(row["category_id"], row["category_name"]) for row in rows} <= names
    assert "  classes: not known by name\n" in run("inspect", pickle)[1]
    result = run("detect", pickle, image, "--out", out, "--classes", tmp_path / "names.txt", *shapes)
    assert_one_sentence(result, "instances_val.json has no category 'Kreis', which is class 1", "it has 'circle'")
    (tmp_path / "names.txt").write_text("Kreis\nQuadrat\n")
    result = run("detect", pickle, image, "--out", out, "--classes", tmp_path / "names.txt")
    assert_one_sentence(result, "2 class names are given, but the model has 4 classes besides the background")
    assert_one_sentence(run("detect", pickle, image, "--out", out, "--classes", tmp_path / "no.txt"), "no.txt")


def test_detect_takes_the_ids_of_annotations_by_name(
    run: Run, pickle: Path, demo_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.pth"
    write_blobs(path, replace(read_blobs(pickle), categories=SHAPES))
    document = json.loads((demo_model / "instances_val.json").read_text())
    document["categories"] = [{"id": 100 + each["id"], "name": each["name"]} for each in document["categories"][::-1]]
    document["annotations"] = []
    (tmp_path / "val.json").write_text(json.dumps(document))
    image = demo_model / "val" / "000000300000.png"
    options = ["--out", tmp_path / "out", "--annotations", tmp_path / "val.json"]
    assert run("detect", path, image, *options)[0] == 0
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    expected = {(100 + identity, name) for identity, name, _ in SHAPES}
    assert rows and {(row["category_id"], row["category_name"]) for row in rows} <= expected
    document["categories"][0]["name"] = "Star"
    (tmp_path / "val.json").write_text(json.dumps(document))
    assert_one_sentence(run("detect", path, image, *options), "no category 'star', which is class 4", "it has 'Star'")


def test_an_unreadable_image_is_named(run: Run, pickle: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"no picture")
    result = run("detect", pickle, tmp_path / "photo.jpg", "--out", tmp_path / "out", "--quiet")
    assert_one_sentence(result, "photo.jpg cannot be decoded as an image")
    assert not list((tmp_path / "out").iterdir())


def test_a_model_without_its_own_configuration_takes_the_one_it_is_given(
    run: Run, pickle: Path, demo_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bare.pth"
    write_blobs(path, replace(read_blobs(pickle), cfg=None))
    image = demo_model / "val" / "000000300000.png"
    name = "e2e_mask_rcnn_R-50-FPN_shapes_gn"
    for config in (name, ROOT / "yaml_configs" / "demo" / f"{name}.yaml"):
        assert run("detect", path, image, "--out", tmp_path / "out", "--config", config)[0] == 0


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
        lambda w: w, ["--config", "e2e_mask_rcnn_R-50-FPN_2x"], ["R-50 GN", "R-50 BN*", "leave out --config"],
    ),
    "R-101 weights with an R-50 config": (
        lambda w: narrow_r101(), ["--config", "e2e_mask_rcnn_R-50-FPN_2x_gn"], ["R-101", "R-50"],
    ),
    "another number of classes": (
        lambda w: w, ["--set", "MODEL.NUM_CLASSES", "3"], ["has 5 classes", "MODEL.NUM_CLASSES is 3"],
    ),
    "a missing blob": (lambda w: changed(w, fc6_w=None), [], ["lacks fc6_w"]),
    "a layer of another network": (lambda w: changed(w, fc7_w=np.zeros(3, np.float32)), [], ["trained with fc7_w"]),
    "a shape that would broadcast": (
        lambda w: changed(w, fc6_b=np.zeros(1, np.float32)), [], ["fc6_b is [1]", "[64]"],
    ),
    "no configuration": (lambda w: replace(w, cfg=None), [], ["holds no configuration", "--config"]),
    "an unknown key": (lambda w: w, ["--set", "TEST.NSM", "0.5"], ["TEST.NSM", "TEST.NMS?\n"]),
    "a wrong type": (lambda w: w, ["--set", "TEST.NMS", "high"], ["TEST.NMS", "high"]),
    "a key without a value": (lambda w: w, ["--set", "TEST.NMS"], ["TEST.NMS"]),
    "a key that is not supported": (lambda w: w, ["--set", "MODEL.RETINANET_ON", "True"], ["RETINANET_ON"]),
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
