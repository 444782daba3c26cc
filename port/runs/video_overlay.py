"""Writes the video with what was found in another: VP8 in a .webm, which browsers play, there when it is whole."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.port.runs.video_file import silent_opencv
from detectron_gn.weights.errors import WriteFailed
from detectron_gn.weights.files.atomic import publish, sync

# OpenCV's wheels have no encoder of H.264, and browsers do not play their MPEG-4; this one is in all of them.
_CODEC = "VP80"
# What its clock can tell.
_LEAST_RATE, _MOST_RATE = 0.1, 240.0


class VideoOverlay:
    """A video that pictures are added to; use it in a `with` statement.

    All pictures have the size of the first, whose sides are made even; one of another size is scaled to it. Until
    `finish` it is `NAME.part.webm`, which a later run writes over.

    Args:
        path: the .webm to write.
        rate: pictures per second.

    Raises WriteFailed where OpenCV cannot write, or a full disk has cut the video off.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self._path, self._part = path, path.with_suffix(f".part{path.suffix}")
        self._rate = min(max(rate, _LEAST_RATE), _MOST_RATE)
        self._writer: Any = None
        self._size = (0, 0)
        self._count = 0

    def add(self, picture: Image) -> None:
        """Add a picture, `[H, W, 3]` uint8 BGR."""
        if self._writer is None:
            self._open(picture)
        width, height = self._size
        if picture.shape[:2] != (height, width):
            even = (height - picture.shape[0], width - picture.shape[1])
            if all(more in (0, 1) for more in even):
                picture = np.asarray(cv2.copyMakeBorder(picture, 0, even[0], 0, even[1], cv2.BORDER_REPLICATE))
            else:
                picture = np.asarray(cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA))
        self._writer.write(picture)
        self._count += 1

    def finish(self) -> bool:
        """Have the video under its name, whole; False where no picture was added, so that there is none."""
        if self._writer is None:
            return False
        self._writer.release()
        with silent_opencv():
            written = cv2.VideoCapture(str(self._part.absolute()), cv2.CAP_FFMPEG)
            count = int(written.get(cv2.CAP_PROP_FRAME_COUNT)) if written.isOpened() else 0
            written.release()
        if count != self._count:
            raise WriteFailed(
                str(self._path),
                f"holds {count:,} of {self._count:,} pictures: is the disk full? Free some room, and go on",
            )
        try:
            sync(self._part)
            publish(self._part, self._path)
        except OSError as error:
            raise WriteFailed(str(self._path), f"could not be written: {error.strerror or error}") from None
        return True

    def _open(self, picture: Image) -> None:
        height, width = picture.shape[:2]
        self._size = (width + width % 2, height + height % 2)
        with silent_opencv(), _silent_stderr():
            self._writer = cv2.VideoWriter(
                str(self._part.absolute()), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*_CODEC), self._rate, self._size
            )
        if not self._writer.isOpened():
            raise WriteFailed(
                str(self._path),
                f"could not be written: OpenCV writes no video of {width} x {height} pixels here; pass --no-pictures",
            )

    def __enter__(self) -> "VideoOverlay":
        return self

    def __exit__(self, *_raised: Any) -> None:
        if self._writer is not None:
            self._writer.release()
            with contextlib.suppress(OSError):
                self._part.unlink(missing_ok=True)


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep what C code writes to stderr from it: OpenCV tells there that a WebM's codecs have no number."""
    try:
        kept = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
