"""`detect` in videos: every frame once, with its time; what is broken is one sentence, and a killed run goes on."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detectron_gn.port.runs.load import load_model
from tests.helpers.command_line import Run, assert_one_sentence
from tests.helpers.videos import RATE, write_video

ROOT = Path(__file__).resolve().parents[2]
CPU = ("--device", "cpu")


@pytest.fixture(scope="module")
def pictures(demo_model: Path) -> list[np.ndarray]:
    images = [cv2.imread(str(path)) for path in sorted((demo_model / "val").iterdir())[:3]]
    return [cv2.resize(image, (96, 64)) for image in images for _ in range(2)]


@pytest.fixture
def clip(pictures: list[np.ndarray], tmp_path: Path) -> Path:
    """Six frames, pairwise alike."""
    path = tmp_path / "clip.mp4"
    write_video(path, pictures)
    return path


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def frames_of(path: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames


def test_each_frame_has_a_line_with_its_time_and_what_the_model_finds_in_it(
    run: Run, pickle: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    code, printed, _ = run("detect", pickle, clip, "--out", out, "--json", tmp_path / "told.json", *CPU)
    assert code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "clip.mp4_detections.jsonl", "clip.mp4_detections.webm", "detections_run.json",
    ]  # fmt: skip
    lines, frames = lines_of(out / "clip.mp4_detections.jsonl"), frames_of(clip)
    assert [line["frame"] for line in lines] == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose([line["seconds"] for line in lines], np.arange(6) / RATE, atol=1e-6)
    assert {(line["file_name"], line["height"], line["width"]) for line in lines} == {(str(clip), 64, 96)}
    model = load_model(str(pickle), device="cpu")
    for line, frame in zip(lines, frames, strict=True):
        found = model.detect(frame).by_score()
        assert [row["score"] for row in line["detections"]] == found.scores.tolist()
    # A picture of 96 pixels is enlarged, so that the boxes do not hide what they surround.
    drawn = frames_of(out / "clip.mp4_detections.webm")
    assert [frame.shape for frame in drawn] == [(448, 672, 3)] * 6
    # What browsers play.
    assert b"webm" in (out / "clip.mp4_detections.webm").read_bytes()[:64]
    count = sum(len(line["detections"]) for line in lines)
    told = f"{clip}: 6 frames, {count} detections in {out / 'clip.mp4_detections.jsonl'}"
    assert f"{told}; {out / 'clip.mp4_detections.webm'} shows what scores at least 0.5" in printed
    told = json.loads((tmp_path / "told.json").read_text())
    assert (told["videos"], told["frames"], told["detections_in_frames"]) == (1, 6, count)
    # A video that is done is not decoded again, and one of another stride is another run.
    code, printed, _ = run("detect", pickle, clip, "--out", out, *CPU)
    assert code == 0 and "1 video: 1 was done before, 0 now" in printed
    # What was drawn and is gone, or was not drawn, is drawn of the lines, without the network.
    (out / "clip.mp4_detections.webm").unlink()
    monkeypatch.setattr("detectron_gn.port.runs.detect_video.predict", None)
    code, printed, _ = run("detect", pickle, clip, "--out", out, "--save-masks", *CPU)
    assert code == 0 and f"{clip}: was done before; {out / 'clip.mp4_detections.webm'} shows what" in printed
    assert np.array_equal(frames_of(out / "clip.mp4_detections.webm"), drawn) and len(drawn) == 6
    masks = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted((out / "clip.mp4_masks").iterdir())]
    shown = [sum(row["score"] >= 0.5 for row in line["detections"]) for line in lines]
    assert [int(numbers.max()) for numbers in masks] == shown
    other = run("detect", pickle, clip, "--out", out, "--every", "2", "--quiet", *CPU)
    assert_one_sentence(other, "holds detections of a run with another --every")


def test_every_nth_frame_in_batches_with_masks_and_without_a_video(
    run: Run, pickle: Path, clip: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ["--every", "2", "--batch", "2", "--save-masks", "--no-pictures", "--min-score", "0.6"]
    assert run("detect", pickle, clip, "--out", out, *options, *CPU)[0] == 0
    lines = lines_of(out / "clip.mp4_detections.jsonl")
    assert [(line["frame"], line["seconds"]) for line in lines] == [(0, 0.0), (2, 0.16), (4, 0.32)]
    assert all(row["score"] >= 0.6 for line in lines for row in line["detections"])
    masks = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted((out / "clip.mp4_masks").iterdir())]
    assert [path.name for path in sorted((out / "clip.mp4_masks").iterdir())][1] == "000002_masks.png"
    for line, numbers in zip(lines, masks, strict=True):
        assert numbers.shape == (64, 96) and set(np.unique(numbers)) <= set(range(len(line["detections"]) + 1))
    assert not (out / "clip.mp4_detections.webm").exists()


@pytest.mark.slow
def test_a_killed_run_goes_on_and_gives_what_one_run_gives(
    run: Run, pickle: Path, clip: Path, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run("detect", pickle, clip, "--out", whole, *CPU)[0] == 0
    command = ["detect", str(pickle), str(clip), "--out", str(out), *CPU]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "detectron_gn", *command], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
    )
    part = out / "clip.mp4_detections.part.jsonl"
    while process.poll() is None and not (part.exists() and part.read_bytes().count(b"\n") >= 2):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 2 <= len(lines_of(part)) < 6 and not (out / "clip.mp4_detections.jsonl").exists()
    with part.open("ab") as file:  # as a kill within a write leaves it
        file.write(b'{"file_name": "cl')
    code, printed, _ = run(*command)
    assert code == 0 and "6 frames" not in printed
    name, overlay = "clip.mp4_detections.jsonl", "clip.mp4_detections.webm"
    assert (out / name).read_bytes() == (whole / name).read_bytes()
    # A WebM has a random number in its head.
    assert np.array_equal(frames_of(out / overlay), frames_of(whole / overlay))
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in whole.iterdir())


def test_what_is_no_video_is_one_sentence_before_the_model_is_read(
    run: Run, clip: Path, tmp_path: Path
) -> None:
    content = clip.read_bytes()
    bad = {
        "cut.mp4": (content[:2000], "cannot be decoded as a video: the file is damaged, cut off, or of a kind"),
        "text.mp4": (b"no video at all", "its content is no MP4, QuickTime, AVI"),
        "list.mp4": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "its content is no MP4, QuickTime, AVI"),
        "empty.avi": (b"", "the file is empty"),
    }
    for name, (content, told) in bad.items():
        (tmp_path / name).write_bytes(content)
        assert_one_sentence(run("detect", "no.pkl", tmp_path / name, "--out", tmp_path / "out", *CPU), name, told)
    assert_one_sentence(run("detect", "no.pkl", tmp_path / "no.mp4", "--out", tmp_path / "out", *CPU), "no such video")
    large = run("detect", "no.pkl", clip, "--out", tmp_path / "out", "--max-pixels", "1000", *CPU)
    assert_one_sentence(large, "a video of 96 x 64 pixels", "more than the limit of 1,000", "--max-pixels 6144")
    # FFmpeg itself says nothing, and torch, which takes seconds, is not imported.
    command = [sys.executable, "-m", "detectron_gn", "detect", "no.pkl", str(tmp_path / "cut.mp4"), *CPU]
    assert "torch" not in subprocess.run(
        [sys.executable, "-X", "importtime", *command[1:]], cwd=tmp_path, capture_output=True, text=True
    ).stderr
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
    assert_one_sentence((told.returncode, told.stdout, told.stderr), "cut.mp4 cannot be decoded as a video")


def test_a_video_that_is_cut_off_is_told_and_what_was_found_until_then_is_kept(
    run: Run, pickle: Path, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    clip, out = tmp_path / "clip.avi", tmp_path / "out"
    write_video(clip, pictures * 2, "MJPG")
    whole = clip.read_bytes()
    clip.write_bytes(whole[: len(whole) // 2])
    code, _, errors = run("detect", pickle, clip, "--out", out, *CPU)
    part = out / "clip.avi_detections.part.jsonl"
    count = len(lines_of(part))
    assert code == 2 and 2 < count < 10 and len(frames_of(out / "clip.avi_detections.webm")) == count
    assert errors.splitlines()[-1] == (
        f"detectron-gn: error: {clip} is damaged or cut off: it announces 12 frames, and {count} of them can be "
        f"decoded; copy it again; what was found until then is in {part}, drawn in {out / 'clip.avi_detections.webm'}"
    )
    # The whole one, copied again, is gone on with.
    clip.write_bytes(whole)
    code, printed, _ = run("detect", pickle, clip, "--out", out, *CPU)
    assert code == 0 and f"{clip}: {12 - count} frames" in printed and not part.exists()
    assert len(lines_of(out / "clip.avi_detections.jsonl")) == len(frames_of(out / "clip.avi_detections.webm")) == 12


def test_images_and_videos_share_a_command_and_a_bad_one_is_named(
    run: Run, pickle: Path, pictures: list[np.ndarray], demo_model: Path, tmp_path: Path
) -> None:
    clips, out = tmp_path / "clips", tmp_path / "out"
    (clips / "b").mkdir(parents=True)
    write_video(clips / "a.mp4", pictures[:2])
    write_video(clips / "b" / "a.mp4", pictures[:2])
    (clips / "bad.mp4").write_bytes(b"nothing")
    image = demo_model / "val" / "000000300000.png"
    code, _, errors = run("detect", pickle, image, f"{clips}/**/*.mp4", "--out", out, *CPU, "--workers", "0")
    assert code == 2 and "bad.mp4 cannot be decoded as a video" in errors
    failures = out / "failures_0.jsonl"
    assert errors.splitlines()[-1].endswith(
        f"1 of 3 videos failed, as said above and in {failures}; what was found in the others is in {out}"
    )
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == {
        "000000300000.png_detections.png", "detections_0.jsonl", "detections_run.json", "failures_0.jsonl",
        "videos/a.mp4_detections.jsonl", "videos/b/a.mp4_detections.jsonl",
    }  # fmt: skip


def test_lines_of_another_video_are_not_gone_on_with(run: Run, pickle: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    line = '{"file_name": "a", "frame": 7, "seconds": 1, "detections": []}\n'
    (out / "clip.mp4_detections.part.jsonl").write_text(line)
    result = run("detect", pickle, clip, "--out", out, *CPU)
    assert_one_sentence((result[0], "", result[2].splitlines(True)[-1]), "line 1, is not that of frame 0: delete the")


def turned(content: bytes) -> bytes:
    """An MP4 whose track header asks for a turn by a quarter."""
    place = content.index(b"tkhd") + 4 + 40
    quarter = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30)
    return content[:place] + quarter + content[place + 36 :]


def test_a_video_is_turned_as_it_says_unless_told_otherwise(
    run: Run, pickle: Path, clip: Path, tmp_path: Path
) -> None:
    clip.write_bytes(turned(clip.read_bytes()))
    sizes = []
    for exif in ("apply", "ignore"):
        out = tmp_path / exif
        command = ["detect", pickle, clip, "--out", out, "--exif", exif, "--every", "6", "--no-pictures", *CPU]
        assert run(*command)[0] == 0
        (line,) = lines_of(out / "clip.mp4_detections.jsonl")
        sizes.append((line["height"], line["width"]))
    assert sizes == [(96, 64), (64, 96)]


def test_a_model_that_takes_proposals_says_that_a_video_has_none(tmp_path: Path, clip: Path) -> None:
    from detectron_gn.mrcnn.data.categories import numbered
    from detectron_gn.mrcnn.errors import InputError
    from detectron_gn.port.runs.detect_video import VideoOutputs, detect_in_video

    class Model:
        takes_proposals = True

    found = detect_in_video(Model(), clip, numbered(4), VideoOutputs(tmp_path / "x.jsonl"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="takes proposals from a file, which has none of a video's frames"):
        next(found)
