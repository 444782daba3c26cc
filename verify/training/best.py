"""The best checkpoint of a run, `model_best.pth`, and whether the run has stopped getting better.

Both follow from the evaluations in the run's folder alone, so that a run that goes on decides as one in one go does.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from detectron_gn.mrcnn.evaluation.recall import RECALL_JSON_KEY, RECALL_MEASURED
from detectron_gn.verify.training.metrics import RunFigures
from detectron_gn.verify.training.run_dir import RunFolder
from detectron_gn.weights.files.atomic import replacing
from detectron_gn.weights.files.json_file import read_json_record, write_json

# What a checkpoint is judged by: the first of these that its model gives.
JUDGED_BY = ("mask", "keypoint", "box", RECALL_JSON_KEY)
BEST, BEST_RECORD = "model_best.pth", "model_best.json"


class Best(NamedTuple):
    """The evaluation of the highest value, the earliest of equal ones, and how many came after it."""

    iteration: int
    kind: str
    value: float
    since: int

    @property
    def measure(self) -> str:
        """What the value is of."""
        return RECALL_MEASURED if self.kind == RECALL_JSON_KEY else f"{self.kind} AP"

    def __str__(self) -> str:
        return f"{self.measure} {100 * self.value:.2f} after iteration {self.iteration}"

    def document(self) -> dict[str, object]:
        """What `model_best.json` holds; the value is a share of 1."""
        return {"iteration": self.iteration, "measure": self.measure, "value": self.value}


def best_of(evaluations: Mapping[int, Mapping[str, float]]) -> Best | None:
    """The best of evaluations by iteration; None where there is none."""
    found: Best | None = None
    for iteration in sorted(evaluations):
        values = evaluations[iteration]
        kind = next((kind for kind in JUDGED_BY if kind in values), None)
        if kind is None:
            continue
        if found is None or kind != found.kind or values[kind] > found.value:
            found = Best(iteration, kind, values[kind], 0)
        else:
            found = found._replace(since=found.since + 1)
    return found


class BestCheckpoint:
    """Keeps `model_best.pth` in a run's folder, with `model_best.json`, which says which one it is.

    Args:
        keep: whether there is to be one.
        patience: after so many evaluations without a better one the run has done enough; None for never.
    """

    def __init__(self, folder: RunFolder, figures: RunFigures, keep: bool, patience: int | None) -> None:
        self._folder, self._figures = folder, figures
        self._keep, self._patience = keep, patience

    def after(self, iteration: int) -> Best | None:
        """The best of the evaluations up to an iteration."""
        found = self._figures.evaluations()
        return best_of({number: values for number, values in found.items() if number <= iteration})

    def kept_after(self, iteration: int) -> str | None:
        """A line about the best checkpoint that is kept at the end; None where none is."""
        best = self.after(iteration)
        if best is None or self._kept() != best.iteration:
            return None
        return f"best checkpoint: {self._folder.path / BEST}, {best}"

    def is_enough(self, iteration: int) -> bool:
        """Whether the evaluations up to an iteration end the run."""
        if not self._patience:
            return False
        best = self.after(iteration)
        return best is not None and best.since >= self._patience

    def keep(self, iteration: int) -> str | None:
        """Keep the best checkpoint up to an iteration, if it is another one now; returns a line about it."""
        best = self.after(iteration) if self._keep else None
        if best is None or self._kept() == best.iteration:
            return None
        source = self._folder.of_iteration(best.iteration)
        if source is None:
            return f"best so far: {best}, whose checkpoint is gone (--keep keeps more)"
        target = self._folder.path / BEST
        (self._folder.path / BEST_RECORD).unlink(missing_ok=True)
        with replacing(target) as temporary:
            _same_file(source, temporary)
        write_json(self._folder.path / BEST_RECORD, best.document(), indent=1)
        return f"best so far: {best}; kept as {target}"

    def _kept(self) -> int | None:
        """The iteration of the best checkpoint that is there."""
        record = read_json_record(self._folder.path / BEST_RECORD) if (self._folder.path / BEST).exists() else None
        iteration = None if record is None else record.get("iteration")
        return iteration if type(iteration) is int else None


def _same_file(source: Path, target: Path) -> None:
    """The file under another name too; a copy where the disk has no hard links. Checkpoints are never written into."""
    target.unlink()
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
