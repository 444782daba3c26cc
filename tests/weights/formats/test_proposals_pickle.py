"""Detectron's proposals file is read as data, and written so that Detectron reads it."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from detectron_gn.weights.errors import FileError, ForbiddenContent, MalformedFile, OverBudget
from detectron_gn.weights.formats.proposals_pickle import ProposalsPickle, read_proposals, write_proposals

BOXES = [np.array([[0, 0, 9, 9], [1, 2, 3, 4]], np.float32), np.zeros((0, 4), np.float32)]
SCORES = [np.array([0.9, 0.5], np.float32), np.zeros(0, np.float32)]
GOOD = {"boxes": BOXES, "scores": SCORES, "ids": [7, 139], "cfg": "MODEL: {}"}


def stored(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def assert_equal(found, expected):
    assert (list(found.ids), found.cfg) == (expected["ids"], expected["cfg"])
    for ours, theirs in ((found.boxes, expected["boxes"]), (found.scores, expected["scores"])):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, np.asarray(b).reshape(np.shape(a)))


def test_detectrons_own_file_is_read(data):
    found = read_proposals(data / "zoo" / "proposals.pkl")
    expected = pickle.loads((data / "zoo" / "proposals.pkl").read_bytes(), encoding="latin1")
    assert_equal(found, expected)
    assert [len(boxes) for boxes in found.boxes] == [150, 150]


@pytest.mark.parametrize("protocol", range(6))
def test_files_of_every_protocol_are_read(tmp_path, protocol):
    assert_equal(read_proposals(stored(tmp_path / "p.pkl", GOOD, protocol)), GOOD)


def test_older_names_and_numbers_of_numpy_are_read(tmp_path):
    old = {"boxes": BOXES, "scores": [np.float32(0.5).reshape(()), SCORES[1]], "indexes": [np.int64(7), 139]}
    found = read_proposals(stored(tmp_path / "p.pkl", old))
    assert (list(found.ids), found.scores[0].tolist(), found.cfg) == ([7, 139], [0.5], None)


def test_what_is_written_is_read_by_pickle_and_by_us(tmp_path):
    many = [np.full((1, 4), number, np.float32) for number in range(2500)]
    ids = [2**40 if number == 0 else number for number in range(2500)]
    proposals = ProposalsPickle(many, [boxes[0, :1] for boxes in many], ids, "cfg: 1")
    write_proposals(tmp_path / "p.pkl", proposals)
    expected = {"boxes": many, "scores": proposals.scores, "ids": ids, "cfg": "cfg: 1"}
    unpickled = pickle.loads((tmp_path / "p.pkl").read_bytes(), encoding="latin1")
    assert list(unpickled) == ["boxes", "scores", "ids", "cfg"] and unpickled["ids"] == ids
    assert_equal(read_proposals(tmp_path / "p.pkl"), expected)
    # Arrays are named as every numpy since 2006 names them.
    assert b"numpy.core.multiarray" in (tmp_path / "p.pkl").read_bytes()
    write_proposals(tmp_path / "again.pkl", replace(proposals, cfg=None))
    assert read_proposals(tmp_path / "again.pkl").cfg is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"boxes": 3}, "holds a whole number under 'boxes'"),
        ({"ids": None}, "holds None under 'ids'"),
        ({"ids": [7]}, "holds 2 boxes, 2 scores and 1 ids"),
        ({"ids": [7, 7]}, "names an image twice"),
        ({"ids": [7, "a"]}, "'ids' holds a text"),
        ({"boxes": [BOXES[0], "a"]}, "the boxes of image 139 is a text"),
        ({"boxes": [BOXES[0][:, :3], BOXES[1]]}, "the boxes of image 7 are [2, 3], not [R, 4]"),
        ({"boxes": [np.full((1, 4), np.nan), BOXES[1]]}, "the boxes of image 7 hold NaN or infinity"),
    ],
)
def test_another_content_is_told(tmp_path, changes, sentence):
    with pytest.raises(MalformedFile) as error:
        read_proposals(stored(tmp_path / "p.pkl", {**GOOD, **changes}))
    assert sentence in str(error.value)


def test_a_weights_file_is_no_proposals_file(pickle):
    with pytest.raises(MalformedFile, match="holds no 'boxes'"):
        read_proposals(pickle)


class Harmful:
    def __reduce__(self):
        return print, ("harmed",)


def test_nothing_is_called(tmp_path, capsys):
    with pytest.raises(ForbiddenContent):
        read_proposals(stored(tmp_path / "p.pkl", {**GOOD, "cfg": Harmful()}))
    assert capsys.readouterr().out == ""


def shared_by(images):
    boxes = np.tile(np.array([[0, 0, 9, 9]], np.float32), (4000, 1))
    return {"boxes": [boxes] * images, "scores": [boxes[:, 0].copy()] * images, "ids": list(range(images))}


def test_an_array_that_images_share_is_read_and_counted_once(tmp_path):
    content = shared_by(1000)
    found = read_proposals(stored(tmp_path / "p.pkl", content))
    assert_equal(found, {**content, "cfg": None})
    assert all(boxes is found.boxes[0] for boxes in found.boxes)
    assert all(scores is found.scores[0] for scores in found.scores)


def test_shared_arrays_are_over_the_budget_where_their_use_would_take_hours(tmp_path):
    with pytest.raises(OverBudget, match="each for every image that shares it, take 9600000000 bytes"):
        read_proposals(stored(tmp_path / "p.pkl", shared_by(120_000)))


class OfOneText:
    """An array of its own whose bytes other arrays of the file have, too."""

    content = bytes(64_000)

    def __reduce__(self):
        reconstruct, arguments, _ = np.zeros((4000, 4), np.float32).__reduce__()
        return reconstruct, arguments, (1, (4000, 4), np.dtype(np.float32), False, self.content)


def test_arrays_that_share_their_bytes_are_over_the_budget(tmp_path):
    bomb = {"boxes": [OfOneText() for _ in range(1000)], "scores": [SCORES[0]] * 1000, "ids": list(range(1000))}
    with pytest.raises(OverBudget, match="its arrays would take"):
        read_proposals(stored(tmp_path / "p.pkl", bomb))


def test_a_file_that_is_cut_short_is_told(tmp_path, data):
    whole = (data / "zoo" / "proposals.pkl").read_bytes()
    for size in (1, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "p.pkl").write_bytes(whole[:size])
        with pytest.raises(FileError):
            read_proposals(tmp_path / "p.pkl")
