"""The JSON of a COCO annotation file, before anything is asked of its records."""

from pathlib import Path
from typing import Any

from detectron_gn.mrcnn.data.json_file import read_json
from detectron_gn.mrcnn.errors import InputError


def read_annotation_file(path: str | Path) -> dict[str, Any]:
    """The JSON of a COCO annotation file, with `images`, `annotations` and `categories` known to be lists of objects.

    It may be in UTF-8, UTF-16 or UTF-32, with a byte-order mark or without. Raises InputError that names the file and
    what is wrong with it.
    """
    path = Path(path)
    content = read_json(path, "a COCO annotation file")
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a JSON {type(content).__name__}: a COCO annotation file holds an object")
    for key in ("images", "annotations", "categories"):
        if key not in content:
            raise InputError(f"{path} has no {key!r}: a COCO annotation file with ground truth has it")
        records = content[key]
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise InputError(f"{path}: {key!r} must be a list of objects")
    return content
