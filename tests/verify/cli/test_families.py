"""Every family of Detectron's zoo through the commands: a pickle of narrow width, and pictures of the demo."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from detectron_gn.mrcnn.heads.box import BoxHead
from detectron_gn.mrcnn.inference import network_input
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config, bundled_names
from detectron_gn.port.config.yaml_dumper import dump_config
from detectron_gn.weights import write_blobs
from detectron_gn.weights.formats.proposals_pickle import read_proposals
from detectron_gn.weights.weights_file import WeightsFile
from tests.helpers.zoo_reference import zoo_files

ZOO = Path(__file__).parents[2] / "data" / "zoo"
FAMILIES = sorted(path.stem for path in ZOO.glob("*.h5") if not path.stem.startswith(("ops_", "train_")))
# A configuration of each family, of narrow width: the network is not run.
NARROW = (
    "RESNETS.WIDTH_PER_GROUP 8 FPN.DIM 16 FAST_RCNN.MLP_HEAD_DIM 8 MRCNN.DIM_REDUCED 8 "
    "KRCNN.CONV_HEAD_DIM 8 GROUP_NORM.NUM_GROUPS 4"
).split()


@pytest.fixture(scope="module")
def model_of(tmp_path_factory):
    """A pickle of each reference's model, and the proposals of its images where it takes them."""
    folder = tmp_path_factory.mktemp("families")
    made = {}

    def files(name):
        if name not in made:
            made[name] = zoo_files(ZOO / f"{name}.h5", folder)
        return made[name]

    return files


@pytest.fixture
def two_images(demo_model, tmp_path):
    """Two of the demo's images and their annotations, with keypoints at the corners of each box."""

    def data_set(name, cfg):
        with h5py.File(ZOO / f"{name}.h5") as file:
            names = list(file)
        document = json.loads((demo_model / "instances_val.json").read_text())
        document["images"] = [image for image in document["images"] if image["file_name"] in names]
        ids = {image["id"] for image in document["images"]}
        document["annotations"] = [row for row in document["annotations"] if row["image_id"] in ids]
        for number in range(len(document["categories"]), cfg.MODEL.NUM_CLASSES - 1):
            document["categories"].append({"id": 100 + number, "name": f"shape {number}"})
        if cfg.MODEL.KEYPOINTS_ON:
            document["categories"] = [{"id": 1, "name": "person"}]
            for row in document["annotations"]:
                x, y, width, height = row["bbox"]
                row |= {"category_id": 1, "num_keypoints": 17}
                row["keypoints"] = [v for k in range(17) for v in (x + width * (k % 2), y + height * (k % 3) / 2, 2)]
        path = tmp_path / "a.json"
        path.write_text(json.dumps(document))
        return path, [demo_model / "val" / each for each in names]

    return data_set


def given(proposals):
    return () if proposals is None else ("--proposals", proposals)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_of_each_family_is_verified_detected_with_and_tested(
    name, model_of, two_images, demo_model, tmp_path, run
):
    model, proposals, cfg = model_of(name)
    annotations, images = two_images(name, cfg)
    code, out, err = run("verify", "blobs", model, "--reference", ZOO / f"{name}.h5", "--images", demo_model / "val")
    assert code == 0 and "The blobs agree." in out, err

    found = tmp_path / "found"
    code, out, err = run("detect", model, *images, *given(proposals), "--out", found)
    assert code == 0, err
    rows = json.loads((found / "detections.json").read_text())
    assert (
        rows and ("segmentation" in rows[0]) == cfg.MODEL.MASK_ON and ("keypoints" in rows[0]) == cfg.MODEL.KEYPOINTS_ON
    )

    data_set = ("--annotations", annotations, "--images", demo_model / "val")
    code, out, err = run("test", model, *data_set, *given(proposals), "--out", tmp_path / "test")
    assert code == 0, err
    (ap,) = json.loads((tmp_path / "test" / "ap.json").read_text()).values()
    parts = {"box": True, "mask": cfg.MODEL.MASK_ON, "keypoint": cfg.MODEL.KEYPOINTS_ON}
    assert set(ap) == ({"proposal"} if cfg.MODEL.RPN_ONLY else {part for part, there in parts.items() if there})


@pytest.mark.parametrize("name", ["fast_fpn", "keypoint", "rpn_fpn"])
def test_the_ladder_knows_each_family(name, model_of, two_images, demo_model, tmp_path, run):
    model, proposals, cfg = model_of(name)
    annotations, _ = two_images(name, cfg)
    shutil.copy(model, tmp_path / "m.pkl")
    data_set = ("--annotations", annotations, "--images", demo_model / "val", *given(proposals))
    code, _, err = run("test", model, *data_set, "--out", tmp_path / "first")
    assert code == 0, err
    (ap,) = json.loads((tmp_path / "first" / "ap.json").read_text()).values()
    kinds = {"fast_fpn": ["box"], "keypoint": ["box", "keypoint"], "rpn_fpn": ["proposal"]}[name]
    files = {"box": ("boxes", "bbox"), "keypoint": ("keypoints", "keypoints")}
    expected = []
    for kind in kinds:
        expected += [f"--expect-{kind}", ap[kind]["AR@1000" if kind == "proposal" else "AP"]]
        if kind in files:
            expected += [f"--reference-{files[kind][0]}", tmp_path / "first" / f"{files[kind][1]}.json"]
    arguments = (tmp_path / "m.pkl", "--reference", ZOO / f"{name}.h5", *data_set, *expected, "--out", tmp_path / "out")
    code, out, err = run("verify", "all", *arguments, "--json", tmp_path / "all.json")
    assert code == 0, out + err
    rungs = {rung["name"]: rung["state"] for rung in json.loads((tmp_path / "all.json").read_text())["rungs"]}
    not_run = [rung for rung, state in rungs.items() if state != "holds"]
    assert not_run == (["detections"] if name == "rpn_fpn" and rungs["detections"] == "not run" else [])
    page = (tmp_path / "out" / "report.html").read_text()
    assert {"fast_fpn": "box AP", "keypoint": "keypoint AP", "rpn_fpn": "AR@1000"}[name] in page


@pytest.mark.parametrize("name", ["fast_fpn", "fast_c4", "mask_c4_prop"])
@pytest.mark.parametrize("with_annotations", [False, True])
def test_a_model_on_proposals_is_verified_to_the_end_with_pictures(
    name, with_annotations, model_of, two_images, demo_model, tmp_path, run
):
    model, proposals, cfg = model_of(name)
    annotations, _ = two_images(name, cfg)
    arguments = [model, "--reference", ZOO / f"{name}.h5", "--images", demo_model / "val", *given(proposals)]
    arguments += ["--annotations", annotations] if with_annotations else []
    code, out, err = run("verify", "all", *arguments, "--out", tmp_path / "out")
    assert code == 0, out + err
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Agrees as far as it was compared" in page and "every one on both sides" in page


def negated_head(monkeypatch):
    right = BoxHead.conv_features
    monkeypatch.setattr(BoxHead, "conv_features", lambda self, x: -right(self, x))


def rgb_images(monkeypatch):
    right = network_input.prepare_image
    monkeypatch.setattr(network_input, "prepare_image", lambda image, *rest: right(image[:, :, ::-1], *rest))


@pytest.mark.parametrize(("wrong", "told"), [(negated_head, "cls_score"), (rgb_images, "RGB instead of BGR")])
def test_a_wrong_port_of_a_model_on_proposals_ends_with_a_report(
    wrong, told, model_of, demo_model, tmp_path, run, monkeypatch
):
    model, proposals, _ = model_of("fast_fpn")
    wrong(monkeypatch)
    arguments = [model, "--reference", ZOO / "fast_fpn.h5", "--images", demo_model / "val", *given(proposals)]
    code, out, err = run("verify", "all", *arguments, "--out", tmp_path / "out")
    assert code == 1, out + err
    assert told in out and "Differs: blobs" in (tmp_path / "out" / "report.html").read_text()


def test_verify_ap_of_an_rpn_compares_its_recall(model_of, two_images, demo_model, tmp_path, run):
    model, _, cfg = model_of("rpn_fpn")
    annotations, _ = two_images("rpn_fpn", cfg)
    arguments = ["verify", "ap", model, "--annotations", annotations, "--images", demo_model / "val"]
    code, out, _ = run(*arguments, "--out", tmp_path / "out", "--expect-proposal", "99")
    assert code == 1 and "do not agree within 0.1 points (AR@1000" in out
    assert len(read_proposals(tmp_path / "out" / "rpn_proposals.pkl").boxes) == 1
    code, _, err = run(*arguments, "--out", tmp_path / "out", "--expect-box", "50")
    assert code == 2 and "pass --expect-proposal" in err
    code, _, err = run("test", *arguments[2:], "--out", tmp_path / "out", "--max-dets", "300")
    assert code == 2 and "counts 100 and 1000 of an image: leave --max-dets out" in err


def of_each_family(name):
    return "R-50" in name and "_1x" in name and not name.startswith(("getting_started", "test_time_aug"))


@pytest.mark.parametrize("name", list(filter(of_each_family, bundled_names())))
def test_every_family_survives_the_round_trip_to_the_byte(name, tmp_path, run):
    cfg, random = bundled_config(name, NARROW), np.random.default_rng(0)
    blobs = {row.blob: random.random(row.shape, dtype=np.float32) for row in BlobTable.from_config(cfg).rows}
    first = tmp_path / "m.pkl"
    write_blobs(first, WeightsFile(blobs, dump_config(cfg), None, name, "pkl"))
    for suffix in (".pth", ".safetensors", ".h5"):
        between, back = tmp_path / f"m{suffix}", tmp_path / f"{suffix[1:]}.pkl"
        assert run("convert", first, "--out", between)[0] == 0
        assert run("convert", between, "--out", back)[0] == 0
        assert back.read_bytes() == first.read_bytes(), suffix


@pytest.mark.parametrize("name", bundled_names())
def test_inspect_tells_every_blob_of_a_configuration_by_its_name(name, tmp_path, run):
    short, whole = tmp_path / "short.json", tmp_path / "whole.json"
    bare = name.removesuffix(".yaml")
    assert run("inspect", bare.rpartition("/")[2] if "12_2017" in name else bare, "--json", short)[0] == 0
    assert run("inspect", name, "--json", whole)[0] == 0
    document, other = json.loads(whole.read_text()), json.loads(short.read_text())
    assert document | {"source": ""} == other | {"source": ""}
    rows = BlobTable.from_config(bundled_config(name)).rows
    assert [(blob["name"], tuple(blob["shape"])) for blob in document["blobs"]] == [
        (r.blob, tuple(r.shape)) for r in rows
    ]
