"""Top-1 and top-5 error of an ImageNet file on the validation images, beside the published error."""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from detectron_gn.mrcnn.backbones.classifier import Classifier, crop_blob
from detectron_gn.mrcnn.data.read_image import AS_IMREAD, ImageReading, read_image
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.plain_file import read_plain_file
from detectron_gn.mrcnn.tables import text_table

# Points of a percent: how the crop was resized is not published, and moves the error by tenths.
TOLERANCE = 0.5
VALIDATION_IMAGES = 50_000

# Where only the choice of images may move the error by more points than these, agreement says nothing.
MOST_SAMPLING_ERROR = 5.0

_SUFFIXES = {".jpeg", ".jpg", ".png", ".webp", ".bmp"}

Labelled = tuple[Path, int]
Progress = Callable[[Sequence[Sequence[Labelled]], int], Iterable[Sequence[Labelled]]]


@dataclass(frozen=True)
class ImageNetError:
    """Errors in percent.

    Attributes:
        images: how many were classified.
        expected: the published top-1 error, or None where there is none to compare with.
    """

    images: int
    top1: float
    top5: float
    expected: float | None

    @property
    def sampling_error(self) -> float:
        """Points that the choice of images may move top-1 by: three standard errors, 0 for the whole set."""
        if self.images >= VALIDATION_IMAGES:
            return 0.0
        return 300 * math.sqrt(self._variance / self.images)

    @property
    def images_needed(self) -> int:
        """How many images it takes for agreement to say anything."""
        return math.ceil(self._variance * (300 / MOST_SAMPLING_ERROR) ** 2)

    @property
    def is_telling(self) -> bool:
        """Whether there are as many."""
        return self.sampling_error <= MOST_SAMPLING_ERROR

    @property
    def tolerance(self) -> float:
        """Points that top-1 may differ by."""
        return TOLERANCE + self.sampling_error

    @property
    def holds(self) -> bool:
        """Whether top-1 is shown to be the published error; nothing to compare with is no contradiction."""
        return self.is_within and self.is_telling

    @property
    def is_within(self) -> bool:
        """Whether top-1 differs from the published error by no more than the tolerance."""
        return self.expected is not None and abs(self.top1 - self.expected) <= self.tolerance

    @property
    def _variance(self) -> float:
        # Of the error that is expected, or that was measured; 0 of 3 does not say that there is none.
        share = min(max((self.top1 if self.expected is None else self.expected) / 100, 0.01), 0.99)
        return share * (1 - share)

    def document(self) -> dict[str, Any]:
        """What --json writes."""
        names = ("holds", "is_telling", "tolerance", "sampling_error")
        return {name: getattr(self, name) for name in names} | asdict(self)


def labelled_images(folder: Path, classes: int, list_file: Path | None = None) -> list[Labelled]:
    """Images and their labels, from 0 on.

    Args:
        folder: holds one folder per class, whose sorted names (n01440764, ...) are the labels; or, with a list, the
            images.
        classes: how many the model tells apart.
        list_file: lines `name label`, as Caffe's val.txt.

    Raises InputError where there are not as many folders as classes: with one missing, all labels after it would be
    those of other classes. A list's labels must be classes of the model.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give the one with the validation images")
    if list_file is not None:
        return [_listed(folder, list_file, number, line, classes) for number, line in _lines(list_file)]
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    images = [
        (path, label)
        for label, each in enumerate(folders)
        for path in sorted(each.iterdir())
        if path.suffix.lower() in _SUFFIXES
    ]
    if not images:
        raise InputError(
            f"{folder} has no folders of images by class: give such a folder, or --list with lines `name label`"
        )
    if len(folders) != classes:
        raise InputError(
            f"{folder} holds {len(folders)} folders, but the model tells {classes} classes apart, and a folder's place "
            "among the sorted names is its label: give one folder a class (an empty one will do), or --list with "
            "lines `name label`"
        )
    return images


@torch.inference_mode()
def classify(
    model: Classifier,
    images: Sequence[Labelled],
    expected: float | None,
    progress: Progress,
    batch: int = 32,
    mean: tuple[float, float, float] | None = None,
    reading: ImageReading = AS_IMREAD,
) -> ImageNetError:
    """Classify the centre crop of every image.

    Args:
        mean: the colour to subtract, BGR; by default `PIXEL_MEANS` of the model's configuration.

    Raises InputError for batches of no image, and for an image that cannot be read.
    """
    if batch < 1:
        raise InputError(f"--batch is {batch}: give the number of images that run together, 1 or more")
    classes = model.pred.out_features
    device = model.pred.weight.device
    batches = [images[start : start + batch] for start in range(0, len(images), batch)]
    right1 = right5 = 0
    for members in progress(batches, len(batches)):
        data = crop_blob([read_image(path, reading) for path, _ in members], mean or model.cfg.PIXEL_MEANS)
        labels = torch.tensor([label for _, label in members], device=device)
        best = model(data.to(device)).topk(min(5, classes), dim=1).indices
        right1 += int((best[:, 0] == labels).sum())
        right5 += int((best == labels[:, None]).any(dim=1).sum())
    count = len(images)
    return ImageNetError(count, 100 - 100 * right1 / count, 100 - 100 * right5 / count, expected)


def error_table(found: ImageNetError) -> str:
    """Published and measured error in percent, and the verdict where there is a published one."""
    published = "-" if found.expected is None else f"{found.expected:.1f}"
    measured = ["measured", str(found.images), f"{found.top1:.2f}", f"{found.top5:.2f}"]
    header = ["", "images", "top-1 error", "top-5 error"]
    table = text_table(header, [["published", str(VALIDATION_IMAGES), published, "-"], measured])
    if found.expected is None:
        told = f"\n\nThree standard errors of this number of images are {found.sampling_error:.2f} points."
        return f"{table}{told if found.sampling_error else ''}"
    if found.is_within and not found.is_telling:
        return (
            f"{table}\n\nToo few images to tell: three standard errors of {_told_images(found)} are "
            f"{found.sampling_error:.2f} points; give {found.images_needed:,} images or more."
        )
    verdict = "They agree" if found.holds else "They do not agree"
    return f"{table}\n\n{verdict} within {found.tolerance:.2f} points{_told_sampling(found)}."


def _told_sampling(found: ImageNetError) -> str:
    """What of the tolerance the number of images is to blame for."""
    if not found.sampling_error:
        return ""
    are = "is" if found.images == 1 else "are"
    return (
        f": {TOLERANCE:g} for the resizing of the crop, and {found.sampling_error:.2f} (three standard errors) because "
        f"there {are} {_told_images(found)} and not {VALIDATION_IMAGES:,}"
    )


def _told_images(found: ImageNetError) -> str:
    return "1 image" if found.images == 1 else f"{found.images:,} images"


def _lines(list_file: Path) -> list[tuple[int, str]]:
    try:
        text = read_plain_file(list_file).decode("utf-8")
    except OSError as error:
        raise InputError(f"{list_file} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{list_file} is not a list of images, which is text in UTF-8: {error}") from None
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise InputError(f"{list_file} lists no image")
    return lines


def _listed(folder: Path, list_file: Path, number: int, line: str, classes: int) -> Labelled:
    name, _, label = line.strip().rpartition(" ")
    if not name or not label.isdecimal():
        raise InputError(f"{list_file}, line {number}: {line.strip()[:60]!r} is not `name label`")
    # Python refuses to read thousands of digits.
    if len(label.lstrip("0")) > 9 or int(label.lstrip("0") or "0") >= classes:
        shown = label if len(label) <= 20 else f"{label[:20]}..."
        raise InputError(
            f"{list_file}, line {number}: label {shown} is beyond the model's {classes} classes, which count from 0: "
            "give the list that its classes are numbered by"
        )
    path = folder / name.strip()
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder)):
        raise InputError(
            f"{list_file}, line {number}: {name.strip()[:60]!r} leads out of {folder}: give names of images in it, or "
            "--images with the folder that holds them all"
        )
    if not path.is_file():
        raise InputError(f"{list_file}, line {number}: {path} is missing")
    return path, int(label.lstrip("0") or "0")
