"""The partial results of an evaluation: those of each finished image, on disk at once, so that a killed run goes on.

They are a text file of JSON lines, `[entry, CRC-32 of the entry's own text]`. The first says which run it is of;
every other one holds an image, with the sha256 of the file it was read from. Each process of a run under `torchrun`
writes a file of its own.
"""

import contextlib
import hashlib
import json
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch

from detectron_gn.mrcnn.config import Config, flatten
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.data.read_image import AS_IMREAD, Exif, ImageReading
from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.coco_results import ImageResults

# What of a run's identity is a digest, which tells a reader nothing.
_DIGESTS = ("weights", "configuration", "annotations", "classes", "proposals")

_PATTERN = "partial_results_*.jsonl"
# What reading a line raises that is none of ours.
_NO_ENTRY = (ValueError, TypeError, KeyError, RecursionError)


@dataclass(frozen=True)
class EvaluationIdentity:
    """What the results of a run hang on to the last digit; partial results of another run are refused.

    The first value that differs is the one that is named, so precision comes before weights, which it rounds.

    Attributes:
        precision: of the products.
        weights, configuration, annotations: sha256 of the parameters, of the configuration's values, of the file.
        classes: sha256 of the names by which classes find their categories; empty where they go by their places.
        batch: images in a batch at most; float32 sums may differ with it.
        device: kind of device and, on a CPU, the number of threads, for the same reason.
        torch: its version.
        exif: what is done about the orientation in image files.
        proposals: sha256 of those that were given; None for a model that makes its own.
    """

    precision: str
    weights: str
    configuration: str
    annotations: str
    classes: str
    batch: int
    device: str
    torch: str
    exif: Exif
    proposals: str | None = None


def run_identity(
    model: Detector,
    annotations: Path,
    batch: int,
    reading: ImageReading = AS_IMREAD,
    proposals: StoredProposals | None = None,
) -> EvaluationIdentity:
    """The identity of a run of this model in this process."""
    device = model.device.type
    return EvaluationIdentity(
        precision=model.precision,
        weights=weights_digest(model),
        configuration=configuration_digest(model.cfg),
        annotations=hashlib.sha256(annotations.read_bytes()).hexdigest(),
        classes="" if model.categories is None else hashlib.sha256(repr(model.classes).encode()).hexdigest(),
        batch=batch,
        device=f"{device} with {torch.get_num_threads()} threads" if device == "cpu" else device,
        torch=torch.__version__,
        exif=reading.exif,
        proposals=None if proposals is None else proposals.digest,
    )


def configuration_digest(cfg: Config) -> str:
    """sha256 of the values of a configuration."""
    return hashlib.sha256(repr(flatten(cfg)).encode()).hexdigest()


def weights_digest(model: Detector) -> str:
    """sha256 of all parameters with their names, whatever kind of file they came from."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class PartialResults:
    """The partial results in a folder: what earlier runs finished, and a file of this process's own to add to.

    Args:
        files: the file of every image of the data set, by image id.

    Attributes:
        done: the results of the images that earlier runs finished, by image id; they stay on the disk. An image whose
            file holds other bytes than it held then is not among them, so that it is detected again.

    Raises InputError where the folder holds those of another run, naming what is different, or a damaged one. A
    last line that was torn when its run was killed is dropped.
    """

    def __init__(self, folder: Path, identity: EvaluationIdentity, files: Mapping[int, Path], rank: int = 0) -> None:
        places: dict[int, tuple[Path, int]] = {}
        digests: dict[int, str] = {}
        self._path = folder / _PATTERN.replace("*", str(rank))
        for path in sorted(folder.glob(_PATTERN)):
            for entry in _read(path, identity):
                if entry.image_id not in files:
                    raise _damaged(path)
                if entry.image_id not in digests:
                    digests[entry.image_id] = image_digest(files[entry.image_id])
                if entry.file == digests[entry.image_id]:
                    places[entry.image_id] = path, entry.start
        self.done: Mapping[int, ImageResults] = _Recorded(places)
        _refuse_what_is_no_file(self._path)
        try:
            whole = _whole_lines(self._path)
            # Not opened for appending: a torn last line is written over.
            self._file = self._path.open("r+b" if whole else "wb")
            self._file.seek(whole)
            self._file.truncate()
            if not whole:
                self._write([asdict(identity)])
        except OSError as error:
            raise _unwritable(self._path, error) from None

    def add(self, images: Sequence[ImageResults], digests: Sequence[str]) -> None:
        """Put the results of finished images on record, with the `image_digest` of the files they were read from."""
        try:
            self._write([{"file": digest, **asdict(image)} for image, digest in zip(images, digests, strict=True)])
        except OSError as error:
            raise _unwritable(self._path, error) from None

    def __enter__(self) -> "PartialResults":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        # All that is on record is on disk already. What a full disk refused has been told, and would be refused again.
        with contextlib.suppress(OSError):
            self._file.close()

    def _write(self, entries: Sequence[object]) -> None:
        self._file.write("".join(json.dumps([entry, _checksum(entry)]) + "\n" for entry in entries).encode())
        self._file.flush()


def image_digest(path: Path) -> str:
    """sha256 of an image file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def has_partial_results(folder: Path) -> bool:
    """Whether there are any in a folder, from which the same run would go on."""
    return any(folder.glob(_PATTERN))


def remove_partial_results(folder: Path) -> None:
    """Delete the partial results in a folder, once the results files that follow from them are written."""
    for path in folder.glob(_PATTERN):
        path.unlink(missing_ok=True)


class _Line(NamedTuple):
    """An image on record: its results, the digest of its file, and where its line starts."""

    image_id: int
    file: str
    results: ImageResults
    start: int


class _Recorded(Mapping[int, ImageResults]):
    """The results of images by id, read from the line of each when they are asked for."""

    def __init__(self, places: Mapping[int, tuple[Path, int]]) -> None:
        self._places = places

    def __getitem__(self, image_id: int) -> ImageResults:
        path, start = self._places[image_id]
        try:
            with path.open("rb") as file:
                file.seek(start)
                return _image(file.readline(), start).results
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
        except _NO_ENTRY:
            raise _damaged(path) from None

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _read(path: Path, identity: EvaluationIdentity) -> Iterator[_Line]:
    """The images of one file, but for one whose line was torn."""
    _refuse_what_is_no_file(path)
    start = 0
    try:
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    return
                if start:
                    yield _image(line, start)
                else:
                    _check_same_run(path, _entry(line), asdict(identity))
                start += len(line)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except InputError:
        raise
    except _NO_ENTRY:
        raise _damaged(path) from None


def _image(line: bytes, start: int) -> _Line:
    image = _entry(line)
    return _Line(image["image_id"], image.pop("file"), ImageResults(**image), start)


def _whole_lines(path: Path) -> int:
    """How many bytes of a file are whole lines."""
    whole = 0
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                whole += len(line) if line.endswith(b"\n") else 0
    return whole


def _refuse_what_is_no_file(path: Path) -> None:
    """Refuse a link, which leads to a file that is written over, and a pipe, which would be waited for."""
    try:
        is_file = stat.S_ISREG(path.lstat().st_mode)
    except OSError:  # there is nothing, or what is told when it is opened
        return
    if not is_file:
        raise InputError(f"{path} is a link, a pipe or a folder, and no partial results: move it away")


def _entry(line: bytes) -> dict[str, Any]:
    """What a line holds; ValueError where it is not what was written."""
    written = json.loads(line)
    if not isinstance(written, list) or len(written) != 2:
        raise ValueError("no entry with its checksum")
    entry, checksum = written
    if not isinstance(entry, dict) or checksum != _checksum(entry):
        raise ValueError("another entry than was written")
    return entry


def _checksum(entry: object) -> int:
    """CRC-32 of an entry: numbers and the order of keys survive being written and read, so its text does."""
    return zlib.crc32(json.dumps(entry).encode())


def _check_same_run(path: Path, header: Mapping[str, object], own: Mapping[str, object]) -> None:
    # Earlier versions recorded no `exif` and applied it.
    header = {"exif": "apply", **header}
    for name, value in own.items():
        if header.get(name) != value:
            values = "" if name in _DIGESTS else f" ({header.get(name)})"
            raise InputError(
                f"{path} holds partial results of a run with another {name}{values}: give another --out, delete it "
                "to start again, or go on with what the run was started with"
            )


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is damaged: delete it, and its images are detected again")


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be written: {error.strerror or error}")
