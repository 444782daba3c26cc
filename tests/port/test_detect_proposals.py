"""`detect` with a model on proposals: whose proposals an image is given."""

import json
import shutil
from pathlib import Path

import pytest

from detectron_gn.mrcnn.data.image_files import id_in_name
from detectron_gn.weights.formats.proposals_pickle import ProposalsPickle, read_proposals, write_proposals
from tests.helpers.command_line import Run, assert_one_sentence
from tests.helpers.zoo_reference import ZooFiles, zoo_files

NO_ID = "its proposals are found by the image's id, and its name has none"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ZooFiles:
    reference = Path(__file__).parents[1] / "data" / "zoo" / "fast_fpn.h5"
    return zoo_files(reference, tmp_path_factory.mktemp("fast"))


@pytest.fixture
def photo(demo_model: Path) -> Path:
    """The image that the proposals are of."""
    return demo_model / "val" / "000000300000.png"


def renumbered(files: ZooFiles, path: Path, *ids: int) -> Path:
    """The same proposals as those of other images."""
    assert files.proposals is not None
    held = read_proposals(files.proposals)
    boxes, scores = [held.boxes[0]] * len(ids), [held.scores[0]] * len(ids)
    write_proposals(path, ProposalsPickle(boxes, scores, list(ids), None))
    return path


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("COCO_val2014_000000000139.jpg", 139), ("a/b_1/000000000139.jpg", 139), ("7.png", 7), ("dog_2.x.png", None),
        ("dog.jpg", None), ("139_dog.jpg", None), ("dog_.jpg", None), ("-5.jpg", None), ("dog_\u0661.jpg", None),
    ],
)  # fmt: skip
def test_the_id_in_a_name_is_what_follows_the_last_underscore(name: str, image_id: int | None) -> None:
    assert id_in_name(name) == id_in_name(Path(name)) == image_id


def test_a_name_without_an_id_is_left_out_and_the_ids_of_the_others_stay(
    files: ZooFiles, photo: Path, tmp_path: Path, run: Run
) -> None:
    # Places 1, 2 and 3 are ids of the file too, of which no image of the command is.
    proposals = renumbered(files, tmp_path / "p.pkl", 1, 2, 3, 300000)
    dog, out = shutil.copy(photo, tmp_path / "dog.png"), tmp_path / "out"
    alone = tmp_path / "alone"
    assert run("detect", files.pickle, photo, "--proposals", proposals, "--out", alone)[0] == 0
    code, _, errors = run("detect", files.pickle, dog, photo, "--proposals", proposals, "--out", out)
    assert code == 2 and f"{dog}: {NO_ID}" in errors and "1 of 2 images failed" in errors
    assert (out / "detections.json").read_bytes() == (alone / "detections.json").read_bytes()
    rows = json.loads((out / "detections.json").read_text())
    assert rows and {row["image_id"] for row in rows} == {300000}
    assert not (out / f"{dog.name}_detections.png").exists()


def test_an_image_alone_whose_name_has_no_id_is_refused(
    files: ZooFiles, photo: Path, tmp_path: Path, run: Run
) -> None:
    proposals = renumbered(files, tmp_path / "p.pkl", 1)
    dog = shutil.copy(photo, tmp_path / "dog.png")
    result = run("detect", files.pickle, dog, "--proposals", proposals, "--out", tmp_path / "out", "--quiet")
    assert_one_sentence(result, NO_ID, "COCO_val2014_000000000139.jpg")


def test_two_images_of_one_id_are_both_left_out_and_one_that_is_named_twice_is_not(
    files: ZooFiles, photo: Path, tmp_path: Path, run: Run
) -> None:
    proposals = renumbered(files, tmp_path / "p.pkl", 1, 2, 3, 7, 300000)
    pair = [shutil.copy(photo, tmp_path / name) for name in ("a_7.png", "b_7.png")]
    code, _, errors = run(
        "detect", files.pickle, *pair, photo, photo, "--proposals", proposals, "--out", tmp_path / "out"
    )
    assert code == 2 and errors.count("its name has the id 7, and so has that of another image") == 2
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {row["image_id"] for row in rows} == {300000} and len(rows) % 2 == 0


def test_without_proposals_images_are_numbered_as_before(
    pickle: Path, photo: Path, tmp_path: Path, run: Run
) -> None:
    dog = shutil.copy(photo, tmp_path / "dog.png")
    assert run("detect", pickle, dog, photo, "--out", tmp_path / "out")[0] == 0
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {row["image_id"] for row in rows} == {1, 2}
