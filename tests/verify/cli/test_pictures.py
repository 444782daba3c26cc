"""Damaged, turned and ill-named pictures of a data set: `check-data`, `test` and `train` say the same of them."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from detectron_gn.mrcnn.data.coco import CocoDataset, read_dataset
from detectron_gn.mrcnn.data.read_image import ImageReading
from detectron_gn.mrcnn.errors import InputError
from tests.helpers.command_line import Run
from tests.helpers.pictures import encoded, jpeg_with_orientation, png_that_declares
from tests.helpers.small_run import DATA, config
from tests.helpers.small_run import run as train

# A run of four images, each with its flipped copy among the minibatches.
SHORT = config("SOLVER.MAX_ITER", "3", "SOLVER.STEPS", "[0]", "TRAIN.SNAPSHOT_ITERS", "3")


@pytest.fixture
def two_images(demo_model: Path, tmp_path: Path) -> tuple[Path, Path, dict[int, np.ndarray]]:
    """An annotation file of two of the demo's images, a folder for them, and their pixels."""
    document = json.loads((demo_model / "instances_val.json").read_text())
    document["images"] = document["images"][:2]
    pixels = {each["id"]: cv2.imread(str(demo_model / "val" / each["file_name"])) for each in document["images"]}
    document["annotations"] = [row for row in document["annotations"] if row["image_id"] in pixels]
    for image in document["images"]:
        image["file_name"] = f"{image['id']}.jpg"
    folder = tmp_path / "images"
    folder.mkdir()
    for image_id, image in pixels.items():
        (folder / f"{image_id}.jpg").write_bytes(encoded(".jpg", image))
    annotations = tmp_path / "two.json"
    annotations.write_text(json.dumps(document))
    return annotations, folder, pixels


def assert_refused(result: tuple[int, str, str], *parts: str) -> None:
    """Exit code 2, and a last sentence with these parts, after the bar that shows the progress."""
    code, _, errors = result
    assert code == 2 and errors.splitlines()[-1].startswith("detectron-gn: error: ")
    for part in parts:
        assert part in errors.splitlines()[-1]


def test_a_truncated_jpeg_is_an_error_of_test_and_check_data(
    two_images: tuple[Path, Path, dict[int, np.ndarray]], run: Run, pickle: Path, tmp_path: Path
) -> None:
    annotations, folder, _ = two_images
    last = max(folder.iterdir())
    last.write_bytes(last.read_bytes()[:-100])
    data = ["--annotations", annotations, "--images", folder]
    assert_refused(run("test", pickle, *data, "--out", tmp_path / "out"), f"{last} cannot be", "ends early")
    code, printed, _ = run("check-data", *data)
    assert code == 1 and f"error: {last.name}: {last} ends early" in printed
    # Whole again, the same command goes on with what was found.
    last.write_bytes(last.read_bytes() + b"\xff\xd9")
    assert run("test", pickle, *data, "--out", tmp_path / "out")[0] == 0


def test_a_turned_photo_is_an_error_everywhere_and_exif_ignore_takes_it_as_annotated(
    two_images: tuple[Path, Path, dict[int, np.ndarray]], run: Run, pickle: Path, tmp_path: Path
) -> None:
    annotations, folder, pixels = two_images
    data = ["--annotations", annotations, "--images", folder]
    assert run("test", pickle, *data, "--out", tmp_path / "upright")[0] == 0
    for image_id, image in pixels.items():
        (folder / f"{image_id}.jpg").write_bytes(jpeg_with_orientation(image, 6))
    told = ("its EXIF orientation 6 turns it by a quarter", "pass --exif ignore")
    assert_refused(run("test", pickle, *data, "--out", tmp_path / "out"), *told)
    code, printed, _ = run("check-data", *data)
    assert code == 1 and printed.count(told[0]) == 2
    # The way out, to the letter: nothing of the first try is in its way.
    assert run("test", pickle, *data, "--out", tmp_path / "stored", "--exif", "ignore")[0] == 0
    code, printed, _ = run("check-data", *data, "--exif", "ignore")
    assert code == 0 and "has the EXIF orientation 6: it is not turned, as --exif says" in printed
    for name in ("bbox.json", "segm.json"):
        assert (tmp_path / "stored" / name).read_bytes() == (tmp_path / "upright" / name).read_bytes()


def test_partial_results_are_of_one_way_to_treat_exif(
    two_images: tuple[Path, Path, dict[int, np.ndarray]], run: Run, pickle: Path, tmp_path: Path
) -> None:
    annotations, folder, _ = two_images
    last = max(folder.iterdir())
    whole = last.read_bytes()
    last.write_bytes(b"")
    command = ["test", pickle, "--annotations", annotations, "--images", folder, "--out", tmp_path / "out"]
    assert_refused(run(*command), "the file is empty")
    last.write_bytes(whole)
    assert_refused(run(*command, "--exif", "ignore"), "partial results of a run with another exif (apply)")
    assert run(*command)[0] == 0


def test_names_that_are_no_utf8_are_evaluated_and_checked(
    two_images: tuple[Path, Path, dict[int, np.ndarray]], run: Run, pickle: Path, tmp_path: Path
) -> None:
    annotations, folder, _ = two_images
    document = json.loads(annotations.read_text())
    for image in document["images"]:
        old, image["file_name"] = image["file_name"], os.fsdecode(f"{image['id']}_".encode() + b"caf\xe9.jpg")
        (folder / old).rename(folder / image["file_name"])
    annotations.write_text(json.dumps(document))
    data = ["--annotations", annotations, "--images", folder]
    code, printed, _ = run("verify", "ap", pickle, *data, "--out", tmp_path / "out", "--expect-box", "90")
    assert code in (0, 1) and r"caf\udce9.jpg" in printed
    assert r"caf\udce9.jpg" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert run("check-data", *data)[0] == 0
    (folder / document["images"][1]["file_name"]).write_bytes(b"")
    assert_refused(run("test", pickle, *data, "--out", tmp_path / "again"), r"caf\udce9.jpg", "is empty")


def test_the_limit_on_pixels_is_one_option_of_every_command(
    two_images: tuple[Path, Path, dict[int, np.ndarray]], run: Run, pickle: Path, tmp_path: Path
) -> None:
    annotations, folder, _ = two_images
    data = ["--annotations", annotations, "--images", folder]
    assert_refused(run("test", pickle, *data, "--out", tmp_path / "o", "--max-pixels", "99"), "limit of 99")
    code, printed, _ = run("check-data", *data, "--max-pixels", "99")
    assert code == 1 and printed.count("limit of 99") == 2
    max(folder.iterdir()).write_bytes(png_that_declares(60000, 60000))
    assert_refused(run("test", pickle, *data, "--out", tmp_path / "p"), "60000 x 60000 pixels")
    for command in ("detect", "train", "verify ap", "verify all", "verify blobs", "verify training", "verify imagenet"):
        code, printed, _ = run(*command.split(), "--help")
        assert code == 0 and "--max-pixels N" in printed and "--exif {apply,ignore}" in printed


def damaged_data(folder: Path, change: Callable[[np.ndarray], bytes]) -> CocoDataset:
    """The small training set with every image as a JPEG that `change` makes of its pixels."""
    content = json.loads((DATA / "train_images.json").read_text())
    for image in content["images"]:
        pixels = cv2.imread(str(DATA / "train_images" / image["file_name"]))
        image["file_name"] = f"{Path(image['file_name']).stem}.jpg"
        (folder / image["file_name"]).write_bytes(change(pixels))
    (folder / "annotations.json").write_text(json.dumps(content))
    return read_dataset(folder / "annotations.json", folder)


@pytest.mark.slow
def test_training_on_truncated_jpegs_names_each_once(tmp_path: Path) -> None:
    data = damaged_data(tmp_path, lambda pixels: encoded(".jpg", pixels)[:-300])
    lines: list[str] = []
    train(tmp_path / "run", SHORT, data=data, lines=lines)
    told = [line for line in lines if "ends early: it is trained on as Detectron does" in line]
    assert len(told) == len(set(told)) > 2 and all(line.startswith(str(tmp_path)) for line in told)


def test_training_refuses_a_turned_photo_and_the_advice_works_to_the_letter(tmp_path: Path) -> None:
    (tmp_path / "turned").mkdir()
    data = damaged_data(tmp_path / "turned", lambda pixels: jpeg_with_orientation(pixels, 6))
    with pytest.raises(InputError, match=r"EXIF orientation 6 .* pass --exif ignore, .* --resume goes on, from"):
        train(tmp_path / "run", SHORT, data=data)
    assert train(tmp_path / "run", SHORT, data=data, resume=True, reading=ImageReading(exif="ignore")) is not None


def test_training_refuses_a_picture_of_another_size(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    data = damaged_data(tmp_path / "small", lambda pixels: encoded(".jpg", pixels[::2, ::2]))
    with pytest.raises(InputError, match=r"\(height x width\): it is another picture, or another size of it"):
        train(tmp_path / "run", SHORT, data=data)
