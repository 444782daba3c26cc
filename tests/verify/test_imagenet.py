"""The ImageNet classifier beside Caffe2's (random weights by recipe), its labels, its verdict."""

import json
import sys

import cv2
import h5py
import numpy as np
import pytest

import detectron_gn
from detectron_gn.mrcnn.backbones.classifier import center_crop, crop_blob
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.blobs.classifier import build_classifier, mean_to_subtract, published_error
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config, merge_overrides
from detectron_gn.verify import imagenet
from detectron_gn.verify.imagenet import (
    ImageNetError,
    classify,
    error_table,
    labelled_images,
)
from detectron_gn.weights import write_blobs
from detectron_gn.weights.weights_file import WeightsFile
from tests.helpers.recipe import recipe_blob

CLASSES = 10


@pytest.fixture(scope="module")
def reference(data):
    with h5py.File(data / "imagenet_r50_gn.h5") as file:
        yield {**file.attrs, **{name: dataset[:] for name, dataset in file.items()}}


@pytest.fixture(scope="module")
def cfg(reference):
    return merge_overrides(bundled_config("e2e_mask_rcnn_R-50-FPN_2x_gn"), str(reference["opts"]).split())


@pytest.fixture(scope="module")
def weights(cfg, reference):
    """A narrow R-50-GN.pkl with ten classes."""
    rows = [row for row in BlobTable.from_config(cfg).rows if row.parameter.startswith("backbone.body.")]
    shapes = {row.blob: row.shape for row in rows} | {"pred_w": (CLASSES, 2048), "pred_b": (CLASSES,)}
    blobs = {name: recipe_blob(name, shape, int(reference["seed"])) for name, shape in shapes.items()}
    return WeightsFile(blobs, None, None, "R-50-GN.pkl", "pkl")


@pytest.fixture(scope="module")
def model(weights, cfg):
    return build_classifier(weights, cfg)


def test_logits_are_caffe2s(model, reference, demo_model):
    images = [cv2.imread(str(demo_model / "val" / name.decode())) for name in reference["images"]]
    logits = model(crop_blob(images, model.cfg.PIXEL_MEANS)).detach().numpy()
    difference = np.abs(logits - reference["pred"]).max() / np.abs(reference["pred"]).max()
    assert difference < 1e-3
    assert (logits.argmax(axis=1) == reference["pred"].argmax(axis=1)).all()


def test_the_crop_is_the_middle_of_256_pixels_in_bgr_with_the_mean_removed():
    image = np.zeros((512, 1024, 3), np.uint8)
    image[..., 0] = np.arange(1024) // 4
    crop = center_crop(image, (100.0, 0.5, 0.0))
    assert crop.shape == (224, 224, 3) and crop.dtype == np.float32
    # 512 x 1024 becomes 256 x 512; columns 144 to 367 of those are 288 to 735 of the image.
    assert crop[0, 0].tolist() == [288 // 4 - 100, -0.5, 0]
    assert crop[0, -1, 0] == 734 // 4 - 100


@pytest.fixture
def folders(tmp_path, demo_model):
    """Four images in folders of three classes; `b` has two."""
    images = sorted((demo_model / "val").glob("*.png"))[:4]
    for image, name in zip(images, ["a", "b", "b", "c"]):
        (tmp_path / "val" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "val" / name / image.name).write_bytes(image.read_bytes())
    (tmp_path / "val" / "b" / "readme.txt").write_text("no image")
    return tmp_path / "val"


def test_folders_in_sorted_order_are_the_labels(folders):
    assert [(path.parent.name, label) for path, label in labelled_images(folders, 3)] == [
        ("a", 0), ("b", 1), ("b", 1), ("c", 2),
    ]  # fmt: skip


def test_a_missing_folder_is_refused_since_it_would_shift_the_labels(folders):
    sentence = r"val holds 3 folders, but the model tells 4 classes apart, .*: give one folder a class .* or --list"
    with pytest.raises(InputError, match=sentence):
        labelled_images(folders, 4)
    with pytest.raises(InputError, match="holds 3 folders, but the model tells 2 classes"):
        labelled_images(folders, 2)
    (folders / "aa").mkdir()
    (folders / ".cache").mkdir()
    assert [label for _, label in labelled_images(folders, 4)] == [0, 2, 2, 3]


def test_a_list_file_gives_the_labels(folders):
    path = folders.parent / "val.txt"
    path.write_text("a/000000300000.png 7\n\nc/000000300003.png 0\n")
    assert labelled_images(folders, CLASSES, path) == [
        (folders / "a" / "000000300000.png", 7), (folders / "c" / "000000300003.png", 0),
    ]  # fmt: skip
    path.write_text(f"a/../c/000000300003.png 1\n{folders}/a/000000300000.png 2\n")
    assert [label for _, label in labelled_images(folders, CLASSES, path)] == [1, 2]
    for text, sentence in [
        ("a/000000300000.png", r"val\.txt, line 1: 'a/000000300000\.png' is not `name label`"),
        ("x.png 3", r"val\.txt, line 1: .*x\.png is missing"),
        ("../val.txt 3", r"val\.txt, line 1: '\.\./val\.txt' leads out of .*: give names of images in it"),
        ("/etc/hosts 3", r"val\.txt, line 1: '/etc/hosts' leads out of"),
        ("", r"val\.txt lists no image"),
        ("a/000000300000.png " + "9" * 5000, r"val\.txt, line 1: label 9{20}\.\.\. is beyond the model's 10 classes"),
        ("a/000000300000.png 9\na/000000300000.png 10", r"val\.txt, line 2: label 10 is beyond the model's 10 classes"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=sentence):
            labelled_images(folders, CLASSES, path)


def test_errors_are_counted(model, folders):
    images = [path for path, _ in labelled_images(folders, 3)]
    logits = model(crop_blob([cv2.imread(str(path)) for path in images], model.cfg.PIXEL_MEANS))
    ranks = logits.argsort(dim=1, descending=True)
    # Right at once, right as third and as sixth guess, right at once.
    labels = [int(ranks[0, 0]), int(ranks[1, 2]), int(ranks[2, 5]), int(ranks[3, 0])]
    found = classify(model, list(zip(images, labels)), None, lambda batches, _count: batches, batch=3)
    assert (found.images, found.top1, found.top5) == (4, 50.0, 25.0)


def test_the_published_error_is_found_by_id_and_by_the_files_name():
    assert published_error("47261647") == published_error("some/where/R-50-GN.pkl") == 24.0
    assert published_error("R-101-GN") == 22.6
    assert published_error("mine.pkl") is None
    # An ImageNet backbone, of which no error was published.
    assert published_error("R-50") is published_error("X-101-32x8d.pkl") is None
    with pytest.raises(InputError, match=r"\(e2e_mask_rcnn_R-50-FPN_2x_gn\) is a detector: `verify ap` checks it"):
        published_error("48616381")


def test_half_a_point_is_what_resizing_may_explain():
    assert ImageNetError(50_000, 24.5, 7, 24.0).holds
    assert not ImageNetError(50_000, 24.6, 7, 24.0).holds
    # Three standard errors of 1,000 images are 4.05 points more.
    assert ImageNetError(1_000, 28.5, 7, 24.0).holds
    assert not ImageNetError(1_000, 28.6, 7, 24.0).holds


def test_what_few_images_leave_open_is_said():
    few = ImageNetError(1_000, 25.0, 7, 24.0)
    assert few.document()["sampling_error"] == pytest.approx(4.05, abs=0.01)
    assert "within 4.55 points: 0.5 for the resizing of the crop, and 4.05" in error_table(few)
    assert "there are 1,000 images and not 50,000" in error_table(few)
    assert error_table(ImageNetError(50_000, 24.1, 7, 24.0)).endswith("They agree within 0.50 points.")
    assert "Three standard errors of this number of images are 4." in error_table(
        ImageNetError(1_000, 24.0, 7, None)
    )


def test_too_few_images_hold_nothing_however_near_they_are():
    one = ImageNetError(1, 100.0, 100.0, 24.0)
    assert abs(one.top1 - 24.0) < one.tolerance and not one.holds
    assert error_table(one).endswith(
        "Too few images to tell: three standard errors of 1 image are 128.12 points; give 657 images or more."
    )
    assert one.document()["is_telling"] is False
    # The number that is asked for is the first one that is enough.
    assert not ImageNetError(656, 24.0, 7, 24.0).holds
    assert ImageNetError(657, 24.0, 7, 24.0).holds
    # A difference beyond their sampling error is one, few as they are.
    assert "They do not agree" in error_table(ImageNetError(100, 90.0, 50, 24.0))
    assert not ImageNetError(50_000, 24.0, 7.0, None).holds


def test_a_detector_has_no_classification_head(weights):
    blobs = dict(weights.blobs)
    del blobs["pred_w"]
    with pytest.raises(InputError, match="has no classification head"):
        build_classifier(WeightsFile(blobs, None, None, "x.pkl", "pkl"))
    finetuned = {**weights.blobs, "cls_score_w": np.zeros((81, 1024), np.float32)}
    with pytest.raises(InputError, match="is a detector; its body was trained on"):
        build_classifier(WeightsFile(finetuned, None, None, "x.pkl", "pkl"))


def test_a_body_of_another_depth_is_not_classified_in_part(weights, cfg):
    deeper = {**weights.blobs, "res4_6_branch2a_w": np.zeros(1, np.float32)}
    with pytest.raises(InputError, match="has a body of 53 layers, but the configuration is for R-50: pass --config"):
        build_classifier(WeightsFile(deeper, None, None, "x.pkl", "pkl"), cfg)
    with pytest.raises(InputError, match="has 17 residual blocks, but R-50 has 16 and R-101 has 33: pass --config"):
        build_classifier(WeightsFile(deeper, None, None, "x.pkl", "pkl"))


def test_the_command_ends_in_a_verdict(weights, cfg, folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(imagenet, "VALIDATION_IMAGES", 4)
    monkeypatch.setattr(sys.modules["detectron_gn.port.blobs.classifier"], "bundled_config", lambda name: cfg)
    path = tmp_path / "R-50-GN.pkl"
    write_blobs(path, weights)
    for number in range(CLASSES - 3):
        (folders / f"d{number}").mkdir()
    arguments = ["verify", "imagenet", str(path), "--images", str(folders), "--device", "cpu"]
    assert detectron_gn.main([*arguments, "--json", str(tmp_path / "e.json")]) == 1
    document = json.loads((tmp_path / "e.json").read_text())
    assert document["expected"] == 24.0 and document["images"] == 4 and document["top1"] >= 50
    assert "published" in capsys.readouterr().out


def test_a_narrow_file_is_classified_with_the_configuration_it_is_told_to_pass(
    weights, reference, folders, tmp_path, capsys, monkeypatch
):
    path = tmp_path / "mine.pkl"
    write_blobs(path, weights)
    for number in range(CLASSES - 3):
        (folders / f"d{number}").mkdir()
    arguments = ["verify", "imagenet", str(path), "--images", str(folders), "--device", "cpu"]
    assert detectron_gn.main(arguments) == 2
    assert "pass --config" in capsys.readouterr().err
    overrides = ["--set", *str(reference["opts"]).split()]
    assert detectron_gn.main([*arguments, *overrides]) == 2
    assert "pass --config too" in capsys.readouterr().err
    arguments += ["--config", "e2e_mask_rcnn_R-50-FPN_2x_gn", *overrides]
    monkeypatch.setattr(imagenet, "VALIDATION_IMAGES", 4)
    assert detectron_gn.main([*arguments, "--expect-error", "100"]) == 0
    assert capsys.readouterr().out.endswith("They agree within 0.50 points.\n")


def test_an_error_that_is_compared_with_nothing_is_measured_and_is_no_success(
    weights, reference, folders, tmp_path, capsys
):
    path = tmp_path / "mine.pkl"
    write_blobs(path, weights)
    for number in range(CLASSES - 3):
        (folders / f"d{number}").mkdir()
    arguments = ["verify", "imagenet", str(path), "--images", str(folders), "--device", "cpu"]
    arguments += ["--config", "e2e_mask_rcnn_R-50-FPN_2x_gn", "--set", *str(reference["opts"]).split()]
    assert detectron_gn.main([*arguments, "--json", str(tmp_path / "e.json")]) == 2
    printed = capsys.readouterr()
    assert "measured" in printed.out and "mine.pkl has no published error; pass --expect-error" in printed.err
    assert json.loads((tmp_path / "e.json").read_text())["holds"] is False


def test_the_mean_is_the_one_of_the_bodys_trainer_unless_the_user_says_another(weights, cfg):
    trainers, detectrons = (103.53, 116.28, 123.675), (102.9801, 115.9465, 122.7717)
    head = {name.replace("pred_", "fc1000_"): array for name, array in weights.blobs.items()}
    msra = WeightsFile(head, None, None, "R-50.pkl", "pkl")
    other = merge_overrides(cfg, ["PIXEL_MEANS", "[[[1.0, 2.0, 3.0]]]"])
    assert mean_to_subtract(weights).values == mean_to_subtract(weights, cfg).values == trainers
    assert mean_to_subtract(msra).values == mean_to_subtract(msra, cfg).values == detectrons
    assert mean_to_subtract(weights, other).values == (1.0, 2.0, 3.0)
    assert mean_to_subtract(weights, other, (4.0, 5.0, 6.0)).values == (4.0, 5.0, 6.0)
    # Detectron's own are in every configuration; whoever sets them means them.
    assert mean_to_subtract(weights, cfg, overrides=["PIXEL_MEANS", "..."]).values == detectrons
    told = "subtracted mean 103.53, 116.28, 123.675 (BGR): that of the trainer"
    assert str(mean_to_subtract(weights)).startswith(told)


def test_the_mean_that_is_said_is_the_mean_that_is_subtracted(
    weights, reference, folders, tmp_path, capsys, monkeypatch
):
    path = tmp_path / "mine.pkl"
    write_blobs(path, weights)
    for number in range(CLASSES - 3):
        (folders / f"d{number}").mkdir()
    used = []
    monkeypatch.setattr(imagenet, "crop_blob", lambda images, mean: used.append(mean) or crop_blob(images, mean))
    command = ["verify", "imagenet", str(path), "--images", str(folders), "--device", "cpu", "--json"]
    command += [str(tmp_path / "e.json"), "--config", "e2e_mask_rcnn_R-50-FPN_2x_gn", "--set"]
    command += str(reference["opts"]).split()
    for options, mean in (([], (103.53, 116.28, 123.675)), (["--mean", "1", "2.5", "3"], (1.0, 2.5, 3.0))):
        assert detectron_gn.main([*command, *options]) == 2  # there is no error to compare with
        assert used.pop() == mean and json.loads((tmp_path / "e.json").read_text())["mean"] == list(mean)
        assert f"subtracted mean {mean[0]:g}, {mean[1]:g}, {mean[2]:g} (BGR): " in capsys.readouterr().out
