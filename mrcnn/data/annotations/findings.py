"""What the reader of annotation files has found: faults, which every command refuses, and what it mended."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.wording import listed


@dataclass(frozen=True)
class Fault:
    """Why a record cannot be used.

    Attributes:
        subject: the image, annotation or category.
        text: what is wrong with it.
        image_id: the image that it spoils; None where it is of no image.
    """

    subject: str
    text: str
    image_id: int | None = None


def annotation_subject(annotation: Mapping[str, Any], file_name: str) -> str:
    """What sentences call an annotation of an image's file."""
    return f"annotation {annotation['id']} of {file_name}"


class Findings:
    """Collects what is found while a file is read."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._mended: dict[str, tuple[int, str]] = {}

    def refuse(self, subject: str, text: object, image_id: int | None = None) -> None:
        """Note a fault."""
        self.faults.append(Fault(subject, str(text), image_id))

    def mend(self, subject: str, text: str, times: int = 1) -> None:
        """Note that a record, the first of so many, was mended in memory; `text` says how."""
        count, first = self._mended.get(text, (0, subject))
        self._mended[text] = (count + times, first)

    def forget(self, ending: str) -> None:
        """Leave out what was mended where a sentence ends so."""
        self._mended = {text: found for text, found in self._mended.items() if not text.endswith(ending)}

    def remarks(self) -> tuple[str, ...]:
        """What was mended, a sentence for each kind with its count."""
        return tuple(
            f"{text} ({first})" if count == 1 else f"{text} ({count} times, first: {first})"
            for text, (count, first) in self._mended.items()
        )


def refuse_faults(path: Path, faults: tuple[Fault, ...]) -> None:
    """Raise InputError with the first fault and the places of the others, if there are any."""
    if not faults:
        return
    first, *others = faults
    # What is about the file itself needs its name only once.
    place = f"{path}: " if first.subject == str(path) else f"{path}: {first.subject}: "
    more = ""
    if others:
        subjects = listed(list(dict.fromkeys(fault.subject for fault in others)))
        more = f"; {len(others)} more {'fault' if len(others) == 1 else 'faults'}: {subjects}"
    raise InputError(f"{place}{first.text}{more}; mend it, `detectron-gn check-data` lists all there is")
