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
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.plain_file import open_plain_file

RawRecords = list[dict[str, Any]]

# Bytes of a part, about; its records, as Python has them, take ten times as many.
PART = 2**23
# Bytes that are read at once.
_BLOCK = 2**23
# A value that is longer than this is read as a whole, with the file around it.
_LONGEST = 2**26
_BOM = "\xef\xbb\xbf"
_SPACE = " \t\n\r"
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
        self._text, self._start, self._at = "", 0, 0
        self._decode = json.JSONDecoder().raw_decode
        self.digest = hashlib.sha256()
        self.twice: str | None = None

    def ranges(self) -> dict[str, list[_Range]]:
        found: dict[str, list[_Range]] = {}
        while len(self._text) < len(_BOM) and self._more():
            pass
        if self._text.startswith(_BOM):
            self._at = len(_BOM)
        self._take("{")
        while True:
            key = self._value()
            self._take(":")
            if key in _LISTS and self._next() == "[":
                self.twice = key if key in found else self.twice
                found[key] = self._list()
            elif key in _LISTS or not isinstance(key, str):
                raise ValueError
            else:
                self._value()
            if self._next() == "}":
                break
            self._take(",")
        self._take("}")
        if self._next() or found.keys() != set(_LISTS):
            raise ValueError
        return found

    def _list(self) -> list[_Range]:
        self._take("[")
        found: list[_Range] = []
        if self._next() == "]":
            self._take("]")
            return found
        start, count = self._place(), 0
        while True:
            if not isinstance(self._value(), dict):
                raise ValueError
            end, count = self._place(), count + 1
            is_last = self._next() == "]"
            if is_last or end - start >= PART:
                found.append(_Range(start, end, count))
            self._take("]" if is_last else ",")
            if is_last:
                return found
            self._next()
            if found and found[-1].end == end:
                start, count = self._place(), 0

    def _place(self) -> int:
        return self._start + self._at

    def _next(self) -> str:
        """The next character that is no space, which is not passed; "" at the end of the file."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def _take(self, character: str) -> None:
        if self._next() != character:
            raise ValueError
        self._at += 1

    def _value(self) -> Any:
        self._next()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except ValueError:
                # It may go on in what is not read yet.
                if len(self._text) - self._at > _LONGEST or not self._more():
                    raise ValueError from None
                continue
            if end < len(self._text) or not self._more():
                self._at = end
                return value

    def _more(self) -> bool:
        """Read on; what lies behind is forgotten."""
        block = self._file.read(_BLOCK)
        self.digest.update(block)
        self._text, self._start, self._at = self._text[self._at :] + block.decode("latin-1"), self._place(), 0
        return bool(block)
