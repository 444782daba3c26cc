"""JSON that any program can read."""

import json
import os
import threading
from pathlib import Path

import pytest

from detectron_gn.weights.errors import WriteFailed
from detectron_gn.weights.files.json_file import write_json


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
