"""Detections in hand: indexed, filtered, iterated, sorted, named, as tensors, as COCO rows, drawn."""

import cv2
import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.structures import Detections, Features, Proposals
from detectron_gn.port.runs.load import load_model


@pytest.fixture(scope="module")
def image(demo_model):
    return cv2.imread(str(sorted((demo_model / "val").iterdir())[0]))


@pytest.fixture(scope="module")
def found(pickle, image):
    return load_model(pickle, device="cpu", classes=["circle", "square", "triangle", "star"]).detect(image)


def empty():
    return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), (10, 20))


def test_a_number_gives_one_and_a_slice_some(found):
    first, last = found[0], found[-1]
    assert first.box.tolist() == found.boxes[0].tolist() and first.score == float(found.scores[0])
    assert (first.label, first.name) == (int(found.classes[0]), found.names[0])
    np.testing.assert_array_equal(last.mask_probs, found.mask_probs[-1])
    assert first.keypoints is None
    for part in (found[:2], found[[0, 1]], found[np.array([0, 1])], found[np.arange(len(found)) < 2]):
        assert isinstance(part, Detections) and part.scores.tolist() == found.scores[:2].tolist()
        assert part.names == found.names[:2] and len(part.mask_probs) == 2
    with pytest.raises(IndexError, match=f"no detection {len(found)} among {len(found)}"):
        found[len(found)]


def test_they_are_iterated_filtered_and_sorted(found):
    assert [one.score for one in found] == [float(score) for score in found.scores]
    assert all(one.score >= 0.6 for one in found.above(0.6)) and len(found.above(2.0)) == 0
    name = found.names[0]
    assert set(found.of_class(name).names) == {name}
    assert found.of_class(int(found.classes[0])).scores.tolist() == found.of_class(name).scores.tolist()
    assert found.by_score().scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    with pytest.raises(InputError, match="no class is called 'dog': circle, square"):
        found.of_class("dog")
    with pytest.raises(InputError, match="one by one"):
        found.of_class(["circle", "square"])
    with pytest.raises(InputError, match="'0.5' is no score"):
        found.above("0.5")


def test_another_image_than_theirs_is_not_drawn(found):
    height, width = found.image_size
    with pytest.raises(InputError, match=f"has 9 x 9 pixels, and these detections are of one of {height} x {width}"):
        found.plot(np.zeros((9, 9, 3), np.uint8))


def test_what_is_shown_is_short(found):
    box = ", ".join(f"{corner:.1f}" for corner in found.boxes[0])
    assert repr(found[0]) == f"<{found[0].name} {found[0].score:.2f} at ({box}), mask_probs [28, 28]>"
    assert repr(next(found.patches())).startswith("<mask of [")
    maps = [torch.zeros(1, 4, 2, 3), torch.zeros(1, 4, 1, 2)]
    assert repr(Features(maps, (8, 16))) == "<features [1, 4, 2, 3] of stride 8, [1, 4, 1, 2] of stride 16>"
    assert repr(Proposals(torch.zeros(1, 5), torch.zeros(1))) == "<1 proposal>"
    many = found.at(-np.arange(1, 13) % len(found))
    head, columns, *rows = str(many).splitlines()
    assert head.startswith("<12 detections in ") and columns.split() == ["name", "score", "x1", "y1", "x2", "y2"]
    assert len(rows) == 11 and rows[-1] == "the 10 best of 12" and len(max(rows, key=len)) < 60
    # The best are shown, with their places in what is printed, of which the first is none of the best.
    shown = [row.split()[:3] for row in rows[:-1]]
    assert int(many.scores.argmax()) > 0
    assert [score for _, _, score in shown] == [f"{score:.3f}" for score in sorted(many.scores, reverse=True)[:10]]
    assert all([name, score] == [many[int(k)].name, f"{many[int(k)].score:.3f}"] for k, name, score in shown)
    assert str(empty()) == repr(empty())
    assert repr(found).startswith(f"<{len(found)} detections in ") and found.names[0] in repr(found)
    assert len(repr(found)) < 120 and repr(empty()) == "<0 detections in 10 x 20 pixels>"
    nameless = Detections(found.boxes, found.scores, found.classes, found.image_size)
    assert nameless.names[0] == f"class {found.classes[0]}"


def test_tensors_share_the_memory_of_the_arrays(found):
    tensors = found.tensors()
    assert list(tensors) == ["boxes", "scores", "labels", "masks"]
    assert tensors["boxes"].data_ptr() == found.boxes.ctypes.data
    assert tensors["masks"].dtype == torch.bool and tensors["masks"].shape[1:] == found.image_size


def test_coco_rows_are_those_of_result_files(found):
    rows = found.to_coco(7, [3, 17, 44, 62])
    assert len(rows) == len(found) and set(rows[0]) == {"image_id", "category_id", "bbox", "score", "segmentation"}
    assert rows[0]["category_id"] == [3, 17, 44, 62][found.classes[0] - 1]
    assert found.to_coco(7)[0]["category_id"] == found.classes[0]
    assert empty().to_coco(1) == []


def test_a_plot_is_a_picture(found, image):
    before = image.copy()
    picture = found.plot(image, min_score=0.3)
    np.testing.assert_array_equal(image, before)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and picture.shape[0] % image.shape[0] == 0
    assert found[:0].plot(image).shape == picture.shape
