"""The directory of a zip archive, read with the standard library behind a bound on its size."""

from __future__ import annotations

import zipfile

from detectron_gn.weights.errors import MalformedFile, OverBudget, TruncatedFile
from detectron_gn.weights.files.mapped_file import MappedFile
from detectron_gn.weights.limits import MAX_DIRECTORY_BYTES

_END_RECORD = b"PK\x05\x06"


def zip_members(file: MappedFile) -> list[zipfile.ZipInfo]:
    """The members of an archive without a comment, as PyTorch writes it.

    Raises TruncatedFile where the end of the archive is missing, OverBudget or MalformedFile where its
    directory is huge or damaged.
    """
    end = bytes(file.map[-22:])
    if not end.startswith(_END_RECORD):
        raise TruncatedFile(file.source, "is a PyTorch file whose end is missing; copy it again")
    if int.from_bytes(end[12:16], "little") > MAX_DIRECTORY_BYTES:
        raise OverBudget(file.source, "has a directory larger than that of any weights file")
    try:
        with zipfile.ZipFile(file.path) as archive:
            return archive.infolist()
    except Exception as error:  # zipfile raises half a dozen types for a damaged directory
        raise MalformedFile(file.source, f"is a damaged PyTorch file: {str(error)[:200]}") from None
