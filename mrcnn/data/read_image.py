"""The one reader of image files: its pixels are those of Detectron's `cv2.imread`, or it says why there are none.

`cv2.imread` decodes half a JPEG in silence, asks for gigabytes because a header says so, makes 12 bits in 16 black, and
ends the process at a name that is not UTF-8. So the bytes are read here and their header is looked at first.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import cv2
import numpy as np

from detectron_gn.mrcnn.data.image_header import (
    TURNED_BY_A_QUARTER,
    ImageHeader,
    UnknownImage,
    read_header,
    still_png,
)
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.limits import MAX_IMAGE_PIXELS

if TYPE_CHECKING:
    from detectron_gn.mrcnn.data.image_blob import Image

Exif = Literal["apply", "ignore"]
EXIF: tuple[Exif, ...] = ("apply", "ignore")

_KINDS = {"image": "an image", "video": "a video"}
_JPEG_END = b"\xff\xd9"
# No format needs more for a pixel than this, and a few for its header.
_LARGEST_PIXEL, _LARGEST_HEADER = 16, 1 << 24
# OpenCV refuses larger images (OPENCV_IO_MAX_IMAGE_PIXELS).
_OPENCVS_LIMIT = 1 << 30
# Values of 8 bits below this leave the two highest bits of every pixel unused.
_DARK = 64
# A sensor has hot pixels: so large a share of the values may lie above the others and tells nothing of their range.
_HOT = 1e-4


@dataclass(frozen=True)
class ImageReading:
    """How image files are read.

    Attributes:
        exif: `apply` turns an image upright as its EXIF orientation says, as `cv2.imread` does from OpenCV 3.1 on;
            `ignore` takes it as it is stored, as older versions did: Detectron ran with both.
        max_pixels: width times height that an image may have, as stored.
    """

    exif: Exif = "apply"
    max_pixels: int = MAX_IMAGE_PIXELS


AS_IMREAD = ImageReading()


class _Origin(NamedTuple):
    """What sentences call an image, and what they advise: how to get it whole, and how to read one of so many pixels.

    `larger` has a place for the pixels.
    """

    name: str
    again: str
    larger: str


_GIVEN_BYTES = _Origin(
    "the picture given as bytes",
    "send it again",
    "give `detect` what decode_image(content, ImageReading(max_pixels={})) of detectron_gn.mrcnn.data.read_image gives",
)


class ReadImage(NamedTuple):
    """An image as `[H, W, 3]` uint8 BGR.

    `orientation` is that of EXIF, 1 to 8, applied or not; `remark` says what is missing of the file, if anything is.
    """

    pixels: Image
    orientation: int
    remark: str | None


def read_image(
    path: str | Path, reading: ImageReading = AS_IMREAD, size: tuple[int, int] | None = None
) -> Image:
    """An image file as `[H, W, 3]` uint8 BGR, to the bit what `cv2.imread` gives of a whole file.

    Grey and palette images become colour, alpha is left out, CMYK is converted and 16 bits are divided by 256, all as
    there.

    Args:
        size: (height, width) that it must have, as its annotations say.

    Raises InputError, naming the file, where it is missing, no regular file, too large, damaged or cut off, no image
    that OpenCV can decode, or of another size; and where it has more than 8 bits of which so few are used that 8 bits
    would be almost black.
    """
    header, content = _opened(path, reading)
    return _whole(_of_file(path), header, content, reading, size)


def decode_image(content: bytes, reading: ImageReading = AS_IMREAD) -> Image:
    """`read_image` of the bytes of a file, as a client sends them: the same pixels, the same limits.

    Raises InputError for what `read_image` refuses in a file.
    """
    origin = _GIVEN_BYTES
    if len(content) > _most_bytes(reading):
        raise InputError(_told_too_many_bytes(origin, reading))
    return _whole(origin, _header_of(origin, content, reading), content, reading, None)


def read_training_image(
    path: str | Path, reading: ImageReading = AS_IMREAD, size: tuple[int, int] | None = None
) -> ReadImage:
    """`read_image` for training: of a JPEG file that ends early what is there, with grey below, and a remark about it.

    Detectron trains on such files: `cv2.imread` gives just that (Detectron roi_data/minibatch.py:_get_image_blob).
    """
    header, content = _opened(path, reading)
    origin = _of_file(path)
    if header.damage is None:
        return ReadImage(_decoded(origin, header, content, reading, size), header.orientation, None)
    # `cv2.imread` puts the end marker there itself; `cv2.imdecode` waits for more.
    pixels = _decoded(origin, header, content + _JPEG_END, reading, size)
    remark = f"{path} {header.damage}: it is trained on as Detectron does, with grey where the rest would be"
    return ReadImage(pixels, header.orientation, remark)


def check_image_file(path: str | Path, kind: Literal["image", "video"] = "image") -> os.stat_result:
    """What the system knows of an image file, which is not opened: a pipe would wait there for someone to write.

    Args:
        kind: what a sentence calls it: an image, or a video.

    Raises InputError where there is no file, or a folder, a pipe or a device in its place.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no such {kind} file") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError:  # a name with a zero in it, or with half a surrogate pair
        raise InputError(f"{str(path)!r}: no such {kind} file, and no name that a file can have") from None
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path} is a folder, not {_KINDS[kind]} file: give the files in it")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is a pipe or a device, not {_KINDS[kind]} file: save the {kind} to a file first")
    return status


def _of_file(path: str | Path) -> _Origin:
    return _Origin(str(path), "copy it again", "pass --max-pixels {}")


def _opened(path: str | Path, reading: ImageReading) -> tuple[ImageHeader, bytes]:
    """The header and all bytes of a file whose image is not too large, and not damaged unless it is a JPEG."""
    origin = _of_file(path)
    if check_image_file(path).st_size > _most_bytes(reading):
        raise InputError(_told_too_many_bytes(origin, reading))
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    return _header_of(origin, content, reading), content


def _most_bytes(reading: ImageReading) -> int:
    return _LARGEST_PIXEL * reading.max_pixels + _LARGEST_HEADER


def _header_of(origin: _Origin, content: bytes, reading: ImageReading) -> ImageHeader:
    """The header of an image that is not too large, and not damaged unless it is a JPEG."""
    if not content:
        raise InputError(f"{origin.name} cannot be decoded as an image: the file is empty; {origin.again}")
    try:
        header = read_header(content)
    except UnknownImage as error:
        told = f"{origin.name} cannot be decoded as an image: {error}"
        raise InputError(f"{told}; {origin.again}, or convert it to JPEG or PNG") from None
    if header.damage is not None and header.format != "JPEG":
        raise InputError(_told_damage(origin, header))
    pixels = header.width * header.height
    if pixels > reading.max_pixels:
        raise InputError(
            f"{origin.name} is an image of {header.width} x {header.height} pixels (width x height), more than the "
            f"limit of {reading.max_pixels:,}: scale it down"
            f"{f', or {origin.larger.format(pixels)}' * (pixels <= _OPENCVS_LIMIT)}"
        )
    return header


def _whole(
    origin: _Origin, header: ImageHeader, content: bytes, reading: ImageReading, size: tuple[int, int] | None
) -> Image:
    if header.damage is not None:
        raise InputError(_told_damage(origin, header))
    return _decoded(origin, header, content, reading, size)


def _decoded(
    origin: _Origin, header: ImageHeader, content: bytes, reading: ImageReading, size: tuple[int, int] | None
) -> Image:
    content = still_png(content) if header.format == "PNG" else content
    flags = cv2.IMREAD_COLOR | (cv2.IMREAD_IGNORE_ORIENTATION if reading.exif == "ignore" else 0)
    buffer = np.frombuffer(content, dtype=np.uint8)
    try:
        image: Any = cv2.imdecode(buffer, flags)
    except cv2.error as error:
        raise InputError(f"{origin.name} cannot be decoded as an image: OpenCV refuses it ({error.err})") from None
    if image is None:
        _check_deep(origin.name, buffer)
        raise InputError(
            f"{origin.name} cannot be decoded as an image: the {header.format} file is damaged or cut off, or of a "
            f"kind that OpenCV does not read; {origin.again}, or convert it to JPEG or PNG"
        )
    if _is_dark(image):
        _check_range(origin.name, cv2.imdecode(buffer, flags | cv2.IMREAD_ANYDEPTH))
    if size is not None and image.shape[:2] != tuple(size):
        raise InputError(f"{origin.name} {_told_other_size(header, reading, image.shape[:2], tuple(size))}")
    return np.asarray(image, dtype=np.uint8)


def _is_dark(image: Image) -> bool:
    """Whether all values but hot pixels are dark; of most pictures an eighth of the rows tells."""
    return all(np.count_nonzero(rows >= _DARK) <= _HOT * image.size for rows in (image[::8], image))


def _check_range(name: str, image: Any) -> None:
    """Refuse an image that is dark only because it is divided by 256, or, in floats, by nothing."""
    if image is None or image.dtype == np.uint8:
        return
    largest, hot = _largest(image)
    if largest > 0:
        but_for = f", but for {hot:,} of {image.size:,}," if hot else ""
        raise InputError(
            f"{name} is {_told_depth(image)} image whose largest value{but_for} is {largest:g}: in 8 bits, as "
            f"Detectron reads images, it would be almost black. {_told_scaling(largest)}"
        )


def _check_deep(name: str, buffer: Any) -> None:
    """Refuse an image that OpenCV decodes, but not to 8 bits, such as a TIFF of floats."""
    try:
        image: Any = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return
    if image is None or image.dtype == np.uint8:
        return
    largest, _ = _largest(image)
    raise InputError(
        f"{name} is {_told_depth(image)} image, of which OpenCV makes none of 8 bits, as Detectron reads images. "
        + (_told_scaling(largest) if largest > 0 else "It has no value above 0")
    )


def _largest(image: Any) -> tuple[float, int]:
    """The largest value of an image but for hot pixels, far above all others, and how many values these are."""
    values = image[np.isfinite(image)]
    if not values.size:
        return 0.0, 0
    place = values.size - 1 - int(_HOT * values.size)
    usual = max(0.0, float(np.partition(values, place)[place]))
    cool = values[values <= 2 * usual]
    return float(cool.max(initial=0)), values.size - cool.size


def _told_depth(image: Any) -> str:
    known = {"uint16": "a 16-bit", "int32": "an int32"}
    return known.get(str(image.dtype), f"a {image.dtype}")


def _told_scaling(largest: float) -> str:
    return (
        "Scale it to 8 bits: "
        f"cv2.imwrite(NEW, cv2.convertScaleAbs(cv2.imread(OLD, -1), alpha=255 / {largest:g}))"
    )


def _told_too_many_bytes(origin: _Origin, reading: ImageReading) -> str:
    return (
        f"{origin.name} has more bytes than an image of {reading.max_pixels:,} pixels can have: if it is one of "
        f"N pixels, {origin.larger.format('N')}"
    )


def _told_damage(origin: _Origin, header: ImageHeader) -> str:
    if header.format == "HEIC":
        return f"{origin.name} {header.damage}: convert it to JPEG"
    return f"{origin.name} cannot be decoded as an image: the {header.format} file {header.damage}; {origin.again}"


def _told_other_size(
    header: ImageHeader, reading: ImageReading, found: tuple[int, ...], expected: tuple[int, ...]
) -> str:
    """That an image is not as large as its annotations say, and whether its EXIF orientation explains it."""
    sizes = (
        f"is {found[0]} x {found[1]} pixels, but the annotations say {expected[0]} x {expected[1]} (height x width)"
    )
    if found != expected[::-1]:
        return f"{sizes}: it is another picture, or another size of it"
    if header.orientation not in TURNED_BY_A_QUARTER:
        return f"{sizes}: 'height' and 'width' are exchanged in the annotations, or the picture was turned since"
    if reading.exif == "apply":
        return (
            f"{sizes}: its EXIF orientation {header.orientation} turns it by a quarter, and the annotations were made "
            "without that turn: pass --exif ignore, or remove the orientation from the file"
        )
    return (
        f"{sizes}: the annotations were made on the picture turned as its EXIF orientation {header.orientation} says: "
        "pass --exif apply"
    )
