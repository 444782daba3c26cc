"""A COCO annotation file in parts of whole records, so that a file of any size is read in the memory of one part."""

import gc
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from detectron_gn.mrcnn.data.annotations.json_file import read_annotation_file
from detectron_gn.mrcnn.data.json_walk import JsonWalk
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.plain_file import open_plain_file

RawRecords = list[dict[str, Any]]

# Bytes of a part, about; its records, as Python has them, take ten times as many.
PART = 2**23
# Bytes that are read at once.
_BLOCK = 2**23
_BOM = "\xef\xbb\xbf"
_LISTS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class Part:
    """Some records of a list of the file, one after another.

    Attributes:
        before: how many records of the list come before them.
        text: their JSON, a list; None where the file was read as a whole.
        whole: the records, where it was.
    """

    before: int
    text: bytes | None
    whole: RawRecords

    def quickly(self) -> RawRecords | None:
        """The records; None where they are not JSON to orjson, which takes no NaN and no number beyond float64.

        Whole numbers beyond 64 bits are floats.
        """
        if self.text is None:
            return self.whole
        try:
            records: RawRecords = orjson.loads(self.text)
        except ValueError:
            return None
        return records

    def exactly(self) -> RawRecords:
        """The records as Python's `json` reads them; ValueError where they are no JSON."""
        if self.text is None:
            return self.whole
        records: RawRecords = json.loads(self.text)
        return records


class AnnotationParts:
    """An annotation file, open, whose lists are read part by part.

    What is not plain UTF-8, or no JSON, or no annotation file, is read as a whole by
    `mrcnn.data.annotations.json_file`, whose sentence refuses it.

    Attributes:
        digest: sha256 of the content; None where it was read as a whole.

    Raises InputError as `read_annotation_file` does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.digest: str | None = None
        self._ranges: dict[str, list[_Range]] | None = None
        with ExitStack() as opened:
            try:
                # One file for both passes: another one may take its name meanwhile.
                self._file = opened.enter_context(open_plain_file(path))
                self._state = self._state_now()
                scanner = _Scanner(self._file)
                with without_collection():
                    self._ranges = scanner.ranges()
            except (OSError, ValueError, RecursionError):
                self._content = read_annotation_file(path)
                return
            if scanner.twice is not None:
                raise InputError(
                    f"{path} has {scanner.twice!r} twice, of which JSON readers take one: put them into one list"
                )
            self.digest = scanner.digest.hexdigest()
            opened.pop_all()

    def __enter__(self) -> "AnnotationParts":
        return self

    def __exit__(self, *_: object) -> None:
        if self._ranges is not None:
            self._file.close()

    def count(self, key: str) -> int:
        """How many records the list `images`, `annotations` or `categories` has."""
        if self._ranges is None:
            return len(self._content[key])
        return sum(each.count for each in self._ranges[key])

    def parts(self, key: str) -> Iterator[Part]:
        """The parts of the list `images`, `annotations` or `categories`, in order."""
        if self._ranges is None:
            yield Part(0, None, self._content[key])
            return
        before = 0
        for each in self._ranges[key]:
            self._file.seek(each.start)
            yield Part(before, b"[" + self._file.read(each.end - each.start) + b"]", [])
            before += each.count

    def records(self, key: str) -> RawRecords:
        """A whole list; ValueError where it is no JSON after all."""
        return [record for part in self.parts(key) for record in part.exactly()]

    def check_unchanged(self) -> None:
        """Raise InputError where the file was written to while it was read."""
        if self._ranges is not None and self._state_now() != self._state:
            raise InputError(f"{self.path} was changed while it was read: try again")

    def _state_now(self) -> tuple[int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns


@contextmanager
def without_collection() -> Iterator[None]:
    """Hold Python's search for reference cycles back, which JSON has none of and which doubles the time to read it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@dataclass(frozen=True)
class _Range:
    """Where records lie in the file, from the first byte of the first to behind the last one's last."""

    start: int
    end: int
    count: int


class _Scanner:
    """Walks over a JSON object once; ValueError for all that is not as COCO's files are.

    Its text is the file's bytes, each as one character, so that places in it are places in the file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._walk = JsonWalk(self._read)
        self.digest = hashlib.sha256()
        self.twice: str | None = None

    def ranges(self) -> dict[str, list[_Range]]:
        found: dict[str, list[_Range]] = {}
        walk = self._walk
        if walk.starts_with(_BOM):
            walk.take(_BOM)
        walk.take("{")
        while True:
            key = walk.value()
            walk.take(":")
            if key in _LISTS and walk.next() == "[":
                self.twice = key if key in found else self.twice
                found[key] = self._list()
            elif key in _LISTS or not isinstance(key, str):
                raise ValueError
            else:
                walk.value()
            if walk.next() == "}":
                break
            walk.take(",")
        walk.take("}")
        if walk.next() or found.keys() != set(_LISTS):
            raise ValueError
        return found

    def _list(self) -> list[_Range]:
        found: list[_Range] = []
        start, end, count = 0, 0, 0
        for item in self._walk.items():
            if not isinstance(item, dict):
                raise ValueError
            start, end, count = start if count else self._walk.began, self._walk.place, count + 1
            if end - start >= PART:
                found.append(_Range(start, end, count))
                count = 0
        if count:
            found.append(_Range(start, end, count))
        return found

    def _read(self) -> str:
        block = self._file.read(_BLOCK)
        self.digest.update(block)
        return block.decode("latin-1")
