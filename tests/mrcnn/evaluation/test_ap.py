"""AP by pycocotools: the numbers of COCO's own example and of Detectron on the demo model."""

import json
from pathlib import Path

import pytest

from detectron_gn.mrcnn.data.coco import read_annotations
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.ap import ap_document, ap_table, score
from detectron_gn.mrcnn.evaluation.results_files import read_results

BOX_RESULTS = "bbox_coco_shapes_val_results.json"
SEGM_RESULTS = "segmentations_coco_shapes_val_results.json"


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """One 10x10 image with one object of a dog, 4x4 pixels large, and a category without objects."""
    path = tmp_path / "instances.json"
    document = {
        "images": [{"id": 7, "height": 10, "width": 10, "file_name": "7.png"}],
        "categories": [{"id": 3, "name": "dog"}, {"id": 5, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "iscrowd": 0, "area": 16, "bbox": [2, 2, 4, 4],
             "segmentation": [[2, 2, 6, 2, 6, 6, 2, 6]]},
        ],
    }  # fmt: skip
    path.write_text(json.dumps(document))
    return path


def row(**changes: object) -> dict[str, object]:
    return {"image_id": 7, "category_id": 3, "bbox": [2, 2, 4, 4], "score": 0.9, **changes}


def mask_row(counts: str, size: list[int]) -> dict[str, object]:
    return {"image_id": 7, "category_id": 3, "segmentation": {"size": size, "counts": counts}, "score": 0.9}


def test_ap_of_cocos_own_example(shared: Path) -> None:
    folder = shared / "data" / "cocoapi_fake100"
    annotations = read_annotations(folder / "instances_val2014_100.json")
    box = score(folder / "instances_val2014_fakebbox100_results.json", annotations, "bbox")
    mask = score(folder / "instances_val2014_fakesegm100_results.json", annotations, "segm")
    assert box.AP == pytest.approx(0.5045806987249628, abs=1e-12)
    assert (box.AP50, box.AP75) == pytest.approx((0.6969727, 0.5729817), abs=5e-8)
    assert mask.AP == pytest.approx(0.3195452758576433, abs=1e-12)
    assert (mask.AP50, mask.AP75) == pytest.approx((0.5622884, 0.2989265), abs=5e-8)


def test_detectrons_results_on_the_demo_score_detectrons_ap(demo_model: Path) -> None:
    annotations = read_annotations(demo_model / "instances_val.json")
    box = score(demo_model / BOX_RESULTS, annotations, "bbox")
    mask = score(demo_model / SEGM_RESULTS, annotations, "segm")
    reference = json.loads((demo_model / "ap.json").read_text())["coco_shapes_val"]
    assert ap_document("val", {"box": box, "mask": mask})["val"] == {
        "box": pytest.approx(reference["box"], abs=1e-12),
        "mask": pytest.approx(reference["mask"], abs=1e-12),
    }


def test_one_object_found_and_one_false_detection(annotations: Path) -> None:
    summary = score([row(), row(bbox=[8, 8, 2, 2], score=0.5)], annotations, "bbox")
    expected = {"AP": 1.0, "AP50": 1.0, "AP75": 1.0, "APs": 1.0, "APm": -1.0, "APl": -1.0}
    assert summary.metrics() == pytest.approx(expected, abs=1e-12)
    assert summary.per_class == pytest.approx({"dog": 1.0, "cat": -1.0}, abs=1e-12)
    # The false one first: precision 1/2 at every recall.
    assert score([row(score=0.5), row(bbox=[8, 8, 2, 2])], annotations, "bbox").AP == pytest.approx(0.5)


def test_boxes_beside_masks_do_not_change_mask_ap(demo_model: Path) -> None:
    """pycocotools would take the box's area for the mask's, which moves APs and APm."""
    annotations = read_annotations(demo_model / "instances_val.json")
    rows = read_results(demo_model / SEGM_RESULTS)
    both = [dict(row, bbox=[0, 0, 200, 200]) for row in rows]
    assert score(both, annotations, "segm") == score(rows, annotations, "segm")


def test_scoring_leaves_the_rows_as_they_were(annotations: Path) -> None:
    rows = [row()]
    score(rows, annotations, "bbox")
    assert rows == [row()]


def test_no_detections_at_all_score_zero(annotations: Path) -> None:
    assert score([], annotations, "bbox").AP == 0
    assert score([], annotations, "segm").AP == 0


def test_scoring_prints_nothing(annotations: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score([row()], annotations, "bbox")
    assert capsys.readouterr().out == ""


def test_a_damaged_polygon_is_named(annotations: Path) -> None:
    document = json.loads(annotations.read_text())
    document["annotations"][0]["segmentation"] = [["a", "b"]]
    annotations.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"instances\.json: annotation 1 of 7\.png: segmentation holds what is no n"):
        score([mask_row("T3", [10, 10])], annotations, "segm")


def test_the_table_shows_percent_and_a_dash_where_there_is_nothing_to_find(annotations: Path) -> None:
    lines = ap_table({"box": score([row()], annotations, "bbox")}, per_class=True).splitlines()
    assert lines[2].split() == ["box", "100.00", "100.00", "100.00", "100.00", "-", "-"]
    assert [line.split() for line in lines[-2:]] == [["dog", "100.00"], ["cat", "-"]]
