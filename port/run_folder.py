"""A training run on disk: checkpoints, what it was started with, figures; answers to Detectron utils/train.py."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrcnn.config import Config, flatten
from mrcnn.data.roidb import RoidbEntry
from mrcnn.errors import InputError
from weights import WeightsFile, read_blobs, write_blobs
from weights.atomic import replacing

Line = dict[str, Any]

# Keys that a run may change when it goes on: they do not touch what was trained so far, nor the order of the data.
_FREE_SECTIONS = ("TEST.", "CLUSTER.", "DATA_LOADER.", "USE_NCCL", "VIS", "OUTPUT_DIR", "EXPECTED_RESULTS", "ROOT_DIR")
_FREE_KEYS = ("TRAIN.SNAPSHOT_ITERS", "TRAIN.AUTO_RESUME", "TRAIN.WEIGHTS", "TRAIN.DATASETS", "TRAIN.COPY_WEIGHTS")
# The length of a run shapes the learning rate of these policies from its beginning.
_POLICIES_OF_LENGTH = ("cosine_decay", "exp_decay")


@dataclass(frozen=True)
class RunIdentity:
    """What a run may not change when it goes on, but for some keys of the configuration.

    Attributes:
        cfg: the configuration.
        data: a hash over the images, their order and their ground truth.
        weights: where it started: a description and the sha256 of the blobs, or "from scratch".
        classes: names, the background first.
    """

    cfg: Config
    data: str
    weights: str
    classes: tuple[str, ...]


class RunFolder:
    """A folder with `run.json`, `json_stats.jsonl`, `model_iterN.pth` and, at the end, `model_final.*`.

    `model_iterN` holds the parameters and momenta after iteration N, counted from 0, as Detectron's does. With the
    configuration, whose RNG_SEED all randomness comes from together with the iteration, that is everything a run
    needs to go on bit for bit.
    """

    def __init__(self, path: Path, keep: int = 3, detectron_checkpoints: bool = False) -> None:
        self.path = path
        self._keep = keep
        self._detectron_checkpoints = detectron_checkpoints

    @property
    def holds_run(self) -> bool:
        """Whether a run was started in the folder."""
        return (self.path / "run.json").exists()

    def refuse_run(self) -> None:
        """InputError if the folder holds a run."""
        if self.holds_run:
            raise InputError(f"{self.path} holds a run already: go on with --resume, or choose another --out")

    def begin(self, identity: RunIdentity) -> None:
        """Start a new run; InputError if the folder holds one or cannot be written to."""
        self.refuse_run()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be made ({error.strerror})") from None
        content = {
            "config": {key: list(v) if isinstance(v, tuple) else v for key, v in flatten(identity.cfg).items()},
            "data": identity.data,
            "weights": identity.weights,
            "classes": list(identity.classes),
        }
        with replacing(self.path / "run.json") as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def check(self, identity: RunIdentity) -> None:
        """InputError, naming what changed, unless the folder's run can go on with this."""
        content = self._read()
        now = flatten(identity.cfg)
        for key, value in content["config"].items():
            before = tuple(value) if isinstance(value, list) else value
            if now.get(key) != before and not _is_free(key, identity.cfg):
                raise InputError(
                    f"{key} is {now.get(key)!r} now and was {before!r} when the run in {self.path} was started: "
                    "go on with the old value, or start another run"
                )
        if content["classes"] != list(identity.classes):
            raise InputError(f"the categories are not those that the run in {self.path} was started with")
        if content["data"] != identity.data:
            raise InputError(
                f"the annotations or images are not those that the run in {self.path} was started with: "
                "go on with the old ones, or start another run"
            )

    def classes(self) -> tuple[str, ...]:
        """The classes of the folder's run, the background first."""
        return tuple(self._read()["classes"])

    def latest(self) -> WeightsFile | None:
        """The newest checkpoint, or the final model where that is newer, if there is one."""
        candidates = [*self._checkpoints()[-1:], *self.path.glob("model_final.pth")]
        return max(map(read_blobs, candidates), key=lambda weights: weights.iteration or 0, default=None)

    def save(self, weights: WeightsFile) -> Path:
        """Write `model_iterN.pth` whole or not at all, then remove all but the newest.

        With `detectron_checkpoints` also `model_iterN.pkl`, which Detectron goes on from.
        """
        path = self.save_as(f"model_iter{weights.iteration}.pth", weights)
        if self._detectron_checkpoints:
            write_blobs(path.with_suffix(".pkl"), weights)
        for old in self._checkpoints()[: -self._keep]:
            old.unlink()
            old.with_suffix(".pkl").unlink(missing_ok=True)
        return path

    def save_as(self, name: str, weights: WeightsFile) -> Path:
        """Write a weights file of the given name whole or not at all."""
        path = self.path / name
        write_blobs(path, weights)
        return path

    def save_final(self, weights: WeightsFile) -> tuple[Path, Path]:
        """Write `model_final.pkl`, for Detectron, and `model_final.pth`."""
        return self.save_as("model_final.pkl", weights), self.save_as("model_final.pth", weights)

    def remove_unfinished(self) -> None:
        """Remove what a process that was killed while it wrote has left behind."""
        for temporary in self.path.glob(".*." + 32 * "[0-9a-f]" + ".tmp"):  # weights.atomic
            temporary.unlink()

    def lines(self) -> list[Line]:
        """The figures that were written so far, one line every 20 iterations."""
        path = self.path / "json_stats.jsonl"
        if not path.exists():
            return []
        return list(_whole_lines(path.read_text(encoding="utf-8")))

    def keep_lines_before(self, iteration: int) -> None:
        """Forget the figures of iterations that will be done again."""
        lines = [line for line in self.lines() if line["iter"] < iteration]
        with replacing(self.path / "json_stats.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def add_line(self, line: Mapping[str, Any]) -> None:
        """Append figures."""
        path = self.path / "json_stats.jsonl"
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(dict(line)) + "\n")
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from None

    def evaluations(self) -> dict[int, dict[str, float]]:
        """AP by iteration and kind, box or mask, of the checkpoints that were evaluated: `eval_iterN/ap.json`."""
        found = {}
        for path in self.path.glob("eval_iter*/ap.json"):
            for kinds in json.loads(path.read_text(encoding="utf-8")).values():
                found[int(path.parent.name[9:])] = {kind: metrics["AP"] for kind, metrics in kinds.items()}
        return dict(sorted(found.items()))

    def _read(self) -> dict[str, Any]:
        path = self.path / "run.json"
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise InputError(f"{path} cannot be read: without it this run cannot go on; start another one") from None
        return content

    def _checkpoints(self) -> list[Path]:
        """Checkpoints, oldest first."""
        found = {int(p.stem[10:]): p for p in self.path.glob("model_iter*.pth") if p.stem[10:].isdigit()}
        return [found[iteration] for iteration in sorted(found)]


def data_fingerprint(roidb: Sequence[RoidbEntry]) -> str:
    """A sha256 over what a roidb is trained on: image names and sizes, order, flips, boxes and classes."""
    digest = hashlib.sha256()
    for entry in roidb:
        digest.update(f"{entry.image.name} {entry.height} {entry.width} {entry.flipped}\n".encode())
        for array in entry.ground_truth[:3]:
            digest.update(array.tobytes())
    return digest.hexdigest()


def _is_free(key: str, cfg: Config) -> bool:
    if key == "SOLVER.MAX_ITER":
        return cfg.SOLVER.LR_POLICY not in _POLICIES_OF_LENGTH
    return key in _FREE_KEYS or key.startswith(_FREE_SECTIONS)


def _whole_lines(text: str) -> Iterator[Line]:
    """JSON lines; a last one that a kill cut short is left out."""
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return
