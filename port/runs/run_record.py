"""`run.json` beside the checkpoints of a training run: what it was started with, its classes among it."""

import json
from pathlib import Path
from typing import Any

from detectron_gn.mrcnn.data.categories import Categories
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.plain_file import read_plain_file


def read_run_record(folder: Path) -> dict[str, Any]:
    """What `run.json` in a run's folder holds; InputError where it cannot be read or lacks something."""
    path = folder / "run.json"
    try:
        content = json.loads(read_plain_file(path))
        kinds = {"config": dict, "classes": list, "data": str, "weights": str, "precision": str}
        is_whole = all(isinstance(content[key], kind) for key, kind in kinds.items())
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        is_whole = False
    if not is_whole:
        raise InputError(
            f"{path} is damaged, and without it this run cannot go on: put back a copy, or start another run with "
            "--weights and the newest checkpoint, in another --out"
        )
    assert isinstance(content, dict)
    return content


def recorded_categories(folder: Path) -> Categories | None:
    """The categories of the run in a folder; None where there is none that can be read.

    A run of an earlier version has no ids on record: they are 1, 2, ... then.
    """
    try:
        content = read_run_record(folder)
    except InputError:
        return None
    names = tuple(map(str, content["classes"][1:]))
    ids = content.get("category_ids")
    if isinstance(ids, list) and len(ids) == len(names) and all(type(each) is int for each in ids):
        return Categories(names, tuple(ids))
    return Categories(names, tuple(range(1, len(names) + 1)))
