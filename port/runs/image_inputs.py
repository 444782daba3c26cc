"""What the user of `detect` names: images and videos, folders, patterns and lists of them; one after another."""

import glob
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from detectron_gn.mrcnn.errors import InputError

# What OpenCV decodes, and HEIC, which is refused by its name.
_SUFFIXES = (
    ".jpg .jpeg .jpe .jp2 .png .webp .gif .bmp .dib .tif .tiff .avif .pbm .pgm .ppm .pnm .pxm .pfm .hdr .pic .ras .sr "
    ".heic .heif"
)
IMAGE_SUFFIXES = frozenset(_SUFFIXES.split())
VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .m2v .ts .mts .m2ts .wmv .asf .flv .3gp .ogv".split()
)
_LIST, _PATTERN = "@", "*?["


def is_video(path: str | Path) -> bool:
    """Whether a file is taken for a video: by its suffix."""
    return os.path.splitext(path)[1].lower() in VIDEO_SUFFIXES


def named_files(inputs: Sequence[Path]) -> list[Path]:
    """The inputs that are files, as they are named."""
    return [each for each in inputs if not (_is_list(each) or _is_pattern(each) or os.path.isdir(each))]


def names_many(inputs: Sequence[Path]) -> bool:
    """Whether a folder, a pattern, a list or a video is among the inputs: nobody knows how many images these are."""
    named = named_files(inputs)
    return len(named) < len(inputs) or any(map(is_video, named))


def common_folder(inputs: Sequence[Path]) -> str | None:
    """The deepest folder that holds what the folders, patterns and lists among the inputs name; None of none.

    It hangs on the inputs and not on what folders hold, so that images which come later change nothing.
    """
    roots: list[str] = []
    for each in inputs:
        if _is_list(each):
            roots.append(_common(os.path.dirname(os.path.abspath(name)) for name in _listed(Path(str(each)[1:]))))
        elif _is_pattern(each):
            fixed = itertools.takewhile(lambda part: not any(sign in part for sign in _PATTERN), each.parts)
            roots.append(os.path.abspath(Path(*fixed)))
        elif os.path.isdir(each):
            roots.append(os.path.abspath(each))
    return _common(roots) if roots else None


def _common(folders: Iterable[str]) -> str:
    common: str | None = None
    for folder in folders:
        if common is None or folder != common and not folder.startswith(os.path.join(common, "")):
            common = folder if common is None else os.path.commonpath([common, folder])
    assert common is not None
    return common


def named_lists(inputs: Sequence[Path]) -> list[Path]:
    """The files of the inputs that are lists."""
    return [Path(str(each)[1:]) for each in inputs if _is_list(each)]


def images_of(inputs: Sequence[Path], out: Path, written: tuple[str, ...]) -> Iterator[str]:
    """The paths of all images and videos that the inputs name, in memory that grows only with the largest folder.

    Args:
        inputs: files; folders, which are looked through with those below them, by the suffixes of images, hidden files
            left out; patterns such as `photos/**/*.jpg`; and `@list.txt`, which names a file in each line; blanks
            around a name are its own where such a file is there, and left out where none is.
        out: the folder of the run, in which the names of what it writes end in one of `written`: it is left out of
            folders and patterns.

    A file that several inputs name comes several times. Links to folders are not followed, but for one that is named
    itself. Raises InputError for a list that cannot be read, a pattern that nothing matches, and a folder that cannot
    be looked through or in which no image is.
    """
    here = os.path.join(os.path.realpath(out), "")

    def is_written(path: str) -> bool:
        return path.endswith(written) and os.path.join(os.path.realpath(os.path.dirname(path)), "").startswith(here)

    for each in inputs:
        if _is_list(each):
            yield from _listed(Path(str(each)[1:]))
        elif _is_pattern(each):
            yield from _matched(str(each), is_written)
        elif os.path.isdir(each):
            yield from _in_folder(str(each), is_written)
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
                bare = name.strip()
                if bare:
                    empty = False
                    # A file's name may begin and end with blanks.
                    yield os.fsdecode(name if name == bare or os.path.lexists(name) else bare)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}, a list of images, cannot be read: {getattr(error, 'strerror', error)}") from None
    if empty:
        raise InputError(f"{path} names no image: give one path a line")


def _matched(pattern: str, is_written: Callable[[str], bool]) -> Iterator[str]:
    empty = True
    for name in glob.iglob(pattern, recursive=True):
        empty = False
        if os.path.isdir(name):
            yield from _below(name, is_written)
        elif not is_written(name):
            yield name
    if empty:
        raise InputError(f"nothing matches {pattern}: no file and no folder has such a name")


def _in_folder(folder: str, is_written: Callable[[str], bool]) -> Iterator[str]:
    empty = True
    for name in _below(folder, is_written):
        empty = False
        yield name
    if empty:
        raise InputError(
            f"no image is in the folder {folder}: images are files that end in .jpg, .png or the like; videos are "
            f"named themselves, or by a pattern in quotes, such as '{os.path.join(folder, '*.mp4')}'"
        )


def _below(folder: str, is_written: Callable[[str], bool]) -> Iterator[str]:
    """The images in a folder in the order of their names, then those of the folders in it."""
    files, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                    if not is_written(entry.path):
                        files.append(entry.name)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be looked through: {error.strerror or error}") from None
    for name in sorted(files):
        yield os.path.join(folder, name)
    for name in sorted(folders):
        yield from _below(os.path.join(folder, name), is_written)
