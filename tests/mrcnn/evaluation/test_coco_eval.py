"""Our evaluation against pycocotools' own, on hostile little data sets and on real ones."""

import copy
import pickle
from collections import Counter

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectron_gn.mrcnn.data.coco import quiet, read_annotations
from detectron_gn.mrcnn.evaluation.coco_eval import CocoEvaluation
from detectron_gn.mrcnn.evaluation.mask_encoding import encode_masks
from detectron_gn.mrcnn.evaluation.result_columns import ResultColumns
from detectron_gn.mrcnn.evaluation.results_files import read_results


def random_data(seed):
    """Boxes on a coarse grid: overlaps tie and equal thresholds; crowds, ignored and tiny objects, tied scores."""
    generator = np.random.default_rng(seed)

    def box():
        x, y = generator.integers(0, 5, 2) * 20
        w, h = generator.choice([10, 20, 30, 40, 100], 2)
        return [float(x), float(y), float(w), float(h)]

    objects, detections = [], []
    for image in (1, 2, 3, 4):
        for _ in range(generator.integers(0, 9)):
            bbox = box()
            objects.append(
                {
                    # In every other data set from 0 on, which pycocotools takes for no match.
                    "id": len(objects) + seed % 2,
                    "image_id": image,
                    "category_id": int(generator.integers(1, 4)),
                    "bbox": bbox,
                    "area": bbox[2] * bbox[3],
                    "iscrowd": int(generator.random() < 0.2),
                }
            )
        for _ in range(generator.integers(0, 25)):
            near = objects[generator.integers(len(objects))] if objects and generator.random() < 0.7 else None
            detections.append(
                {
                    "image_id": image,
                    "category_id": near["category_id"] if near else int(generator.integers(1, 4)),
                    "bbox": near["bbox"] if near and generator.random() < 0.5 else box(),
                    "score": float(generator.integers(1, 6) / 5),
                }
            )
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in (1, 2, 3, 4)],
        "categories": [{"id": category} for category in (1, 2, 3)],
        "annotations": objects,
    }
    coco.createIndex()
    return coco, detections


def assert_same_evaluation(coco, rows, iou_type, most=100):
    with quiet():
        theirs = COCOeval(coco, coco.loadRes(copy.deepcopy(rows)), iou_type)
        if iou_type != "keypoints":
            theirs.params.maxDets = sorted([1, 10, most])
        theirs.evaluate()
        theirs.accumulate()
    truth = encode_masks(coco) if iou_type == "segm" else coco
    ours = CocoEvaluation(truth, ResultColumns.of(rows, iou_type), iou_type, most)
    assert ours.category_ids == theirs.params.catIds
    np.testing.assert_array_equal(ours.precision, theirs.eval["precision"][..., theirs.params.maxDets.index(most)])
    if most == theirs.params.maxDets[-1] == 100:
        with quiet():
            theirs.summarize()
        find = ours.average_precision
        numbers = [find(), find(threshold=0.5), find(threshold=0.75), find("small"), find("medium"), find("large")]
        assert numbers == theirs.stats[:6].tolist()
    return theirs


def test_every_match_and_number_is_pycocotools_on_random_data():
    matched = ignored = 0
    for seed in range(60):
        coco, rows = random_data(seed)
        if not rows:
            continue
        with quiet():
            theirs = assert_same_evaluation(coco, rows, "bbox")
        for each in filter(None, theirs.evalImgs):
            matched += int((each["dtMatches"] > 0).sum())
            ignored += int(((each["dtMatches"] > 0) & each["dtIgnore"]).sum())
    # Nothing would be shown by data without matches, or without matches of ignored objects.
    assert matched > 5000 and ignored > 500


def test_overlaps_that_are_no_numbers_and_scores_that_no_float_holds_are_taken_as_pycocotools_takes_them():
    huge = [0.0, 0.0, 1e155, 1e155]
    coco = COCO()
    objects = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": huge, "area": 100.0, "iscrowd": 0}]
    objects.append({**objects[0], "id": 2, "bbox": [0.0, 0.0, 10.0, 10.0]})
    coco.dataset = {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": objects}
    coco.createIndex()
    boxes = [huge, [0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 10.0, 10.0], [50.0, 0.0, 10.0, 10.0]]
    scores = [0.5, 2**53, 2**53 + 1, 2**53]
    rows = [{"image_id": 1, "category_id": 1, "bbox": box, "score": score} for box, score in zip(boxes, scores)]
    theirs = assert_same_evaluation(coco, rows, "bbox")
    assert np.isnan(theirs.ious[1, 1]).any()


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_every_number_is_pycocotools_on_cocos_own_example(iou_type, shared):
    folder = shared / "data" / "cocoapi_fake100"
    coco = read_annotations(folder / "instances_val2014_100.json")
    rows = read_results(folder / f"instances_val2014_fake{iou_type}100_results.json")
    assert_same_evaluation(coco, rows, iou_type)


@pytest.mark.parametrize(("iou_type", "name"), [("bbox", "bbox"), ("segm", "segmentations")])
def test_every_number_is_pycocotools_on_the_demo(iou_type, name, demo_model):
    coco = read_annotations(demo_model / "instances_val.json")
    assert_same_evaluation(coco, read_results(demo_model / f"{name}_coco_shapes_val_results.json"), iou_type)


def test_more_masks_of_a_category_than_pycocotools_measures_at_a_time(demo_model):
    coco = read_annotations(demo_model / "instances_val.json")
    rows = read_results(demo_model / "segmentations_coco_shapes_val_results.json")
    rows = [{**row, "category_id": rows[0]["category_id"]} for row in rows] * 8
    assert max(Counter(row["category_id"] for row in rows).values()) > 1000
    assert_same_evaluation(coco, rows, "segm")


@pytest.mark.parametrize("most", [10, 30])
def test_another_limit_counts_as_many_detections_as_it_says(most):
    for seed in range(10):
        coco, rows = random_data(seed)
        if rows:
            assert_same_evaluation(coco, rows, "bbox", most)


@pytest.mark.parametrize("most", [1, 5])
def test_a_limit_that_pycocotools_cuts_at(most):
    """pycocotools' own `summarize` takes other limits for every number but the first."""
    for seed in range(10):
        coco, rows = random_data(seed)
        if not rows:
            continue
        ours = CocoEvaluation(coco, ResultColumns.of(rows, "bbox"), "bbox", most)
        with quiet():
            theirs = COCOeval(coco, coco.loadRes(copy.deepcopy(rows)), "bbox")
            theirs.params.maxDets = [0, 0, most]
            theirs.evaluate()
            theirs.accumulate()
            theirs.summarize()
        assert ours.average_precision(threshold=0.5) == theirs.stats[1]
        assert ours.average_precision("large") == theirs.stats[5]


def test_rows_of_images_and_categories_in_any_order_are_columns_and_rows_again(demo_model):
    rows = read_results(demo_model / "segmentations_coco_shapes_val_results.json")[:50]
    keypoints = [{**row, "keypoints": [0.5, 1.5, 1] * 17} for row in rows]
    del keypoints[0]["segmentation"]
    for iou_type, key, given in (("segm", "segmentation", rows), ("keypoints", "keypoints", keypoints)):
        given = [{name: row[name] for name in ("image_id", "category_id", key, "score")} for row in given]
        columns = ResultColumns.of(given, iou_type)
        assert columns == given and list(columns) == given and columns[3] == given[3] and columns[-2:] == given[-2:]
        again = pickle.loads(pickle.dumps(columns))
        again.join(columns)
        assert list(again) == given + given
        first = [row["category_id"] for row in given]
        order = sorted(range(50), key=lambda at: (first.index(first[at]), given[at]["image_id"]))
        assert list(columns.sorted_rows()) == [given[at] for at in order]
    assert list(ResultColumns("bbox")) == [] and list(pickle.loads(pickle.dumps(ResultColumns("segm")))) == []
