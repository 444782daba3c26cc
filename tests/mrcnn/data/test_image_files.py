"""One lookup finds the images of annotations, for training, `check-data` and evaluation alike."""

import json
import shutil

import pytest
from pycocotools.coco import COCO

import detectron_gn
from detectron_gn.mrcnn.data.check import check_dataset
from detectron_gn.mrcnn.data.coco import read_annotations, read_dataset
from detectron_gn.mrcnn.data.image_files import ImageFolder, image_files
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.errors import InputError
from tests.helpers.small_run import DATA, config, config_file

NAMINGS = {
    "flat": lambda image: image["file_name"],
    "nested": lambda image: f"part{image['id'] % 2}/{image['file_name']}",
    "2017": lambda image: f"{image['id']:012d}.jpg",
    "2014": lambda image: f"val/COCO_val2014_{image['id']:012d}.jpg",
    "2014 training": lambda image: f"COCO_train2014_{image['id']:012d}.jpg",
}


@pytest.fixture(params=NAMINGS)
def folder(request, tmp_path):
    """The images of the small data set under another naming."""
    images = json.loads((DATA / "train_images.json").read_text())["images"]
    for image in images:
        path = tmp_path / "images" / NAMINGS[request.param](image)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(DATA / "train_images" / image["file_name"], path)
    return tmp_path / "images"


def contents(paths):
    return [path.read_bytes() for path in paths]


def test_training_and_evaluation_find_the_same_files(folder):
    annotations = DATA / "train_images.json"
    evaluated = image_files(read_annotations(annotations), folder)
    dataset = read_dataset(annotations, folder)
    assert [folder / name for name in dataset.image_names()] == [evaluated[image.id] for image in dataset.images]
    plain = training_roidb([read_dataset(annotations, DATA / "train_images")], config())
    found = training_roidb([dataset], config())
    assert contents(entry.image for entry in found) == contents(entry.image for entry in plain)


def test_check_data_finds_them_too(folder, capsys):
    arguments = ["check-data", "--annotations", str(DATA / "train_images.json"), "--images", str(folder)]
    assert detectron_gn.main(arguments) == 0
    assert "no such image file" not in capsys.readouterr().out


@pytest.mark.slow
def test_train_runs_on_them(folder, tmp_path):
    start = ["train", "--config", str(config_file(tmp_path, "SOLVER.MAX_ITER", "1")), "--workers", "0"]
    data = ["--annotations", str(DATA / "train_images.json"), "--images", str(folder)]
    assert detectron_gn.main([*start, *data, "--out", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize("name", ["../outside.png", "/outside.png", "below/../../outside.png"])
def test_a_name_never_leads_out_of_the_folder(name, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (tmp_path / "outside.png").write_bytes(b"x")
    assert ImageFolder(folder, [name]).find("a", name) is None
    # Its last part is looked for in the folder.
    (folder / "outside.png").write_bytes(b"y")
    assert ImageFolder(folder, [name]).find("a", name) == folder / "outside.png"


@pytest.mark.parametrize(
    ("file_name", "found"),
    [
        ("sub/deep/1.png", "sub/deep/1.png"),
        ("./sub/deep/1.png", "sub/deep/1.png"),
        ("deep/1.png", "sub/deep/1.png"),
        (r"sub\deep\1.png", "sub/deep/1.png"),
        (r"C:\data\sub\deep\1.png", "sub/deep/1.png"),
        (r"\\server\share\sub\deep\1.png", "sub/deep/1.png"),
        ("/home/someone/sub/deep/1.png", "sub/deep/1.png"),
        ("../elsewhere/sub/deep/1.png", "sub/deep/1.png"),
        ("sub/other/../deep/1.png", "sub/deep/1.png"),
        ("http://images.example.org/sub/deep/1.png", "sub/deep/1.png"),
        ("https://example.org/sub/deep/1.png?size=full#top", "sub/deep/1.png"),
        ("https://example.org/a%20b.png", "a b.png"),
        ("file:///data/a%20b.png", "a b.png"),
        ("A B.PNG", "a b.png"),
        ("SUB/Deep/1.PNG", "sub/deep/1.png"),
        ("caf\u00e9.png", "cafe\u0301.png"),
        ("CAFE\u0301.png", "cafe\u0301.png"),
        ("na\u00efve.jpg", "nai\u0308ve.JPG"),
        ("x" * 300 + ".png", None),
        ("http://[::1", None),
        ("", None),
        ("..", None),
        ("sub", None),
        ("1.jpg", None),
    ],
)
def test_a_name_is_found_however_it_is_written(file_name, found, tmp_path):
    for name in ("sub/deep/1.png", "a b.png", "cafe\u0301.png", "nai\u0308ve.JPG", "sub/deep/2.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "1.jpg").write_text("outside")
    folder = ImageFolder(tmp_path / "images", [file_name])
    assert folder.find("a", file_name) == (None if found is None else tmp_path / "images" / found)


def test_an_exact_name_comes_before_one_that_is_alike(tmp_path):
    for name in ("1.JPG", "1.jpg", "b/2.jpg", "c/2.JPG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    names = ["1.JPG", "1.jpg", "x/2.jpg", "y/2.JPG"]
    folder = ImageFolder(tmp_path, names)
    assert [folder.find("a", name).relative_to(tmp_path).as_posix() for name in names] == [
        "1.JPG", "1.jpg", "b/2.jpg", "c/2.JPG",
    ]  # fmt: skip


@pytest.mark.parametrize("file_name", ["x" * 300 + ".png", "../1/", "1.png/2.png", "http://[::1", "~/1.tif"])
def test_a_name_that_no_file_has_is_refused_by_every_command(write_dataset, annotation, file_name):
    file, images = write_dataset({1: (40, 40)}, [annotation()])
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = file_name
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"is not in .*images"):
        image_files(read_annotations(file), images)
    with pytest.raises(InputError, match="no such image file"):
        training_roidb([read_dataset(file, images)], config("MODEL.NUM_CLASSES", "3"))
    report = check_dataset(read_dataset(file, images), config("MODEL.NUM_CLASSES", "3"))
    assert any("no such image file" in error.text for error in report.errors)


def test_two_names_that_lead_to_one_file_are_refused(write_dataset, annotation):
    file, images = write_dataset({1: (40, 40), 2: (40, 40)}, [annotation(), annotation(image_id=2)])
    content = json.loads(file.read_text())
    for record, name in zip(content["images"], ("/a/1.png", "/b/1.png"), strict=True):
        record["file_name"] = name
    file.write_text(json.dumps(content))
    sentence = r"1\.png is what both '/a/1\.png' and '/b/1\.png' of the annotations lead to"
    with pytest.raises(InputError, match=sentence):
        image_files(read_annotations(file), images)
    with pytest.raises(InputError, match=sentence):
        training_roidb([read_dataset(file, images)], config("MODEL.NUM_CLASSES", "3"))
    report = check_dataset(read_dataset(file, images), config("MODEL.NUM_CLASSES", "3"))
    assert any("lead to" in error.text for error in report.errors)


def test_an_image_without_any_name_is_told(tmp_path):
    coco = COCO()
    coco.imgs = {"a": {"id": "a"}}
    with pytest.raises(InputError, match=r"image a \(.*\) is not in"):
        image_files(coco, tmp_path)


def test_a_missing_image_is_not_taken_from_another_image(write_dataset, annotation, tmp_path):
    """Both end in `1.png`, and only that of b is there: to train a on it would be silently wrong."""
    file, images = write_dataset({1: (40, 40), 2: (40, 40)}, [annotation(), annotation(image_id=2)])
    (images / "b").mkdir()
    (images / "2.png").rename(images / "b" / "1.png")
    (images / "1.png").unlink()
    content = json.loads(file.read_text())
    for record, name in zip(content["images"], ("a/1.png", "b/1.png"), strict=True):
        record["file_name"] = name
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"image 1 \(a/1\.png\) is not in"):
        image_files(read_annotations(file), images)
    with pytest.raises(InputError, match=r"images/a/1\.png: no such image file, but .*instances\.json lists it"):
        training_roidb([read_dataset(file, images)], config("MODEL.NUM_CLASSES", "3"))
    # Where b is another folder's name for no image of the annotations, its file may be it.
    content["images"][1]["file_name"] = "c/2.png"
    (images / "c").mkdir()
    (images / "c" / "2.png").write_bytes((images / "b" / "1.png").read_bytes())
    file.write_text(json.dumps(content))
    assert image_files(read_annotations(file), images)[1] == images / "b" / "1.png"


def test_several_files_of_one_name_are_told(tmp_path):
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "a.png").write_bytes(b"equal")
    assert ImageFolder(tmp_path, ["a.png"]).find(1, "a.png") == tmp_path / "0" / "a.png"
    (tmp_path / "1" / "a.png").write_bytes(b"different")
    with pytest.raises(InputError, match="which are different files"):
        ImageFolder(tmp_path, ["a.png"]).find(1, "a.png")
