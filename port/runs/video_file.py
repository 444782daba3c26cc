"""The one reader of video files: their frames through OpenCV, or the sentence that says why there are none.

OpenCV hands a name to FFmpeg, which would follow playlists to other files and to the network, open a name with a % as
a row of pictures, and tell of faults on stderr. So the file is looked at first, and only known containers go on.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from detectron_gn.mrcnn.data.read_image import AS_IMREAD, ImageReading, check_image_file
from detectron_gn.mrcnn.errors import InputError

if TYPE_CHECKING:
    from detectron_gn.mrcnn.data.image_blob import Image

# MP4 and QuickTime, AVI, Matroska and WebM, MPEG program and elementary streams, MPEG transport streams of 188 and 192
# bytes, ASF, FLV, Ogg.
_CONTAINERS = re.compile(
    rb"....(?:ftyp|moov|mdat|free|skip|wide|pnot)|RIFF....AVI |\x1a\x45\xdf\xa3|\x00\x00\x01[\xba\xb3]"
    rb"|G.{187}G|.{4}G.{191}G|\x30\x26\xb2\x75|FLV|OggS",
    re.DOTALL,
)
_HEAD = 400
# OpenCV's lowest level of messages.
_SILENT = 0
# Of the frames that a container announces so many must come; where none has an index, the number is an estimate.
_WHOLE = 0.95
# Frames per second of a video that does not say it.
_USUAL_RATE = 25.0
_CONVERT = "convert it with: ffmpeg -i {} -c:v libx264 new.mp4"


class Frame(NamedTuple):
    """A frame: its number from 0 on, its time in seconds after the first one, and `[H, W, 3]` uint8 BGR."""

    number: int
    seconds: float
    pixels: Image


class VideoFile:
    """A video that is open; use it in a `with` statement.

    Args:
        reading: `exif` says whether frames are turned upright, as the video's own orientation says.

    Attributes:
        path: the file.
        rate: frames per second.
        announced: how many frames the container announces; an estimate for some, 0 where it says nothing.

    Raises InputError where the file is missing, no video that OpenCV decodes, or of frames that are too large.
    """

    def __init__(self, path: Path, reading: ImageReading = AS_IMREAD) -> None:
        self.path = path
        _check_container(path)
        with silent_opencv():
            # Absolute, so that no name is taken for a protocol.
            self._capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise InputError(f"{path} cannot be decoded as a video: {_told_damage(path)}")
        if reading.exif == "ignore":
            self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        self.rate = self._number(cv2.CAP_PROP_FPS, 1000) or _USUAL_RATE
        self.announced = int(self._number(cv2.CAP_PROP_FRAME_COUNT, 1e9))
        self._decoded = 0
        width, height = (int(self._number(side, 1e9)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > reading.max_pixels:
            self._capture.release()
            raise InputError(
                f"{path} is a video of {width} x {height} pixels (width x height), more than the limit of "
                f"{reading.max_pixels:,}: scale it down, or pass --max-pixels {width * height}"
            )

    def frames(self, every: int = 1, skipped: int = 0) -> Iterator[Frame]:
        """Frames 0, `every`, 2 `every`, ..., without the first `skipped` of them; to be called once."""
        number, begin = 0, 0.0
        while self._capture.grab():
            seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if not (math.isfinite(seconds) and seconds >= 0) or number > 0 and seconds == 0:
                seconds = number / self.rate
            begin = begin if number else seconds
            if number % every == 0 and number // every >= skipped:
                is_read, pixels = self._capture.retrieve()
                if not is_read:
                    break
                yield Frame(number, round(seconds - begin, 6), np.asarray(pixels, dtype=np.uint8))
            number += 1
            self._decoded = number

    def check_whole(self) -> None:
        """Raise InputError where far fewer frames came, when all have, than the container announces."""
        if not self._decoded:
            raise InputError(f"{self.path} cannot be decoded as a video: no frame of it can; {_told_damage(self.path)}")
        if self._decoded < _WHOLE * self.announced - 1:
            raise InputError(
                f"{self.path} is damaged or cut off: it announces {self.announced:,} frames, and {self._decoded:,} of "
                "them can be decoded; copy it again"
            )

    def _number(self, key: int, most: float) -> float:
        value = float(self._capture.get(key))
        return value if math.isfinite(value) and 0 < value <= most else 0.0

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_raised: Any) -> None:
        self._capture.release()


def check_video(path: Path, reading: ImageReading) -> None:
    """Raise InputError where a video cannot be opened; no frame is decoded."""
    with VideoFile(path, reading):
        pass


def _check_container(path: Path) -> None:
    check_image_file(path, "video")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    if not head:
        raise InputError(f"{path} cannot be decoded as a video: the file is empty; copy it again")
    if not _CONTAINERS.match(head):
        raise InputError(
            f"{path} cannot be decoded as a video: its content is no MP4, QuickTime, AVI, Matroska, WebM, MPEG, ASF, "
            f"FLV or Ogg file; copy it again, or {_CONVERT.format(path.name)}"
        )


def _told_damage(path: Path) -> str:
    return (
        "the file is damaged, cut off, or of a kind that OpenCV does not read; copy it again, or "
        + _CONVERT.format(path.name)
    )


@contextlib.contextmanager
def silent_opencv() -> Iterator[None]:
    """Keep OpenCV and FFmpeg from writing to stderr: what is wrong is told in a sentence."""
    # FFmpeg's level is read once, when the first video is opened.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # OpenCV 4 has both functions in its own module.
    logging: Any = getattr(cv2.utils, "logging", cv2)
    level = logging.getLogLevel()
    logging.setLogLevel(_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)
