"""An annotation file that was read, kept as a folder of arrays, which processes map instead of reading it again."""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.data.annotations.columns import AnnotationColumns
from detectron_gn.mrcnn.data.annotations.images import ImageColumns
from detectron_gn.mrcnn.data.annotations.reader import Instances

Columns = TypeVar("Columns")
Arrays = Mapping[str, npt.NDArray[Any]]

# Of the arrays, and of what the reader makes of a file: what is kept in another form is read again.
FORM = 1
_REST, _SUMS = "rest.json", "sums.json"


def store_instances(instances: Instances, folder: Path) -> None:
    """Write an annotation file without fault into an empty folder; OSError where the disk refuses."""
    arrays = dict([*_arrays("images", instances.images), *_arrays("columns", instances.columns)])
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    rest = {
        "categories": instances.categories,
        "remarks": instances.remarks,
        "image_count": instances.image_count,
        "annotation_count": instances.annotation_count,
        "odd_keypoints": {str(place): values for place, values in instances.columns.keypoints.odd.items()},
    }
    (folder / _REST).write_text(json.dumps(rest), encoding="utf-8")
    sums = {path.name: _checksum(path) for path in folder.iterdir()}
    (folder / _SUMS).write_text(json.dumps(sums), encoding="utf-8")


def stored_instances(folder: Path, path: Path, digest: str) -> Instances | None:
    """What `store_instances` wrote of the file `path` of this sha256, its arrays mapped; None where that is damaged."""
    try:
        sums = json.loads((folder / _SUMS).read_text(encoding="utf-8"))
        if any(_checksum(folder / name) != checksum for name, checksum in sums.items()):
            return None
        rest = json.loads((folder / _REST).read_text(encoding="utf-8"))
        arrays = {name.removesuffix(".npy"): _mapped(folder / name) for name in sums if name != _REST}
        odd = {int(place): values for place, values in rest["odd_keypoints"].items()}
        return Instances(
            path,
            tuple(rest["categories"]),
            _built(ImageColumns, "images", arrays, odd),
            _built(AnnotationColumns, "columns", arrays, odd),
            (),
            tuple(rest["remarks"]),
            rest["image_count"],
            rest["annotation_count"],
            digest,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _arrays(name: str, columns: Any) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """The arrays within columns, by the path of fields that leads to each."""
    for field in fields(columns):
        value = getattr(columns, field.name)
        if is_dataclass(value):
            yield from _arrays(f"{name}.{field.name}", value)
        elif isinstance(value, np.ndarray):
            yield f"{name}.{field.name}", value


def _built(kind: type[Columns], name: str, arrays: Arrays, odd: Mapping[int, Any]) -> Columns:
    """Columns of their arrays, and of what is no array: odd keypoints."""
    hints = get_type_hints(kind)
    parts: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]
        inner = f"{name}.{field.name}"
        if is_dataclass(hints[field.name]):
            parts[field.name] = _built(hints[field.name], inner, arrays, odd)
        else:
            parts[field.name] = odd if field.name == "odd" else arrays[inner]
    return kind(**parts)


def _mapped(path: Path) -> npt.NDArray[Any]:
    # An array of nothing cannot be mapped.
    is_large = path.stat().st_size > 4096
    return np.asarray(np.load(path, mmap_mode="r" if is_large else None, allow_pickle=False))


def _checksum(path: Path) -> int:
    found = 0
    with open(path, "rb") as file:
        while block := file.read(2**20):
            found = zlib.crc32(block, found)
    return found
