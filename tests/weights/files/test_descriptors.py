"""What a process has open is written to, and never replaced: a log would be lost."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import detectron_gn
from detectron_gn.weights.errors import WriteFailed
from detectron_gn.weights.files.atomic import replacing
from detectron_gn.weights.files.descriptors import leads_to_open_file, own_descriptor
from detectron_gn.weights.files.json_file import JsonList, check_open_for_writing, write_json
from tests.helpers.command_line import Run, assert_one_sentence

pytestmark = pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="this system has no /dev/fd")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A log in which a shell has written a line, and its descriptor."""
    path = tmp_path / "log.txt"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"before\n")
    yield path, descriptor
    os.close(descriptor)


def test_a_log_behind_a_descriptor_is_written_on(log: tuple[Path, int], tmp_path: Path) -> None:
    path, descriptor = log
    link = tmp_path / "link.json"
    link.symlink_to(f"/dev/fd/{descriptor}")
    write_json(Path(f"/dev/fd/{descriptor}"), [1])
    write_json(link, [2])
    with JsonList(tmp_path) as rows:
        rows.extend([3])
        rows.write(Path(f"/proc/self/fd/{descriptor}"))
    os.write(descriptor, b"after\n")
    assert path.read_text() == "before\n[1]\n[2]\n[3]\nafter\n" and link.is_symlink()


def test_nothing_takes_its_place(log: tuple[Path, int], tmp_path: Path) -> None:
    path, descriptor = log
    link = tmp_path / "link.pth"
    link.symlink_to(f"/proc/self/fd/{descriptor}")
    with pytest.raises(WriteFailed, match="what a process has open"), replacing(link):
        pass
    assert path.read_text() == "before\n" and sorted(tmp_path.iterdir()) == [link, path]


def test_descriptors_are_known_by_all_their_names(tmp_path: Path) -> None:
    own = f"/proc/{os.getpid()}/fd/7"
    for name, number in {"/dev/stdout": 1, "/dev/stderr": 2, "/dev/fd/3": 3, "/proc/self/fd/4": 4, own: 7}.items():
        assert own_descriptor(Path(name)) == number and leads_to_open_file(Path(name)), name
    assert leads_to_open_file(Path("/proc/1/fd/1")) and own_descriptor(Path("/proc/1/fd/1")) is None
    (tmp_path / "circle").symlink_to("circle")
    for path in (tmp_path / "fd" / "1", tmp_path / "circle", Path("/dev/null"), Path("fd"), Path("a\0b")):
        assert not leads_to_open_file(path), path


def test_what_is_not_open_to_be_written_to_is_told_before_any_work() -> None:
    read_only = os.open(os.devnull, os.O_RDONLY)
    try:
        for path in (Path(f"/dev/fd/{read_only}"), Path("/dev/fd/999")):
            with pytest.raises(WriteFailed, match=f"{path}: is not open to be written to"):
                check_open_for_writing(path)
    finally:
        os.close(read_only)


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_json_on_standard_output_is_alone_there(
    name: str, pickle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert detectron_gn.main(["convert", str(pickle), "--out", str(tmp_path / "a" / "m.pth"), "--json", name]) == 0
    printed, notes = capfd.readouterr()
    assert json.loads(printed)["blobs"] == 223 and "m.pth: 223 blobs\n" in notes


def test_weights_do_not_go_to_standard_output(run: Run, pickle: Path) -> None:
    assert_one_sentence(run("convert", pickle, "--out", "/dev/stdout"), "/dev/stdout: is what a process has open")
    assert_one_sentence(run("verify", "dump-script", "--out", "/dev/stdout"), "name a file")
