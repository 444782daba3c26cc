"""The JSON lines of a video, one for each frame that was detected in, so that a run that was killed goes on.

    {"file_name": "/data/a.mp4", "frame": 12, "seconds": 0.5, "height": 480, "width": 640, "detections": [...]}

Until the video is done they are in `NAME_detections.part.jsonl`, then in `NAME_detections.jsonl`.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.runs.detection_lines import DetectionLines, refuse_what_is_no_file, whole_lines
from detectron_gn.port.runs.video_file import Frame
from detectron_gn.weights.errors import WriteFailed
from detectron_gn.weights.files.atomic import publish, sync
from detectron_gn.weights.files.json_file import json_text

# A line's beginning, from which its frame is known without reading the rest.
_FRAME = re.compile(rb'\{"file_name": "(?:[^"\\]|\\.)*", "frame": ([0-9]+), "seconds": ')


class VideoLines:
    """The lines of a video; use it in a `with` statement.

    Args:
        path: the file that they are in when the video is done.
        every: frames 0, `every`, 2 `every`, ... are detected in.

    Attributes:
        are_whole: whether an earlier run has done the whole video.
        place: the file that they are in now: `path`, or until the video is done another one.
        done: how many frames an earlier run has detected in.
        count: how many have lines by now.

    Raises InputError where a line is none of this video's; a last line that was torn is cut off.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.are_whole = path, is_done(path)
        self.place = path if self.are_whole else path.with_suffix(f".part{path.suffix}")
        self.done = 0
        refuse_what_is_no_file(self.place)
        if self.place.exists():
            try:
                with self.place.open("r+b") as file:
                    for line in whole_lines(file):
                        self._check(line, every)
                        self.done += 1
            except OSError as error:
                raise InputError(f"{self.place} cannot be read or mended: {error.strerror or error}") from None
        self.count = self.done
        self._lines = DetectionLines(self.place)

    def earlier(self) -> Iterator[dict[str, Any]]:
        """The line of each frame that an earlier run has detected in, in order."""
        with self.place.open("rb") as file:
            for _, line in zip(range(self.done), file):
                yield json.loads(line)

    def add(self, path: Path, frame: Frame, detections: Sequence[dict[str, Any]]) -> None:
        """Put the rows of the next frame on record."""
        height, width = frame.pixels.shape[:2]
        place = {"file_name": str(path), "frame": frame.number, "seconds": frame.seconds}
        content = {**place, "height": height, "width": width, "detections": detections}
        self._lines.add((json_text(content) + "\n").encode())
        self.count += 1

    def finish(self) -> None:
        """Give the file the name that says that the video is done."""
        if self.are_whole:
            return
        try:
            sync(self.place)
            publish(self.place, self.path)
        except OSError as error:
            raise WriteFailed(str(self.path), f"could not be written: {error.strerror or error}") from None

    def _check(self, line: bytes, every: int) -> None:
        found = _FRAME.match(line)
        if found is None or int(found[1]) != self.done * every or not line.endswith(b"]}\n"):
            raise InputError(
                f"{self.place}, line {self.done + 1}, is not that of frame {self.done * every}: delete the file, and "
                "begin the video again"
            )

    def __enter__(self) -> "VideoLines":
        self._lines.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._lines.__exit__(*raised)


def is_done(path: Path) -> bool:
    """Whether the lines of a video are there as those of one that is done."""
    return os.path.isfile(path)
