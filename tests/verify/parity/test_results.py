"""Two result files are paired detection by detection, and what is out of tolerance or alone is counted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest

from detectron_gn.mrcnn.evaluation.results_files import read_results
from detectron_gn.verify.parity.results import DetectionParity, DetectionTolerances, match_detections, parity_table

Row = dict[str, Any]


def box(x: float, score: float, image: int = 1, category: int = 1, width: float = 10) -> Row:
    return {"image_id": image, "category_id": category, "bbox": [x, 0.0, width, 10.0], "score": score}


def mask(columns: slice, score: float) -> Row:
    bitmap = np.zeros((10, 20), dtype=np.uint8, order="F")
    bitmap[:, columns] = 1
    rle = pycocotools.mask.encode(bitmap)
    rle["counts"] = rle["counts"].decode("ascii")
    return {"image_id": 1, "category_id": 1, "segmentation": rle, "score": score}


def counts(parity: DetectionParity) -> tuple[int, int, int, int]:
    return parity.pairs, parity.matched, parity.unmatched_ours, parity.unmatched_reference


def test_a_file_matches_itself_in_any_order(demo_model: Path) -> None:
    for iou_type, name in (("bbox", "bbox"), ("segm", "segmentations")):
        rows = read_results(demo_model / f"{name}_coco_shapes_val_results.json")
        parity = match_detections(rows[::-1], rows, iou_type)  # type: ignore[arg-type]
        assert counts(parity) == (182, 182, 0, 0)
        assert parity.holds and parity.share_matched == 1 and parity.equal == 182 and not parity.worst
        assert (parity.max_box_difference, parity.max_score_difference, parity.min_iou) == (0, 0, 1)
        assert sorted(map(tuple, parity.partners.tolist())) == [(181 - n, n) for n in range(181, -1, -1)]


def test_a_moved_box_is_measured_at_its_edges() -> None:
    # Left edge 1 px to the right, right edge 1.5 px to the left: 7.5 of 10 px in common.
    parity = match_detections([box(1, 0.5, width=7.5)], [box(0, 0.75)], "bbox")
    assert counts(parity) == (1, 0, 0, 0)
    assert parity.max_box_difference == 1.5 and parity.max_score_difference == 0.25
    assert parity.min_iou == pytest.approx(0.75)
    assert not parity.holds and parity.share_matched == 0
    assert parity.worst[0].unmatched == 1 and parity.worst[0].max_box_difference == 1.5
    # The left edge counts as much.
    assert match_detections([box(1, 0.5)], [box(0, 0.5)], "bbox").max_box_difference == 1


def test_tolerances_decide_what_is_matched() -> None:
    ours, reference = [box(0.004, 0.5005)], [box(0, 0.5)]
    assert match_detections(ours, reference, "bbox").holds
    assert not match_detections(ours, reference, "bbox", DetectionTolerances(score=1e-4)).holds
    assert not match_detections(ours, reference, "bbox", DetectionTolerances(box_iou=0.9995)).holds


def test_a_large_box_is_held_to_pixels_as_a_small_one_is() -> None:
    ours, reference = [box(0.3, 0.5, width=600)], [box(0, 0.5, width=600)]
    parity = match_detections(ours, reference, "bbox")
    assert parity.min_iou > 0.999 and parity.matched == 0 and not parity.holds
    assert match_detections(ours, reference, "bbox", DetectionTolerances(box_px=0.4)).holds
    assert match_detections([box(0.04, 0.5, width=600)], reference, "bbox").holds


def test_detections_of_other_classes_or_images_are_no_partners() -> None:
    parity = match_detections([box(0, 0.5, category=2), box(0, 0.5, image=2)], [box(0, 0.5)], "bbox")
    assert counts(parity) == (0, 0, 2, 1)


def test_each_detection_has_one_partner_at_most() -> None:
    parity = match_detections([box(0, 0.5), box(0, 0.4)], [box(0, 0.5)], "bbox")
    assert counts(parity) == (1, 1, 1, 0)
    assert parity.partners.tolist() == [[0, 0]]


def test_among_equal_boxes_the_score_decides() -> None:
    # The first of ours overlaps the second of the reference's a little more, but not by 0.001.
    ours = [box(0.0002, 0.9), box(0, 0.3)]
    reference = [box(0.0002, 0.3), box(0, 0.9)]
    parity = match_detections(ours, reference, "bbox")
    assert parity.partners.tolist() == [[0, 1], [1, 0]] and parity.holds


def test_a_lonely_detection_at_the_score_threshold_is_excused() -> None:
    parity = match_detections([box(0, 0.9), box(50, 0.05009)], [box(0, 0.9), box(90, 0.0502)], "bbox")
    assert (parity.excused_ours, parity.excused_reference) == (1, 0)
    assert counts(parity) == (1, 1, 0, 1) and not parity.holds


def test_a_lonely_detection_at_the_limit_of_a_full_image_is_excused() -> None:
    common = [box(100 * n, 0.9) for n in range(99)]
    ours, reference = [*common, box(-100, 0.30005)], [*common, box(-300, 0.3)]
    parity = match_detections(ours, reference, "bbox")
    assert (parity.excused_ours, parity.excused_reference) == (1, 1) and parity.holds
    # One short of the limit, nothing was cut.
    parity = match_detections(ours[1:], reference[1:], "bbox")
    assert (parity.unmatched_ours, parity.unmatched_reference) == (1, 1) and not parity.holds


def test_what_was_paired_with_nothing_has_no_distances() -> None:
    lines = parity_table([match_detections([box(0, 0.9)], [box(500, 0.9)], "bbox")]).splitlines()
    assert [line.split()[-1] for line in lines[-3:]] == ["-", "-", "-"]


def test_masks_are_paired_by_their_overlap() -> None:
    ours, reference = [mask(slice(0, 10), 0.5), mask(slice(10, 20), 0.5)], [mask(slice(10, 19), 0.5)]
    parity = match_detections(ours, reference, "segm")
    assert counts(parity) == (1, 0, 1, 0)
    assert parity.min_iou == pytest.approx(0.9) and parity.partners.tolist() == [[1, 0]]


def test_empty_masks_are_partners_of_each_other() -> None:
    empty = mask(slice(0, 0), 0.4)
    assert match_detections([empty], [empty], "segm").holds
    assert not match_detections([empty], [mask(slice(0, 1), 0.4)], "segm").holds


def test_the_worst_images_come_first() -> None:
    ours = [box(0, 0.5, image=n) for n in range(1, 9)]
    reference = [box(0, 0.5 + 0.01 * n, image=n) for n in range(1, 8)]
    parity = match_detections(ours, reference, "bbox")
    assert [image.image_id for image in parity.worst] == [7, 6, 5, 4, 3]
    assert parity.worst[0].max_score_difference == pytest.approx(0.07)


def test_nothing_against_nothing_holds() -> None:
    parity = match_detections([], [], "bbox")
    assert parity.holds and parity.share_matched == 1


def test_the_document_is_json_with_the_verdict(demo_model: Path) -> None:
    document = match_detections([box(0, 0.5)], [box(1, 0.5)], "bbox").document()
    assert document["holds"] is False and document["pairs"] == 1 and "partners" not in document
    assert document["worst"] == (
        {"image_id": 1, "unmatched": 1, "max_box_difference": 1.0, "max_score_difference": 0.0,
         "min_iou": pytest.approx(9 / 11)},
    )  # fmt: skip


def test_the_table_has_a_column_for_each_type() -> None:
    boxes = match_detections([box(0, 0.5)], [box(0, 0.5)], "bbox")
    masks = match_detections([mask(slice(0, 9), 0.5)], [mask(slice(0, 9), 0.5)], "segm")
    lines = [line.split() for line in parity_table([boxes, masks]).splitlines()]
    assert lines[0] == ["box", "mask"]
    assert lines[4] == ["matched", "1", "(100.00", "%)", "1", "(100.00", "%)"]


def person(x=0.0, y=0.0, score=0.9, spread=10.0):
    """A row of keypoints on a diagonal, moved by (x, y)."""
    points = [[x + spread * k, y + spread * k, 1] for k in range(17)]
    values = [float(value) for row in points for value in row]
    return {"image_id": 1, "category_id": 1, "score": score, "keypoints": values}


def test_keypoints_are_paired_by_similarity_and_measured_in_pixels():
    ours = [person(300.0), person(0.01)]
    parity = match_detections(ours, [person(), person(300.0)], "keypoints")
    assert parity.holds and parity.partners.tolist() == [[0, 1], [1, 0]]
    assert (parity.keypoints, parity.moved_keypoints, parity.equal) == (34, 0, 1)
    assert parity.max_box_difference == pytest.approx(0.01)
    assert "keypoints elsewhere" in parity_table([parity])


def test_half_a_pixel_on_every_keypoint_is_no_match():
    parity = match_detections([person(0.5, 0.5)], [person()], "keypoints")
    assert not parity.holds and (parity.pairs, parity.matched, parity.moved_keypoints) == (1, 0, 17)


def test_a_keypoint_in_five_hundred_may_be_elsewhere():
    people = [person(1000.0 * number) for number in range(30)]
    moved = [{**row, "keypoints": list(row["keypoints"])} for row in people]
    for row, holds in ((3, True), (4, True), (5, False)):
        moved[row]["keypoints"][0] += 40.0
        assert match_detections(moved, people, "keypoints").holds is holds


def test_every_keypoint_a_twentieth_of_a_pixel_aside_is_no_match():
    people = [person(1000.0 * number) for number in range(24)]
    shifted = [person(1000.0 * number + 0.05) for number in range(24)]
    parity = match_detections(shifted, people, "keypoints")
    assert not parity.holds and parity.moved_keypoints == 408
    within = match_detections([person(1000.0 * number + 0.015) for number in range(24)], people, "keypoints")
    assert within.holds and within.max_keypoint_difference == pytest.approx(0.015, abs=1e-9)
    assert match_detections(shifted, people, "keypoints", DetectionTolerances(keypoint=0.06)).holds


def test_a_keypoint_elsewhere_is_told_with_its_distance(tmp_path, run):
    people = [person(1000.0 * number) for number in range(24)]
    moved = [{**row, "keypoints": list(row["keypoints"])} for row in people]
    moved[7]["keypoints"][3] += 500.0
    files = [tmp_path / "ours.json", tmp_path / "theirs.json"]
    for path, rows in zip(files, (moved, people), strict=True):
        path.write_text(json.dumps(rows))
    code, out, _ = run("verify", "detections", *files, "--json", tmp_path / "v.json")
    assert code == 0 and "1 of 408 keypoints is elsewhere, by up to 500 pixels; 1 may be" in out
    assert json.loads((tmp_path / "v.json").read_text())["moved_keypoints"] == 1
    code, out, _ = run("verify", "detections", files[1], files[1])
    assert code == 0 and "all 408 keypoints are in place" in out
    moved[8]["keypoints"][3] += 40.0
    files[0].write_text(json.dumps(moved))
    code, out, _ = run("verify", "detections", *files)
    assert code == 1 and "2 of 408 keypoints are elsewhere, by up to 500 pixels; 1 may be" in out
    assert "rounded up, may be elsewhere" in " ".join(run("verify", "detections", "--help")[1].split())
