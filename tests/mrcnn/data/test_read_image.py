"""The reader gives what `cv2.imread` gives of a whole file, and says what is wrong with every other."""

import os
import re
import struct
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from detectron_gn.mrcnn.data.image_header import read_header
from detectron_gn.mrcnn.data.read_image import ImageReading, decode_image, read_image, read_training_image
from detectron_gn.mrcnn.errors import InputError
from tests.helpers.pictures import encoded, exif, jpeg_with_orientation, png_chunk, png_that_declares

FORMATS = (".jpg", ".png", ".webp", ".gif", ".bmp", ".tiff", ".jp2", ".ppm", ".pgm", ".pam", ".ras", ".avif")
JPEG_WITH_RESTARTS = (cv2.IMWRITE_JPEG_RST_INTERVAL, 4)
JPEG_PROGRESSIVE = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)


def picture(height: int = 90, width: int = 130) -> np.ndarray:
    """Smooth colours, as a photo has, with some noise."""
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.integers(0, 230, (3, 4, 3), dtype=np.uint8), (width, height))
    return smooth + rng.integers(0, 25, smooth.shape, dtype=np.uint8)


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("kind", ["colour", "grey", "alpha"])
def test_a_whole_file_is_read_as_imread_reads_it(tmp_path: Path, extension: str, kind: str) -> None:
    image = picture()
    if (kind == "grey" and extension not in (".gif", ".ppm")) or extension == ".pgm":
        image = image[:, :, 0]
    elif kind == "alpha" and extension in (".png", ".webp", ".tiff"):
        image = np.dstack([image, image[:, :, :1]])
    path = written(tmp_path, f"a{extension}", encoded(extension, image))
    assert np.array_equal(read_image(path), cv2.imread(str(path)))
    assert read_image(path).shape == (90, 130, 3)
    assert np.array_equal(decode_image(path.read_bytes()), read_image(path))
    header = read_header(path.read_bytes())
    assert (header.width, header.height, header.orientation, header.damage) == (130, 90, 1, None)


@pytest.mark.parametrize("shape", [(1, 3000), (3000, 1), (1, 1), (7, 5)])
@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".gif", ".tiff"])
def test_narrow_and_tiny_pictures_are_read(tmp_path: Path, extension: str, shape: tuple[int, int]) -> None:
    path = written(tmp_path, f"a{extension}", encoded(extension, np.full((*shape, 3), 200, np.uint8)))
    assert np.array_equal(read_image(path), cv2.imread(str(path)))


def test_palettes_and_floats_are_read_as_imread_reads_them(tmp_path: Path) -> None:
    palette = png_chunk(b"PLTE", bytes([9, 8, 7, 200, 100, 50]))
    rows = bytes([0, 0b01010000, 0, 0b10100000])  # two rows of four pixels, one bit each
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 2, 1, 3, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + header + palette + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    path = written(tmp_path, "palette.png", png)
    assert read_image(path)[0, :2].tolist() == [[7, 8, 9], [50, 100, 200]]
    path = written(tmp_path, "light.pfm", encoded(".pfm", picture().astype(np.float32)))
    assert np.array_equal(read_image(path), cv2.imread(str(path)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_all_eight_orientations_are_applied_or_ignored(tmp_path: Path, orientation: int, kind: str) -> None:
    image = picture()
    if kind == "jpg":
        content = jpeg_with_orientation(image, orientation)
    elif kind == "png":
        png = encoded(".png", image)
        content = png[:33] + png_chunk(b"eXIf", exif(orientation)) + png[33:]
    else:
        webp, data = encoded(".webp", image), exif(orientation)
        flags = struct.pack("<I", 8) + (130 - 1).to_bytes(3, "little") + (90 - 1).to_bytes(3, "little")
        chunks = b"VP8X" + struct.pack("<I", 10) + flags + webp[12:] + b"EXIF" + struct.pack("<I", len(data)) + data
        content = b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks
    path = written(tmp_path, f"turned.{kind}", content)
    assert read_header(content).orientation == orientation
    upright = read_image(path)
    assert np.array_equal(upright, cv2.imread(str(path)))
    stored = read_image(path, ImageReading(exif="ignore"))
    plain = cv2.imdecode(np.frombuffer(encoded(f".{kind}", image), np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(stored, plain)
    turns = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: np.swapaxes(a, 0, 1),
        6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2), 8: np.rot90,
    }  # fmt: skip
    assert np.array_equal(upright, turns[orientation](stored))


def test_sizes_that_are_not_the_annotations_are_told_and_exif_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "turned.jpg", jpeg_with_orientation(picture(), 6))
    assert read_image(path, size=(130, 90)).shape[:2] == (130, 90)
    with pytest.raises(InputError, match=r"is 130 x 90 pixels, .* say 90 x 130 .* orientation 6 .* --exif ignore"):
        read_image(path, size=(90, 130))
    as_stored = ImageReading(exif="ignore")
    assert read_image(path, as_stored, size=(90, 130)).shape[:2] == (90, 130)
    with pytest.raises(InputError, match=r"orientation 6 says: pass --exif apply"):
        read_image(path, as_stored, size=(130, 90))
    with pytest.raises(InputError, match="it is another picture, or another size of it"):
        read_image(path, size=(45, 65))
    path = written(tmp_path, "upright.jpg", encoded(".jpg", picture()))
    with pytest.raises(InputError, match="'height' and 'width' are exchanged in the annotations, or the picture was"):
        read_image(path, size=(130, 90))


@pytest.mark.parametrize("options", [(), JPEG_PROGRESSIVE, JPEG_WITH_RESTARTS], ids=["baseline", "progressive", "rst"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda jpeg: jpeg[: len(jpeg) // 2],
        lambda jpeg: jpeg[:-1],
        lambda jpeg: jpeg[:-2],
        lambda jpeg: jpeg[:-40],
        lambda jpeg: jpeg[: len(jpeg) // 2] + bytes(len(jpeg) // 2),
        lambda jpeg: jpeg[: len(jpeg) // 2] + b"\xff" * 500,
        lambda jpeg: jpeg_with_thumbnail(jpeg)[: len(jpeg) // 2],
    ],
    ids=["half", "one byte", "end marker", "last block", "zeros", "padding", "thumbnail"],
)
def test_a_jpeg_that_ends_early_is_refused_and_trained_on_as_imread_reads_it(tmp_path: Path, damage, options) -> None:
    path = written(tmp_path, "cut.jpg", damage(encoded(".jpg", picture(), *options)))
    with pytest.raises(InputError, match=r"cut.jpg cannot be decoded as an image: the JPEG file ends early; copy it"):
        read_image(path)
    detectrons = cv2.imread(str(path))
    assert detectrons is not None
    image = read_training_image(path, size=(90, 130))
    assert np.array_equal(image.pixels, detectrons)
    assert image.remark is not None and image.remark.startswith(f"{path} ends early: it is trained on as Detectron")


def jpeg_with_thumbnail(jpeg: bytes) -> bytes:
    """EXIF data hold a whole small JPEG, with an end marker of its own."""
    segment = b"Exif\0\0" + exif(1) + encoded(".jpg", picture(16, 16))
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


def test_what_follows_the_end_of_a_jpeg_is_no_damage(tmp_path: Path) -> None:
    jpeg = encoded(".jpg", picture())
    for name, content in (("tail.jpg", jpeg + b"a video" * 99), ("thumb.jpg", jpeg_with_thumbnail(jpeg))):
        path = written(tmp_path, name, content)
        assert np.array_equal(read_image(path), cv2.imread(str(path)))
        assert read_training_image(path).remark is None


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("share", [0.03, 0.3, 0.6, 0.97])
def test_a_file_that_is_cut_off_is_refused_whatever_its_format(tmp_path: Path, extension: str, share: float) -> None:
    image = picture()[:, :, 0] if extension == ".pgm" else picture()
    content = encoded(extension, image)
    path = written(tmp_path, f"cut{extension}", content[: int(len(content) * share)])
    with pytest.raises(InputError, match=rf"cut{extension} cannot be decoded as an image: .*copy it again"):
        read_image(path)
    if extension != ".jpg" or share < 0.1:
        with pytest.raises(InputError, match="cannot be decoded as an image"):
            read_training_image(path)


def test_a_png_with_a_changed_byte_is_refused_and_a_text_chunk_does_not_matter(tmp_path: Path) -> None:
    png = encoded(".png", picture())
    for place in (20, len(png) // 2, len(png) - 20):
        path = written(tmp_path, "changed.png", png[:place] + bytes([png[place] ^ 1]) + png[place + 1 :])
        with pytest.raises(InputError, match=r"the PNG file is damaged: a checksum in it does not hold; copy it again"):
            read_image(path)
    comment = png_chunk(b"tEXt", b"a\0b")[:-4] + b"\0\0\0\0"
    path = written(tmp_path, "comment.png", png[:33] + comment + png[33:] + b"trailing bytes")
    assert np.array_equal(read_image(path), picture())


def animated_png(first: np.ndarray, *others: np.ndarray, first_is_shown: bool) -> bytes:
    height, width = first.shape[:2]

    def data(pixels: np.ndarray) -> bytes:
        png, place, found = encoded(".png", pixels), 8, b""
        while place < len(png):
            end = place + 12 + int.from_bytes(png[place : place + 4], "big")
            found += png[place + 8 : end - 4] if png[place + 4 : place + 8] == b"IDAT" else b""
            place = end
        return found

    numbers = iter(range(99))

    def control() -> bytes:
        return png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", next(numbers), width, height, 0, 0, 1, 10, 0, 0))

    chunks = [
        png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        png_chunk(b"acTL", struct.pack(">II", max(len(others) + first_is_shown, 1), 0)),
        *([control()] if first_is_shown else []),
        png_chunk(b"IDAT", data(first)),
    ]
    for other in others:
        chunks += [control(), png_chunk(b"fdAT", struct.pack(">I", next(numbers)) + data(other))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("first_is_shown", [True, False])
@pytest.mark.parametrize("others", [0, 1, 2])
def test_of_an_animated_png_the_picture_is_read_that_imread_reads(
    tmp_path: Path, first_is_shown: bool, others: int
) -> None:
    content = animated_png(picture(), *[255 - picture()] * others, first_is_shown=first_is_shown)
    path = written(tmp_path, "animated.png", content)
    assert np.array_equal(read_image(path), picture())
    assert np.array_equal(cv2.imread(str(path)), picture())


@pytest.mark.parametrize("tag", [273, 279])
def test_a_tiff_with_fewer_strips_than_its_size_asks_for_is_refused(tmp_path: Path, tag: int) -> None:
    """OpenCV gives what lay in memory before."""
    tiff = bytearray(encoded(".tiff", picture()))
    (start,) = struct.unpack_from("<I", tiff, 4)
    for entry in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", tiff, start)[0], 12):
        if struct.unpack_from("<H", tiff, entry)[0] == tag:
            (count,) = struct.unpack_from("<I", tiff, entry + 4)
            struct.pack_into("<I", tiff, entry + 4, count - 1)
    assert np.array_equal(read_image(written(tmp_path, "a.tiff", encoded(".tiff", picture()))), picture())
    with pytest.raises(InputError, match="the TIFF file is damaged: it has fewer strips than its size asks for"):
        read_image(written(tmp_path, "b.tiff", bytes(tiff)))


BOMBS = {
    "png": png_that_declares(60000, 60000),
    "smaller png": png_that_declares(20000, 20000),
    "narrow png": png_that_declares(2**31 - 1, 2),
    "bmp": b"BM" + bytes(12) + struct.pack("<IiiHHIIiiII", 40, 50000, -50000, 1, 24, 0, 0, 0, 0, 0, 0),
    "gif": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b";",
    "webp": b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + b"\xff\xff\x00\xff\xff\x00",
    "tiff": b"II*\0\x08\0\0\0\x02\0" + struct.pack("<HHIIHHIIH", 256, 4, 1, 60000, 257, 4, 1, 60000, 0) + b"\0\0",
    "tiff of a huge tile": b"II*\0\x08\0\0\0\x04\0"
    + b"".join(struct.pack("<HHII", tag, 4, 1, n) for tag, n in ((256, 9), (257, 9), (322, 60000), (323, 60000))),
    "jpeg": b"\xff\xd8\xff\xc0\0\x0b\x08" + struct.pack(">HHB", 65535, 65535, 1) + b"\x01\x11\0\xff\xd9",
    "ppm": b"P6 # a comment\n60000 60000\n255\n",
    "pam": b"P7\nWIDTH 60000\nHEIGHT 60000\nDEPTH 3\nMAXVAL 255\nENDHDR\n",
    "jpeg 2000": b"\xff\x4f\xff\x51\0\x2f\0\0" + struct.pack(">IIII", 60000, 60000, 0, 0),
    "hdr": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 60000 +X 60000\n",
    "sun raster": b"\x59\xa6\x6a\x95" + struct.pack(">IIIIIII", 60000, 60000, 24, 0, 1, 0, 0),
    "avif": b"\0\0\0\x14ftypavif\0\0\0\0avif" + b"ispe" + struct.pack(">III", 0, 60000, 60000),
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_header_that_asks_for_gigabytes_is_refused_before_anything_is_decoded(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, "bomb", BOMBS[case])
    for read, given in ((read_image, path), (read_training_image, path), (decode_image, BOMBS[case])):
        with monkeypatch.context() as patch:
            patch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
            with pytest.raises(InputError, match=r"\(width x height\), more than the limit of 120,000,000: scale it"):
                read(given)


def test_the_limit_is_what_max_pixels_says(tmp_path: Path) -> None:
    path = written(tmp_path, "a.png", encoded(".png", picture()))
    assert read_image(path, ImageReading(max_pixels=90 * 130)).shape == (90, 130, 3)
    with pytest.raises(InputError, match=r"130 x 90 pixels .* limit of 11,699: .* pass --max-pixels 11700$"):
        read_image(path, ImageReading(max_pixels=90 * 130 - 1))
    path.write_bytes(png_that_declares(60000, 60000))
    with pytest.raises(InputError, match="limit of 120,000,000: scale it down$"):
        read_image(path)
    # What the limit lets through and OpenCV does not is told all the same.
    with pytest.raises(InputError, match="cannot be decoded as an image: OpenCV refuses it"):
        read_image(path, ImageReading(max_pixels=2**40))


def test_a_file_with_more_bytes_than_its_pixels_can_need_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(InputError, match="more bytes than an image of 120,000,000 pixels can have"):
        read_image(path)


def test_bytes_are_refused_for_what_files_are_refused_for_and_the_way_out_is_one_of_python() -> None:
    whole, jpeg = encoded(".png", picture()), encoded(".jpg", picture())
    for content, told in (
        (b"", "the file is empty; send it again$"),
        (b"photo.jpg", "no image of a format that OpenCV reads; send it again"),
        (whole[:-40], "the PNG file ends early; send it again$"),
        (jpeg[: len(jpeg) // 2], "the JPEG file ends early; send it again$"),
        (deep(12, ".png"), "a 16-bit image whose largest value"),
    ):
        with pytest.raises(InputError, match=f"^the picture given as bytes .*{told}"):
            decode_image(content)
    with pytest.raises(InputError, match="limit of 11,699: scale it down, or give `detect` what decode_image") as found:
        decode_image(whole, ImageReading(max_pixels=90 * 130 - 1))
    (reading,) = re.findall(r"decode_image\(content, (.*)\) of detectron_gn.mrcnn.data.read_image", str(found.value))
    assert np.array_equal(decode_image(whole, eval(reading)), picture())
    with pytest.raises(InputError, match="more bytes than an image of 1 pixels can have: if it is one of N pixels, "):
        decode_image(bytes((1 << 24) + 17), ImageReading(max_pixels=1))


def deep(bits: int, extension: str) -> bytes:
    """A photo whose 16-bit values use only so many bits."""
    values = picture().astype(np.uint16) << 8
    return encoded(extension, values >> (16 - bits))


@pytest.mark.parametrize("extension", [".png", ".tiff", ".jp2"])
def test_16_bits_of_which_few_are_used_are_refused_and_full_ones_are_read(tmp_path: Path, extension: str) -> None:
    for bits in (8, 10, 12, 14):
        path = written(tmp_path, f"deep{extension}", deep(bits, extension))
        with pytest.raises(InputError, match=r"16-bit image whose largest value is \d+: .* almost black. Scale"):
            read_image(path)
        with pytest.raises(InputError, match="almost black"):
            read_training_image(path)
    path = written(tmp_path, f"deep{extension}", deep(16, extension))
    assert np.array_equal(read_image(path), cv2.imread(str(path)))


def test_the_way_out_for_deep_images_works_to_the_letter(tmp_path: Path) -> None:
    for name, content in (
        ("deep.png", deep(12, ".png")),
        ("deep.pfm", encoded(".pfm", picture().astype(np.float32) / 255)),
        ("grey.png", encoded(".png", picture()[:, :, 0].astype(np.uint16) * 16)),
    ):
        path = written(tmp_path, name, content)
        with pytest.raises(InputError, match="almost black") as error:
            read_image(path)
        advice = str(error.value).rpartition("Scale it to 8 bits: ")[2]
        new = tmp_path / f"{path.stem}_8.png"
        eval(advice, {"cv2": cv2, "OLD": str(path), "NEW": str(new)})
        image = read_image(new).astype(int)
        expected = picture() if name != "grey.png" else np.repeat(picture()[:, :, :1], 3, axis=2)
        assert np.abs(image - expected * 255.0 / expected.max()).max() <= 1


def large(values: np.ndarray) -> np.ndarray:
    """A picture in every third place of a larger one, as many pixels as a photo has."""
    return np.tile(values, (4, 4, 1))


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("extension", [".png", ".tiff"])
def test_a_few_hot_pixels_hide_no_image_of_few_bits(tmp_path: Path, bits: int, extension: str) -> None:
    values = large(picture()).astype(np.uint16) << bits >> 8
    cool = written(tmp_path, f"cool{extension}", encoded(extension, values))
    values[3, 3], values[200, 100, 1] = 65535, 20000
    path = written(tmp_path, f"hot{extension}", encoded(extension, values))
    with pytest.raises(InputError, match="almost black") as told_cool:
        read_image(cool)
    with pytest.raises(InputError, match=r"largest value, but for 4 of 561,600, is \d+: .* almost black") as told:
        read_image(path)
    scale = [float(str(error.value).rpartition("alpha=255 / ")[2].rstrip(")")) for error in (told_cool, told)]
    assert scale[0] == scale[1]


def test_hot_pixels_of_floats_and_values_that_are_no_numbers_hide_nothing_either(tmp_path: Path) -> None:
    values = large(picture()).astype(np.float32) / 255
    values[3, 3], values[200, 100, 1] = 255, np.nan
    with pytest.raises(InputError, match="float32 image whose largest value, .*almost black"):
        read_image(written(tmp_path, "hot.pfm", encoded(".pfm", values)))


def test_a_dark_photo_of_16_bits_with_a_lamp_in_it_is_read(tmp_path: Path) -> None:
    values = large(picture() // 20).astype(np.uint16) << 8
    values[50:56, 50:56] = 60000
    path = written(tmp_path, "lamp.png", encoded(".png", values))
    assert np.array_equal(read_image(path), cv2.imread(str(path)))


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_a_tiff_of_floats_is_told_with_a_way_out_that_works_to_the_letter(tmp_path: Path, scale: float) -> None:
    path = written(tmp_path, "deep.tiff", encoded(".tiff", picture().astype(np.float32) / 255 * scale))
    with pytest.raises(InputError, match="is a float32 image, of which OpenCV makes none of 8 bits") as error:
        read_image(path)
    new = tmp_path / "new.png"
    eval(str(error.value).rpartition("Scale it to 8 bits: ")[2], {"cv2": cv2, "OLD": str(path), "NEW": str(new)})
    assert np.abs(read_image(new).astype(int) - picture() * 255.0 / picture().max()).max() <= 1


def test_a_picture_that_is_dark_in_8_bits_is_just_dark(tmp_path: Path) -> None:
    for name, image in (("night.png", picture() // 20), ("black.png", np.zeros((9, 9, 3), np.uint16))):
        path = written(tmp_path, name, encoded(".png", image))
        assert np.array_equal(read_image(path), cv2.imread(str(path)))


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"\xff\xfe.png", b"a\x80\x81/b\xe9.png"])
def test_a_name_that_is_no_utf8_is_read_like_any_other(tmp_path: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(encoded(path.suffix, picture()))
    assert read_image(path).shape == (90, 130, 3)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="the file is empty; copy it again"):
        read_image(path)


def test_a_name_that_no_file_can_have_is_told(tmp_path: Path) -> None:
    for name in ("a\0b.jpg", "\ud800.jpg", "x" * 300 + ".jpg", "nowhere.jpg", "file/below.jpg"):
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match="no such image file|cannot be read: File name too long"):
            read_image(tmp_path / name)


def test_folders_pipes_devices_and_loops_are_told_and_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    told = {
        tmp_path / "x.jpg": "is a folder, not an image file",
        tmp_path / "pipe.jpg": "is a pipe or a device",
        Path("/dev/zero"): "is a pipe or a device",
        Path("/proc/self/mem"): "cannot be read",
        tmp_path / "loop.jpg": "cannot be read: Too many levels",
        tmp_path / "gone.jpg": "no such image file",
    }
    for path, part in told.items():
        seen: list[str] = []

        def read(path: Path = path, seen: list[str] = seen) -> None:
            try:
                read_image(path)
            except InputError as error:
                seen.append(str(error))

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        thread.join(10)
        assert len(seen) == 1 and part in seen[0], path


def test_what_is_no_image_is_told_for_what_it_is(tmp_path: Path) -> None:
    for name, content, part in (
        ("page.jpg", b"<html>not found</html>", "no image of a format that OpenCV reads"),
        ("zeros.jpg", bytes(5000), "no image of a format that OpenCV reads"),
        ("phone.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is HEIC, .*: convert it to JPEG"),
        ("phone.jpg", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(64), "is HEIC, .*: convert it to JPEG"),
        ("film.mp4", b"\0\0\0\x18ftypisom\0\0\0\0isommp41", "the header is damaged"),
        ("head.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0", "the header is damaged or cut off; copy it again"),
        ("far.tiff", b"II+\0\x08\0\0\0" + b"\xff" * 8, "the header is damaged or cut off; copy it again"),
        ("no_size.tiff", b"II*\0\x08\0\0\0\0\0", "the header is damaged or cut off; copy it again"),
        ("no_codestream.jp2", b"\0\0\0\x0cjP  \r\n\x87\n", "the header is damaged or cut off; copy it again"),
        ("no_size.pam", b"P7\nWIDTH 3\n", "the header is damaged or cut off; copy it again"),
        ("head.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIH", "the header is damaged or cut off; copy it again"),
    ):
        with pytest.raises(InputError, match=part):
            read_image(written(tmp_path, name, content))


def test_no_bytes_bring_the_reader_down(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / "changed"
    for extension in FORMATS:
        whole = encoded(extension, picture()[:, :, 0] if extension == ".pgm" else picture())
        for _ in range(40):
            changed = bytearray(whole)
            for place in rng.integers(0, min(len(whole), 80), 3):
                changed[place] = rng.integers(0, 256)
            path.write_bytes(bytes(changed[: rng.integers(4, len(whole) + 1)]))
            try:
                read_training_image(path, ImageReading(max_pixels=1_000_000))
            except InputError:
                continue
