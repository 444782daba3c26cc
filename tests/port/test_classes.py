"""Who says what the classes of a file are called: the file, its run, the catalog, its configuration, or nobody."""

import json
from dataclasses import replace

import numpy as np
import pytest

from detectron_gn.mrcnn.data.categories import Categories
from detectron_gn.mrcnn.data.coco_names import COCO_CATEGORIES, COCO_CATEGORY_IDS, COCO_NAMES, PERSON
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.classes import categories_of, file_categories, known_categories
from detectron_gn.port.config.read import bundled_config, parse_config
from detectron_gn.weights.categories import Category
from detectron_gn.weights.weights_file import WeightsFile

COCO_CFG = "TRAIN:\n  DATASETS: !!python/tuple [coco_2014_train, coco_2014_valminusminival]\n"
OWN = Categories(tuple(f"thing {n}" for n in range(80)), tuple(range(500, 580)))
IN_FILE = tuple(Category(*pair) for pair in zip(OWN.ids, OWN.names))


def file_of(rows, cfg=None, categories=None):
    blobs = {"res2_0_branch2a_w": np.ones(1, np.float32), "cls_score_b": np.zeros(rows, np.float32)}
    return WeightsFile(blobs, cfg, None, "model.pkl", "pkl", categories=categories)


def record(folder, names, ids):
    kinds = {"config": {}, "data": "", "weights": "", "precision": "fp32"}
    (folder / "run.json").write_text(json.dumps({**kinds, "classes": ["__background__", *names], "category_ids": ids}))
    (folder / "model.pth").touch()
    return folder / "model.pth"


@pytest.mark.parametrize(
    ("rows", "cfg", "expected"),
    [
        (81, COCO_CFG, COCO_CATEGORIES),
        (81, "TEST: {DATASETS: [coco_2014_minival]}", COCO_CATEGORIES),
        (81, "TRAIN: {DATASET: 'coco_2014_train:coco_2014_valminusminival'}", COCO_CATEGORIES),
        (81, "!!python/object/new:detectron.utils.collections.AttrDict\ndictitems:\n  " + COCO_CFG.replace("\n", "\n  ")
         + "\n", COCO_CATEGORIES),
        (2, "TRAIN: {DATASETS: [keypoints_coco_2014_train]}", PERSON),
        (81, None, None),
        (81, "", None),
        (81, "TRAIN: {DATASETS: [my_train]}", None),
        (81, "TRAIN: {DATASETS: [coco_2014_train, my_train]}", None),
        (81, "TRAIN: {DATASETS: [my_train]}\nTEST: {DATASETS: [coco_2014_minival]}", None),
        (81, "TRAIN: {DATASETS: [coco_shapes_train]}", None),
        (81, "TRAIN: {DATASETS: [coco_stuff_train]}", None),
        (81, "a: [", None),
        (5, COCO_CFG, None),
        (2, COCO_CFG, None),
        (80, COCO_CFG, None),
    ],
)  # fmt: skip
def test_a_file_without_names_is_cocos_only_where_its_configuration_says_so(rows, cfg, expected):
    assert known_categories(file_of(rows, cfg), "model.pkl") == expected


def test_why_names_in_a_file_are_not_used_is_said(caplog):
    weights = replace(file_of(5), left_out={"categories": "is not JSON, so that the classes have no names"})
    cfg = bundled_config("e2e_mask_rcnn_R-50-FPN_shapes_gn")
    assert categories_of(cfg, weights, "model.pkl") is None
    assert caplog.messages == ["model.pkl: its 'categories' is not JSON, so that the classes have no names"]
    caplog.clear()
    assert categories_of(cfg, weights, "model.pkl", ["a", "b", "c", "d"]) is not None and not caplog.messages


def test_the_configuration_in_use_counts_where_the_file_has_none():
    coco = bundled_config("e2e_mask_rcnn_R-50-FPN_2x")
    assert known_categories(file_of(81), "model.pkl", coco) == COCO_CATEGORIES
    assert known_categories(file_of(81, "TRAIN: {DATASETS: [my_train]}"), "model.pkl", coco) is None
    nobodys = parse_config("MODEL: {NUM_CLASSES: 81}", "defaults")
    assert known_categories(file_of(81), "model.pkl", nobodys) is None


@pytest.mark.parametrize("source", ["48616381", "35861858", "e2e_mask_rcnn_R-50-FPN_2x_gn"])
def test_a_model_of_the_catalog_is_cocos_whatever_configuration_it_is_given(source):
    assert known_categories(file_of(81, "a: ["), source) == COCO_CATEGORIES
    assert known_categories(file_of(5), source) is None


def test_names_in_the_file_count_before_its_run_and_its_run_before_its_configuration(tmp_path):
    path = record(tmp_path, OWN.names[::-1], list(range(80)))
    assert known_categories(file_of(81, COCO_CFG, IN_FILE), path) == OWN
    assert known_categories(file_of(81, COCO_CFG), path) == Categories(OWN.names[::-1], tuple(range(80)))
    assert known_categories(file_of(5, COCO_CFG), path) is None
    record(tmp_path, OWN.names[:7], list(range(7)))
    assert known_categories(file_of(81, COCO_CFG), path) == COCO_CATEGORIES


@pytest.mark.parametrize("rows", [80, 82, 5, 2])
def test_names_for_another_number_of_classes_than_the_classifier_has_are_told_and_not_used(rows, caplog):
    assert known_categories(file_of(rows, None, IN_FILE), "model.pkl") is None
    assert f"model.pkl names 80 classes, but the model has {rows - 1} besides the background" in caplog.text


def test_a_retinanet_whose_rows_do_not_tell_goes_by_its_configuration():
    blobs = {"res2_0_branch2a_w": np.ones(1, np.float32), "retnet_cls_pred_fpn3_b": np.zeros(9 * 80, np.float32)}
    retinanet = replace(file_of(81, COCO_CFG), blobs=blobs)
    coco, few = (parse_config(f"MODEL: {{NUM_CLASSES: {count}}}", "c") for count in (81, 5))
    for cfg in (coco, None):
        assert known_categories(retinanet, "model.pkl", cfg) == COCO_CATEGORIES
        assert known_categories(replace(retinanet, categories=IN_FILE), "model.pkl", cfg) == OWN
    assert known_categories(retinanet, "model.pkl", few) is None
    assert known_categories(replace(retinanet, categories=IN_FILE), "model.pkl", few) is None


@pytest.mark.parametrize("blob", ["conv_rpn_fpn2_w", "rpn_cls_logits_w"])
def test_a_detector_without_a_classifier_has_no_classes_to_name(blob):
    weights = replace(file_of(81, COCO_CFG, IN_FILE), blobs={blob: np.ones(1, np.float32)})
    for cfg in (None, bundled_config("e2e_mask_rcnn_R-50-FPN_2x_gn")):
        assert known_categories(weights, "model.pkl", cfg) is None


def test_a_state_dict_of_ours_goes_by_the_configuration_it_is_given():
    blobs = {"box_head.cls_score.bias": np.zeros(81, np.float32)}
    weights = replace(file_of(81), blobs=blobs)
    assert known_categories(weights, "model.pth", bundled_config("e2e_mask_rcnn_R-50-FPN_2x_gn")) == COCO_CATEGORIES
    assert known_categories(weights, "model.pth") is None


def test_a_backbone_has_no_classes_to_name():
    blobs = {"res2_0_branch2a_w": np.ones(1, np.float32), "pred_w": np.zeros((81, 2), np.float32)}
    weights = replace(file_of(81, COCO_CFG, IN_FILE), blobs=blobs)
    assert known_categories(weights, "model.pkl") is None


def test_given_names_keep_the_ids():
    cfg = bundled_config("e2e_mask_rcnn_R-50-FPN_2x")
    names = tuple(name.upper() for name in COCO_NAMES)
    assert categories_of(cfg, file_of(81), "model.pkl", names) == Categories(names, COCO_CATEGORY_IDS)
    unknown = file_of(81, "TRAIN: {DATASETS: [my_train]}")
    assert categories_of(cfg, unknown, "model.pkl", names) == Categories(names, tuple(range(1, 81)))
    for wrong in (names[:-1], (*names, "more"), ()):
        with pytest.raises(InputError, match=f"{len(wrong)} class names are given, but the model has 80"):
            categories_of(cfg, unknown, "model.pkl", wrong)


@pytest.mark.parametrize(
    ("names", "ids", "fault"),
    [
        (("a", "\ud800"), (1, 2), "names class 2 by what is no text"),
        (("a", "b" * 1025), (1, 2), "names class 2 by a text longer than 1024 bytes"),
        (("a", "b"), ("1", "2"), "gives class 1 an id that is no whole number"),
        (("a", "b"), (1, 2**70), "gives class 2 an id that is no whole number"),
    ],
)
def test_categories_that_no_file_could_keep_are_refused_before_a_run(names, ids, fault):
    with pytest.raises(InputError, match=f"train.json {fault}"):
        file_categories(Categories(names, ids), "train.json")


@pytest.mark.parametrize("reason", ["is not JSON, so that the classes have no names", "is a list outside 'blobs'"])
def test_it_is_said_why_the_names_in_a_file_are_not_read(reason, caplog):
    weights = replace(file_of(81), left_out={"categories": reason})
    assert known_categories(weights, "model.pkl") is None
    assert [record.getMessage() for record in caplog.records] == [f"model.pkl: its 'categories' {reason}"]
