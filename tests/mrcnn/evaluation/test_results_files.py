"""Damaged annotation and results files each end in one sentence that names the file and the fault."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest

from detectron_gn.mrcnn.data.coco import read_annotations
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.mask_encoding import encode_masks, lacks_outlines
from detectron_gn.mrcnn.evaluation.results_files import check_results, read_results, results_iou_type

IMAGE = {"id": 7, "height": 4, "width": 5}
CATEGORY = {"id": 3, "name": "dog"}
ANNOTATION = {"id": 1, "image_id": 7, "category_id": 3, "iscrowd": 0, "area": 4, "bbox": [0, 0, 2, 2]}
BOX = {"image_id": 7, "category_id": 3, "bbox": [0, 0, 2, 2], "score": 0.5}


def instances(**changes: Any) -> dict[str, Any]:
    return {"images": [IMAGE], "categories": [CATEGORY], "annotations": [ANNOTATION], **changes}


def encode(bitmap: np.ndarray[Any, Any]) -> dict[str, Any]:
    rle = pycocotools.mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}


MASK = {"image_id": 7, "category_id": 3, "segmentation": encode(np.eye(4, 5)), "score": 0.5}


def read(tmp_path: Path, document: Any) -> Any:
    path = tmp_path / "a.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return read_annotations(path)


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ("<html>", r"a\.json is not JSON but XML or HTML"),
        ("[" * 100_000, r"a\.json is not JSON \("),
        ([], r"a\.json holds a JSON list: a COCO annotation file holds an object"),
        ({"images": []}, r"has no 'annotations'"),
        (instances(images=[{"height": 4}]), r"image number 1: has no 'id'"),
        (instances(images=[IMAGE, {**IMAGE, "width": 9}]), r"image 7: the id 7 is there twice in 'images'"),
        (instances(annotations=[ANNOTATION, ANNOTATION]), r"annotation 1: the id is there 2 times: take one away"),
        (instances(annotations=[{**ANNOTATION, "image_id": 8}]), r"annotation 1: has image_id 8, which 'images' does"),
        (instances(categories=[]), r"a\.json: 'categories' is empty: .*1 more fault: annotation 1 of image 7"),
        (instances(annotations=[{"id": 1}]), r"annotation 1: has no 'image_id'"),
        (instances(images=[IMAGE, {"id": "8"}]), r"image number 2: id is '8', a text: COCO's ids are whole numbers"),
        (instances(categories=[CATEGORY, {"id": "x"}]), r"category number 2: id is 'x', a text"),
        (instances(images=[{"id": True}]), r"image number 1: id is True, which is no whole number"),
        (instances(images=[{"id": "\ud800"}]), r"image number 1: id is '\\ud800', a text"),
        (instances(categories=[{"id": 3, "name": "\ud800"}]), r"category 3: its name '\\ud800' is no text"),
        (instances(images=[{**IMAGE, "height": "x"}]), r"image 7: height 'x' and width 5 are no size"),
        (instances(images=[{**IMAGE, "width": 0}]), r"image 7: height 4 and width 0 are no size"),
        (instances(images=[{**IMAGE, "width": 10**5, "height": 10**5}]), r"more pixels than pycocotools can count"),
        (instances(annotations=[{**ANNOTATION, "iscrowd": "x"}]), r"annotation 1 of image 7: iscrowd is 'x' instead"),
        (instances(annotations=[{**ANNOTATION, "id": 10**30}]), r"id is 1000.*: pycocotools counts to"),
        (instances(annotations=[{**ANNOTATION, "id": {}}]), r"annotation number 1 of image 7: id is {}, which is no"),
        (instances(annotations=[{**ANNOTATION, "bbox": [10**400, 0, 1, 1]}]), r"bbox holds 1000.*, which is not fin"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_a_damaged_annotation_file_is_refused(tmp_path: Path, document: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read(tmp_path, document)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json cannot be read: No such file or directory; give a COCO an"):
        read_annotations(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not JSON"),
        ('[{"image_id": 7', "is not JSON"),
        ("\x80\x02}", "is not JSON"),
        ("{}", "is not a results file: it holds a JSON object, not a list"),
        ("3", "it holds a number, not a list"),
        ("[]", "holds no detections"),
    ],
)
def test_a_file_that_is_no_list_of_results_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "bbox.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=sentence):
        read_results(path)


def without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("text", "is a text, not a detection"),
        (without(BOX, "image_id"), "has no 'image_id'"),
        (without(BOX, "category_id"), "has no 'category_id'"),
        (without(BOX, "score"), "has no 'score'"),
        (without(BOX, "bbox"), "has no 'bbox'"),
        ({**BOX, "score": float("nan")}, "has the score nan"),
        ({**BOX, "score": "high"}, "has the score 'high'"),
        ({**BOX, "score": True}, "has the score True"),
        ({**BOX, "bbox": [1, 2, 3]}, r"has the bbox \[1, 2, 3\]"),
        ({**BOX, "bbox": [1, 2, 3, float("inf")]}, "four finite numbers"),
        ({**BOX, "bbox": [1, 2, -3, 4]}, "width or height is negative"),
        ({**BOX, "image_id": 8}, "is of image 8, which the annotations do not have"),
        ({**BOX, "image_id": "7"}, "is of image '7'"),
        ({**BOX, "image_id": [7]}, r"has the image_id \[7\], which is neither a whole number nor a text"),
        ({**BOX, "image_id": 7.0}, r"has the image_id 7\.0, with a decimal point: write 7$"),
        ({**BOX, "category_id": 3.0}, r"has the category_id 3\.0, with a decimal point: write 3$"),
        ({**BOX, "image_id": {"a": 7}}, "has the image_id {'a': 7}"),
        ({**BOX, "image_id": None}, "has the image_id None"),
        ({**BOX, "category_id": [3]}, r"has the category_id \[3\]"),
        ({**BOX, "score": 10**400}, r"has the score 1000.*\.\.\..*, which is not a finite number"),
        ({**BOX, "bbox": [10**400, 0, 1, 1]}, "which is not four finite numbers"),
        ({**BOX, "category_id": 1}, "is of category 1, .* not class numbers"),
    ],
)
def test_a_damaged_box_row_is_named(tmp_path: Path, row: Any, fault: str) -> None:
    with pytest.raises(InputError, match=rf"^bbox\.json: row 1 {fault}|^bbox\.json: row 1 .*{fault}"):
        check_results([BOX, row], "bbox", "bbox.json", read(tmp_path, instances()))


@pytest.mark.parametrize(
    ("segmentation", "fault"),
    [
        ([[0, 0, 1, 0, 1, 1]], "other than compressed run lengths"),
        ({"size": [4, 5], "counts": [20]}, "other than compressed run lengths"),
        ({"counts": "d0"}, "a segmentation of size None"),
        ({"size": [4, -5], "counts": "d0"}, r"of size \[4, -5\]"),
        ({"size": [4, 5.0], "counts": "d0"}, r"of size \[4, 5\.0\]"),
        ({"size": [100_000, 100_000], "counts": "d0"}, "more than pycocotools can count"),
        ({"size": [4, 5], "counts": ""}, "damaged or do not make up 4x5 pixels"),
        ({"size": [4, 5], "counts": "e0"}, "damaged or do not make up"),
        ({"size": [4, 5], "counts": "d"}, "damaged or do not make up"),
        ({"size": [4, 5], "counts": "d0 "}, "damaged or do not make up"),
        ({"size": [4, 5], "counts": "ü0"}, "damaged or do not make up"),
        ({"size": [4, 5], "counts": "\ud800"}, "damaged or do not make up"),
        ({"size": [4, 5], "counts": "i0K"}, "damaged or do not make up"),  # runs of 25 and -5
        ({"size": [4, 5], "counts": "Ph0d0"}, "damaged or do not make up"),
        ({"size": [4, 5], "counts": "PPPPPPPPPPPPPPPPPPPPPPP0"}, "damaged or do not make up"),
        ({"size": [5, 4], "counts": "d0"}, r"a mask of size \[5, 4\], but image 7 has \[4, 5\]"),
    ],
)
def test_a_damaged_mask_is_named(tmp_path: Path, segmentation: Any, fault: str) -> None:
    annotations = read(tmp_path, instances())
    empty = {"size": [4, 5], "counts": "d0"}
    check_results([MASK, {**MASK, "segmentation": empty}], "segm", "segm.json", annotations)
    with pytest.raises(InputError, match=rf"^segm\.json: row 1 has .*{fault}"):
        check_results([MASK, {**MASK, "segmentation": segmentation}], "segm", "segm.json", annotations)


def test_ids_that_nothing_could_be_looked_up_by_are_refused_without_annotations_too() -> None:
    for name in ("image_id", "category_id"):
        for value in ([7], {"a": 7}, None, 7.5, "\ud800"):
            with pytest.raises(InputError, match=rf"^r: row 1 has the {name} .*neither a whole number nor a text"):
                check_results([BOX, {**BOX, name: value}], "bbox", "r")


POLYGON = [[0, 0, 3, 0, 3, 3, 0, 3]]


@pytest.mark.parametrize(
    ("segmentation", "sentence"),
    [
        ([["a", "b"] * 3], "segmentation holds what is no number"),
        ([[float("nan")] * 6], "segmentation holds a coordinate that is not finite"),
        ({"size": [3, 3], "counts": [9]}, r"segmentation has the size \[3, 3\]"),
        ({"size": [4, 5], "counts": "\ud800"}, "segmentation holds run lengths that do not make up 4 x 5 pixels"),
    ],
)
def test_outlines_that_masks_cannot_be_scored_with_are_refused(
    tmp_path: Path, segmentation: Any, sentence: str
) -> None:
    with pytest.raises(InputError, match=rf"a\.json: annotation 1 of image 7: {sentence}"):
        read(tmp_path, instances(annotations=[{**ANNOTATION, "segmentation": segmentation}]))


def test_mask_ap_leaves_out_objects_without_an_outline(tmp_path: Path) -> None:
    whole = {**ANNOTATION, "segmentation": POLYGON}
    without = [{**ANNOTATION, "id": 2 + n, "segmentation": segm} for n, segm in enumerate(([], [[]], [[1, 2]], None))]
    annotations = read(tmp_path, instances(annotations=[whole, *without]))
    assert [row["id"] for row in encode_masks(annotations).dataset["annotations"]] == [1]
    assert len(annotations.dataset["annotations"]) == 5
    assert not lacks_outlines(annotations)
    assert lacks_outlines(read(tmp_path, instances(annotations=without)))


def test_masks_need_the_size_of_their_image(tmp_path: Path) -> None:
    annotation = {**ANNOTATION, "segmentation": POLYGON}
    encode_masks(read(tmp_path, instances(annotations=[annotation])))
    with pytest.raises(InputError, match=r"a\.json: image 7: has no 'height': give the size of every image"):
        read(tmp_path, instances(images=[{"id": 7, "width": 5}], annotations=[annotation]))


def test_every_mask_that_pycocotools_writes_is_accepted() -> None:
    generator = np.random.default_rng(0)
    for density in (0, 0.001, 0.1, 0.5, 0.9, 1):
        for size in ((1, 1), (4, 5), (37, 53), (480, 640)):
            row = {**MASK, "segmentation": encode(generator.random(size) < density)}
            check_results([row], "segm", "masks")


def test_a_mask_with_any_damaged_character_is_refused_or_still_covers_the_image() -> None:
    rle = encode(np.random.default_rng(1).random((13, 17)) < 0.2)
    refused = 0
    for place in range(len(rle["counts"])):
        for character in "0?@Po":
            counts = rle["counts"][:place] + character + rle["counts"][place + 1 :]
            damaged = {"size": [13, 17], "counts": counts}
            try:
                check_results([{**MASK, "segmentation": damaged}], "segm", "masks")
            except InputError:
                refused += 1
            else:
                assert pycocotools.mask.decode(damaged).shape == (13, 17)
    assert refused > 3 * len(rle["counts"])


def test_the_kind_of_a_results_file_is_seen_from_its_rows() -> None:
    assert results_iou_type([BOX], "r") == "bbox"
    assert results_iou_type([{**BOX, **MASK}], "r") == "segm"
    with pytest.raises(InputError, match="r: row 0 has neither 'bbox' nor 'segmentation'"):
        results_iou_type([{"image_id": 7}], "r")
