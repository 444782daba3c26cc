"""Which file holds which image of an annotation file, whatever the folder's naming."""

import filecmp
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

from pycocotools.coco import COCO

from detectron_gn.mrcnn.errors import InputError


class ImageFolder:
    """A folder in which the images of annotations are looked for, and the folders below it.

    An image goes by its `file_name`, then by the last part of that, then by the names that the same image has in COCO's
    2014 and 2017 folders (`COCO_val2014_000000000139.jpg`, `000000000139.jpg`: coco_2014_minival is val2017). It is
    looked for in the folder itself and then anywhere below it, never outside of it. A file to which the `file_name` of
    one image leads is never taken for another image.

    Args:
        path: the folder.
        file_names: of all images of the annotations.
    """

    def __init__(self, path: Path, file_names: Iterable[str]) -> None:
        self.path = path
        self._own_names = {PurePosixPath(name) for name in file_names}

    def find(self, image_id: object, file_name: str) -> Path | None:
        """The file of an image, or None where there is none.

        Raises InputError where several files below the folder have the name and are not equal.
        """
        names = list(_names(image_id, file_name))
        for name in names:
            path = self.path / name
            if path.is_file() and not self._is_another(path, file_name):
                return path
        for name in names:
            paths = [path for path in self._below.get(name, ()) if not self._is_another(path, file_name)]
            if paths:
                return _only(paths, image_id)
        return None

    def expected(self, image_id: object, file_name: str) -> Path:
        """Where the file of an image is looked for first; the folder itself for an image that has no name at all."""
        return self.path / next(_names(image_id, file_name), "")

    def _is_another(self, path: Path, file_name: str) -> bool:
        """Whether a file is that of another image than the one of this `file_name`."""
        own_name = PurePosixPath(path.relative_to(self.path))
        return own_name != PurePosixPath(file_name) and own_name in self._own_names

    @cached_property
    def _below(self) -> dict[str, list[Path]]:
        """All files below the folder by their own names."""
        files: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(self.path.rglob("*")):
            if path.is_file():
                files[path.name].append(path)
        return dict(files)


def image_files(annotations: COCO, folder: Path) -> dict[int, Path]:
    """The path of every image of the annotations, by image id, in the order of ids.

    Raises InputError that names the first image that is nowhere in the folder, or that is several files of one name.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder of images: give the one the annotations' file names are relative to")
    file_names = {image_id: str(image.get("file_name", "")) for image_id, image in annotations.imgs.items()}
    images, found = ImageFolder(folder, file_names.values()), {}
    for image_id in sorted(file_names):
        path = images.find(image_id, file_names[image_id])
        if path is None:
            first = images.expected(image_id, file_names[image_id]).relative_to(folder)
            raise InputError(
                f"image {image_id} ({first}) is not in {folder}: --images must hold every image of the annotations"
            )
        found[image_id] = path
    return found


def naming_used(annotations: COCO, files: dict[int, Path]) -> str:
    """Which naming of the images was used, in words: the annotations' own, or COCO's other one."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for image_id, path in files.items():
        own = PurePosixPath(str(annotations.imgs[image_id].get("file_name", ""))).name
        kind = "as the annotations name them" if path.name == own else "by COCO's other naming"
        counts[kind] += 1
        examples.setdefault(kind, path.name)
    return ", ".join(f"{count} images found {kind} ({examples[kind]})" for kind, count in counts.items())


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
    if file_name and not path.is_absolute() and ".." not in path.parts:
        yield file_name
    if path.name not in ("", ".."):
        yield path.name
    if isinstance(image_id, int):
        yield f"{image_id:012d}.jpg"
        yield f"COCO_val2014_{image_id:012d}.jpg"
        yield f"COCO_train2014_{image_id:012d}.jpg"
