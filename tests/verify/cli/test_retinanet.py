"""A RetinaNet as users meet it: inspected, converted, detected with, tested; and what it is refused for."""

import json
from pathlib import Path

import numpy as np
import pytest

from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config, dump_config
from detectron_gn.weights import WeightsFile, read_blobs, write_blobs
from tests.helpers.command_line import Run, assert_one_sentence
from tests.helpers.recipe import recipe_blob

NARROW = (
    "MODEL.NUM_CLASSES 5 FPN.DIM 16 RESNETS.WIDTH_PER_GROUP 4 TEST.SCALE 160 TEST.MAX_SIZE 256 "
    "TEST.DETECTIONS_PER_IM 20 RETINANET.PRE_NMS_TOP_N 100"
).split()
GAINS = {"retnet_cls_pred_fpn3_w": 2.4, "retnet_bbox_pred_fpn3_w": 0.24}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow RetinaNet of random weights, as Detectron would save it."""
    cfg = bundled_config("retinanet_R-50-FPN_1x", NARROW)
    offsets = {"retnet_cls_pred_fpn3_b": -4.0}
    blobs = {
        row.blob: recipe_blob(row.blob, row.shape, 5, GAINS, offsets.get(row.blob, 0.0))
        for row in BlobTable.from_config(cfg).rows
    }
    path = tmp_path_factory.mktemp("retinanet") / "model_final.pkl"
    write_blobs(path, WeightsFile(blobs, dump_config(cfg), None, "recipe", "pkl"))
    return path


def test_inspect_tells_a_retinanet(run: Run, model: Path, tmp_path: Path) -> None:
    code, printed, _ = run("inspect", model)
    assert code == 0 and "detector, R-50 FPN, BN*, RetinaNet box head" in printed.splitlines()[0]
    code, printed, _ = run("inspect", "retinanet_X-101-64x4d-FPN_1x.yaml", "--json", tmp_path / "network.json")
    document = json.loads((tmp_path / "network.json").read_text())
    assert (code, document["family"]) == (0, "RetinaNet")
    assert document["blobs"][-1] == {"name": "retnet_bbox_pred_fpn3_b", "shape": [36], "kind": "bias"}


@pytest.mark.parametrize("suffix", ["h5", "safetensors", "pth"])
def test_a_retinanet_comes_back_from_every_format_byte_for_byte(
    run: Run, model: Path, suffix: str, tmp_path: Path
) -> None:
    assert run("convert", model, "--out", tmp_path / f"there.{suffix}")[0] == 0
    assert run("convert", tmp_path / f"there.{suffix}", "--out", tmp_path / "back.pkl")[0] == 0
    assert (tmp_path / "back.pkl").read_bytes() == model.read_bytes()


def test_detect_and_test_give_boxes_and_no_masks(run: Run, model: Path, demo_model: Path, tmp_path: Path) -> None:
    content = json.loads((demo_model / "instances_val.json").read_text())
    content["images"] = content["images"][:2]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] in ids]
    (tmp_path / "few.json").write_text(json.dumps(content))
    images = [demo_model / "val" / image["file_name"] for image in content["images"]]
    detected, tested = tmp_path / "detected", tmp_path / "tested"

    code, printed, _ = run("detect", model, *images, "--out", detected, "--annotations", tmp_path / "few.json")
    rows = json.loads((detected / "detections.json").read_text())
    assert code == 0 and printed.count(": 20 detections") == 2
    assert len(rows) == 40 and not any("segmentation" in row for row in rows)

    data = ["--annotations", tmp_path / "few.json", "--images", demo_model / "val"]
    assert run("test", model, *data, "--out", tested)[0] == 0
    boxes = json.loads((tested / "bbox.json").read_text())
    by_box = {(row["category_id"], *row["bbox"]): row["score"] for row in boxes}
    assert len(boxes) == 40
    np.testing.assert_allclose([by_box[(row["category_id"], *row["bbox"])] for row in rows], [r["score"] for r in rows])
    assert not (tested / "segm.json").exists()
    assert set(json.loads((tested / "ap.json").read_text())["few"]) == {"box"}
    assert run("verify", "detections", tested / "bbox.json", tested / "bbox.json")[0] == 0


def test_what_a_retinanet_cannot_do_is_one_sentence(run: Run, model: Path, demo_model: Path, tmp_path: Path) -> None:
    data = ["--annotations", demo_model / "instances_val.json", "--images", demo_model / "val"]
    narrow = [*NARROW, "FPN.COARSEST_STRIDE", "32"]
    answer = run("train", "--config", "retinanet_R-50-FPN_1x", "--set", *narrow, *data, "--out", tmp_path / "run")
    assert_one_sentence(answer, "FPN.COARSEST_STRIDE is 32", "set it to 128 to train")
    assert not (tmp_path / "run").exists()
    image = next((demo_model / "val").iterdir())
    answer = run("detect", model, image, "--config", "e2e_mask_rcnn_R-50-FPN_2x", "--out", tmp_path / "out")
    assert_one_sentence(answer, "model_final.pkl is a RetinaNet", "a Mask R-CNN", "--config")


def test_a_mask_rcnn_is_no_retinanet(run: Run, pickle: Path, demo_model: Path, tmp_path: Path) -> None:
    image = next((demo_model / "val").iterdir())
    answer = run("detect", pickle, image, "--config", "retinanet_R-50-FPN_1x", "--out", tmp_path / "out")
    assert_one_sentence(answer, "is no RetinaNet", "of a RetinaNet", "--config")


def test_the_file_keeps_what_it_holds(model: Path) -> None:
    blobs = read_blobs(model).blobs
    assert list(blobs)[-1] == "retnet_bbox_pred_fpn3_b" and blobs["fpn_6_w"].shape == (16, 2048, 3, 3)
