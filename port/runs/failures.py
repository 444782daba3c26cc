"""The images and videos in which nothing could be detected: a line of JSON for each, for those who try them again.

Each process writes `failures_N.jsonl` of its own, where there is something to write:

    {"file_name": "/data/photos/a.jpg", "error": "/data/photos/a.jpg cannot be decoded: the file is empty; ..."}
"""

import json
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from detectron_gn.port.runs.detection_lines import DetectionLines, refuse_what_is_no_file
from detectron_gn.port.runs.work_left import absolute_path
from detectron_gn.weights.errors import WriteFailed
from detectron_gn.weights.files.json_file import json_text

_NAME = re.compile(r"failures_[0-9]+\.jsonl")


def failure_files(folder: Path) -> list[Path]:
    """The files of failures in a folder, sorted."""
    return sorted(path for path in folder.glob("failures_*.jsonl") if _NAME.fullmatch(path.name))


def forget_failures(folder: Path) -> None:
    """Take away what an earlier run has put on record: this one tries those images again."""
    for path in failure_files(folder):
        refuse_what_is_no_file(path)
        try:
            path.unlink(missing_ok=True)  # another process of this run may have been faster
        except OSError as error:
            raise WriteFailed(str(path), f"cannot be taken away: {error.strerror or error}") from None


def read_failures(files: Sequence[Path]) -> list[dict[str, Any]]:
    """All lines of files of failures."""
    return [json.loads(line) for path in files for line in path.read_bytes().splitlines()]


class Failures:
    """The failures of one process; use it in a `with` statement. Its file is there from the first failure on."""

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self._path = folder / f"failures_{rank}.jsonl"
        self._lines: DetectionLines | None = None
        self._opened = ExitStack()

    def add(self, path: Path, error: str) -> None:
        """Put an image or a video on record, with the sentence that says what is the matter."""
        if self._lines is None:
            self._lines = self._opened.enter_context(DetectionLines(self._path))
        content = {"file_name": absolute_path(str(path)), "error": error}
        self._lines.add((json_text(content) + "\n").encode())

    def __enter__(self) -> "Failures":
        return self

    def __exit__(self, *_raised: object) -> None:
        self._opened.close()
