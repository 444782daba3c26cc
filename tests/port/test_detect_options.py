"""Options of `detect` that hold for images in every way they are named: --min-score, --save-masks, --batch, --out."""

import json
import math
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycocotools.mask
import pytest

from detectron_gn.port.detect_told import note_undrawn
from tests.helpers.command_line import Run, assert_one_sentence
from tests.helpers.pictures import encoded
from tests.helpers.videos import write_video

CPU = ("--device", "cpu")


@pytest.fixture(scope="module")
def images(demo_model: Path) -> list[Path]:
    return sorted((demo_model / "val").iterdir())[:2]


def rows_of(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((out / "detections.json").read_text())
    return rows


def test_without_out_results_are_in_a_folder_that_the_last_line_names(
    run: Run, pickle: Path, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed, _ = run("detect", pickle, images[0], *CPU)
    assert code == 0 and printed.splitlines()[-1].startswith("out/detect/detections.json: ")
    assert (tmp_path / "out/detect/000000300000.png_detections.png").is_file()


def test_a_least_score_counts_for_rows_pictures_and_masks_and_without_one_all_rows_are_kept(
    run: Run, pickle: Path, images: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(images[0], folder)
    command = ["detect", pickle, images[0], *CPU, "--save-masks"]
    everything, best = tmp_path / "all", tmp_path / "best"
    low = ["--set", "TEST.SCORE_THRESH", "0.01"]
    assert run(*command, "--out", everything, *low)[0] == 0
    code, printed, _ = run(*command, "--out", best, "--min-score", "0.9", *low)
    rows = rows_of(everything)
    kept = [row for row in rows if row["score"] >= 0.9]
    assert code == 0 and rows_of(best) == kept and 0 < len(kept) < len(rows)
    assert f"{len(kept)} detections, {len(kept)} of them drawn" in printed
    # The picture of masks counts the rows of the image, from 1 on, as far as they are drawn.
    for out, least in ((everything, 0.5), (best, 0.9)):
        numbers = cv2.imread(str(out / "000000300000.png_masks.png"), cv2.IMREAD_UNCHANGED)
        shown = [row for row in rows_of(out) if row["score"] >= least]
        masks = [pycocotools.mask.decode(row["segmentation"]).astype(bool) for row in shown]
        assert numbers.max() == len(shown) and ((numbers > 0) == np.any(masks, axis=0)).all()
        assert (numbers[masks[0]] == 1).all()
    lines = tmp_path / "lines"
    code, _, _ = run("detect", pickle, folder, "--out", lines, "--min-score", "0.9", *low, *CPU, "--workers", "0")
    line = json.loads((lines / "detections_0.jsonl").read_text())
    assert [row["score"] for row in line["detections"]] == [row["score"] for row in kept]
    other = run("detect", pickle, folder, "--out", lines, *low, *CPU, "--workers", "0", "--quiet")
    assert_one_sentence(other, "a run with another --min-score (0.9 there, none now): give the same options")


def test_where_nothing_scores_enough_to_be_shown_it_is_said_how_it_is_seen(
    run: Run,
    pickle: Path,
    images: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("detectron_gn.port.runs.drawn_rows.DRAWN_SCORE", 0.99999)
    (tmp_path / "photos").mkdir()
    shutil.copy(images[0], tmp_path / "photos")
    clip = tmp_path / "clip.avi"
    write_video(clip, [cv2.resize(cv2.imread(str(images[0])), (96, 64))], "MJPG")
    again = "--min-score 0.05 and another --out show more"
    for source, more in ((images[0], "--min-score 0.05 shows more"), (tmp_path / "photos", again), (clip, again)):
        out = tmp_path / f"{source.name}_found"
        code, _, errors = run("detect", pickle, source, "--out", out, "--json", tmp_path / "t.json", *CPU)
        told = [line for line in errors.splitlines() if "nothing that was found scores enough to be shown" in line]
        assert code == 0 and len(told) == 1 and told[0].endswith(more)
        answer = json.loads((tmp_path / "t.json").read_text())
        best = answer["best_score"] if isinstance(answer, dict) else max(row["score"] for row in answer)
        assert 0 < best < 0.99999 and f"the best score is {math.floor(best * 1000) / 1000:g};" in told[0]
    # What is asked for by its score is shown, where nothing is drawn nothing is missed, and nothing has no best.
    for best, options in ((0.3, {"min_score": 0.05}), (0.3, {"pictures": False}), (0.0, {})):
        given = Namespace(**{"min_score": None, "pictures": None, "save_masks": False, **options})
        note_undrawn(given, best, is_another_folder=False)
    assert capsys.readouterr().err == ""


def test_frames_of_images_are_refused_before_the_model_is_read(run: Run, images: list[Path], tmp_path: Path) -> None:
    result = run("detect", "no.pkl", *images, "--out", tmp_path, "--every", "2", *CPU)
    assert_one_sentence(result, "--every is for videos, and only images are named")


def test_masks_of_a_model_without_a_mask_head_are_refused(
    run: Run, pickle: Path, images: list[Path], tmp_path: Path
) -> None:
    command = ["detect", pickle, images[0], "--out", tmp_path, "--save-masks", "--keep-unused", *CPU]
    assert_one_sentence(run(*command, "--set", "MODEL.MASK_ON", "False"), "no mask head (MODEL.MASK_ON): leave it out")


@pytest.mark.slow
def test_a_batch_changes_last_digits_only_and_a_bad_image_in_it_nothing(
    run: Run, pickle: Path, images: list[Path], tmp_path: Path
) -> None:
    """Three of one size, one of another and one that ends early: lines and rows stay in the order of the command."""
    photos = [tmp_path / f"{name}.png" for name in "abcd"]
    picture = cv2.imread(str(images[0]))
    for number, photo in enumerate(photos):
        cv2.imwrite(str(photo), np.roll(picture, 5 * number, axis=1) if number != 1 else cv2.imread(str(images[1])))
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(encoded(".jpg", picture)[:-200])
    given = [photos[0], cut, *photos[1:]]
    printed = {}
    for batch in (1, 2):
        code, told, errors = run(
            "detect", pickle, *given, "--out", tmp_path / str(batch), "--batch", batch, "--no-pictures", *CPU
        )
        assert code == 2 and errors.count("cut.jpg") == 1
        printed[batch] = told.replace(str(tmp_path / str(batch)), "")
    assert printed[1] == printed[2]
    alone, together = rows_of(tmp_path / "1"), rows_of(tmp_path / "2")
    assert len(alone) == len(together) > 8
    for one, other in zip(alone, together, strict=True):
        assert (one["file_name"], one["category_id"]) == (other["file_name"], other["category_id"])
        assert abs(one["score"] - other["score"]) < 1e-5
        np.testing.assert_allclose(one["bbox"], other["bbox"], atol=1e-3)
    folder = ["detect", pickle, tmp_path / "*.png", "--out", tmp_path / "many", "--batch", "3", *CPU, "--workers", "0"]
    assert run(*folder, "--coco")[0] == 0
    assert [row["score"] for row in rows_of(tmp_path / "many")] == pytest.approx(
        [row["score"] for row in alone], abs=1e-5
    )


def test_of_keypoints_the_logits_are_told() -> None:
    from detectron_gn.mrcnn.data.categories import numbered
    from detectron_gn.mrcnn.structures import Detections
    from detectron_gn.port.runs.result_rows import result_rows

    points = np.arange(8, dtype=np.float32).reshape(1, 4, 2)
    found = Detections(
        np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.ones(1, np.int64), (9, 9), keypoints=points
    )
    (row,) = result_rows(found, numbered(1))
    assert row["keypoints"] == [0, 2, 1, 1, 3, 1] and row["keypoint_logits"] == [4, 5]
