"""An image file that waits for its detection, and reading it: what the processes that read ahead do.

They import this module and what it needs, which is neither torch nor a network, so that each is small and starts soon.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from detectron_gn.mrcnn.data.read_image import ImageReading, read_image
from detectron_gn.mrcnn.errors import InputError

if TYPE_CHECKING:
    from detectron_gn.mrcnn.data.image_blob import Image


class ImageToDetect(NamedTuple):
    """An image file, and the picture to draw of it and that of its masks, if any."""

    path: Path
    picture: Path | None = None
    masks: Path | None = None


class ReadFile(NamedTuple):
    """An image file and its pixels `[H, W, 3]` uint8 BGR, or the sentence that says why there are none."""

    image: ImageToDetect
    pixels: Image | None
    error: str


def read_file(image: ImageToDetect, reading: ImageReading) -> ReadFile:
    """Read a file; it does not raise InputError."""
    try:
        return ReadFile(image, read_image(image.path, reading), "")
    except InputError as error:
        return ReadFile(image, None, str(error))
