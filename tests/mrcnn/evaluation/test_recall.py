"""The recall of proposals is Detectron's to the last digit (parity/zoo: attribute `recall` of rpn_fpn)."""

import copy

import numpy as np
import pytest

from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.data.coco import read_annotations
from detectron_gn.mrcnn.evaluation.recall import proposal_recall, recall_table
from detectron_gn.weights.formats.proposals_pickle import read_proposals

DETECTRON = {
    "AR@100": 0.04285714285714286,
    "ARs@100": 0.0,
    "ARm@100": 0.0,
    "ARl@100": 0.12000000000000002,
    "AR@1000": 0.21428571428571433,
    "ARs@1000": 0.0,
    "ARm@1000": 0.0,
    "ARl@1000": 0.6,
}


@pytest.fixture(scope="module")
def coco(data):
    return read_annotations(data / "zoo" / "instances.json")


@pytest.fixture(scope="module")
def proposals(data):
    stored = read_proposals(data / "zoo" / "proposals.pkl")
    return dict(zip(stored.ids, stored.boxes, strict=True))


def test_recall_by_number_and_area_is_detectrons(coco, proposals):
    recall = proposal_recall(proposals, coco, Config())
    assert recall == DETECTRON
    assert "1000 proposals  21.43" in recall_table(recall)


def test_perfect_proposals_cover_every_object(coco):
    perfect = {
        image_id: np.array([a["bbox"] for a in coco.imgToAnns[image_id] if not a["iscrowd"]], np.float32)
        for image_id in coco.imgs
    }
    for boxes in perfect.values():
        boxes[:, 2:] += boxes[:, :2] - 1
    assert proposal_recall(perfect, coco, Config())["AR@1000"] == 1.0
    by_class = with_values(Config(), {"TEST.CLASS_SPECIFIC_AR": True})
    assert proposal_recall(perfect, coco, by_class)["AR@1000"] == 1.0


def test_without_proposals_nothing_is_covered(coco):
    nothing = {image_id: np.zeros((0, 4), np.float32) for image_id in coco.imgs}
    assert set(proposal_recall(nothing, coco, Config()).values()) == {0.0}


def test_the_recall_of_an_area_without_objects_is_minus_one(coco, proposals):
    larger = copy.deepcopy(coco)
    for annotations in larger.imgToAnns.values():
        annotations[:] = [each for each in annotations if each["area"] >= 32**2]
    recall = proposal_recall(proposals, larger, Config())
    assert (recall["ARs@100"], recall["ARs@1000"]) == (-1, -1) and recall["ARl@1000"] == 0.6
