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
    try:
        # From bytes, so that json finds the encoding.
        return json.loads(read_plain_file(path))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; give {wanted}") from None
    except RecursionError:
        raise InputError(f"{path} is not JSON (lists are nested too deep): give {wanted}") from None
    except ValueError as error:
        # Of numbers of thousands of digits, Python tells its programmers what to do.
        raise InputError(f"{path} is not JSON ({str(error).partition(' for integer')[0]}): give {wanted}") from None
