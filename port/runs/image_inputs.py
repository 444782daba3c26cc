"""What the user of `detect` names: image files, folders, patterns and lists of image files; one after another."""

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from detectron_gn.mrcnn.errors import InputError

# What OpenCV decodes, and HEIC, which is refused by its name.
_SUFFIXES = (
    ".jpg .jpeg .jpe .jp2 .png .webp .gif .bmp .dib .tif .tiff .avif .pbm .pgm .ppm .pnm .pxm .pfm .hdr .pic .ras .sr "
    ".heic .heif"
)
IMAGE_SUFFIXES = frozenset(_SUFFIXES.split())
_LIST, _PATTERN = "@", "*?["


def names_many(inputs: Sequence[Path]) -> bool:
    """Whether a folder, a pattern or a list is among the inputs, so that nobody knows yet how many images there are."""
    return any(_is_list(each) or _is_pattern(each) or os.path.isdir(each) for each in inputs)


def named_lists(inputs: Sequence[Path]) -> list[Path]:
    """The files of the inputs that are lists."""
    return [Path(str(each)[1:]) for each in inputs if _is_list(each)]


def images_of(inputs: Sequence[Path], drawn: Path) -> Iterator[str]:
    """The paths of all images that the inputs name, in memory that grows only with the largest folder.

    Args:
        inputs: image files; folders, which are looked through with those below them, by the suffixes of images, hidden
            files left out; patterns such as `photos/**/*.jpg`; and `@list.txt`, which names a file in each line.
        drawn: a folder that is left out of folders and patterns: it holds the pictures that are drawn.

    A file that several inputs name comes several times. Links to folders are not followed, but for one that is named
    itself. Raises InputError for a list that cannot be read, a pattern that nothing matches, and a folder that cannot
    be looked through or in which no image is.
    """
    left_out = os.path.realpath(drawn)
    for each in inputs:
        if _is_list(each):
            yield from _listed(Path(str(each)[1:]))
        elif _is_pattern(each):
            yield from _matched(str(each), left_out)
        elif os.path.isdir(each):
            yield from _in_folder(str(each), left_out)
        else:
            yield str(each)


def _is_list(path: Path) -> bool:
    return str(path).startswith(_LIST) and len(str(path)) > 1 and not os.path.lexists(path)


def _is_pattern(path: Path) -> bool:
    return any(sign in str(path) for sign in _PATTERN) and not os.path.lexists(path)


def _listed(path: Path) -> Iterator[str]:
    empty = True
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(f"{path} is a folder, a pipe or a device, and no list of images: save the list to a file")
        with path.open("rb") as lines:
            for line in lines:
                name = line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n")
                if b"\0" in name:
                    raise InputError(f"{path} is no list of images: it holds a zero byte; give one path a line")
                if name.strip():
                    empty = False
                    yield os.fsdecode(name)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}, a list of images, cannot be read: {getattr(error, 'strerror', error)}") from None
    if empty:
        raise InputError(f"{path} names no image: give one path a line")


def _matched(pattern: str, left_out: str) -> Iterator[str]:
    empty = True
    for name in glob.iglob(pattern, recursive=True):
        empty = False
        if os.path.isdir(name):
            yield from _below(name, left_out)
        elif not os.path.realpath(os.path.dirname(name)).startswith(left_out):
            yield name
    if empty:
        raise InputError(f"nothing matches {pattern}: it is no file, no folder and no pattern of one")


def _in_folder(folder: str, left_out: str) -> Iterator[str]:
    empty = True
    for name in _below(folder, left_out):
        empty = False
        yield name
    if empty:
        raise InputError(f"no image is in the folder {folder}: images are known by their suffixes, such as .jpg")


def _below(folder: str, left_out: str) -> Iterator[str]:
    """The images in a folder in the order of their names, then those of the folders in it."""
    files, folders = [], []
    if os.path.realpath(folder) == left_out:
        return
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                    files.append(entry.name)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be looked through: {error.strerror or error}") from None
    for name in sorted(files):
        yield os.path.join(folder, name)
    for name in sorted(folders):
        yield from _below(os.path.join(folder, name), left_out)
