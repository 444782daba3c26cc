"""Annotations with keypoints: what check-data says of them, what is trained on, and what is refused in which words."""

import json
from dataclasses import replace

import numpy as np
import pytest

from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.data import coco
from detectron_gn.mrcnn.data.annotations.keypoint_boxes import APART
from detectron_gn.mrcnn.data.check import check_dataset
from detectron_gn.mrcnn.data.coco import read_annotations, read_dataset
from detectron_gn.mrcnn.data.minibatch import mirror
from detectron_gn.mrcnn.data.roidb import check_classes, training_roidb
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.ap import score
from detectron_gn.mrcnn.ops.keypoints import KEYPOINT_NAMES

KEYPOINTS = with_values(
    Config(),
    {"MODEL.NUM_CLASSES": 2, "MODEL.KEYPOINTS_ON": True, "KRCNN.NUM_KEYPOINTS": 17, "TRAIN.USE_FLIPPED": False},
)
BOXES = with_values(KEYPOINTS, {"MODEL.KEYPOINTS_ON": False})
NOSE, WRIST, UNSEEN = (12, 14, 2), (29, 28, 1), (0, 0, 0)


def person(*points, **fields):
    """Keypoints of an annotation, the first ones as given and the rest without a label."""
    padded = [*points, *[UNSEEN] * (17 - len(points))]
    return {"keypoints": [number for point in padded for number in point], "num_keypoints": len(points)} | fields


@pytest.fixture
def people(write_dataset, annotation):
    """A data set of one class, each annotation a square with the given fields; `category` is changed by the others."""

    def write(*fields, images=None, category=None):
        annotations = [annotation(**{"category_id": 1} | each) for each in fields]
        file, folder = write_dataset(images or {1: (60, 80)}, annotations, categories=((1, "person"),))
        content = json.loads(file.read_text())
        names = {"keypoints": list(KEYPOINT_NAMES), "skeleton": [[1, 2]]}
        content["categories"][0] |= names if category is None else category
        file.write_text(json.dumps(content))
        return read_dataset(file, folder)

    return write


def findings(dataset, severity, cfg=KEYPOINTS):
    return [str(finding) for finding in check_dataset(dataset, cfg).findings if finding.severity == severity]


def refusal_of_scoring(dataset):
    with pytest.raises(InputError) as refused:
        score([], dataset.annotation_file, "keypoints")
    return str(refused.value)


def test_sound_keypoints_are_read_as_detectron_reads_them(people):
    dataset = people(person(NOSE, WRIST), person((12.9, -0.5, 2)) | {"bbox": [1, 1, 20, 20]})
    assert check_dataset(dataset, KEYPOINTS).findings == ()
    (entry,) = training_roidb([dataset], KEYPOINTS)
    found = entry.ground_truth.keypoints
    assert found.shape == (2, 3, 17) and found.dtype == np.int32
    assert found[0, :, :3].T.tolist() == [list(NOSE), list(WRIST), list(UNSEEN)]
    assert found[1, :, 0].tolist() == [12, 0, 2]
    (entry,) = training_roidb([dataset], BOXES)
    assert entry.ground_truth.keypoints is None


@pytest.mark.parametrize("fields", [{}, {"keypoints": None}, {"keypoints": None, "num_keypoints": 0}])
def test_an_annotation_without_keypoints_trains_its_box_and_is_scored_as_one_with_none_visible(people, fields):
    dataset = people(person(NOSE), fields)
    (entry,) = training_roidb([dataset], KEYPOINTS)
    assert entry.ground_truth.keypoints[1].tolist() == [[0] * 17] * 3
    found = [{"image_id": 1, "category_id": 1, "score": 0.9, "keypoints": SOUND}]
    assert score(found, dataset.annotation_file, "keypoints").AP == pytest.approx(1, abs=1e-12)
    filled = people(person(NOSE), person()).annotation_file
    assert score(found, filled, "keypoints") == score(found, people(person(NOSE), fields).annotation_file, "keypoints")


def test_visible_keypoints_are_counted_where_the_file_does_not(people):
    uncounted = person(NOSE, WRIST)
    del uncounted["num_keypoints"]
    dataset = people(uncounted)
    (remark,) = findings(dataset, "note")
    assert "an annotation with keypoints and without 'num_keypoints': the visible ones are counted" in remark
    index = read_annotations(dataset.annotation_file)
    assert index.dataset["annotations"][0]["num_keypoints"] == 2 and index.remarks == dataset.remarks
    found = [{"image_id": 1, "category_id": 1, "score": 0.9, "keypoints": uncounted["keypoints"]}]
    assert score(found, index, "keypoints").AP == pytest.approx(1, abs=1e-12)


def test_a_mirrored_person_has_left_and_right_changed_over(people):
    left, right = KEYPOINT_NAMES.index("left_eye"), KEYPOINT_NAMES.index("right_eye")
    points = [NOSE, *[UNSEEN] * 16]
    points[left] = (20, 11, 1)
    (entry,) = training_roidb([people(person(*points, num_keypoints=2))], KEYPOINTS)
    (found,) = mirror(entry.ground_truth, width=80).keypoints
    assert found[:, 0].tolist() == [80 - 12 - 1, 14, 2]
    assert found[:, left].tolist() == [0, 0, 0] and found[:, right].tolist() == [80 - 20 - 1, 11, 1]


ODD = [
    (person((12, 14, 3)), "a visibility of 3, where COCO has 0, 1 and 2: it counts as seen where it is above 0"),
    (person(NOSE, (1, 1, -1), num_keypoints=1), "a visibility of -1"),
    (person(NOSE, num_keypoints=4), "num_keypoints is 4, but 1 of the keypoints is visible: COCO's AP goes by"),
    (person((0.1, 0.2, 2), (0.3, 0, 1), (1, 1, 2)), "all visible keypoints lie between 0 and 1: COCO's are pixels"),
    (person(NOSE, (80, 5, 1)), "1 of 2 visible keypoints lie outside of the image"),
]


@pytest.mark.parametrize(("fields", "words"), ODD, ids=lambda value: value if isinstance(value, str) else "")
def test_odd_keypoints_are_noted_and_trained_on(people, fields, words):
    dataset = people(fields)
    for cfg in (KEYPOINTS, BOXES):
        (note,) = (each for each in findings(dataset, "note", cfg) if APART not in each)
        assert note.startswith("note: annotation 1 of 1.png: ") and words in note
        assert not check_dataset(dataset, cfg).errors
    assert len(training_roidb([dataset], KEYPOINTS)) == 1


WRONG = [
    ([1, 2, 2], "'keypoints' has 3 numbers instead of 51, an x, a y and a visibility for each"),
    (["a", *[0] * 50], "'keypoints' holds 'a', which is no number that a place in an image can be"),
    ([float("nan"), *[0] * 50], "no number that a place in an image can be"),
    ([2**31, *[0] * 50], "no number that a place in an image can be"),
    ([True, *[0] * 50], "no number that a place in an image can be"),
    ({"nose": [1, 2, 2]}, "'keypoints' is {'nose': [1, 2, 2]}, which is no list of numbers"),
    ([1e300, *[0] * 50], "no number that a place in an image can be"),
    ([0] * 34, "'keypoints' has 34 numbers instead of 51"),
    ([0, 0, 0.7, *[0] * 48], "'keypoints' holds the visibility 0.7: COCO's are 0, 1 and 2, and visible is above 0"),
]
SOUND = person(NOSE)["keypoints"]
WRONG_RECORDS = [
    *(({"keypoints": keypoints, "num_keypoints": 0}, words) for keypoints, words in WRONG),
    *(
        ({"keypoints": SOUND, "num_keypoints": counted}, f"num_keypoints is {counted!r}, which is no count")
        for counted in ("3", True, -1, 1.5, float("nan"))
    ),
]


@pytest.mark.parametrize(("fields", "words"), WRONG_RECORDS)
def test_keypoints_that_cannot_be_read_are_an_error_for_keypoints_and_a_note_for_boxes(people, fields, words):
    dataset = people(fields, person(NOSE, image_id=2), images={1: (60, 80), 2: (60, 80)})
    report = check_dataset(dataset, KEYPOINTS)
    (error,) = report.errors
    assert str(error).startswith("error: annotation 1 of 1.png: ") and words in str(error)
    assert (report.trained_images, report.trained_annotations) == (1, 1)
    with pytest.raises(InputError, match="annotation 1 of 1.png: .*; mend it, `detectron-gn check-data`") as refused:
        training_roidb([dataset], KEYPOINTS)
    assert refusal_of_scoring(dataset) == str(refused.value)
    assert words in str(refused.value) and "\n" not in str(refused.value)
    assert words in findings(dataset, "note", BOXES)[0]
    assert len(training_roidb([dataset], BOXES)) == 2 and not check_dataset(dataset, BOXES).errors


def test_images_without_a_visible_keypoint_are_filtered_out_as_in_detectron(people):
    crowd = {"counts": [0, 4800], "size": [60, 80]}
    sizes = dict.fromkeys(range(1, 4), (60, 80))
    seen_in_a_crowd = person(NOSE, image_id=3, iscrowd=1, segmentation=crowd)
    dataset = people(person(NOSE), person(image_id=2), {"image_id": 3}, seen_in_a_crowd, images=sizes)
    assert [entry.image.name for entry in training_roidb([dataset], KEYPOINTS)] == ["1.png", "3.png"]
    assert findings(dataset, "dropped") == ["dropped: 2.png: the image has no visible keypoint"]
    assert len(training_roidb([dataset], BOXES)) == 3


def test_a_data_set_without_keypoints_is_refused_with_the_way_out(people):
    dataset = people({}, person())
    with pytest.raises(InputError, match=r"no object has a visible keypoint, .*: pass --set MODEL\.KEYPOINTS_ON False"):
        training_roidb([dataset], KEYPOINTS)
    assert "no object has a visible keypoint" in findings(dataset, "error")[-1]


def test_want_of_objects_is_not_called_want_of_keypoints(people):
    dataset = people(person(NOSE, area=0))
    with pytest.raises(InputError, match="no image has an object to train on"):
        training_roidb([dataset], KEYPOINTS)
    assert findings(dataset, "error")[-1].endswith("no image is left to train on")


ODD_CATEGORIES = [
    ({}, "note", "does not name its keypoints: they are taken to be COCO's"),
    ({"keypoints": list(KEYPOINT_NAMES)}, "note", "has no skeleton: training does without"),
    ({"keypoints": list(KEYPOINT_NAMES), "skeleton": []}, "note", "has no skeleton"),
    ({"keypoints": ["a", "b"]}, "error", "it has 2 keypoints instead of 17: give annotations with as many, or train"),
    ({"keypoints": 5}, "error", "its 'keypoints' are 5, which is no list of names"),
    ({"keypoints": [1] * 17}, "error", "which is no list of names"),
    ({"keypoints": ["a"] * 17}, "error", "two of its 'keypoints' have the same name"),
    ({"keypoints": list(KEYPOINT_NAMES[::-1])}, "error", "keypoint 1 is called 'right_ankle', but 17 keypoints"),
    ({"keypoints": sorted(KEYPOINT_NAMES)}, "error", "keypoint 1 is called 'left_ankle', but 17 keypoints"),
    ({"keypoints": [name.upper() for name in KEYPOINT_NAMES]}, "error", "'NOSE', but 17 keypoints"),
    ({"keypoints": []}, "note", "does not name its keypoints"),
]


@pytest.mark.parametrize(("category", "severity", "words"), ODD_CATEGORIES)
def test_what_a_category_says_of_its_keypoints(people, category, severity, words):
    dataset = people(person(NOSE), category=category)
    (found,) = findings(dataset, severity)
    assert found.startswith(f"{severity}: category person: ") and words in found
    if severity == "note":
        assert len(training_roidb([dataset], KEYPOINTS)) == 1
        assert score([], dataset.annotation_file, "keypoints").AP == 0
        return
    with pytest.raises(InputError, match="category person: ") as refused:
        training_roidb([dataset], KEYPOINTS)
    assert refusal_of_scoring(dataset) == str(refused.value)
    assert words in str(refused.value)
    assert len(training_roidb([dataset], BOXES)) == 1 and not findings(dataset, "error", BOXES)


def test_data_sets_of_people_are_joined(people):
    first = people(person(NOSE))
    roidb = training_roidb([first, replace(first)], with_values(KEYPOINTS, {"TRAIN.USE_FLIPPED": True}))
    assert [entry.flipped for entry in roidb] == [False, True, False, True]


def test_people_without_outlines_are_trained_on(people):
    dataset = people(person(NOSE, segmentation=[]))
    (entry,) = training_roidb([dataset], KEYPOINTS)
    assert entry.ground_truth.segms == ((),) and entry.ground_truth.keypoints.any()
    assert not check_dataset(dataset, KEYPOINTS).errors


FEW = with_values(KEYPOINTS, {"KRCNN.NUM_KEYPOINTS": 3, "TRAIN.USE_FLIPPED": True})
CORNERS = {"keypoints": ["left_corner", "top", "right_corner"], "skeleton": [[1, 2], [2, 3]]}
POINTS = {"keypoints": [12, 14, 2, 20, 10, 1, 0, 0, 0], "num_keypoints": 2}


def test_keypoints_are_looked_through_once_however_often_they_are_checked(people, monkeypatch):
    seen = []
    monkeypatch.setattr(coco, "keypoint_faults", lambda *_: seen.append(1) or ())
    dataset = people(person(NOSE, WRIST))
    for _ in range(2):
        check_classes(dataset, KEYPOINTS)
    training_roidb([dataset], KEYPOINTS)
    assert seen == [1]


def test_other_keypoints_than_a_persons_are_read_and_mirrored_by_their_names(people):
    dataset = people(POINTS, category=CORNERS)
    assert check_dataset(dataset, FEW).findings == () == check_dataset(dataset, BOXES).findings
    plain, flipped = training_roidb([dataset], FEW)
    assert plain.ground_truth.keypoints.tolist() == [[[12, 20, 0], [14, 10, 0], [2, 1, 0]]]
    assert mirror(flipped.ground_truth, 80).keypoints.tolist() == [[[0, 59, 67], [0, 10, 14], [0, 1, 2]]]


UNMIRRORED = [
    ({}, "no category names its 3 keypoints, so that left and right cannot be told apart in mirrored images: list"),
    ({"keypoints": ["left_corner", "top", "end"]}, "a left or a right one has no other side to change places with"),
]


@pytest.mark.parametrize(("category", "words"), UNMIRRORED)
def test_keypoints_whose_other_side_nobody_knows_are_not_mirrored(people, category, words):
    dataset = people(POINTS, category=category)
    with pytest.raises(InputError, match=r"instances.json: .*pass --set TRAIN\.USE_FLIPPED False") as refused:
        training_roidb([dataset], FEW)
    assert words in str(refused.value) and words in findings(dataset, "error", FEW)[0]
    (entry,) = training_roidb([dataset], with_values(FEW, {"TRAIN.USE_FLIPPED": False}))
    assert entry.ground_truth.keypoints.shape == (1, 3, 3)


def test_keypoints_are_as_many_as_the_models_and_the_same_in_every_data_set(people):
    dataset = people(POINTS, category=CORNERS)
    with pytest.raises(InputError, match="it has 3 keypoints instead of 17: .* with --set KRCNN.NUM_KEYPOINTS 3"):
        training_roidb([dataset], KEYPOINTS)
    category = {**dataset.categories[0], "keypoints": ["left", "right", "x"]}
    others = replace(dataset, instances=replace(dataset.instances, categories=(category,)))
    with pytest.raises(InputError, match="name other keypoints, but a model has the same ones"):
        training_roidb([dataset, others], FEW)
    short = people({"keypoints": [1, 2, 2]}, category=CORNERS)
    with pytest.raises(InputError, match="'keypoints' has 3 numbers instead of 9, .* for each of the 3 keypoints"):
        training_roidb([short], FEW)
