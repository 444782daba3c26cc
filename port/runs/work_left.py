"""The images that are left to one process of a bulk detection, of how many there may be millions.

Their paths lie on the disk; in memory there are 16 bytes for each, by which those that are done, those that are another
process's and those that are named twice are told.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.distributed import Ranks
from detectron_gn.weights.errors import WriteFailed

_KEY_BYTES = 16


def absolute_path(name: str) -> str:
    """The path that an image is known by: absolute, without `.` and `..`; links stay links."""
    path = os.path.abspath(name)
    # Of a folder that is a link, `..` is another folder than the one that it lies in.
    if os.pardir in Path(name).parts and os.path.realpath(name) != os.path.realpath(path):
        return os.path.join(os.getcwd(), name)
    return path


def image_key(path: str) -> bytes:
    """What an image is known by: 16 bytes of its absolute path."""
    return hashlib.blake2b(os.fsencode(absolute_path(path)), digest_size=_KEY_BYTES).digest()


class WorkLeft:
    """Iterates over the absolute paths of the images that are left to this process; use it in a `with` statement.

    An image belongs to one process of those that work together, which its path alone decides: so they need not see the
    same folder at the same moment.

    Args:
        images: paths, absolute or relative to the working directory; what is named twice counts once.
        folder: on a disk that has room for the paths.

    Attributes:
        share: how many images are this process's, those that are done included.
    """

    def __init__(self, images: Iterable[str], ranks: Ranks, folder: Path) -> None:
        keys = bytearray()
        try:
            self._paths = tempfile.TemporaryFile(dir=folder)
            for name in images:
                path = absolute_path(name)
                key = image_key(path)
                if int.from_bytes(key[:8], "big") % ranks.count == ranks.rank:
                    self._paths.write(os.fsencode(path) + b"\0")
                    keys += key
            self._paths.flush()
        except OSError as error:
            raise WriteFailed(str(folder), f"could not be written to: {error.strerror or error}") from None
        self._keys = _keys(keys)
        order = np.argsort(self._keys, kind="stable")
        again = order[1:][self._keys[order[1:]] == self._keys[order[:-1]]]
        self._left = np.ones(len(self._keys), dtype=bool)
        self._left[again] = False
        self.share = len(self)

    def leave_out(self, done: bytes) -> None:
        """Leave out the images of these keys, which stand one behind the other."""
        keys = np.sort(_keys(done))
        if len(keys):
            places = np.minimum(np.searchsorted(keys, self._keys), len(keys) - 1)
            self._left[keys[places] == self._keys] = False

    def chosen(self) -> Callable[[str], bool]:
        """A test of whether an image is of this process's share, done or not."""
        keys = np.sort(self._keys)

        def is_chosen(path: str) -> bool:
            key = _keys(image_key(path))
            return bool(keys[np.searchsorted(keys, key).clip(max=len(keys) - 1)] == key) if len(keys) else False

        return is_chosen

    def __len__(self) -> int:
        return int(self._left.sum())

    def __iter__(self) -> Iterator[str]:
        self._paths.seek(0)
        for left, path in zip(self._left, self._stored(), strict=True):
            if left:
                yield os.fsdecode(path)

    def _stored(self) -> Iterator[bytes]:
        rest = b""
        while chunk := self._paths.read(1 << 16):
            *paths, rest = (rest + chunk).split(b"\0")
            yield from paths

    def __enter__(self) -> "WorkLeft":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._paths.close()


def _keys(content: bytes | bytearray) -> npt.NDArray[np.bytes_]:
    """`[N]` keys. For numpy zeros at the end of a text are none, which changes nothing among texts of one length."""
    return np.frombuffer(content, f"S{_KEY_BYTES}")
