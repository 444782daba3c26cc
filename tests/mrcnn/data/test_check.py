"""`check-data`: what Detectron would drop, what would stop a run, and a report that counts both."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.data.check import check_dataset, images_of_another, report_text
from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.data.minibatch import load_minibatch
from detectron_gn.mrcnn.data.read_image import ImageReading
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.errors import InputError
from tests.helpers.pictures import jpeg_with_orientation


@pytest.fixture
def check(write_dataset):
    """Check a data set of 60 x 80 images; returns the report."""

    def run(annotations, images=None, cfg=None, change=None, **options):
        file, folder = write_dataset(images or {1: (60, 80)}, annotations)
        if change is not None:
            content = json.loads(file.read_text())
            change(content, folder)
            file.write_text(json.dumps(content))
        cfg = cfg or with_values(Config(), {"MODEL.NUM_CLASSES": 3})
        return check_dataset(read_dataset(file, folder), cfg, **options)

    return run


def texts(report, severity):
    return [str(finding) for finding in report.findings if finding.severity == severity]


def test_an_image_that_has_no_short_side_left_is_an_error_in_the_words_of_training(check, annotation, write_dataset):
    cfg = with_values(Config(), {"MODEL.NUM_CLASSES": 3, "TRAIN.MAX_SIZE": 100, "TRAIN.SCALES": (64,)})
    flat = {"bbox": [0, 0, 30, 2], "segmentation": [[0, 0, 30, 0, 30, 2, 0, 2]]}
    report = check([annotation(**flat)], {1: (2, 3000)}, cfg)
    words = "an image of 3000 x 2 pixels (width x height) whose long side is scaled to 100 has no short side left"
    assert words in texts(report, "error")[0] and report.trained_images == 0
    (entry, _) = training_roidb([read_dataset(*write_dataset({1: (2, 3000)}, [annotation(**flat)]))], cfg)
    with pytest.raises(InputError) as refused:
        load_minibatch([entry], [64], cfg)
    assert words in str(refused.value)


def test_a_sound_data_set_has_no_errors_and_its_numbers_are_counted(check, annotation):
    report = check([annotation(), annotation(category_id=3)])
    assert report.findings == ()
    assert (report.images, report.trained_images, report.annotations, report.trained_annotations) == (
        1,
        1,
        2,
        2,
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"area": 0}, "area is 0"),
        ({"ignore": 1}, "ignore is set"),
        ({"bbox": [5.0, 5.0, 1.0, 20.0]}, "bbox is a pixel or less"),
        ({"bbox": [90.0, 5.0, 20.0, 20.0]}, "bbox is a pixel or less"),
        (
            {"segmentation": [[1, 1, 5, 5], [1, 1, 9, 1, 9, 9]]},
            "1 of 2 polygons have fewer than three points",
        ),
    ],
)
def test_what_detectron_drops_is_listed_with_the_reason(check, annotation, fields, reason):
    report = check([annotation(**fields), annotation(category_id=3), annotation()])
    (dropped,) = texts(report, "dropped")
    assert "annotation 1 of 1.png" in dropped and reason in dropped
    assert not report.errors


def test_images_that_are_filtered_out_are_listed(check, annotation):
    crowd = annotation(iscrowd=1, segmentation={"counts": [0, 4800], "size": [60, 80]}, image_id=2)
    report = check([annotation(), annotation(category_id=3), crowd], {1: (60, 80), 2: (60, 80), 3: (60, 80)})
    assert [text.split(": ")[1] for text in texts(report, "dropped")] == ["2.png", "3.png"]
    assert report.trained_images == 1


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ({"counts": [0, 4800], "size": [60, 80]}, "run-length encoding"),
        ([[1, 1, 5, 5]], "an annotation without an outline: its box is used"),
    ],
)
def test_outlines_on_which_detectron_crashes_are_noted(check, annotation, segmentation, words):
    report = check([annotation(segmentation=segmentation), annotation(category_id=3)])
    (note,) = texts(report, "note")
    assert words in note
    assert not report.errors


def test_missing_and_unreadable_and_other_sized_images_are_errors(check, annotation):
    def change(content, folder):
        (folder / "1.png").unlink()
        (folder / "2.png").write_text("no image")
        content["images"][2]["width"] = 100

    images = {1: (60, 80), 2: (60, 80), 3: (60, 80)}
    annotations = [annotation(image_id=i) for i in images] + [annotation(category_id=3)]
    report = check(annotations, images, change=change)
    for words in (
        "no such image file",
        "2.png cannot be decoded",
        "3.png is 60 x 80 pixels, but the annotations say 60 x 100 (height x width)",
    ):
        assert any(words in text for text in texts(report, "error"))
    # The fourth says that no image is left.
    assert len(report.errors) == 4 and report.trained_images == report.trained_annotations == 0
    assert len(check(annotations, images, change=change, read_images=False).errors) == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"bbox": [1, 2, 3]}, "bbox has 3 numbers"),
        ({"bbox": [1, 2, float("nan"), 4]}, "not finite"),
        ({"segmentation": "none"}, "neither a list of polygons"),
    ],
)
def test_malformed_annotations_are_errors_and_not_crashes(check, annotation, fields, words):
    annotations = [annotation(**fields), annotation(category_id=3), annotation(image_id=2)]
    report = check(annotations, {1: (60, 80), 2: (60, 80)})
    assert [words in text for text in texts(report, "error")] == [True]
    assert report.trained_images == 1


def test_images_without_a_file_are_not_counted_as_trained_on(check, annotation):
    images = {1: (60, 80), 2: (60, 80), 3: (60, 80)}
    annotations = [annotation(image_id=i, category_id=c) for i, c in ((1, 3), (2, 17), (3, 17))]

    def remove(numbers):
        return lambda content, folder: [(folder / f"{number}.png").unlink() for number in numbers]

    for read_images in (True, False):
        some = check(annotations, images, change=remove([2]), read_images=read_images)
        assert (some.images, some.trained_images, some.trained_annotations) == (3, 2, 2)
        none = check(annotations, images, change=remove(images), read_images=read_images)
        assert (none.images, none.trained_images, none.trained_annotations) == (3, 0, 0)
        (error,) = texts(none, "error")
        assert "images: none of the 3 images is in this folder (1.png): is --images right?" in error
        assert "would be trained on: 0 of 3 images" in report_text(none)


def test_the_last_line_says_what_training_makes_of_the_errors(check, annotation):
    def spoil(content, folder):
        (folder / "2.png").write_text("no image")

    sound = [annotation(), annotation(category_id=3), annotation(image_id=2)]
    images = {1: (60, 80), 2: (60, 80)}
    assert report_text(check(sound, images)).endswith("3 of 3 annotations")
    refused = check([*sound, annotation(bbox=[1, 2, 3]), annotation(bbox=[1])], images)
    assert (refused.refusals, report_text(refused).splitlines()[-1]) == (2, "train refuses this file: 2 errors")
    lost = check(sound, images, change=lambda content, folder: (folder / "2.png").unlink())
    assert (lost.refusals, report_text(lost).splitlines()[-1]) == (1, "train refuses this file: 1 error")
    spoiled = check(sound, images, change=spoil)
    assert spoiled.refusals == 0 and report_text(spoiled).splitlines()[-1].startswith("train would stop at an image")


def test_errors_that_are_alike_take_one_line_and_no_other_one_follows_from_them(check, annotation):
    annotations = [annotation(image_id=n, bbox=[1, 2, 3]) for n in range(1, 7)]
    report = check(annotations, dict.fromkeys(range(1, 7), (60, 80)))
    lines = [line for line in report_text(report).splitlines() if line.startswith("error: ")]
    assert len(report.errors) == 6 and len(lines) == 1
    assert "annotation 1 of 1.png" in lines[0]
    assert lines[0].endswith("5 more like it: annotation 2 of 2.png, annotation 3 of 3.png and 3 more")


def test_crowds_are_counted_apart(check, annotation):
    crowd = annotation(iscrowd=1, segmentation={"counts": [0, 4800], "size": [60, 80]})
    report = check([annotation(), annotation(category_id=3), crowd, crowd])
    assert (report.annotations, report.trained_annotations, report.crowds) == (4, 2, 2)
    assert report_text(report).endswith("2 of 4 annotations; crowds, which are kept apart: 2")
    assert report.document()["crowds"] == 2


def test_the_last_lines_add_up_and_what_is_dropped_in_images_with_errors_is_listed(check, annotation):
    crowd = annotation(iscrowd=1, segmentation={"counts": [0, 4800], "size": [60, 80]})
    broken = [annotation(image_id=2, bbox=[1, 2, 3]), annotation(image_id=2), annotation(image_id=2, area=0)]
    only_dropped, of_no_image = annotation(image_id=3, area=0), annotation(image_id=9)
    annotations = [annotation(), annotation(category_id=3), crowd, annotation(ignore=1), *broken]
    report = check([*annotations, only_dropped, of_no_image], dict.fromkeys((1, 2, 3, 4), (60, 80)))
    assert report_text(report).splitlines()[-5:-1] == [
        "would be trained on: 1 of 4 images",
        "                     2 of 9 annotations; crowds, which are kept apart: 1",
        "dropped:             2 images, 2 annotations",
        "with errors:         1 image, 4 annotations, all those in these images",
    ]
    assert [text.split(":")[1] for text in texts(report, "dropped")] == [
        " annotation 4 of 1.png", " annotation 7 of 2.png", " annotation 8 of 3.png", " 3.png", " 4.png",
    ]  # fmt: skip
    assert (report.document()["erring_images"], report.document()["erring_annotations"]) == (1, 4)


def test_a_box_that_is_far_from_the_one_around_its_outline_is_noted(check, annotation):
    outline = [[10, 10, 30, 10, 30, 30, 10, 30]]
    far = annotation(bbox=[10, 10, 60, 20], segmentation=outline)
    tight = [annotation(bbox=[10, 10, 20, 20 + n / 100], segmentation=outline, category_id=3) for n in range(9)]
    near = annotation(bbox=[8, 8, 25, 25], segmentation=outline)
    assert texts(check([far, near, *tight[:8]]), "note") == []  # boxes that are meant so
    (note,) = texts(check([far, near, *tight]), "note")
    assert "a bbox that shares less than half with the box around its outline" in note
    assert note.endswith("(annotation 1 of 1.png)")


def test_the_objects_of_each_class_are_counted(check, annotation):
    crowd = annotation(iscrowd=1, segmentation={"counts": [0, 4800], "size": [60, 80]})
    left_out = [annotation(area=0), crowd]
    images = {1: (60, 80), 2: (60, 80)}
    report = check([annotation(), annotation(image_id=2), annotation(category_id=3, image_id=2), *left_out], images)
    first, second = (each.name for each in report.classes)
    assert report_text(report).splitlines()[-6:-3] == [
        f"{'class':{max(len(first), len(second))}}  images  objects",
        f"{first:{max(len(first), len(second))}}       1        1",
        f"{second:{max(len(first), len(second))}}       2        2",
    ]
    assert "... and 1 more classes" in report_text(report, most=1)
    assert report.document()["classes"][1]["objects"] == 2 and "files" not in report.document()


def test_an_object_that_is_listed_twice_is_noted(check, annotation):
    copied = [annotation(bbox=[10, 10, 30, 20]) for _ in range(2)]
    other_class, dropped = annotation(bbox=[10, 10, 30, 20], category_id=3), annotation(bbox=[10, 10, 30, 20], area=0)
    (note,) = texts(check([*copied, other_class, dropped]), "note")
    assert "annotation 2 of 1.png: has the image, class and box of annotation 1: an object listed twice" in note


def test_an_image_that_is_found_by_its_id_alone_is_noted(check, annotation):
    def rename(content, folder):
        (folder / "1.png").rename(folder / "000000000001.jpg")
        content["images"][0]["file_name"] = "IMG_0042.JPG"

    report = check([annotation(), annotation(category_id=3)], change=rename)
    (note,) = texts(report, "note")
    words = "there is no such file; 000000000001.jpg, which is COCO's name for its id 1, is taken for it"
    assert note == f"note: IMG_0042.JPG: {words}" and not report.errors

    def by_path(content, folder):
        (folder / "000000000001.jpg").unlink()
        content["images"][0]["file_name"] = "C:\\photos\\1.PNG"

    assert not check([annotation(), annotation(category_id=3)], change=by_path).findings


def test_images_that_are_in_two_data_sets_are_counted(check, annotation):
    annotations = [annotation(), annotation(category_id=3), annotation(image_id=2)]
    report = check(annotations, {1: (60, 80), 2: (60, 80)})
    (note,) = texts(images_of_another(report, report, "train.json"), "note")
    assert note == "note: 2 images: 2 of these are also in train.json: never evaluate on images that are trained on"
    assert images_of_another(report, replace(report, files=()), "train.json") == report


def test_boxes_alone_are_remarked_on_where_the_model_is_not_known(check, annotation):
    boxes = [annotation(segmentation=[]), annotation(category_id=3, segmentation=[])]
    words = "no object has an outline: a model with masks refuses this, unless --set MODEL.MASK_ON False"
    assert words in report_text(check(boxes), is_for_any=True).splitlines()[-1]
    assert words not in report_text(check(boxes)) + report_text(check([annotation()]), is_for_any=True)


def test_a_fault_of_the_whole_file_leaves_nothing_and_no_note_speaks_against_it(check, annotation):
    corners = [annotation(bbox=[20 + n, 20, 60, 50], segmentation=[]) for n in range(3)]
    report = check([*corners, annotation(category_id=3, bbox=[30, 30, 70, 55], segmentation=[])])
    (error,) = texts(report, "error")
    assert "in Python, where data is the file's content: for a in data['annotations']: x, y, x2, y2 = " in error
    assert report.trained_images == 0 and (report.erring_images, report.erring_annotations) == (1, 4)
    assert not any("all the same" in note for note in texts(report, "note"))


def test_ids_of_categories_that_are_text_are_one_fault_each_and_not_one_for_each_object(check, annotation):
    def as_text(content, folder):
        for each in content["categories"]:
            each["id"] = str(each["id"])
        for each in content["annotations"][:2]:
            each["category_id"] = str(each["category_id"])

    report = check([annotation(), annotation(category_id=3), annotation()], change=as_text)
    assert [finding.subject.split()[0] for finding in report.errors[:2]] == ["category", "category"]
    assert not any("annotation " in str(finding) for finding in report.errors)


def test_a_data_set_with_nothing_to_train_on_is_an_error(check, annotation):
    assert texts(check([annotation(area=0), annotation(category_id=3, iscrowd=1)]), "error")[0].endswith(
        "no image is left to train on"
    )


def test_another_number_of_classes_is_an_error(check, annotation):
    report = check(
        [annotation(), annotation(category_id=3)], cfg=with_values(Config(), {"MODEL.NUM_CLASSES": 81})
    )
    assert "MODEL.NUM_CLASSES is 81" in texts(report, "error")[0]


def test_categories_without_annotation_and_repeated_ids_are_found(check, annotation):
    def change(content, folder):
        content["annotations"].append(content["annotations"][0])

    report = check([annotation()], change=change)
    assert texts(report, "note") == ["note: category circle: has no annotation"]
    assert "the id is there 2 times" in texts(report, "error")[0]


def test_the_text_shows_errors_first_and_cuts_long_lists(check, annotation):
    fields = [{"area": 0}, {"ignore": 1}, {"bbox": [5.0, 5.0, 1.0, 20.0]}, {"area": 0}, {"ignore": 1}]
    annotations = [*(annotation(**each) for each in fields), annotation(category_id=3)]
    report = check(annotations, cfg=with_values(Config(), {"MODEL.NUM_CLASSES": 9}))
    lines = report_text(report, most=2).splitlines()
    assert lines[0].startswith("error: ")
    assert "dropped: ... and 3 more" in lines
    assert lines[-3].split() == ["1", "of", "6", "annotations"]
    assert lines[-2] == "dropped:             0 images, 5 annotations"


def test_the_report_is_for_programs_too(check, annotation):
    document = check([annotation(area=0), annotation(category_id=3), annotation()]).document()
    (finding,) = json.loads(json.dumps(document))["findings"]
    assert finding == {"severity": "dropped", "subject": "annotation 1 of 1.png", "text": "area is 0"}


def test_a_jpeg_that_ends_early_is_an_error_and_trained_on_all_the_same(check, annotation):
    def cut_off(content, folder):
        jpeg = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))[1].tobytes()
        content["images"][0]["file_name"] = "1.jpg"
        (folder / "1.jpg").write_bytes(jpeg[: len(jpeg) // 2])

    report = check([annotation(), annotation(category_id=3)], change=cut_off)
    (finding,) = report.errors
    assert (finding.subject, "1.jpg ends early" in finding.text) == ("1.jpg", True)
    assert finding.text.endswith("`test` and `detect` refuse it: copy it again")
    assert (report.trained_images, report.trained_annotations) == (1, 2)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_an_exif_orientation_is_noted_and_explains_sizes_that_are_exchanged(check, annotation, orientation):
    def turn(content, folder):
        (folder / "1.jpg").write_bytes(jpeg_with_orientation(np.zeros((60, 80, 3), np.uint8), orientation))
        content["images"][0]["file_name"] = "1.jpg"

    report = check([annotation()], change=turn)
    if orientation < 5:
        assert not report.errors
        assert f"1.jpg: has the EXIF orientation {orientation}: it is turned upright" in report_text(report)
    else:
        assert "pass --exif ignore" in str(report.errors[0]) and f"orientation {orientation}" in str(report.errors[0])
    taken_as_stored = check([annotation()], change=turn, reading=ImageReading(exif="ignore"))
    assert not taken_as_stored.errors and "it is not turned" in report_text(taken_as_stored)
