"""Annotation files that are broken: each refused in one sentence before a run begins."""

import json

import pytest

from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.data.annotations.reader import read_instances
from detectron_gn.mrcnn.data.check import check_dataset
from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.errors import InputError

NAN, INF = float("nan"), float("inf")
TRIANGLE = [10.0, 10.0, 30.0, 10.0, 30.0, 30.0]


def refusal(file, folder):
    with pytest.raises(InputError) as error:
        training_roidb([read_dataset(file, folder)], with_values(Config(), {"MODEL.NUM_CLASSES": 3}))
    sentence = str(error.value)
    assert str(file) in sentence and "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"bbox": [NAN, 1, 20, 20]}, "bbox holds nan, which is not finite"),
        ({"bbox": [1, 1, INF, 20]}, "bbox holds inf"),
        ({"bbox": [1, 1, 10**400, 20]}, "which is not finite or too large"),
        ({"bbox": [None, 1, 20, 20]}, "bbox holds None, which is not a number"),
        ({"bbox": ["1", "1", "20", "20"]}, "bbox holds '1', which is not a number"),
        ({"bbox": [1, 1, 20]}, "bbox has 3 numbers"),
        ({"bbox": {"x": 1}}, "bbox is not a list"),
        ({"area": NAN}, "area holds nan"),
        ({"area": "big"}, "area holds 'big', which is not a number"),
        ({"iscrowd": "yes"}, "iscrowd is 'yes' instead of 0 or 1"),
        ({"segmentation": [[1, 1, NAN, 5, 20, 20]]}, "segmentation holds a coordinate that is not finite"),
        ({"segmentation": [TRIANGLE, [1, 1, 1e30, 5, 20, 20]]}, "segmentation holds a coordinate"),
        ({"segmentation": [["a", 1, 5, 5, 20, 20]]}, "segmentation holds what is no number"),
        ({"segmentation": [[1, 2, [3], 4, 5, 6]]}, "segmentation holds what is no number"),
        ({"segmentation": [[[[1, 1], [5, 5], [9, 9]], [[2, 2], [3, 2], [3, 3]]]]}, "rings within a polygon"),
        ({"segmentation": [TRIANGLE, [*TRIANGLE, 7]]}, "a polygon of 7 numbers: x and y come in pairs"),
        ({"segmentation": "none"}, "neither a list of polygons nor a run-length encoding"),
        ({"segmentation": {"counts": "zzz!!", "size": [60, 80]}}, "do not make up 60 x 80 pixels"),
        ({"segmentation": {"counts": [5, 5], "size": [60, 80]}}, "do not make up 60 x 80 pixels"),
        ({"segmentation": {"counts": [-200, 5000], "size": [60, 80]}}, "do not make up 60 x 80 pixels"),
        ({"segmentation": {"counts": None, "size": [60, 80]}}, "do not make up 60 x 80 pixels"),
        ({"segmentation": {"counts": [100], "size": [10, 10]}}, "has the size [10, 10], but the image is 60 x 80"),
    ],
)
def test_an_annotation_that_is_broken_is_named_with_what_is_wrong(write_dataset, annotation, fields, words):
    sentence = refusal(*write_dataset({1: (60, 80)}, [annotation(), annotation(**fields)]))
    assert "annotation 2 of 1.png" in sentence and words in sentence and "check-data" in sentence


@pytest.mark.parametrize("height", [0, -5, "60", 60.5, [60], True, 10**9])
def test_an_image_without_a_size_is_named(write_dataset, annotation, height):
    file, folder = write_dataset({1: (60, 80)}, [annotation()])
    content = json.loads(file.read_text())
    content["images"][0]["height"] = height
    file.write_text(json.dumps(content))
    assert f"1.png: height {height!r} and width 80 are no size" in refusal(file, folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["images"][0].update(file_name=5), "'file_name' is 5, no text that names a file"),
        (lambda c: c["images"][0].update(id=[1]), "1.png: id is [1], which is no whole number"),
        (lambda c: c["images"][0].update(id="a"), "1.png: id is 'a', a text: COCO's ids are whole numbers"),
        (lambda c: c["annotations"][0].update(category_id=[3]), "annotation 1 of 2.png: category_id is [3], which"),
        (lambda c: c["annotations"][0].update(image_id=None), "annotation 1: has no 'image_id'"),
        (lambda c: c.update(annotations=[]), "no image has an object to train on"),
        (lambda c: c.update(images=[], annotations=[]), "no image has an object to train on"),
    ],
)
def test_records_of_another_shape_are_named(write_dataset, annotation, change, words):
    file, folder = write_dataset({1: (60, 80), 2: (60, 80)}, [annotation(image_id=2)])
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    assert words in refusal(file, folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(categories=[], annotations=[]), "'categories' is empty: list what the annotations'"),
        (lambda c: c["categories"][0].update(id=17), "category 17: the id is there 2 times in 'categories'"),
        (lambda c: c["categories"][0].update(name="square"), "category square: the name is there 2 times"),
        (lambda c: c["categories"][0].update(name="__background__"), "category __background__: is the name of what"),
        (lambda c: c["annotations"][0].update(id=2), "annotation 2: the id is there 2 times"),
    ],
)
def test_what_check_data_calls_an_error_of_the_file_stops_training_too(write_dataset, annotation, change, words):
    file, folder = write_dataset({1: (60, 80)}, [annotation(), annotation()])
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    assert words in refusal(file, folder)
    report = check_dataset(read_dataset(file, folder), with_values(Config(), {"MODEL.NUM_CLASSES": 3}))
    assert any(words in str(error) for error in report.errors)


def test_run_lengths_that_fit_are_taken_in_both_codings(write_dataset, annotation):
    crowds = [{"counts": [0, 2400, 2400], "size": [60, 80]}, {"counts": "0P[2P[2", "size": [60, 80]}]
    annotations = [annotation(), *(annotation(iscrowd=1, segmentation=crowd) for crowd in crowds)]
    file, folder = write_dataset({1: (60, 80)}, annotations)
    cfg = with_values(Config(), {"MODEL.NUM_CLASSES": 3, "TRAIN.USE_FLIPPED": False})
    (entry,) = training_roidb([read_dataset(file, folder)], cfg)
    assert entry.ground_truth.is_crowd.tolist() == [False, True, True]


def test_boxes_and_outlines_that_are_both_shares_are_told_as_shares(tmp_path):
    rows = [
        {
            "id": n, "image_id": 1, "category_id": 1, "area": 0.01, "bbox": [0.1, 0.2, 0.3, 0.4],
            "segmentation": [[0.1, 0.2, 0.4, 0.2, 0.4, 0.6]],
        }
        for n in range(1, 5)
    ]  # fmt: skip
    images = [{"id": 1, "file_name": "a.jpg", "width": 60, "height": 40}]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": [{"id": 1, "name": "a"}]}))
    faults = map(str, read_instances(path).faults)
    assert any("seem to be shares of the image's width and height" in fault for fault in faults)
