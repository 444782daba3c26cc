"""A training run on disk: its checkpoints, and what it was started with; answers to Detectron utils/train.py."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from detectron_gn.mrcnn.config import Config, flatten
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.wording import listed
from detectron_gn.port.config.read import parse_config
from detectron_gn.port.runs.run_record import read_run_record
from detectron_gn.verify.training.length import KEYS_OF_LENGTH, RunLength, may_grow
from detectron_gn.weights import WeightsFile, read_blobs, write_blobs
from detectron_gn.weights.errors import FileError, UnreadableFile, WeightsError
from detectron_gn.weights.files.json_file import write_json
from detectron_gn.weights.files.lock import occupied

# Keys that a run may change when it goes on: they do not touch what was trained so far, nor the order of the data.
_FREE_SECTIONS = ("TEST.", "CLUSTER.", "DATA_LOADER.", "USE_NCCL", "VIS", "OUTPUT_DIR", "EXPECTED_RESULTS", "ROOT_DIR")
_FREE_KEYS = (
    "TRAIN.SNAPSHOT_ITERS",
    "TRAIN.AUTO_RESUME",
    "TRAIN.WEIGHTS",
    "TRAIN.DATASETS",
    "TRAIN.PROPOSAL_FILES",
    "TRAIN.COPY_WEIGHTS",
)
# What a run leaves in its folder, apart from `run.json`.
_LEAVINGS = (
    "model_iter*.p*",
    "model_final.p*",
    "model_best.*",
    "diverged_iter*.pth",
    "json_stats.jsonl",
    "eval_iter*",
)


@dataclass(frozen=True)
class RunIdentity:
    """What a run may not change when it goes on, but for some keys of the configuration.

    Attributes:
        cfg: the configuration.
        data: a hash over the images, their order and their ground truth.
        weights: where it started: a description and, last, the sha256 of the blobs, or "from scratch".
        classes: names, the background first.
        category_ids: the data set's own ids of classes 1, 2, ...; those of the first one.
        precision: of the forward pass.
        exif: whether images are turned upright as their EXIF orientation says.
        frozen: the parts that are not trained, beside what the configuration freezes.
        keeps_empty: whether images without objects are trained on.
    """

    cfg: Config
    data: str
    weights: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    precision: str
    exif: str
    frozen: tuple[str, ...] = ()
    keeps_empty: bool = False


@dataclass(frozen=True)
class Latest:
    """The newest checkpoint that can be read, if there is any, and what is wrong with those that cannot."""

    weights: WeightsFile | None
    damaged: Mapping[Path, WeightsError]


class RunFolder:
    """A folder with `run.json`, `model_iterN.pth` and, at the end, `model_final.*`.

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

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint or a final model to go on from."""
        return self._last() is not None

    def refuse_run(self) -> None:
        """InputError if the folder holds a run, or what another one has left."""
        if self.holds_run:
            raise InputError(f"{self.path} holds a run already: go on with --resume, or choose another --out")
        left = sorted(path.name for pattern in _LEAVINGS for path in self.path.glob(pattern))
        if left:
            raise InputError(
                f"{self.path} has no run.json, but {left[0]} of another run: choose another --out, or move it away"
            )

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """Keep other runs out while this process writes to the folder, which is made if need be and kept if used."""
        is_new = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be made ({error.strerror})") from None
        try:
            with occupied(self.path, "run.lock"):
                yield
        finally:
            if is_new and not self.holds_run:
                with suppress(OSError):
                    self.path.rmdir()

    def begin(self, identity: RunIdentity, record: Mapping[str, object] | None = None) -> None:
        """Start a new run in the folder; InputError or WeightsError if that is not possible.

        Args:
            record: what the run goes on with where nothing else is said.
        """
        self.refuse_run()
        content = {
            "config": _keys(identity.cfg),
            "data": identity.data,
            "weights": identity.weights,
            "classes": list(identity.classes),
            "category_ids": list(identity.category_ids),
            "precision": identity.precision,
            "exif": identity.exif,
            "frozen": list(identity.frozen),
            "keeps_empty": identity.keeps_empty,
            **(record or {}),
        }
        write_json(self.path / "run.json", content, indent=1)

    def go_on(self, identity: RunIdentity, record: Mapping[str, object]) -> None:
        """Keep what the run goes on with from now on: options, and keys that it may change."""
        before = read_run_record(self.path)
        content = {**before, "config": _keys(identity.cfg), **record}
        if content != before:
            write_json(self.path / "run.json", content, indent=1)

    def check(
        self, identity: RunIdentity, checkpoint: WeightsFile | None, length: RunLength | None = None
    ) -> None:
        """InputError, naming what changed, unless the folder's run can go on with this.

        Args:
            checkpoint: what it goes on from; None where there is none, so that it begins again with what it began with.
            length: that the configuration was fitted into now, where it was.
        """
        content = read_run_record(self.path)
        now = flatten(identity.cfg)
        if checkpoint is not None and checkpoint.cfg is not None:
            own = parse_config(checkpoint.cfg, f"the configuration in {checkpoint.source}", saved_in_weights=True)
            for key, value in flatten(own).items():
                of_run = content["config"].get(key)
                if _as_json(value) != of_run and not _is_free(key, identity.cfg):
                    raise InputError(
                        f"{checkpoint.source} is of another run: its {key} is {value!r}, that of the run in "
                        f"{self.path} is {of_run!r}: move it away"
                    )
        if checkpoint is not None and checkpoint.categories is not None:
            names = [category.name for category in checkpoint.categories]
            if names != content["classes"][1:]:
                raise InputError(
                    f"{checkpoint.source} is of another run: its classes are {listed(names)}, those of the run in "
                    f"{self.path} are {listed(content['classes'][1:])}: move it away"
                )
        for key, value in content["config"].items():
            before = tuple(value) if isinstance(value, list) else value
            if now.get(key) != before and not _is_free(key, identity.cfg):
                if length is not None and key in KEYS_OF_LENGTH:
                    raise InputError(self._of_other_length(length, content["config"], identity.cfg))
                raise InputError(
                    f"{key} is {now.get(key)!r} now and was {before!r} when the run in {self.path} was started: "
                    "go on with the old value, or start another run"
                )
        if content["precision"] != identity.precision:
            raise InputError(
                f"--precision is {identity.precision} now and was {content['precision']} when the run in {self.path} "
                "was started: go on with the old value, or start another run"
            )
        # Runs of earlier versions have neither on record, and could not have used them.
        for option, now_is, was in (
            ("--freeze", list(identity.frozen), content.get("frozen", [])),
            ("--keep-empty", identity.keeps_empty, content.get("keeps_empty", False)),
        ):
            if now_is != was:
                raise InputError(
                    f"{option} is {_told(now_is)} now and was {_told(was)} when the run in {self.path} was started: "
                    "go on with the old value, or start another run"
                )
        if checkpoint is None and _digest(content["weights"]) != _digest(identity.weights):
            raise InputError(
                f"the run in {self.path} has no checkpoint yet and was started with {_named(content['weights'])}, but "
                f"now it would begin with {_named(identity.weights)}: go on with the same --weights, or start another "
                "run in another --out"
            )
        ids = content.get("category_ids", list(identity.category_ids))
        if content["classes"] != list(identity.classes) or ids != list(identity.category_ids):
            raise InputError(f"the categories are not those that the run in {self.path} was started with")
        if content["data"].partition(":")[0] != identity.data.partition(":")[0]:
            raise InputError(
                f"the run in {self.path} was started by another version, which told its data in another way: "
                f"{self.how_to_go_on_with_other_data()}"
            )
        if content["data"] != identity.data:
            raise InputError(
                f"the annotations, images or proposals are not those that the run in {self.path} was started with: "
                f"go on with the old ones, or {self.how_to_go_on_with_other_data()}"
            )

    def _of_other_length(self, length: RunLength, before: Mapping[str, object], cfg: Config) -> str:
        """Why the run cannot take the schedule of another length, and how it gets longer or shorter."""
        way_out = f"go on without {length.option}"
        if may_grow(cfg):
            way_out += ", or with --set SOLVER.MAX_ITER N, which leaves the steps of the rate where they are"
        return (
            f"{length} is a schedule of {cfg.SOLVER.MAX_ITER} iterations, and the run in {self.path} was started with "
            f"another one, of {before['SOLVER.MAX_ITER']}: {way_out}, or start another run in another --out"
        )

    def told_changes(self, identity: RunIdentity) -> Iterator[str]:
        """What a run that goes on does otherwise than when it was started, and may."""
        # Runs of earlier versions have no --exif on record.
        before = read_run_record(self.path).get("exif", identity.exif)
        if before != identity.exif:
            yield (
                f"--exif is {identity.exif} now and was {before} when the run in {self.path} was started: images with "
                "an EXIF orientation are others from here on"
            )

    def latest(self) -> Latest:
        """The newest checkpoint, or the final model where that is newer.

        InputError where there are some and none can be read.
        """
        damaged: dict[Path, WeightsError] = {}

        def first_whole(paths: Iterable[Path]) -> WeightsFile | None:
            for path in paths:
                try:
                    return read_blobs(path)
                except UnreadableFile:
                    raise
                except FileError as error:
                    damaged[path] = error
            return None

        found = first_whole(reversed(self._checkpoints())), first_whole(self.path.glob("model_final.pth"))
        newest = max(filter(None, found), key=lambda weights: weights.iteration or 0, default=None)
        if newest is None and damaged:
            raise InputError(
                f"{next(iter(damaged.values()))}; {self.path} has no other checkpoint to go on from: put back a copy, "
                "or move it away to begin again"
            )
        return Latest(newest, damaged)

    def of_iteration(self, iteration: int) -> Path | None:
        """The file that holds the state after an iteration; None where there is none any more."""
        checkpoint, final = self.path / f"model_iter{iteration}.pth", self.path / "model_final.pth"
        if checkpoint.is_file():
            return checkpoint
        return final if final.is_file() and read_blobs(final).iteration == iteration else None

    def set_aside(self, latest: Latest) -> list[str]:
        """Rename damaged checkpoints, so that nothing takes them for whole ones; returns what to say about it."""
        lines = []
        for path, error in latest.damaged.items():
            aside = path.rename(path.with_name(f"{path.name}.damaged"))
            lines.append(f"{error}; it is kept as {aside.name}, and the one before it counts")
        return lines

    def how_to_go_on(self) -> str:
        """What `--resume` makes of the folder as it is, for the end of a sentence."""
        last = self._last()
        if last is None:
            return "--resume goes on, from the beginning, as there is no checkpoint yet"
        return f"--resume goes on from the last checkpoint, {last.name}"

    def how_to_go_on_with_other_data(self) -> str:
        """What takes the place of `--resume` where annotations have changed, for the end of a sentence."""
        last = self._last()
        return "choose another --out" if last is None else f"pass --weights {last} and another --out"

    def _last(self) -> Path | None:
        checkpoints = [*self._checkpoints(), *self.path.glob("model_final.pth")]
        return max(checkpoints, key=lambda path: path.stat().st_mtime_ns, default=None)

    def save(self, weights: WeightsFile) -> Path:
        """Write `model_iterN.pth` whole or not at all, then remove all but the newest up to it.

        With `detectron_checkpoints` also `model_iterN.pkl`, which Detectron goes on from.
        """
        path = self.save_as(f"model_iter{weights.iteration}.pth", weights)
        if self._detectron_checkpoints:
            write_blobs(path.with_suffix(".pkl"), weights)
        checkpoints = self._checkpoints()
        for old in checkpoints[: checkpoints.index(path) + 1][: -self._keep]:
            old.unlink()
            old.with_suffix(".pkl").unlink(missing_ok=True)
        return path

    def save_as(self, name: str, weights: WeightsFile) -> Path:
        """Write a weights file of the given name whole or not at all."""
        path = self.path / name
        write_blobs(path, weights)
        return path

    def save_final(self, weights: WeightsFile) -> tuple[Path, Path]:
        """Write `model_final.pkl`, for Detectron, and before it `model_final.pth`, which `--resume` reads."""
        pth = self.save_as("model_final.pth", weights)
        return self.save_as("model_final.pkl", weights), pth

    def remove_unfinished(self) -> None:
        """Remove what a process that was killed while it wrote has left behind."""
        for temporary in self.path.glob(".*." + 32 * "[0-9a-f]" + ".tmp"):  # detectron_gn.weights.files.atomic
            temporary.unlink()

    def _checkpoints(self) -> list[Path]:
        """Checkpoints, oldest first."""
        files = (path for path in self.path.glob("model_iter*.pth") if path.is_file())
        found = {int(path.stem[10:]): path for path in files if path.stem[10:].isdecimal()}
        return [found[iteration] for iteration in sorted(found)]


def _told(value: object) -> str:
    """The value of an option as the command line has it."""
    if isinstance(value, list):
        return ",".join(map(str, value)) or "not given"
    return "given" if value else "not given"


def _keys(cfg: Config) -> dict[str, object]:
    """All keys of a configuration, as JSON holds them."""
    return {key: _as_json(value) for key, value in flatten(cfg).items()}


def _as_json(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _digest(weights: str) -> str:
    return weights.rpartition(" ")[2]


def _named(weights: str) -> str:
    return weights.rpartition(" ")[0] if _digest(weights) != "scratch" else "none (from scratch)"


def _is_free(key: str, cfg: Config) -> bool:
    if key == "SOLVER.MAX_ITER":
        return may_grow(cfg)
    return key in _FREE_KEYS or key.startswith(_FREE_SECTIONS)
