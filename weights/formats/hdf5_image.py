"""An HDF5 file as the library lays it out, with its structures in memory and without the bytes of its arrays.

The HDF5 library loses its way, up to a segmentation fault, where a disk refuses to take what it writes. So it never
writes to a disk here: it lays the file out in this image, and the file is written from the image and the arrays.
"""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np

from detectron_gn.weights.weights_file import Array

_PAGE = 4096


class Hdf5Image:
    """What h5py takes for an open file: `h5py.File(image, "w")`. Only pages that were written to take memory."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._position = 0
        self._size = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, count: int) -> bytes:
        self._position += count
        return self.content(self._position - count, count)

    def readinto(self, buffer: bytearray) -> int:
        buffer[:] = self.read(len(buffer))
        return len(buffer)

    def write(self, content: bytes) -> int:
        view = memoryview(content).cast("B")
        while view.nbytes:
            number, start = divmod(self._position, _PAGE)
            piece = view[: _PAGE - start]
            self._pages.setdefault(number, bytearray(_PAGE))[start : start + piece.nbytes] = piece
            self._position += piece.nbytes
            view = view[piece.nbytes :]
        self._size = max(self._size, self._position)
        return len(content)

    def truncate(self, size: int) -> int:
        self._size = size
        return size

    def flush(self) -> None:
        """Nothing waits."""

    def content(self, start: int, count: int) -> bytes:
        """`count` bytes from `start` on; zeros where nothing was written."""
        found = bytearray(count)
        for number in range(start // _PAGE, -(-(start + count) // _PAGE)):
            page = self._pages.get(number)
            if page is not None:
                first, last = max(start, number * _PAGE), min(start + count, (number + 1) * _PAGE)
                found[first - start : last - start] = page[first - number * _PAGE : last - number * _PAGE]
        return bytes(found)

    def write_to(self, path: Path, arrays: dict[int, Array]) -> None:
        """Write the file to `path`, with the arrays (C order) at the offsets that the library gave them."""
        with open(path, "wb") as handle:
            for offset, array in sorted(arrays.items()):
                handle.write(self.content(handle.tell(), offset - handle.tell()))
                handle.write(array.reshape(-1).view(np.uint8).data)
            handle.write(self.content(handle.tell(), self._size - handle.tell()))


def add_dataset(handle: h5py.File, name: str, array: Array) -> int | None:
    """Add a contiguous dataset for `array`; returns where its bytes belong, None where it has none."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)
    space = h5py.h5s.create_simple(array.shape) if array.shape else h5py.h5s.create(h5py.h5s.SCALAR)
    kind = h5py.h5t.py_create(array.dtype, logical=True)
    offset: int | None = h5py.h5d.create(handle.id, name.encode(), kind, space, properties).get_offset()
    return offset if array.size else None
