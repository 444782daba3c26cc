"""The roidb is Detectron's: which annotations and images it drops, the classes it counts, the flipped copies."""

import json
from dataclasses import replace

import numpy as np
import pytest

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.data.minibatch import mirror
from detectron_gn.mrcnn.data.objects import clean_boxes
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.data.segms import decode_rle
from detectron_gn.mrcnn.errors import InputError


def config(**train):
    cfg = Config()
    return replace(
        cfg,
        MODEL=replace(cfg.MODEL, NUM_CLASSES=3),
        TRAIN=replace(cfg.TRAIN, **{"USE_FLIPPED": False} | train),
    )


def roidb_of(write_dataset, annotations, images=None, cfg=None):
    return training_roidb(
        [read_dataset(*write_dataset(images or {1: (60, 80)}, annotations))], cfg or config()
    )


def clean(bbox):
    return clean_boxes(np.array([bbox], float), np.array([60]), np.array([80])).tolist()[0]


def test_boxes_are_inclusive_and_clipped_to_the_image():
    assert clean([10, 20, 30, 40]) == [10, 20, 39, 59]
    assert clean([-5, -5, 100, 100]) == [0, 0, 79, 59]


def test_a_box_under_a_pixel_is_one_pixel_and_is_dropped(write_dataset, annotation):
    assert clean([10, 20, 0.5, 40]) == [10, 20, 10, 59]
    with pytest.raises(InputError, match="no image has an object"):
        roidb_of(write_dataset, [annotation(bbox=[10, 20, 0.5, 40])])


@pytest.mark.parametrize("fields", [{"area": 0}, {"ignore": 1}, {"bbox": [90.0, 10.0, 20.0, 20.0]}])
def test_annotations_that_detectron_drops_are_dropped(write_dataset, fields, annotation):
    (entry,) = roidb_of(write_dataset, [annotation(**fields), annotation(category_id=3)])
    assert entry.ground_truth.classes.tolist() == [1]


def test_gt_min_area_drops_smaller_ones(write_dataset, annotation):
    annotations = [annotation(area=99.0), annotation(area=100.0, category_id=3)]
    (entry,) = roidb_of(write_dataset, annotations, cfg=config(GT_MIN_AREA=100))
    assert entry.ground_truth.classes.tolist() == [1]


def test_classes_follow_the_order_of_the_file_and_not_the_ids(write_dataset, annotation):
    file, folder = write_dataset({1: (60, 80)}, [annotation()], categories=((17, "square"), (3, "circle")))
    (entry,) = training_roidb([read_dataset(file, folder)], config())
    assert entry.ground_truth.classes.tolist() == [1]


def test_polygons_of_two_points_are_left_out(write_dataset, annotation):
    two_points = annotation(segmentation=[[1.0, 1.0, 5.0, 5.0], *annotation()["segmentation"]])
    (entry,) = roidb_of(write_dataset, [two_points])
    assert [len(polygon) for polygon in entry.ground_truth.segms[0]] == [8]


def test_images_of_crowds_alone_or_of_nothing_are_filtered_out(write_dataset, annotation):
    crowd = {"counts": [0, 100, 4700], "size": [60, 80]}
    images = {1: (60, 80), 2: (60, 80), 3: (60, 80)}
    annotations = [annotation(image_id=1, iscrowd=1, segmentation=crowd), annotation(image_id=3)]
    (entry,) = roidb_of(write_dataset, annotations, images)
    assert entry.image.name == "3.png"


def test_images_are_in_order_of_id_and_flipped_copies_follow_all_of_them(write_dataset, annotation):
    images = {7: (60, 80), 2: (60, 80)}
    annotations = [annotation(image_id=7), annotation(image_id=2)]
    roidb = roidb_of(write_dataset, annotations, images, config(USE_FLIPPED=True))
    assert [(entry.image.name, entry.flipped) for entry in roidb] == [
        ("2.png", False),
        ("7.png", False),
        ("2.png", True),
        ("7.png", True),
    ]


def test_a_missing_image_stops_before_training_and_is_named(write_dataset, annotation):
    file, folder = write_dataset({1: (60, 80)}, [annotation()])
    (folder / "1.png").unlink()
    with pytest.raises(InputError, match=r"1\.png: no such image file"):
        training_roidb([read_dataset(file, folder)], config())


def test_another_number_of_classes_is_refused_with_the_way_out(write_dataset, annotation):
    file, folder = write_dataset({1: (60, 80)}, [annotation()], categories=((17, "square"),))
    with pytest.raises(InputError, match="--set MODEL.NUM_CLASSES 2"):
        training_roidb([read_dataset(file, folder)], config())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<html>", "is not JSON"),
        ("[]", "holds a JSON list"),
        ('{"images": [], "annotations": []}', "has no 'categories'"),
        ('{"images": {}, "annotations": [], "categories": []}', "must be a list of objects"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', "image 1: has no 'hei"),
    ],
)
def test_a_file_that_is_no_annotation_file_is_named_in_one_sentence(tmp_path, text, message):
    file = tmp_path / "instances.json"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        training_roidb([read_dataset(file, tmp_path)], config())
    assert str(file) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("field", "value"), [("category_id", 99), ("image_id", 99)])
def test_an_annotation_of_nothing_that_is_declared_is_refused(write_dataset, field, value, annotation):
    file, folder = write_dataset({1: (60, 80)}, [annotation(**{field: value})])
    with pytest.raises(InputError, match=f"annotation 1.*: has {field} 99, which '[a-z]*' does not list"):
        training_roidb([read_dataset(file, folder)], config())


def test_ground_truth_is_float32(write_dataset, annotation):
    (entry,) = roidb_of(write_dataset, [annotation(bbox=[10.1, 10.2, 20.3, 20.4])])
    assert entry.ground_truth.boxes.dtype == np.float32


def test_the_doubled_roidb_is_detectrons_with_flipped_polygons_and_crowds(data):
    """`tests/data/train_roidb.json` is what combined_roidb_for_training made of tests/data/train_images."""
    cfg = config(USE_FLIPPED=True)
    cfg = replace(cfg, MODEL=replace(cfg.MODEL, NUM_CLASSES=5))
    roidb = training_roidb([read_dataset(data / "train_images.json", data / "train_images")], cfg)
    expected = json.loads((data / "train_roidb.json").read_text())
    assert len(roidb) == len(expected) == 24
    for entry, theirs in zip(roidb, expected):
        objects = mirror(entry.ground_truth, entry.width) if entry.flipped else entry.ground_truth
        assert (entry.image.name, entry.flipped) == (theirs["image"], theirs["flipped"])
        np.testing.assert_array_equal(objects.boxes, np.array(theirs["boxes"], np.float32))
        assert objects.classes.tolist() == theirs["classes"] and objects.is_crowd.tolist() == theirs["crowd"]
        for segm, their_segm in zip(objects.segms, theirs["segms"], strict=True):
            if isinstance(their_segm, dict):
                np.testing.assert_array_equal(decode_rle(segm), decode_rle(their_segm))
            else:
                np.testing.assert_array_equal(np.concatenate(segm), their_segm)
