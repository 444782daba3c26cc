"""What an image file says of itself before anything is decoded: its format, size and EXIF orientation.

Only what OpenCV decodes is known here. A size in a header costs nothing; the pixels behind it may cost gigabytes.
"""

import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

# EXIF orientations, 1 to 8: those that exchange height and width.
TURNED_BY_A_QUARTER = (5, 6, 7, 8)

_EXIF_ORIENTATION = 0x0112
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT = 256, 257, 322, 323
_TIFF_STRIPS, _TIFF_SAMPLES, _TIFF_ROWS_OF_A_STRIP, _TIFF_STRIP_SIZES, _TIFF_PLANAR = 273, 277, 278, 279, 284
_TIFF_FORMATS = {1: "B", 3: "H", 4: "I"}

# A JPEG marker that ends entropy-coded data: not a stuffed zero, not a restart, not padding.
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_JPEG_END, _JPEG_SCAN, _JPEG_APP1 = 0xD9, 0xDA, 0xE1
_JPEG_LAST = b"\xff\xd9"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PNG_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_PNG_ANIMATION = (b"acTL", b"fcTL", b"fdAT")


class ImageHeader(NamedTuple):
    """What the header of an image file says.

    Attributes:
        format: its name, as "JPEG".
        width, height: in pixels, as stored: before any turn that `orientation` asks for.
        orientation: of EXIF, 1 to 8; 1 is upright, and stands for none as well.
        damage: what is missing of the file, as the end of "the file ..."; None where nothing is known to be.
    """

    format: str
    width: int
    height: int
    orientation: int = 1
    damage: str | None = None


class UnknownImage(ValueError):
    """The bytes are no image of a format that is known here, or their header is damaged; says which of the two."""


def read_header(content: bytes) -> ImageHeader:
    """The header of the bytes of an image file; raises UnknownImage."""
    for magic, read in _READERS:
        if magic.match(content):
            try:
                return read(content)
            except (struct.error, LookupError, ValueError, TypeError, ArithmeticError):
                raise UnknownImage("the header is damaged or cut off") from None
    raise UnknownImage("the content is no image of a format that OpenCV reads")


def _jpeg(content: bytes) -> ImageHeader:
    size: tuple[int, int] | None = None
    orientation, place, scanned = 1, 2, False
    while (marker := _JPEG_MARKER.search(content, place)) is not None:
        kind, place = marker[1][0], marker.end()
        if kind == _JPEG_END and scanned:
            break
        if kind in (0x01, 0xD8, _JPEG_END):  # they have no content
            continue
        length = int.from_bytes(content[place : place + 2], "big")
        segment, place = content[place + 2 : place + length], place + length
        if kind in _JPEG_FRAMES and size is None:
            height, width = struct.unpack_from(">HH", segment, 1)
            size = (width, height)
        elif kind == _JPEG_APP1 and segment.startswith(b"Exif\0\0"):
            orientation = _exif_orientation(segment[6:])
        scanned = scanned or kind == _JPEG_SCAN
        if scanned and size is not None and content.endswith(_JPEG_LAST):
            # Within coded data a zero follows every 0xff, so this is the end; to look for it takes half a decoding.
            break
    if size is None:
        raise ValueError("no frame header")
    return ImageHeader("JPEG", *size, orientation, None if marker and scanned else "ends early")


def _png(content: bytes) -> ImageHeader:
    width, height = struct.unpack_from(">II", content, 16)
    orientation, place, ended = 1, 8, False
    while not ended:
        if place + 12 > len(content):
            return ImageHeader("PNG", width, height, orientation, "ends early")
        length, kind = struct.unpack_from(">I4s", content, place)
        data = content[place + 8 : place + 8 + length]
        place += length + 12
        if place > len(content):
            return ImageHeader("PNG", width, height, orientation, "ends early")
        (checksum,) = struct.unpack_from(">I", content, place - 4)
        if kind in _PNG_CRITICAL and zlib.crc32(data, zlib.crc32(kind)) != checksum:
            return ImageHeader("PNG", width, height, orientation, "is damaged: a checksum in it does not hold")
        if kind == b"eXIf":
            orientation = _exif_orientation(data)
        ended = kind == b"IEND"
    return ImageHeader("PNG", width, height, orientation)


def still_png(content: bytes) -> bytes:
    """The bytes of a whole PNG file without those of its animation.

    `cv2.imread` gives the picture that programs without animation show. `cv2.imdecode` gives the first frame of the
    animation, which may be another one, or black where there is no frame.
    """
    if b"acTL" not in content:
        return content
    kept, place = [content[:8]], 8
    while place < len(content):
        end = place + int.from_bytes(content[place : place + 4], "big") + 12
        if content[place + 4 : place + 8] not in _PNG_ANIMATION:
            kept.append(content[place:end])
        place = end
    return b"".join(kept)


def _gif(content: bytes) -> ImageHeader:
    return ImageHeader("GIF", *struct.unpack_from("<HH", content, 6))


def _bmp(content: bytes) -> ImageHeader:
    old = content[14] == 12  # OS/2's header has shorter fields
    width, height = struct.unpack_from("<HH" if old else "<ii", content, 18)
    return ImageHeader("BMP", abs(width), abs(height))


def _webp(content: bytes) -> ImageHeader:
    size: tuple[int, int] | None = None
    orientation, place, end = 1, 12, 8 + int.from_bytes(content[4:8], "little")
    while place + 8 <= min(end, len(content)):
        kind, length = struct.unpack_from("<4sI", content, place)
        data = content[place + 8 : place + 8 + length]
        if kind == b"VP8X" and size is None:
            size = (1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little"))
        elif kind == b"VP8 " and size is None:
            width, height = struct.unpack_from("<HH", data, 6)
            size = (width & 0x3FFF, height & 0x3FFF)
        elif kind == b"VP8L" and size is None:
            bits = int.from_bytes(data[1:5], "little")
            size = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
        elif kind == b"EXIF":
            orientation = _exif_orientation(data.removeprefix(b"Exif\0\0"))
        place += 8 + length + length % 2
    if size is None:
        raise ValueError("no frame")
    return ImageHeader("WebP", *size, orientation, "ends early" if end > len(content) else None)


def _tiff(content: bytes) -> ImageHeader:
    tags, counts = {}, {}
    for tag, count, value in _tiff_tags(content):
        counts[tag] = count
        if value is not None:
            tags[tag] = value
    # A tile is held whole, however little of it the image covers.
    width = max(tags[_TIFF_WIDTH], tags.get(_TIFF_TILE_WIDTH, 0))
    height = max(tags[_TIFF_HEIGHT], tags.get(_TIFF_TILE_HEIGHT, 0))
    damage = None
    if counts.keys() >= {_TIFF_STRIPS, _TIFF_STRIP_SIZES}:
        # OpenCV takes whatever lies in memory for strips that are not there.
        strips = math.ceil(tags[_TIFF_HEIGHT] / tags.get(_TIFF_ROWS_OF_A_STRIP, tags[_TIFF_HEIGHT] or 1))
        planes = tags.get(_TIFF_SAMPLES, counts.get(_TIFF_SAMPLES, 1)) if tags.get(_TIFF_PLANAR) == 2 else 1
        if min(counts[_TIFF_STRIPS], counts[_TIFF_STRIP_SIZES]) < strips * planes:
            damage = "is damaged: it has fewer strips than its size asks for"
    return ImageHeader("TIFF", width, height, damage=damage)


def _jpeg2000(content: bytes) -> ImageHeader:
    # The codestream's own size; the one in the box around it is not what is decoded.
    start = content.index(b"\xff\x4f\xff\x51")
    right, bottom, left, top = struct.unpack_from(">IIII", content, start + 8)
    return ImageHeader("JPEG 2000", max(right - left, 0), max(bottom - top, 0))


def _iso_media(content: bytes) -> ImageHeader:
    brands = content[8 : int.from_bytes(content[:4], "big")]
    if b"avif" not in brands and b"avis" not in brands:
        raise ValueError("no AVIF")
    # Each part of the file (the picture, its alpha, a thumbnail) has such a box.
    sizes = [struct.unpack_from(">II", content, found.end() + 4) for found in re.finditer(b"ispe", content)]
    return ImageHeader("AVIF", *max(sizes, key=lambda size: size[0] * size[1]))


def _heic(content: bytes) -> ImageHeader:
    return ImageHeader("HEIC", 0, 0, damage="is HEIC, as an iPhone takes pictures, which OpenCV cannot decode")


def _netpbm(content: bytes) -> ImageHeader:
    words = re.sub(rb"#[^\n]*", b"", content[:4096]).split(maxsplit=3)
    return ImageHeader("PNM", int(words[1]), int(words[2]))


def _pam(content: bytes) -> ImageHeader:
    sizes = dict(re.findall(rb"^(WIDTH|HEIGHT)\s+(\d+)", content[:4096], re.MULTILINE))
    return ImageHeader("PAM", int(sizes.get(b"WIDTH", b"")), int(sizes.get(b"HEIGHT", b"")))


def _radiance(content: bytes) -> ImageHeader:
    found = re.search(rb"^[-+][YX] (\d+) [-+][XY] (\d+)$", content[:65536], re.MULTILINE)
    if found is None:
        raise ValueError("no size")
    return ImageHeader("Radiance HDR", int(found[2]), int(found[1]))


def _sun_raster(content: bytes) -> ImageHeader:
    return ImageHeader("Sun raster", *struct.unpack_from(">II", content, 4))


_READERS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], ImageHeader]], ...] = tuple(
    (re.compile(magic, re.DOTALL), read)
    for magic, read in (
        (rb"\xff\xd8\xff", _jpeg),
        (rb"\x89PNG\r\n\x1a\n", _png),
        (rb"GIF8[79]a", _gif),
        (rb"BM", _bmp),
        (rb"RIFF....WEBP", _webp),
        (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", _tiff),
        (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", _jpeg2000),
        (rb"....ftyp(?:heic|heix|hevc|mif1(?!.{0,64}avif))", _heic),
        (rb"....ftyp", _iso_media),
        (rb"P[1-6]\s|P[Ff]\s", _netpbm),
        (rb"P7\s", _pam),
        (rb"#\?(?:RADIANCE|RGBE)", _radiance),
        (rb"\x59\xa6\x6a\x95", _sun_raster),
    )
)


def _exif_orientation(tiff: bytes) -> int:
    """The orientation in EXIF data; 1 where there is none, and where the data are damaged, as OpenCV has it."""
    try:
        found = [value for tag, _, value in _tiff_tags(tiff) if tag == _EXIF_ORIENTATION and value is not None]
    except (struct.error, ValueError):
        return 1
    return found[-1] if found and 1 <= found[-1] <= 8 else 1


def _tiff_tags(content: bytes) -> Iterator[tuple[int, int, int | None]]:
    """Tags of the first directory of a TIFF, how many values each has, and the value where it is one whole number."""
    order = {b"II": "<", b"MM": ">"}[content[:2]] if content[:2] in (b"II", b"MM") else ""
    if not order:
        raise ValueError("no TIFF")
    big = struct.unpack_from(f"{order}H", content, 2)[0] == 43
    (place,) = struct.unpack_from(f"{order}Q" if big else f"{order}I", content, 8 if big else 4)
    if place > len(content):
        raise ValueError("its directory is beyond its end")
    (count,) = struct.unpack_from(f"{order}Q" if big else f"{order}H", content, place)
    place += 8 if big else 2
    for _ in range(min(count, 65535)):
        tag, kind, values = struct.unpack_from(f"{order}HHQ" if big else f"{order}HHI", content, place)
        value = None
        if kind in _TIFF_FORMATS and values == 1:
            (value,) = struct.unpack_from(f"{order}{_TIFF_FORMATS[kind]}", content, place + (12 if big else 8))
        yield tag, values, value
        place += 20 if big else 12
