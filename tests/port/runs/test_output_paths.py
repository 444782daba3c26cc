"""Where `detect` puts what it makes: inputs of one name keep their folders."""

from pathlib import Path

import pytest

from detectron_gn.port.runs.output_paths import OutputPaths

OUT = Path("out")


def pictures(inputs: list[str], images: list[str]) -> list[str]:
    paths = OutputPaths(list(map(Path, inputs)), OUT)
    return [str(paths.picture(Path(image)).relative_to(OUT)).replace("_detections.png", "") for image in images]


@pytest.mark.parametrize(
    ("named", "made"),
    [
        (["a/x.png", "b/y.png", "b/x.jpg"], ["x.png", "y.png", "x.jpg"]),
        (["a/x.png", "b/X.png", "b/other.png"], ["a/x.png", "b/X.png", "other.png"]),
        (["x.png", "a/x.png"], ["x.png", "a/x.png"]),
        (["x.png", "./x.png"], ["x.png", "x.png"]),
        (["x.png", "X.png", "y.png"], ["1_x.png", "2_X.png", "3_y.png"]),
    ],
)
def test_files_that_are_named_are_told_apart_by_as_little_as_does(
    named: list[str], made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert pictures(named, named) == made


def test_what_a_folder_a_pattern_or_a_list_brings_keeps_the_folders_below_their_common_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("p/q", "r"):
        (tmp_path / folder).mkdir(parents=True)
    below = ["pictures/q/x.png"]
    assert pictures(["p"], ["p/q/x.png"]) == pictures(["p/**/*.png"], ["p/q/x.png"]) == below
    assert pictures(["p", "r/*.png"], ["p/q/x.png", "r/x.png"]) == ["pictures/p/q/x.png", "pictures/r/x.png"]
    assert pictures(["p", "p/q/x.png"], ["p/q/x.png", "p/q/y.png"]) == ["x.png", "pictures/q/y.png"]
    Path("list.txt").write_text("p/q/x.png\np/y.png\n")
    assert pictures(["@list.txt"], ["p/q/x.png", "p/y.png"]) == ["pictures/q/x.png", "pictures/y.png"]
    # One that is in none of the inputs, as when a list has changed meanwhile.
    outside = tmp_path.parent / "z.png"
    assert pictures(["p"], [str(outside)]) == [f"pictures/{outside.relative_to('/')}"]


def test_a_video_has_its_own_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = OutputPaths([Path("a.mp4"), Path("clips/*.avi")], OUT)
    assert paths.files(Path("a.mp4")) == [OUT / "a.mp4_detections.webm", OUT / "a.mp4_detections.jsonl"]
    assert paths.overlay(Path("clips/b.avi")) == OUT / "videos" / "b.avi_detections.webm"
    assert paths.masks_of_frames(Path("a.mp4")) == OUT / "a.mp4_masks"
