"""The one reader of JSON files that a user names."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from detectron_gn.mrcnn.data.json_walk import JsonWalk
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.plain_file import read_plain_file

# Characters of a list that are read at a time.
_PIECE = 1 << 20


def read_json(path: Path, wanted: str) -> Any:
    """What a JSON file holds, in UTF-8, UTF-16 or UTF-32, with a byte-order mark or without.

    Args:
        wanted: what the file should be, for the sentence, as "a COCO annotation file".

    Raises InputError that names the file and what is wrong with it.
    """
    content = b""
    try:
        content = read_plain_file(path)
        # From bytes, so that json finds the encoding.
        return json.loads(content)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; give {wanted}") from None
    except RecursionError:
        raise InputError(f"{path} is not JSON (lists are nested too deep): give {wanted}") from None
    except ValueError as error:
        kind = _kind_of(content)
        if kind is not None:
            raise InputError(f"{path} is not JSON but {kind}; give {wanted}") from None
        # Of numbers of thousands of digits, Python tells its programmers what to do.
        raise InputError(f"{path} is not JSON ({str(error).partition(' for integer')[0]}): give {wanted}") from None


def stream_json_list(path: Path, wanted: str, whole: Callable[[], Sequence[Any]]) -> Iterator[Any]:
    """The items of the list that a JSON file holds, one after another, without holding all of them.

    Args:
        wanted: what the file should be, as in `read_json`.
        whole: reads the file at one go; called for what is no list in UTF-8, or no JSON, so that this function has no
            sentences of its own.
    """
    count = 0
    try:
        with _opened(path) as file:
            for item in _items(file):
                yield item
                count += 1
            return
    except (OSError, ValueError, RecursionError):
        pass
    yield from whole()[count:]


def _opened(path: Path) -> TextIO:
    if not path.is_file():
        raise OSError("no regular file")  # opening a pipe would wait
    return path.open(encoding="utf-8-sig")


def _items(file: TextIO) -> Iterator[Any]:
    """The items of a list; ValueError for what is none."""
    walk = JsonWalk(partial(file.read, _PIECE))
    yield from walk.items()
    if walk.next():
        raise ValueError("more than a list")


# How a pickle begins: Detectron's of protocol 2, and those of later ones.
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _kind_of(content: bytes) -> str | None:
    """What a file that is not JSON is, with the way out, where its beginning tells."""
    if content.startswith(b"\x1f\x8b"):
        return "a file compressed with gzip: unpack it with gunzip"
    if content.startswith(b"PK\x03\x04"):
        return "a ZIP archive: unpack it, and name the JSON file in it"
    if content.startswith(_PICKLES):
        return (
            "a pickle; Detectron writes results as JSON beside its detections.pkl: bbox_..._results.json, "
            "segmentations_..._results.json, keypoints_..._results.json"
        )
    start = content.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        return "an empty file"
    if start.startswith(b"<"):
        return "XML or HTML: let the tool that wrote it export COCO's format"
    try:
        _, end = json.JSONDecoder().raw_decode(start.decode())
    except (ValueError, RecursionError):
        return None
    return f"several JSON values one after another, the second from character {end}: put them into one"
