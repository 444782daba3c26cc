"""The JSON lines of a bulk detection: one for each image, on disk at once, so that a run that was killed goes on.

Each process writes `detections_N.jsonl` of its own:

    {"file_name": "/data/photos/a.jpg", "height": 480, "width": 640, "detections": [{"category_id": 1, ...}, ...]}

`detections_run.json` beside them says which model they are of.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from detectron_gn.mrcnn.data.categories import Categories
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.data.read_image import Exif, ImageReading
from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.partial_results import configuration_digest, weights_digest
from detectron_gn.mrcnn.plain_file import read_plain_file
from detectron_gn.port.runs.result_rows import image_ids
from detectron_gn.port.runs.work_left import image_key
from detectron_gn.weights.errors import WriteFailed
from detectron_gn.weights.files.json_file import JsonList, json_text, write_json

RUN_RECORD = "detections_run.json"
_PATTERN = "detections_*.jsonl"
# What a run hangs on, as the user says it; the values of the first ones can be told, the others are hashes.
_OPTIONS = {"precision": "--precision", "exif": "--exif", "least_score": "--min-score", "every": "--every"}
_HASHES = {
    "weights": "model",
    "configuration": "configuration (--config, --set)",
    "categories": "set of class names or ids (--classes, --annotations)",
    "proposals": "set of proposals (--proposals)",
}
_NAME = re.compile(r"detections_[0-9]+\.jsonl")
# A line's beginning, from which its image is known without reading the rest.
_FILE_NAME = re.compile(rb'\{"file_name": ("(?:[^"\\]|\\.)*"), "height": ')


@dataclass(frozen=True)
class DetectionRun:
    """What the detections of a run hang on; a folder with those of another is refused.

    The first value that differs is the one that is named, so precision comes before weights, which it rounds.

    Attributes:
        precision: of the products.
        weights, configuration: sha256 of the parameters and of the configuration's values.
        categories: sha256 of names and ids.
        exif: what is done about the orientation in image files.
        proposals: sha256 of those that were given; None for a model that makes its own.
        least_score: what counts scores at least so much; None where everything that the model keeps counts.
        every: of videos every such frame; None for all.
    """

    precision: str
    weights: str
    configuration: str
    categories: str
    exif: Exif
    proposals: str | None
    least_score: float | None
    every: int | None


def detection_run(
    model: Detector,
    categories: Categories,
    reading: ImageReading,
    proposals: StoredProposals | None,
    least_score: float | None,
    every: int | None,
) -> DetectionRun:
    """What a run of this model hangs on."""
    return DetectionRun(
        precision=model.precision,
        weights=weights_digest(model),
        configuration=configuration_digest(model.cfg),
        categories=hashlib.sha256(repr(categories).encode()).hexdigest(),
        exif=reading.exif,
        proposals=None if proposals is None else proposals.digest,
        least_score=least_score,
        every=every,
    )


def line_files(folder: Path) -> list[Path]:
    """The files of lines in a folder, sorted."""
    return sorted(path for path in folder.glob(_PATTERN) if _NAME.fullmatch(path.name))


def check_run(folder: Path, run: DetectionRun) -> None:
    """Put a run on record in its folder; InputError where the folder holds detections of another one."""
    path, own = folder / RUN_RECORD, asdict(run)
    try:
        recorded = json.loads(read_plain_file(path))
        other = next((name for name, value in own.items() if recorded.get(name) != value), None)
    except FileNotFoundError:
        if line_files(folder):
            raise InputError(
                f"{folder} holds detections, but no {RUN_RECORD} that says which model they are of: give another --out"
            ) from None
        write_json(path, own)
        return
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is damaged or cannot be read ({error}): give another --out") from None
    if other is not None:
        raise InputError(
            f"{folder} holds detections of a run with another {_told_other(other, recorded.get(other), own[other])}: "
            "give the same options, give another --out or, to begin again here, delete the files named *detections* in "
            "and below it"
        )


def _told_other(name: str, recorded: Any, own: Any) -> str:
    """What differs, and where these are no hashes how it was there and is now."""
    if name not in _OPTIONS:
        return _HASHES[name]
    there, now = ("none" if value is None else value for value in (recorded, own))
    return f"{_OPTIONS[name]} ({there} there, {now} now)"


def run_begun(folder: Path) -> float:
    """When the run whose detections a folder holds was put on record: the time of the file."""
    return (folder / RUN_RECORD).stat().st_mtime


def done_keys(files: Sequence[Path]) -> bytes:
    """The keys of the images that files of lines hold; a last line that was torn is cut off.

    Raises InputError where a line is none of ours.
    """
    keys = bytearray()
    for path in files:
        refuse_what_is_no_file(path)
        try:
            with path.open("r+b") as file:
                for number, line in enumerate(whole_lines(file), 1):
                    keys += image_key(_file_name(line, f"{path}, line {number},"))
        except OSError as error:
            raise InputError(f"{path} cannot be read or mended: {error.strerror or error}") from None
    return bytes(keys)


def whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file that is open to read and to write; a last one that was torn is cut off."""
    end = 0
    for line in file:
        if not line.endswith(b"\n"):
            file.truncate(end)
            return
        yield line
        end += len(line)


def own_lines(folder: Path, rank: int) -> Path:
    """The file of lines of one process."""
    return folder / _PATTERN.replace("*", str(rank))


class DetectionLines:
    """A file that lines are added to; use it in a `with` statement, after a torn last line has been cut off."""

    def __init__(self, path: Path) -> None:
        self.path = path
        refuse_what_is_no_file(path)
        try:
            self._file = self.path.open("ab")
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def add(self, line: bytes) -> None:
        """Put a line on record."""
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def __enter__(self) -> "DetectionLines":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # what a full disk refused has been told
            self._file.close()


def detection_line(path: str, height: int, width: int, detections: Sequence[dict[str, Any]]) -> bytes:
    """The line of an image."""
    content = {"file_name": path, "height": height, "width": width, "detections": detections}
    return (json_text(content) + "\n").encode()


def recorded_lines(files: Sequence[Path], is_wanted: Callable[[str], bool]) -> Iterator[dict[str, Any]]:
    """The lines of images, known by their paths; one that another process writes at this moment is none yet."""
    for path in files:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n") and is_wanted(_file_name(line, f"{path}, line {number},")):
                    yield json.loads(line)


def gather_list(files: Sequence[Path], rows: JsonList) -> int:
    """Add the COCO rows of all lines, in the order of file names with `image_ids`; returns how many lines there are."""
    names, places = [], []
    for number, path in enumerate(files):
        with path.open("rb") as file:
            start = 0
            for line_number, line in enumerate(file, 1):
                name = _file_name(line, f"{path}, line {line_number},")
                names.append(name)
                places.append((number, start))
                start += len(line)
    in_order = sorted(range(len(names)), key=names.__getitem__)
    ids = image_ids([names[image] for image in in_order])
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(path.open("rb")) for path in files]
        for image, image_id in zip(in_order, ids, strict=True):
            number, start = places[image]
            opened[number].seek(start)
            line = json.loads(opened[number].readline())
            row = {"file_name": line["file_name"], "image_id": image_id}
            rows.extend([{**row, **detection} for detection in line["detections"]])
    return len(names)


def _file_name(line: bytes, place: str) -> str:
    found = _FILE_NAME.match(line)
    if found is None or not line.endswith(b"]}\n"):
        raise InputError(f"{place} is no line of detections: take it out, and its image is detected again")
    return str(json.loads(found[1]))


def refuse_what_is_no_file(path: Path) -> None:
    """Raise InputError for a link, a pipe or a folder in the place of a file of lines."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise InputError(f"{path} is a link, a pipe or a folder, and no file of detections: move it away")


def _unwritable(path: Path, error: OSError) -> WriteFailed:
    return WriteFailed(str(path), f"cannot be written: {error.strerror or error}; free some room, and go on")
