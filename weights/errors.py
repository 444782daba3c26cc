"""The errors of this room: one class per cause; each message is a sentence that names the file and the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class WeightsError(ValueError):
    """A weights file, model id or download that cannot be used; the front door prints it and exits with 2."""


class FileError(WeightsError):
    """Something is wrong with one file.

    Attributes:
        source: the file as the user named it.
        cause: what was found and, where there is one, the way out.
        offset: the byte at which it was found, counted from 0; None where no single byte is to blame.
    """

    def __init__(self, source: str, cause: str, offset: int | None = None) -> None:
        self.source = source
        self.cause = cause
        self.offset = offset
        super().__init__(f"{source}: {cause}" + ("" if offset is None else f" (at byte {offset})"))


class UnreadableFile(FileError):
    """The file is missing, is no regular file, or may not be read."""


class WrongFormat(FileError):
    """The content is not one of the four formats; the message says what it is instead."""


class TruncatedFile(FileError):
    """The file ends before its content does."""


class MalformedFile(FileError):
    """The content breaks the rules of its own format, or holds no weights."""


class ForbiddenContent(FileError):
    """The content asks for something that weights never need: code, a class, a link to another file."""


class OverBudget(FileError):
    """The content asks for more memory or work than a file of its size can need."""


class UnsupportedArray(FileError):
    """An array is of a kind that is not supported: an element type that is not a plain number, a bad shape."""


class WriteFailed(FileError):
    """The file could not be written; nothing of it is left."""


class UnknownModel(WeightsError):
    """No model of the catalog goes by that id, name or URL."""


class NotPublished(WeightsError):
    """The model is known by its results only: no file of it was ever published."""


class NotObtained(WeightsError):
    """A file is neither here nor to be had.

    Attributes:
        lines: the sentence, what was tried, and what a user can do, as a terminal shows them; the text of the error
            has the same in one line.
    """

    def __init__(self, sentence: str, tried: Sequence[str] = (), ways_on: Sequence[str] = ()) -> None:
        told = f"{sentence}: {'; '.join(tried)}" if tried else sentence
        super().__init__(f"{told}; ways on: {'; '.join(ways_on)}" if ways_on else told)
        self.lines = [
            sentence,
            *(f"  tried {each}" for each in tried),
            *(["  ways on:"] if ways_on else []),
            *(f"  - {each}" for each in ways_on),
        ]


class DownloadFailed(NotObtained):
    """A file could not be fetched, or what came is not the file; nothing wrong is left in the cache."""


class NotCached(NotObtained):
    """A file is not in the cache and the network may not be used."""
