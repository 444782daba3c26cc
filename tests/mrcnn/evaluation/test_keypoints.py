"""Results and AP of keypoints are Detectron's to the last digit (parity/zoo/eval_keypoints.json)."""

import copy
import json
import lzma

import numpy as np
import pytest

from detectron_gn.mrcnn.data.coco import read_annotations
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.ap import ap_table, score
from detectron_gn.mrcnn.evaluation.coco_results import coco_results, image_results
from detectron_gn.mrcnn.structures import Detections


@pytest.fixture(scope="module")
def detectron(data):
    return json.loads(lzma.decompress((data / "zoo" / "eval_keypoints.json.xz").read_bytes()))


@pytest.fixture(scope="module")
def coco(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("annotations") / "train_keypoints.json"
    path.write_bytes(lzma.decompress((data / "zoo" / "train_keypoints.json.xz").read_bytes()))
    return read_annotations(path)


def results(detectron, coco, confidence):
    ids = {image["file_name"]: image_id for image_id, image in coco.imgs.items()}
    images = []
    for name, boxes, people in zip(detectron["images"], detectron["all_boxes"], detectron["all_keyps"], strict=True):
        rows = np.array(boxes, np.float32)
        found = Detections(
            rows[:, :4],
            rows[:, 4],
            np.ones(len(rows), np.int64),
            (1, 1),
            keypoints=np.array(people, np.float32),
            keypoint_confidence=confidence,
        )
        images.append(image_results(ids[name], found, coco.getCatIds()))
    return coco_results(images, with_masks=False, with_keypoints=True)


@pytest.mark.parametrize("confidence", ["bbox", "logit", "prob"])
def test_the_ap_of_each_confidence_is_detectrons(detectron, coco, confidence):
    rows, theirs = results(detectron, coco, confidence), detectron["by_confidence"][confidence]
    assert [row["score"] for row in rows["keypoints"]] == theirs["keypoint_scores"]
    (ap,) = theirs["ap"].values()
    kinds = (("box", "bbox"), ("keypoint", "keypoints"))
    found = {kind: score(rows[iou_type], coco, iou_type) for kind, iou_type in kinds}
    assert {kind: summary.metrics() for kind, summary in found.items()} == ap
    assert "keypoint" in ap_table(found)


def test_the_rows_are_those_of_detectrons_files(detectron, coco):
    rows = results(detectron, coco, "bbox")
    assert rows["keypoints"] == detectron["results"]["keypoints"]
    assert rows["bbox"] == detectron["results"]["bbox"]


def test_objects_without_keypoints_are_told(data):
    coco = read_annotations(data / "zoo" / "instances.json")
    with pytest.raises(InputError, match=r"no object has a visible keypoint, which keypoints are scored by: give"):
        score([], coco, "keypoints")


def test_counts_of_zero_everywhere_are_told(coco):
    coco = copy.deepcopy(coco)
    for each in coco.dataset["annotations"]:
        each["num_keypoints"] = 0
    with pytest.raises(InputError, match="'num_keypoints' of every object is 0, .*: leave it out to have the visible"):
        score([], coco, "keypoints")
