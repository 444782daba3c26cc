"""JSON that any program can read."""

import json
import os
import threading
from pathlib import Path

import pytest

from detectron_gn.weights.errors import WriteFailed
from detectron_gn.weights.files.json_file import JsonList, write_json


def test_infinity_and_nan_become_null(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_json(path, {"blobs": ({"error": float("inf")}, {"error": 0.5}), "n": 3, "nan": float("nan")}, indent=1)
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "blobs": [{"error": None}, {"error": 0.5}], "n": 3, "nan": None,
    }  # fmt: skip


def test_numbers_keep_every_digit(tmp_path: Path) -> None:
    write_json(tmp_path / "out.json", [0.1 + 0.2, 1e-300])
    assert json.loads((tmp_path / "out.json").read_text()) == [0.1 + 0.2, 1e-300]


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    path, read = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: read.append(path.read_text()))
    reader.start()
    write_json(path, [1])
    reader.join(10)
    assert read == ["[1]\n"] and path.is_fifo()


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WriteFailed, match="is a folder"):
        write_json(tmp_path, [1])


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs Linux's device that is always full")
def test_a_device_without_room_is_named() -> None:
    with pytest.raises(WriteFailed, match="/dev/full: could not be written: No space left"):
        write_json(Path("/dev/full"), [1])


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("parts", [[], [[]], [[{"a": [1, 0.1]}]], [[{"a": 1}, "b"], [], [{}, []], [float("nan")]]])
def test_a_list_that_grows_on_the_disk_is_the_same_to_the_byte(
    parts: list[list[object]], indent: int | None, tmp_path: Path
) -> None:
    write_json(tmp_path / "whole.json", [item for part in parts for item in part], indent=indent)
    with JsonList(tmp_path, indent) as grown:
        for part in parts:
            grown.extend(part)
            assert len(list(tmp_path.iterdir())) == 1
        grown.write(tmp_path / "grown.json")
    assert (tmp_path / "grown.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs Linux's device that is always full")
def test_a_list_for_which_there_is_no_room_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(WriteFailed, match="could not be written to: No space left"):
        with JsonList(tmp_path) as rows:
            rows._file.close()
            rows._file = Path("/dev/full").open("w+b")
            rows.extend([1])
