"""The best checkpoint of a run, `model_best.pth`, and whether the run has stopped getting better.

Both follow from the evaluations in the run's folder alone, so that a run that goes on decides as one in one go does.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from detectron_gn.mrcnn.config import Config, a_family
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.evaluate import scores_keypoints
from detectron_gn.mrcnn.evaluation.recall import RECALL_JSON_KEY, RECALL_MEASURED
from detectron_gn.verify.training.metrics import RunFigures
from detectron_gn.verify.training.run_dir import RunFolder
from detectron_gn.weights.files.atomic import replacing
from detectron_gn.weights.files.json_file import read_json_record, write_json

# What a checkpoint is judged by where nobody says: the first of these that its model gives.
JUDGED_BY = ("mask", "keypoint", "box", RECALL_JSON_KEY)
# What is below is printed as 0.00 percent, and is 0: the best of such is nothing.
_LEAST = 0.00005
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

    @property
    def is_nothing(self) -> bool:
        """Whether nothing was found yet."""
        return self.value < _LEAST

    def __str__(self) -> str:
        return f"{self.measure} {100 * self.value:.2f} after iteration {self.iteration}"

    def document(self) -> dict[str, object]:
        """What `model_best.json` holds; the value is a share of 1."""
        return {"iteration": self.iteration, "measure": self.measure, "value": self.value}


def check_judged_by(kind: str, cfg: Config) -> None:
    """InputError where a model has no AP of the kind that its checkpoints are to be judged by; "" is none chosen."""
    given = {
        "": True,
        "box": not cfg.MODEL.RPN_ONLY,
        "mask": cfg.MODEL.MASK_ON,
        "keypoint": scores_keypoints(cfg),
    }
    if not given[kind]:
        raise InputError(f"--keep-best {kind}: {a_family(cfg)} has no {kind} AP to be judged by: leave {kind} out")


def best_of(evaluations: Mapping[int, Mapping[str, float]], judged_by: str = "") -> Best | None:
    """The best of evaluations by iteration; None where there is none.

    Args:
        judged_by: box, mask or keypoint; "" for the first of JUDGED_BY that there is.
    """
    found: Best | None = None
    for iteration in sorted(evaluations):
        values = evaluations[iteration]
        kind = next((kind for kind in ((judged_by,) if judged_by else JUDGED_BY) if kind in values), None)
        if kind is None:
            continue
        value = values[kind] if values[kind] >= _LEAST else 0.0
        if found is None or kind != found.kind or value > found.value:
            found = Best(iteration, kind, value, 0)
        else:
            found = found._replace(since=found.since + 1)
    return found


class BestCheckpoint:
    """Keeps `model_best.pth` in a run's folder, with `model_best.json`, which says which one it is.

    Args:
        keep: whether there is to be one.
        patience: after so many evaluations without a better one the run has done enough; None for never.
        judged_by: see `best_of`.
    """

    def __init__(
        self, folder: RunFolder, figures: RunFigures, keep: bool, patience: int | None, judged_by: str = ""
    ) -> None:
        self._folder, self._figures = folder, figures
        self._keep, self._patience, self._judged_by = keep, patience, judged_by

    @property
    def path(self) -> Path:
        """Where the best checkpoint is kept, if one is."""
        return self._folder.path / BEST

    def after(self, iteration: int) -> Best | None:
        """The best of the evaluations up to an iteration."""
        found = self._figures.evaluations()
        return best_of({number: values for number, values in found.items() if number <= iteration}, self._judged_by)

    def kept_after(self, iteration: int) -> str | None:
        """A line about the best checkpoint that is kept at the end; None where none is."""
        best = self.after(iteration)
        if best is None or not self._is_kept(best):
            return None
        return f"best checkpoint: {self.path}, {best}"

    def is_enough(self, iteration: int) -> bool:
        """Whether the evaluations up to an iteration end the run."""
        if not self._patience:
            return False
        best = self.after(iteration)
        return best is not None and best.since >= self._patience

    def keep(self, iteration: int) -> str | None:
        """Keep the best checkpoint up to an iteration, if it is another one now; returns a line about it."""
        best = self.after(iteration) if self._keep else None
        if best is None or self._is_kept(best):
            return None
        if best.is_nothing:
            return (
                f"{best.measure} 0.00 so far: no checkpoint is the best yet; where that stays so, look at what "
                "detect --min-score 0.05 finds"
            )
        source = self._folder.of_iteration(best.iteration)
        if source is None:
            return f"best so far: {best}, whose checkpoint is gone (--keep keeps more)"
        target = self.path
        (self._folder.path / BEST_RECORD).unlink(missing_ok=True)
        with replacing(target) as temporary:
            _same_file(source, temporary)
        write_json(self._folder.path / BEST_RECORD, best.document(), indent=1)
        return f"best so far: {best}; kept as {target}"

    def _is_kept(self, best: Best) -> bool:
        """Whether it is the best checkpoint that is there."""
        record = read_json_record(self._folder.path / BEST_RECORD) if self.path.exists() else None
        return record is not None and (record.get("iteration"), record.get("measure")) == (best.iteration, best.measure)


def _same_file(source: Path, target: Path) -> None:
    """The file under another name too; a copy where the disk has no hard links. Checkpoints are never written into."""
    target.unlink()
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
