"""The demo's figures are Detectron's: blobs, rows of detections and AP; images are found under either COCO name."""

import json

import cv2
import numpy as np
import pytest

from detectron_gn.mrcnn.data.coco import read_annotations
from detectron_gn.mrcnn.data.image_files import image_files
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.evaluate import evaluate
from detectron_gn.verify.demo import run_demo


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    lines = []
    return run_demo(out, lines.append), out, lines


@pytest.mark.slow
def test_the_embedded_model_has_detectrons_ap(outcome, demo_model):
    reference = json.loads((demo_model / "ap.json").read_text())["coco_shapes_val"]
    found, out, _ = outcome
    for kind in ("box", "mask"):
        for metric, (theirs, ours) in found.ap[kind].items():
            assert theirs == reference[kind][metric]
            assert ours == pytest.approx(theirs, abs=1e-4)
    assert json.loads((out / "ap.json").read_text())["coco_shapes_val"]["box"]["AP"] == found.ap["box"]["AP"][1]


@pytest.mark.slow
def test_the_embedded_model_finds_what_detectron_found_row_for_row(outcome):
    found, _, _ = outcome
    for parity in found.detections:
        assert parity.ours == parity.reference == parity.matched == 182
        assert parity.unmatched_ours == parity.unmatched_reference == 0
        assert parity.max_score_difference < 1e-4


@pytest.mark.slow
def test_rows_stand_in_detectrons_order(outcome, demo_model):
    reference = json.loads((demo_model / "bbox_coco_shapes_val_results.json").read_text())
    _, out, _ = outcome
    ours = json.loads((out / "bbox.json").read_text())
    assert [(row["image_id"], row["category_id"]) for row in ours] == [
        (row["image_id"], row["category_id"]) for row in reference
    ]
    np.testing.assert_allclose([row["bbox"] for row in ours], [row["bbox"] for row in reference], atol=2e-3)


@pytest.mark.slow
def test_every_blob_of_the_embedded_model_is_caffe2s(outcome):
    found, _, _ = outcome
    assert [len(parity.blobs) for parity in found.blobs] == [345, 345]
    for parity in found.blobs:
        assert parity.not_compared == ()
        assert max(row.relative_error for row in parity.blobs) < 5e-5
        assert parity.detections.equal_rles == parity.detections.count
    assert found.holds


@pytest.mark.slow
def test_pictures_show_both_sides(outcome):
    found, _, lines = outcome
    assert len(found.pictures) == 8
    picture = cv2.imread(str(found.pictures[0]))
    half = (picture.shape[1] - 12) // 2
    title = round(0.09 * half)
    left, right = picture[title:, :half], picture[title:, half + 12 :]
    assert np.abs(left.astype(int) - right).mean() < 0.5
    assert any("matched" in line for line in lines)


def test_images_are_found_under_either_coco_name_and_in_nested_folders(tmp_path, demo_model):
    coco = read_annotations(demo_model / "instances_val.json")
    ids = sorted(coco.imgs)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for number, image_id in enumerate(ids):
        names = [f"{image_id:012d}.jpg", f"COCO_val2014_{image_id:012d}.jpg", f"deep/er/{image_id:012d}.jpg"]
        (tmp_path / names[number % 3]).write_bytes(b"")
    found = image_files(coco, tmp_path)
    assert list(found) == ids
    assert all(path.is_file() for path in found.values())


def test_different_files_of_one_name_are_refused_and_copies_are_not(tmp_path, demo_model):
    coco = read_annotations(demo_model / "instances_val.json")
    for folder in ("a", "z"):
        (tmp_path / folder).mkdir()
        for image_id in coco.imgs:
            (tmp_path / folder / f"{image_id:012d}.png").write_bytes(b"picture")
    assert image_files(coco, tmp_path)[300000] == tmp_path / "a" / "000000300000.png"
    (tmp_path / "z" / "000000300000.png").write_bytes(b"another")
    sentence = r"image 300000 may be .*a/000000300000\.png or .*z/000000300000\.png, which are different files: take"
    with pytest.raises(InputError, match=sentence):
        image_files(coco, tmp_path)
    # Where the annotations' own name leads to a file there is no doubt.
    (tmp_path / "000000300000.png").write_bytes(b"the one")
    assert image_files(coco, tmp_path)[300000] == tmp_path / "000000300000.png"


def test_a_folder_that_is_called_like_an_image_is_not_taken_for_it(tmp_path, demo_model):
    coco = read_annotations(demo_model / "instances_val.json")
    for image_id in coco.imgs:
        (tmp_path / f"{image_id:012d}.png").mkdir()
    with pytest.raises(InputError, match=r"image 300000 \(000000300000.png\) is not in"):
        image_files(coco, tmp_path)


def test_a_missing_image_is_named_before_any_work(tmp_path, demo_model):
    with pytest.raises(InputError, match=r"image 300000 \(000000300000.png\) is not in"):
        image_files(read_annotations(demo_model / "instances_val.json"), tmp_path)
    with pytest.raises(InputError, match="is no folder of images"):
        image_files(read_annotations(demo_model / "instances_val.json"), tmp_path / "nowhere")


def test_a_data_set_of_other_categories_is_refused(tmp_path, demo_model):
    import torch

    from detectron_gn.mrcnn.detectors import build_detector
    from detectron_gn.port.config.read import bundled_config

    with torch.device("meta"):
        model = build_detector(bundled_config("e2e_mask_rcnn_R-50-FPN_2x_gn"))
    with pytest.raises(InputError, match="has 4 categories, but the model has 80 classes"):
        evaluate(model, demo_model / "instances_val.json", demo_model / "val")
