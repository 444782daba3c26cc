"""Image files for benchmarks.fuzz_data: of all formats that OpenCV writes, changed where the formats say something.

A changed byte ends most readers at a checksum or in noise, so a PNG is changed chunk by chunk with its checksums put
right, a JPEG segment by segment, a WebP and an AVIF box by box, a TIFF tag by tag, and of the others the header.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np

from benchmarks.fuzz_files import damage, damaged

_FORMATS = {
    ".jpg": [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_QUALITY, 30], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]],
    ".png": [[], [cv2.IMWRITE_PNG_COMPRESSION, 0], [cv2.IMWRITE_PNG_BILEVEL, 1]],
    ".webp": [[], [cv2.IMWRITE_WEBP_QUALITY, 40], [cv2.IMWRITE_WEBP_QUALITY, 101]],
    ".tiff": [[cv2.IMWRITE_TIFF_COMPRESSION, kind] for kind in (1, 5, 8, 32773)],
    ".bmp": [[]],
    ".gif": [[]],
    ".jp2": [[]],
    ".avif": [[]],
    ".ppm": [[], [cv2.IMWRITE_PXM_BINARY, 0]],
    ".pgm": [[], [cv2.IMWRITE_PXM_BINARY, 0]],
    ".pbm": [[], [cv2.IMWRITE_PXM_BINARY, 0]],
    ".pam": [[]],
    ".pfm": [[]],
    ".hdr": [[], [cv2.IMWRITE_HDR_COMPRESSION, 0]],
    ".sr": [[]],
}
_SIZES = (0, 1, 2, 3, 8, 255, 256, 1000, 5000, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def pictures(chance: random.Random) -> bytes:
    """An image file of any format."""
    extension = chance.choice(sorted(_FORMATS))
    content = _encoded(chance, extension)
    if extension in (".png", ".webp", ".gif", ".avif") and chance.random() < 0.1:
        content = _animated(chance, extension)
    if chance.random() < 0.2:
        content = _turned(chance, extension, content)
    return damaged(chance, content, lambda: _CHANGES.get(extension, _changed_header)(chance, content))


def _encoded(chance: random.Random, extension: str) -> bytes:
    height, width = (chance.choice([1, 2, 7, 8, 16, 33, 64]) for _ in range(2))
    channels = chance.choice([1, 3, 3, 4])
    deep = chance.random() < 0.2
    if extension in (".pgm", ".pbm"):
        channels = 1
    elif extension in (".ppm", ".pfm", ".hdr", ".gif", ".jp2", ".avif", ".sr"):
        channels = 3
    shape = (height, width, channels) if channels > 1 else (height, width)
    values = np.frombuffer(chance.randbytes(2 * height * width * channels), np.uint16).reshape(shape)
    pixels: np.ndarray = values if deep else (values >> 8).astype(np.uint8)
    if chance.random() < 0.3:
        pixels = np.full_like(pixels, chance.randrange(256))
    if extension in (".pfm", ".hdr"):
        pixels = pixels.astype(np.float32) / chance.choice([1, 255, 65535])
    elif extension in (".jpg", ".webp", ".gif", ".bmp", ".sr", ".pbm", ".avif"):
        pixels = pixels.astype(np.uint8)
    try:
        ok, content = cv2.imencode(extension, pixels, chance.choice(_FORMATS[extension]))
    except cv2.error:
        ok = False
    return content.tobytes() if ok else cv2.imencode(".png", np.zeros((3, 3, 3), np.uint8))[1].tobytes()


def _animated(chance: random.Random, extension: str) -> bytes:
    """Of several pictures, of a PNG now and then with a first one that is no frame."""
    height, width, channels = (chance.choice(sides) for sides in ([1, 8, 33], [2, 16, 40], [3, 4]))
    animation = cv2.Animation()
    animation.frames = [
        np.frombuffer(chance.randbytes(height * width * channels), np.uint8).reshape(height, width, channels)
        for _ in range(chance.randrange(2, 5))
    ]
    animation.durations = [50] * len(animation.frames)
    content: bytes = cv2.imencodeanimation(extension, animation)[1].tobytes()
    at = content.find(b"fcTL") - 4
    return content[:at] + content[at + 38 :] if extension == ".png" and at > 0 and chance.random() < 0.5 else content


def _turned(chance: random.Random, extension: str, content: bytes) -> bytes:
    """With EXIF data that hold an orientation, of either byte order, now and then with a directory that is none."""
    orientation = chance.choice([1, 2, 3, 4, 5, 6, 7, 8, 8, 0, 9, 65535])
    order, mark = chance.choice([("<", b"II*\0"), (">", b"MM\0*")])
    entry = struct.pack(
        f"{order}HHIHH", 0x0112, chance.choice([3, 3, 3, 4, 1, 9]), chance.choice([1, 1, 2]), orientation, 0
    )
    exif = (
        mark
        + struct.pack(f"{order}IH", chance.choice([8, 8, 8, 0, 2**31]), chance.choice([1, 1, 0, 2, 65535]))
        + entry
        + b"\0" * 4
    )
    if extension == ".jpg":
        segment = b"Exif\0\0" + exif
        return content[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + content[2:]
    if extension == ".png" and content[:4] == b"\x89PNG":
        return content[:33] + _chunk(b"eXIf", exif) + content[33:]
    return content


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _changed_png(chance: random.Random, content: bytes) -> bytes:
    pieces, place = [], 8
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        pieces.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += length + 12
    at = chance.randrange(len(pieces))
    kind, data = pieces[at]
    match chance.randrange(6):
        case 0 if kind == b"IHDR":
            width, height, *rest = struct.unpack(">IIBBBBB", data)
            if chance.random() < 0.6:
                width, height = chance.choice([(chance.choice(_SIZES), height), (width, chance.choice(_SIZES))])
            else:
                rest[chance.randrange(5)] = chance.choice([0, 1, 2, 3, 4, 6, 8, 16, 255])
            pieces[at] = kind, struct.pack(">IIBBBBB", width, height, *rest)
        case 1:
            del pieces[at]
        case 2:
            pieces.insert(chance.randrange(len(pieces) + 1), pieces[at])
        case 3:
            pieces[at] = kind, damage(data or b"\0", chance)
        case 4:
            new = chance.choice(
                [b"acTL", b"fcTL", b"fdAT", b"tRNS", b"PLTE", b"iCCP", b"zTXt", b"gAMA", b"IDAT", b"eXIf"]
            )
            pieces.insert(
                chance.randrange(len(pieces) + 1), (new, chance.randbytes(chance.choice([0, 1, 3, 8, 26, 768])))
            )
        case _:
            end = chance.randrange(len(data) + 1)
            pieces[at : at + 1] = [(kind, data[:end]), (kind, data[end:])]
    whole = content[:8] + b"".join(_chunk(kind, data) for kind, data in pieces)
    return whole + chance.choice([b"", b"", b"\0" * 50])


def _changed_jpeg(chance: random.Random, content: bytes) -> bytes:
    pieces, place = [content[:2]], 2
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != 0xDA:
        length = 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        pieces.append(content[place : place + length])
        place += length
    pieces.append(content[place:])
    at = chance.randrange(1, len(pieces))
    piece = pieces[at]
    frames = [n for n, each in enumerate(pieces) if each[1:2] in (b"\xc0", b"\xc2")]
    match chance.randrange(7):
        case 0 if frames:
            size = struct.pack(">HH", chance.choice(_SIZES) % 65536, chance.choice([1, 8, 65535, 300]))
            pieces[frames[0]] = pieces[frames[0]][:5] + size + pieces[frames[0]][9:]
        case 1:
            del pieces[at]
        case 2:
            pieces.insert(chance.randrange(1, len(pieces)), piece)
        case 3:
            pieces[at] = piece[:2] + damage(piece[2:] or b"\0", chance)
        case 4:
            pieces[-1] = pieces[-1][: chance.randrange(len(pieces[-1]) + 1)] + chance.choice([b"", b"\xff\xd9"])
        case 5:
            filler = chance.choice(
                [b"\xff" * 9, b"\xff\xfe\0\4ab", b"\xff\xe2\0\2", b"\xff\xd0", b"\xff\xd9", b"\xff\xd8"]
            )
            pieces.insert(at, filler)
        case _:
            pieces[at] = (
                piece[:1] + bytes([chance.choice([0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC9, 0xD9, 0xDA, 0xE1])]) + piece[2:]
            )
    return b"".join(pieces)


def _changed_tiff(chance: random.Random, content: bytes) -> bytes:
    """Another number in one of the fields of a tag, or of the directory itself."""
    data = bytearray(content)
    order = "<" if data[:2] == b"II" else ">"
    (place,) = struct.unpack_from(f"{order}I", data, 4)
    if place + 14 > len(data):
        return damage(content, chance)
    (count,) = struct.unpack_from(f"{order}H", data, place)
    if not count or chance.random() < 0.1:
        struct.pack_into(f"{order}H", data, place, chance.choice([0, 1, count + 1, 65535]))
        return bytes(data)
    entry = place + 2 + 12 * chance.randrange(count)
    match chance.randrange(5):
        case 0:
            tags = [254, 256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 330, 338, 339]
            struct.pack_into(f"{order}H", data, entry, chance.choice(tags))
        case 1:
            struct.pack_into(f"{order}H", data, entry + 2, chance.choice([1, 2, 3, 4, 5, 9, 16, 18]))
        case 2:
            struct.pack_into(f"{order}I", data, entry + 4, chance.choice(_SIZES))
        case 3:
            struct.pack_into(f"{order}I", data, entry + 8, chance.choice([*_SIZES, chance.randrange(len(data))]))
        case _:
            other = place + 2 + 12 * chance.randrange(count)
            data[entry : entry + 12] = data[other : other + 12]
    return bytes(data)


def _changed_boxes(order: str, start: int) -> Callable[[random.Random, bytes], bytes]:
    """For formats of (length, kind, data) after `start` bytes: WebP's have the kind first and little-endian lengths."""

    def change(chance: random.Random, content: bytes) -> bytes:
        data = bytearray(content)
        kinds = [
            b"VP8 ",
            b"VP8L",
            b"VP8X",
            b"ALPH",
            b"ANIM",
            b"ANMF",
            b"EXIF",
            b"ispe",
            b"ihdr",
            b"jp2c",
            b"iloc",
            b"ipco",
        ]
        places = [at for kind in kinds for at in range(start, len(data) - 16) if data[at : at + 4] == kind]
        if not places or chance.random() < 0.2:
            return damage(content, chance)
        at = chance.choice(places)
        match chance.randrange(4):
            case 0:
                data[at : at + 4] = chance.choice(kinds)
            case 1:
                number = chance.choice([*_SIZES, len(data)])
                where = at + 4 if order == "<" else at - 4
                struct.pack_into(f"{order}I", data, where, number)
            case 2:
                width = chance.choice([2, 4])
                where = at + 4 + chance.randrange(12)
                data[where : where + width] = (chance.choice(_SIZES) % 256**width).to_bytes(width, "little")
            case _:
                data[at:at] = chance.choice([data[at : at + 30], chance.randbytes(18)])
        return bytes(data)

    return change


def _changed_header(chance: random.Random, content: bytes) -> bytes:
    """Another number, in digits or in bytes, within the first 64 bytes, or what may stand between numbers."""
    data = bytearray(content)
    at = chance.randrange(2, min(len(data), 64))
    if chance.random() < 0.4 and data[:1] in (b"P", b"#"):
        piece = chance.choice(
            [b"9", b"-1", b" ", b"\n", b"#" + b"x" * 9 + b"\n", b"65535", b"0", b"1.5", b"#" + b"x" * 5000]
        )
        data[at : at + chance.choice([0, 1])] = piece
    else:
        width = chance.choice([1, 2, 4])
        number = chance.choice(_SIZES) % 256**width
        data[at : at + width] = number.to_bytes(width, chance.choice(["little", "big"]))
    return bytes(data)


_CHANGES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    ".png": _changed_png,
    ".jpg": _changed_jpeg,
    ".tiff": _changed_tiff,
    ".webp": _changed_boxes("<", 12),
    ".avif": _changed_boxes(">", 4),
    ".jp2": _changed_boxes(">", 4),
}
