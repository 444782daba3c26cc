"""The one reader of JSON files that a user names."""

import json
from pathlib import Path
from typing import Any

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.plain_file import read_plain_file


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


def _kind_of(content: bytes) -> str | None:
    """What a file that is not JSON is, with the way out, where its beginning tells."""
    if content.startswith(b"\x1f\x8b"):
        return "a file compressed with gzip: unpack it with gunzip"
    if content.startswith(b"PK\x03\x04"):
        return "a ZIP archive: unpack it, and name the JSON file in it"
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
