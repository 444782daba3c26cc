"""A model without a mask head is evaluated, detected with and reported by its boxes only."""

import json

import numpy as np
import pytest

import detectron_gn
from detectron_gn.port.blobs.convert import model_blobs
from detectron_gn.port.config.read import dump_config, parse_config
from detectron_gn.port.runs.load import load_model
from detectron_gn.weights import WeightsFile, read_blobs, write_blobs


@pytest.fixture(scope="module")
def boxes_only(pickle, tmp_path_factory):
    """The embedded model, its mask head taken away."""
    weights = read_blobs(pickle)
    blobs = {name: blob for name, blob in weights.blobs.items() if "mask" not in name}
    cfg = parse_config(weights.cfg, "the demo", ["MODEL.MASK_ON", "False"], saved_in_weights=True)
    path = tmp_path_factory.mktemp("boxes") / "model_final.pkl"
    write_blobs(path, WeightsFile(blobs, dump_config(cfg), None, "boxes", "pkl"))
    return path


@pytest.fixture
def few(demo_model, tmp_path):
    """Annotations of four images."""
    content = json.loads((demo_model / "instances_val.json").read_text())
    content["images"] = content["images"][:4]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] in kept]
    path = tmp_path / "few.json"
    path.write_text(json.dumps(content))
    return path


def run(*arguments):
    return detectron_gn.main([*map(str, arguments), "--device", "cpu"])


@pytest.mark.slow
def test_boxes_are_those_of_the_mask_rcnn_and_ap_json_has_nothing_else(boxes_only, pickle, few, demo_model, tmp_path):
    for name, source in (("boxes", boxes_only), ("both", pickle)):
        data = ["--annotations", few, "--images", demo_model / "val"]
        assert run("test", source, *data, "--out", tmp_path / name) == 0
    assert (tmp_path / "boxes/bbox.json").read_bytes() == (tmp_path / "both/bbox.json").read_bytes()
    assert not (tmp_path / "boxes/segm.json").exists()
    ours, both = (json.loads((tmp_path / name / "ap.json").read_text())["few"] for name in ("boxes", "both"))
    assert ours == {"box": both["box"]}


def test_annotations_without_outlines_are_enough(boxes_only, few, demo_model, tmp_path):
    content = json.loads(few.read_text())
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    few.write_text(json.dumps(content))
    assert run("test", boxes_only, "--annotations", few, "--images", demo_model / "val", "--out", tmp_path / "out") == 0


def test_a_data_set_without_images_has_no_masks_either(boxes_only, few, demo_model, tmp_path):
    content = json.loads(few.read_text())
    few.write_text(json.dumps({**content, "images": [], "annotations": []}))
    assert run("test", boxes_only, "--annotations", few, "--images", demo_model / "val", "--out", tmp_path / "out") == 0
    assert not (tmp_path / "out/segm.json").exists()
    assert set(json.loads((tmp_path / "out/ap.json").read_text())["few"]) == {"box"}


def test_detect_draws_and_writes_boxes(boxes_only, demo_model, tmp_path):
    image = min((demo_model / "val").iterdir())
    assert run("detect", boxes_only, image, "--out", tmp_path) == 0
    rows = json.loads((tmp_path / "detections.json").read_text())
    keys = {"file_name", "image_id", "category_id", "category_name", "bbox", "score"}
    assert rows and all(set(row) == keys for row in rows)
    assert (tmp_path / f"{image.name}_detections.png").stat().st_size > 0


@pytest.mark.slow
def test_verify_ap_and_all_speak_of_boxes(boxes_only, few, demo_model, tmp_path, capsys):
    data = ["--annotations", few, "--images", demo_model / "val"]
    assert run("verify", "ap", boxes_only, *data, "--expect-box", "0", "--out", tmp_path / "ap") == 1
    assert (tmp_path / "ap/report.html").exists()
    reference = demo_model / "bbox_coco_shapes_val_results.json"
    kept = {image["id"] for image in json.loads(few.read_text())["images"]}
    rows = [row for row in json.loads(reference.read_text()) if row["image_id"] in kept]
    (tmp_path / "theirs.json").write_text(json.dumps(rows))
    files = ["--reference-boxes", tmp_path / "theirs.json"]
    assert run("verify", "all", boxes_only, *data, *files, "--out", tmp_path / "all") == 0
    assert "100.00 % of boxes matched" in capsys.readouterr().out


def test_the_blobs_of_a_network_without_masks_are_written_and_read(boxes_only):
    model = load_model(boxes_only, device="cpu")
    blobs = model_blobs(model)
    stored = read_blobs(boxes_only).blobs
    assert all(np.array_equal(stored[name], blob) for name, blob in blobs.items()) and len(blobs) > 100
