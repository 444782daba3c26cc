"""Which file holds which image of an annotation file, whatever the folder's naming."""

import contextlib
import filecmp
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from urllib.parse import unquote, urlsplit

from pycocotools.coco import COCO

from detectron_gn.mrcnn.errors import InputError


class ImageFolder:
    """A folder in which the images of annotations are looked for, and the folders below it; never outside of it.

    An image goes by its `file_name`, then by less and less of its path, down to its last part, then by the names that
    the same image has in COCO's 2014 and 2017 folders (`COCO_val2014_000000000139.jpg`, `000000000139.jpg`:
    coco_2014_minival is val2017). A name may be an absolute path, a Windows path or a URL. Each is looked for in the
    folder itself, then anywhere below it, and last of all without regard to case and to Unicode's form (NFC or NFD). A
    file to which the `file_name` of one image leads is never taken for another image.

    Args:
        path: the folder.
        file_names: of all images of the annotations.
    """

    def __init__(self, path: Path, file_names: Iterable[str]) -> None:
        self.path = path
        self._file_names = tuple(file_names)
        self._taken: dict[str, str] = {}

    def find(self, image_id: object, file_name: str) -> Path | None:
        """The file of an image, or None where there is none.

        Raises InputError where several files below the folder have the name and are not equal, or where the names of
        two images lead to one file.
        """
        name = self.find_name(image_id, file_name)
        return None if name is None else self.path / name

    def find_name(self, image_id: object, file_name: str) -> str | None:
        """The file of an image relative to the folder, as `find` finds it."""
        if file_name in self._here:
            found = file_name
        else:
            path = self._find(image_id, file_name)
            if path is None:
                return None
            found = str(path.relative_to(self.path))
        if self._taken.setdefault(found, file_name) != file_name:
            raise InputError(
                f"{self.path / found} is what both {self._taken[found]!r} and {file_name!r} of the annotations lead "
                "to: give each image its own file, or one 'file_name' to both"
            )
        return found

    def expected(self, image_id: object, file_name: str) -> Path:
        """Where the file of an image is looked for first; the folder itself for an image that has no name at all."""
        return self.path / next(_names(image_id, file_name), "")

    def _find(self, image_id: object, file_name: str) -> Path | None:
        names = list(_names(image_id, file_name))
        for name in names:
            path = self.path / name
            # Unlike Path.is_file it takes a name that no file can have for one that is not there.
            if os.path.isfile(path) and not self._is_another(path, file_name):
                return path
        for form in (str, _folded):
            for name in names:
                end = PurePosixPath(form(name)).parts
                paths = [
                    path
                    for path in self._below.get(_folded(end[-1]), ())
                    if PurePosixPath(form(path.relative_to(self.path).as_posix())).parts[-len(end) :] == end
                    and not self._is_another(path, file_name)
                ]
                if paths:
                    return _only(paths, image_id)
        return None

    def _is_another(self, path: Path, file_name: str) -> bool:
        """Whether a file is that of another image than the one of this `file_name`."""
        own_name = PurePosixPath(path.relative_to(self.path))
        return own_name != PurePosixPath(_plain(file_name)) and own_name in self._own_names

    @cached_property
    def _here(self) -> frozenset[str]:
        """The names of the files in the folder itself, asked for at once, but for those that are like a path."""
        with os.scandir(self.path) as entries:
            return frozenset(entry.name for entry in entries if not set(entry.name) & {"\\", ":"} and entry.is_file())

    @cached_property
    def _own_names(self) -> set[PurePosixPath]:
        return {PurePosixPath(_plain(name)) for name in self._file_names}

    @cached_property
    def _below(self) -> dict[str, list[Path]]:
        """All files below the folder by their own names, without regard to case and Unicode's form."""
        files: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(self.path.rglob("*")):
            if path.is_file():
                files[_folded(path.name)].append(path)
        return dict(files)


def id_in_name(name: str | os.PathLike[str]) -> int | None:
    """COCO's id of an image, read from its file's name: `COCO_val2014_000000000139.jpg`, `000000000139.jpg`.

    It is the number after the last underscore, or the whole name before its suffix; None where that is no number.
    """
    number = PurePath(name).stem.rpartition("_")[2]
    return int(number) if number.isascii() and number.isdecimal() else None


def image_files(annotations: COCO, folder: Path, option: str = "--images") -> dict[int, Path]:
    """The path of every image of the annotations, by image id, in the order of ids.

    Args:
        option: what the folder was given with, for sentences.

    Raises InputError that names the first image that is nowhere in the folder, or that is several files of one name.
    """
    if not folder.is_dir():
        raise InputError(
            f"{option} {folder} is no folder of images: give the one the annotations' file names are relative to"
        )
    file_names = {image_id: str(image.get("file_name", "")) for image_id, image in annotations.imgs.items()}
    images, found = ImageFolder(folder, file_names.values()), {}
    for image_id in sorted(file_names):
        path = images.find(image_id, file_names[image_id])
        if path is None:
            first = images.expected(image_id, file_names[image_id]).relative_to(folder)
            raise InputError(
                f"image {image_id} ({first}) is not in {folder}: {option} must hold every image of the annotations"
            )
        found[image_id] = path
    return found


def naming_used(annotations: COCO, files: dict[int, Path]) -> str:
    """How images were found, in words: by their `file_name`, by one that is alike, or by COCO's name for their id."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for image_id, path in files.items():
        file_name = str(annotations.imgs[image_id].get("file_name", ""))
        if path.name == _last_part(file_name):
            kind = "by their file_name"
        elif not is_found_by_id(path.name, file_name):
            kind = "by their file_name in another case or Unicode form"
        else:
            kind = "by their id, as COCO names files"
        counts[kind] += 1
        examples.setdefault(kind, path.name)
    return ", ".join(f"{count} images found {kind} (such as {examples[kind]})" for kind, count in counts.items())


def is_found_by_id(found: str, file_name: str) -> bool:
    """Whether a file was found by COCO's name for the image's id: it goes by no form of its `file_name`."""
    return _folded(PurePath(found).name) != _folded(_last_part(file_name))


def _last_part(file_name: str) -> str:
    return PurePosixPath(_plain(file_name)).name


def _only(paths: list[Path], image_id: object) -> Path:
    """The one file among those of a name, which may have copies."""
    first, *others = paths
    for other in others:
        if not filecmp.cmp(first, other, shallow=False):
            raise InputError(
                f"image {image_id} may be {first} or {other}, which are different files: "
                "take one away, or give --images the folder that holds the right one"
            )
    return first


def _names(image_id: object, file_name: str) -> Iterator[str]:
    """The names an image may go by, the annotation's own first; never one that leads out of the folder."""
    path = PurePosixPath(file_name)
    if path.parts and not path.is_absolute() and ".." not in path.parts:
        yield file_name
    parts = PurePosixPath(_plain(file_name)).parts
    for start in range(len(parts)):
        if start or "/".join(parts) != file_name:
            yield "/".join(parts[start:])
    if isinstance(image_id, int):
        yield f"{image_id:012d}.jpg"
        yield f"COCO_val2014_{image_id:012d}.jpg"
        yield f"COCO_train2014_{image_id:012d}.jpg"


def _plain(file_name: str) -> str:
    """The path of a file's name, from a URL, a Windows path or an absolute one; what follows the last `..` of it."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", file_name):
        with contextlib.suppress(ValueError):
            file_name = unquote(urlsplit(file_name).path)
    path = PureWindowsPath(file_name)
    parts = path.parts[1:] if path.anchor else path.parts
    inside = parts[len(parts) - parts[::-1].index("..") :] if ".." in parts else parts
    return "/".join(inside)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
