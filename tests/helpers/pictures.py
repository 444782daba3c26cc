"""Image files as people have them: turned by EXIF, cut off, huge in their header, deeper than 8 bits."""

import struct
import zlib

import cv2
import numpy as np


def exif(orientation: int) -> bytes:
    """EXIF data that hold an orientation and nothing else."""
    return b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + struct.pack(">HH", orientation, 0) + b"\0\0\0\0"


def encoded(extension: str, pixels: np.ndarray, *options: int) -> bytes:
    """The bytes of an image file of OpenCV's making."""
    ok, content = cv2.imencode(extension, pixels, options)
    assert ok
    return content.tobytes()


def jpeg_with_orientation(pixels: np.ndarray, orientation: int) -> bytes:
    """A JPEG file whose EXIF data stand after its first marker, as cameras put them."""
    jpeg, segment = encoded(".jpg", pixels), b"Exif\0\0" + exif(orientation)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file, with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_that_declares(width: int, height: int) -> bytes:
    """A PNG file of a few bytes whose header asks for an image of any size."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"\0" * 100)) + png_chunk(b"IEND", b"")
