"""HDF5 files that others wrote, read with every access guarded.

Whatever is wrong with a file (cut short, a byte changed, a dataset that is missing or of another shape or type) comes
out here as one InputError: the file, the place in it, what is wrong, and the way out.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import h5py
import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.limits import MOST_REFERENCE_VALUES
from detectron_gn.mrcnn.wording import listed
from detectron_gn.verify.reference.reference_blob import ReferenceBlob

Array = npt.NDArray[Any]
Value = TypeVar("Value")



def open_hdf5(path: Path, way_out: str) -> h5py.File:
    """Open a file for reading; InputError where there is none, or none that h5py can read."""
    if not path.is_file():
        raise InputError(f"{path}: no such reference file: {way_out}")
    try:
        return h5py.File(path, "r")
    except Exception as error:
        raise InputError(f"{path} is not an HDF5 reference file ({first_line(error)}): {way_out}") from None


class GuardedGroup:
    """A group of an HDF5 file that checks what it is asked for.

    Args:
        group: the group.
        place: what messages open with: the file, and what of it the group is about.
        way_out: what messages end in, where nothing better is known.
        within: what stands before the names of the group's members in messages: `blobs/`.
    """

    def __init__(self, group: h5py.Group, place: str, way_out: str, within: str = "") -> None:
        self.place = place
        self._group = group
        self._way_out = way_out
        self._within = within

    def __contains__(self, key: str) -> bool:
        return bool(self._guarded(key, lambda: self._is_there(key)))

    def names(self) -> list[str]:
        """The names of all members."""
        return self._guarded("its list of names", lambda: list(self._group))

    def require(self, *keys: str) -> None:
        """InputError that names those of these that are absent."""
        absent = [self._within + key for key in keys if key not in self]
        if absent:
            raise InputError(f"{self.place} lacks {listed(absent, most=9)}: {self._way_out}")

    def group(self, key: str, place: str | None = None) -> "GuardedGroup":
        """A group within this one; in messages it is called `key/`, or has a place of its own."""
        item = self._item(key)
        if not isinstance(item, h5py.Group):
            self.refuse(key, "is no group")
        if place is not None:
            return GuardedGroup(item, place, self._way_out)
        return GuardedGroup(item, self.place, self._way_out, f"{self._within}{key}/")

    def dataset(self, key: str) -> h5py.Dataset:
        """A dataset that holds something."""
        item = self._item(key)
        if not isinstance(item, h5py.Dataset):
            self.refuse(key, "is no dataset")
        if self._guarded(key, lambda: item.external or item.is_virtual):
            self.refuse(key, "keeps its values in another file, which is not read")
        if item.shape is None:
            self.refuse(key, "holds nothing")
        return item

    def numbers(self, key: str) -> Array:
        """A dataset of numbers, in its own shape and type."""
        return self._numbers(key, self.dataset(key))

    def values(self, key: str) -> list[Any]:
        """A dataset of anything as a list."""
        dataset = self.dataset(key)
        return self._guarded(key, lambda: list(np.asarray(dataset[()]).reshape(-1).tolist()))

    def blob(self, key: str) -> ReferenceBlob:
        """A blob, whole or thinned, in the shape that the file tells."""
        dataset = self.dataset(key)
        stride, told = self._guarded(key, lambda: _layout(dataset))
        shape = tuple(dataset.shape) if told is None else told
        size = int(np.prod(shape, dtype=object)) if shape else 1
        if stride < 1 or min(shape, default=0) < 0 or dataset.size != -(-size // stride):
            fault = f"it holds {dataset.size} values at stride {stride}"
            raise InputError(f"{self.place}: blob {key} is damaged: {fault}: {self._way_out}")
        if size > MOST_REFERENCE_VALUES:
            self.refuse(key, f"is {shape_text(shape)}, more than any blob")
        norm = self._guarded(key, lambda: _norm(dataset))
        return ReferenceBlob(self._numbers(key, dataset).reshape(-1), shape, stride, norm)

    def check_blob(self, key: str, shape: tuple[int, ...], way_out: str) -> int:
        """See that a blob, whole or thinned, is as large as one of ours; returns its stride.

        The file need not tell the whole shape.
        """
        dataset = self.dataset(key)
        stride, told = self._guarded(key, lambda: _layout(dataset))
        if told is not None and told != shape:
            self.refuse(key, f"is of a blob {shape_text(told)}, the model's is {shape_text(shape)}", way_out)
        if stride < 1 or dataset.size != -(-int(np.prod(shape, dtype=np.int64)) // stride):
            fault = f"holds {dataset.size} values at stride {stride}, the model's blob is {shape_text(shape)}"
            self.refuse(key, fault, way_out)
        return stride

    def blob_of_shape(self, key: str, shape: tuple[int, ...], way_out: str) -> ReferenceBlob:
        """A blob, whole or thinned, that must be as large as one of ours."""
        stride = self.check_blob(key, shape, way_out)
        return ReferenceBlob(self.numbers(key).reshape(-1), shape, stride)

    def attribute(self, name: str) -> Any:
        """An attribute of the group, or None where there is none."""
        return self._guarded(f"attribute {name}", lambda: self._group.attrs.get(name))

    def refuse(self, key: str, fault: str, way_out: str | None = None) -> NoReturn:
        """Raise the InputError about a member of the group."""
        raise InputError(f"{self.place}: {self._within}{key} {fault}: {way_out or self._way_out}")

    def _numbers(self, key: str, dataset: h5py.Dataset) -> Array:
        if dataset.dtype.kind not in "iufb":
            self.refuse(key, f"holds {dataset.dtype}, not numbers")
        if dataset.size > MOST_REFERENCE_VALUES:
            self.refuse(key, f"is {shape_text(tuple(dataset.shape))}, more than any blob")
        return self._guarded(key, lambda: np.asarray(dataset[()]))

    def _item(self, key: str) -> Any:
        self.require(key)
        return self._guarded(key, lambda: self._group[key])

    def _is_there(self, key: str) -> bool:
        """Whether there is such a member. It is not opened: a link may lead to any file, or to a pipe that waits."""
        parts = key.split("/")
        for count in range(1, len(parts) + 1):
            name, links = "/".join(parts[:count]).encode(), self._group.id.links
            if not links.exists(name):
                return False
            if links.get_info(name).type != h5py.h5l.TYPE_HARD:
                self.refuse(key, "is a link, which may lead to another file")
        return True

    def _guarded(self, key: str, read: Callable[[], Value]) -> Value:
        """What `read` gives; whatever h5py or numpy raises over it names the member."""
        try:
            return read()
        except InputError:
            raise
        # A changed byte may meet h5py anywhere: OSError, RuntimeError, KeyError, AttributeError, UnicodeError, ...
        except Exception as error:
            self.refuse(key, f"cannot be read ({first_line(error)})")


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as `3x4`."""
    return "x".join(map(str, shape)) or "a single value"


def value_text(value: Any) -> str:
    """An attribute's value, cut short."""
    return str(np.asarray(value).tolist())[:60]


def first_line(error: Exception) -> str:
    """The first line of an error, or its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0].strip("'\"")


def _layout(dataset: h5py.Dataset) -> tuple[int, tuple[int, ...] | None]:
    """Stride and whole shape, as the attributes tell them."""
    stride, shape = _whole_numbers(dataset, "stride", 0), _whole_numbers(dataset, "shape", 1)
    return 1 if stride is None else int(stride), None if shape is None else tuple(int(size) for size in shape)


def _norm(dataset: h5py.Dataset) -> float | None:
    """The norm of the whole blob, None where it is not told; ValueError where the attribute holds anything else."""
    told = dataset.attrs.get("l2")
    if told is None:
        return None
    value = np.asarray(told)
    if value.ndim or value.dtype.kind not in "iuf" or value < 0:
        raise ValueError(f"its attribute l2 is {value_text(value)}")
    return float(value)


def _whole_numbers(dataset: h5py.Dataset, name: str, dimensions: int) -> Array | None:
    """An attribute, None where there is none; ValueError where it does not hold whole numbers."""
    told = dataset.attrs.get(name)
    if told is None:
        return None
    value = np.asarray(told)
    are_numbers = not value.size or value.dtype.kind in "iuf" and np.isfinite(value).all() and not (value % 1).any()
    if value.ndim != dimensions or not are_numbers:
        raise ValueError(f"its attribute {name} is {value_text(value)}")
    return value
