"""What checkpoints are evaluated on: sets of annotations and images with names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.errors import InputError

_NAME = re.compile(r"[\w-][\w.-]*")


@dataclass(frozen=True)
class EvaluationData:
    """A COCO instances file and the folder of its images.

    Attributes:
        proposals: of its images, for a model that takes them.
        other_names: what classes 1, 2, ... are called in the annotations that were trained on, where the run has other
            names for them; the evaluation's categories may go by either.
        given_name: under which its results are kept; "" for the stem of the annotation file.
    """

    annotations: Path
    images: Path
    proposals: StoredProposals | None = None
    other_names: tuple[str, ...] | None = None
    given_name: str = ""

    @property
    def name(self) -> str:
        """What the set is called."""
        return self.given_name or self.annotations.stem


def named_path(text: str) -> tuple[str, Path]:
    """`NAME=FILE` as a name and a path; a path by itself, also one with `=` in it that exists, has the name ""."""
    name, separator, path = text.partition("=")
    if not separator or Path(text).exists() or not _NAME.fullmatch(name):
        return "", Path(text)
    return name, Path(path)


def check_names(sets: Sequence[EvaluationData]) -> None:
    """Raise InputError where two evaluation sets have one name."""
    names = [each.name for each in sets]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(
            f"two evaluation sets are called {twice}: give them names, as in --eval-annotations day=DAY.json "
            "--eval-annotations night=NIGHT.json"
        )
