"""Writes JSON that any program can read, whole or not at all, and reads the small records that lie beside files."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from detectron_gn.weights.errors import WriteFailed
from detectron_gn.weights.files.atomic import replacing
from detectron_gn.weights.files.shared_folder import open_without_following
from detectron_gn.weights.limits import MAX_RECORD_CHARACTERS


def write_json(path: Path, content: object, indent: int | None = None) -> None:
    """Write `content`, numbers in full precision; infinity and NaN, which JSON does not know, become null.

    A pipe or a device, which nothing may replace, is written to. Raises WriteFailed, naming `path`.
    """
    try:
        text = json.dumps(content, indent=indent, allow_nan=False) + "\n"
    except ValueError:
        text = json.dumps(_finite(content), indent=indent, allow_nan=False) + "\n"
    if path.exists() and not path.is_file() and not path.is_dir():
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise WriteFailed(str(path), f"could not be written: {error.strerror or error}") from None
        return
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    return [_finite(value) for value in content] if isinstance(content, list | tuple) else content


def read_json_record(path: Path) -> dict[str, Any] | None:
    """A small JSON object that this program wrote beside a file; None where there is none.

    It may lie in a folder that others can write to: a link is not followed, a pipe not waited for, and neither size nor
    depth can do harm.
    """
    try:
        with open(path, encoding="utf-8", opener=open_without_following) as handle:
            if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
                return None
            content = json.loads(handle.read(MAX_RECORD_CHARACTERS))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
