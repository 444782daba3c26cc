"""Which images the inputs of `detect` name, and whose they are where several processes work."""

import os
import tracemalloc
from pathlib import Path

import pytest

from detectron_gn.mrcnn.distributed import Ranks
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.runs.image_inputs import images_of, is_video, names_many
from detectron_gn.port.runs.output_paths import WRITTEN
from detectron_gn.port.runs.work_left import WorkLeft, image_key


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    hidden = ("p/.hidden.png", "p/.git/d.png")
    for name in ("p/b.JPG", "p/a.png", "p/text.txt", "p/q/c.webp", "drawn/e.png", "[1].png", *hidden):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    os.symlink(tmp_path / "drawn", tmp_path / "p" / "link")
    os.symlink(tmp_path / "p" / "a.png", tmp_path / "p" / "z.png")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "images"),
    [
        (["p"], ["p/a.png", "p/b.JPG", "p/z.png", "p/q/c.webp"]),
        (["p/link"], ["p/link/e.png"]),
        (["p/*.png"], ["p/a.png", "p/z.png"]),
        (["p/q*"], ["p/q/c.webp"]),
        (["."], ["./[1].png", "./drawn/e.png", "./p/a.png", "./p/b.JPG", "./p/z.png", "./p/q/c.webp"]),
        (["[1].png", "none.png"], ["[1].png", "none.png"]),
    ],
)
def test_images_of_folders_patterns_and_names(folder: Path, given: list[str], images: list[str]) -> None:
    found = [str(Path(each)) for each in images_of(list(map(Path, given)), folder / "nothing", WRITTEN)]
    assert found == [str(Path(each)) for each in images] or sorted(found) == sorted(images) and "*" in given[0]
    assert names_many(list(map(Path, given))) == (given[0] != "[1].png")


def test_blanks_in_a_list_are_a_files_own_where_it_is_there(folder: Path) -> None:
    (folder / " b.png").touch()
    (folder / "list.txt").write_bytes(b"  p/a.png\t\r\n   \n b.png\n p/none.png \n  b.png\n")
    found = list(images_of([Path("@list.txt")], folder / "nothing", WRITTEN))
    assert found == ["p/a.png", " b.png", "p/none.png", "b.png"]


@pytest.mark.parametrize("given", [".", "**/*.png"])
def test_what_a_run_writes_is_left_out_of_its_folder_and_nothing_else(folder: Path, given: str) -> None:
    for name in ("drawn/e_detections.png", "drawn/pictures/q/e_masks.png", "drawn2/x_detections.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = {str(Path(each)) for each in images_of([Path(given)], folder / "drawn", WRITTEN)}
    assert {"p/a.png", "drawn/e.png", "drawn2/x_detections.png"} <= found
    assert not {"drawn/e_detections.png", "drawn/pictures/q/e_masks.png"} & found


def test_videos_are_known_by_their_suffix_and_folders_of_them_are_told_how_to_be_named(folder: Path) -> None:
    (folder / "clips").mkdir()
    for name in ("a.MP4", "b.avi"):
        (folder / "clips" / name).touch()
    assert is_video("clips/a.MP4") and not is_video("p/a.png") and not is_video("mp4")
    assert names_many([Path("clips/a.MP4")])
    found = sorted(images_of([Path("clips/*")], folder / "out", WRITTEN))
    assert found == ["clips/a.MP4", "clips/b.avi"]
    with pytest.raises(InputError, match=r"no image is in the folder clips: .*, such as 'clips/\*.mp4'"):
        list(images_of([Path("clips")], folder / "out", WRITTEN))


@pytest.mark.parametrize("count", [1, 3, 8])
def test_every_image_is_of_one_process_and_done_ones_of_none(count: int, tmp_path: Path) -> None:
    names = [f"{number}\n.jpg" for number in range(200)]
    paths = [str(Path.cwd() / name) for name in names]
    done = b"".join(map(image_key, paths[:50]))
    shares = []
    for rank in range(count):
        with WorkLeft([*names, names[7], paths[199]], Ranks(rank, count), tmp_path) as work:
            assert len(list(work)) == len(work) == work.share
            work.leave_out(done)
            shares.append(list(work))
            assert len(shares[-1]) == len(work)
    assert sorted(path for share in shares for path in share) == sorted(paths[50:])
    assert all(len(share) > 100 / count / 2 for share in shares)
    assert not list(tmp_path.iterdir())


def test_an_image_takes_few_bytes_of_memory(tmp_path: Path) -> None:
    count, folder = 200_000, "/photos/of/a/very/long/name/that/would/take/all/memory" * 3
    tracemalloc.start()
    with WorkLeft((f"{folder}/{number}.jpg" for number in range(count)), Ranks(), tmp_path) as work:
        work.leave_out(image_key("another"))
        assert sum(1 for _ in work) == count
        _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * count


def test_an_image_has_one_path_however_it_is_written(folder: Path) -> None:
    names = ["p/a.png", "p/q/../a.png", "./p//a.png", f"{folder}/p/q/.././a.png", "p/z.png"]
    with WorkLeft(names, Ranks(), folder) as work:
        # A link is an image of its own: its name may be another one's.
        assert list(work) == [str(folder / "p" / "a.png"), str(folder / "p" / "z.png")]
    assert image_key(f"{folder}/p/q/../a.png") == image_key(str(folder / "p" / "a.png"))


def test_behind_a_link_to_a_folder_two_dots_are_where_the_link_leads(folder: Path) -> None:
    (folder / "x.png").touch()
    with WorkLeft(["p/link/../x.png", "p/x.png"], Ranks(), folder) as work:
        found = list(work)
    assert len(found) == 2 and os.path.exists(found[0]) and not os.path.exists(found[1])
