"""What Detectron would make of a data set, said before hours of training are spent: the work of `check-data`."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from detectron_gn.mrcnn.config import Config, check_keypoints
from detectron_gn.mrcnn.data.annotations.findings import annotation_subject
from detectron_gn.mrcnn.data.annotations.keypoints import COUNT, annotation_fault, named_count, names_fault, oddities
from detectron_gn.mrcnn.data.annotations.outlines import has_outline, polygons
from detectron_gn.mrcnn.data.class_counts import ClassCount, class_counts, class_table
from detectron_gn.mrcnn.data.coco import Annotation, CocoDataset, CocoImage, NoImageFile
from detectron_gn.mrcnn.data.ground_truth import TrainedObjects, mirrored_keypoints
from detectron_gn.mrcnn.data.image_blob import scaling_fault
from detectron_gn.mrcnn.data.image_files import is_found_by_id
from detectron_gn.mrcnn.data.read_image import AS_IMREAD, ImageReading, read_training_image
from detectron_gn.mrcnn.data.repeated_objects import repeated_objects
from detectron_gn.mrcnn.data.roidb import NO_KEYPOINTS, NO_OUTLINES, other_classes
from detectron_gn.mrcnn.data.shared_files import count_in_both
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.wording import amount, in_one_line, listed

Severity = Literal["error", "dropped", "note"]
Progress = Callable[[Iterable[Any], int], Iterable[Any]]
SEVERITIES: tuple[Severity, ...] = ("error", "dropped", "note")
# So many findings that differ in numbers only are told in one line.
_MANY = 4
NO_OUTLINES_AT_ALL = (
    "no object has an outline: a model with masks refuses this, unless --set MODEL.MASK_ON False makes it one of "
    "boxes; a Faster R-CNN takes it as it is"
)
_NUMBER = re.compile(r"\d[\d.,]*")


@dataclass(frozen=True)
class Finding:
    """One thing about a data set.

    Attributes:
        severity: `error` stops a training run or spoils it, `dropped` is left out by Detectron's rules, `note` is odd.
        subject: the image, annotation or category.
        text: what about it.
    """

    severity: Severity
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.subject}: {self.text}"


@dataclass(frozen=True)
class DataReport:
    """The findings, and what is left for training (flipped copies not counted).

    Attributes:
        findings: all of them.
        images, annotations: of the file.
        trained_images: those with an object to train on and a file that can be.
        trained_annotations: the objects in these images that are trained on.
        crowds: the crowds in these images, which are neither objects nor background.
        dropped_images, dropped_annotations: left out by Detectron's rules; with an image go all of its annotations.
            What is still missing to `images` and `annotations` has errors, or is in an image with one.
        refusals: how many of the errors training refuses before it begins; at the others it stops when their image's
            turn comes, or trains on what is spoiled.
        has_outlines: whether an object has one, as masks need.
        classes: what is trained on of each class.
        files: of the images that are trained on.
    """

    findings: tuple[Finding, ...]
    images: int
    trained_images: int
    annotations: int
    trained_annotations: int
    crowds: int
    dropped_images: int = 0
    dropped_annotations: int = 0
    refusals: int = 0
    has_outlines: bool = True
    classes: tuple[ClassCount, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def erring_images(self) -> int:
        """The images with errors."""
        return self.images - self.trained_images - self.dropped_images

    @property
    def erring_annotations(self) -> int:
        """The annotations in these images, and those of no image."""
        return self.annotations - self.trained_annotations - self.crowds - self.dropped_annotations

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop or spoil a run."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def document(self) -> dict[str, object]:
        """The report for `--json`, which has no need of the files."""
        erring = {"erring_images": self.erring_images, "erring_annotations": self.erring_annotations}
        of_report = asdict(replace(self, files=()))
        del of_report["files"]
        return {**of_report, **erring}


def check_dataset(
    dataset: CocoDataset,
    cfg: Config,
    *,
    read_images: bool = True,
    threads: int = 4,
    reading: ImageReading = AS_IMREAD,
    progress: Progress = lambda results, _count: results,
) -> DataReport:
    """Go through a data set as training would.

    Args:
        progress: wraps what is found of image files as it comes, while they are decoded.
        read_images: also decode every image file, which takes the time of an epoch's loading.
        reading: how image files are read.

    Raises InputError for a configuration of keypoints that no model has.
    """
    check_keypoints(cfg)
    findings = [Finding("error", fault.subject, fault.text) for fault in dataset.faults]
    findings += [Finding("note", str(dataset.annotation_file), remark) for remark in dataset.remarks]
    findings += [*_check_categories(dataset, cfg), *_check_file_names(dataset)]
    refusals = _error_count(findings)
    spoiled = {fault.image_id for fault in dataset.faults}
    if any(fault.subject == str(dataset.annotation_file) for fault in dataset.faults):
        # One of the whole file, such as of the convention of its boxes.
        spoiled.update(dataset.instances.images.ids.tolist())
    with ThreadPoolExecutor(threads) as pool:
        check = partial(
            _check_file, dataset=dataset, find=dataset.image_finder(), reading=reading if read_images else None
        )
        found = pool.map(check, dataset.images)
        of_files = list(progress(found, len(dataset.images)) if read_images else found)
    trained = TrainedObjects(dataset, cfg)
    findings += _check_repeated(dataset, trained)
    kept_rows, files = [np.zeros(0, np.int64)], []
    images = crowds = outlined = pointless = dropped_images = dropped = 0
    count = cfg.KRCNN.NUM_KEYPOINTS
    counts = {each["id"]: count if cfg.MODEL.KEYPOINTS_ON else named_count(each) for each in dataset.categories}
    for image, of_file in zip(dataset.images, of_files, strict=True):
        findings += _check_annotations(image, trained)
        of_keypoints = list(_check_keypoints(image, counts))
        if not cfg.MODEL.KEYPOINTS_ON:
            of_keypoints = [replace(finding, severity="note") for finding in of_keypoints]
        findings += of_keypoints
        refusals += _error_count(of_keypoints)
        if image.id in spoiled or _error_count(of_keypoints):
            continue
        unscalable = _unscalable(image, cfg)
        if not trained.is_trainable[image.place]:
            pointless += trained.lacks_keypoints(image.place)
            findings.append(Finding("dropped", image.file_name, _why_untrained(image, trained)))
            dropped_images += 1
            dropped += len(image.annotations)
        elif unscalable is not None:
            findings.append(Finding("error", image.file_name, unscalable))
        elif of_file.is_trained_on:
            images += 1
            is_crowd = dataset.instances.columns.is_crowd[trained.rows[image.place]]
            crowds += int(is_crowd.sum())
            kept_rows.append(trained.rows[image.place][~is_crowd])
            files.append(dataset.image_dir / of_file.name)
            dropped += len(image.annotations) - len(is_crowd)
        outlined += any(map(has_outline, image.annotations))
    if len(of_files) > 1 and all(of_file.is_missing for of_file in of_files):
        findings.append(_none_found(dataset))
        refusals += 1
    else:
        refusals += sum(not of_file.is_found for of_file in of_files)
        findings += [finding for of_file in of_files for finding in of_file.findings]
        # That nothing is left does not need to be said where every image has an error of its own.
        if not images and (of_data := _nothing_left(dataset, len(spoiled), pointless)) is not None:
            findings.append(of_data)
            refusals += 1
    if images and cfg.MODEL.MASK_ON and not outlined:
        findings.append(Finding("error", str(dataset.annotation_file), NO_OUTLINES))
        refusals += 1
    of_file, kept = dataset.instances, np.concatenate(kept_rows)
    return DataReport(
        tuple(findings),
        of_file.image_count,
        images,
        of_file.annotation_count,
        len(kept),
        crowds,
        dropped_images,
        dropped,
        refusals,
        outlined > 0,
        class_counts(dataset, kept),
        tuple(files),
    )


def _error_count(findings: Iterable[Finding]) -> int:
    return sum(finding.severity == "error" for finding in findings)


def _none_found(dataset: CocoDataset) -> Finding:
    """In place of as many errors as there are images: the folder is another one."""
    count, first = len(dataset.images), dataset.images[0].file_name
    text = f"none of the {count:,} images is in this folder ({first}): is --images right?"
    return Finding("error", str(dataset.image_dir), text)


def _nothing_left(dataset: CocoDataset, spoiled: int, pointless: int) -> Finding | None:
    if spoiled and spoiled >= len(dataset.images):
        return None
    why = NO_KEYPOINTS if pointless else "no image is left to train on"
    return Finding("error", str(dataset.annotation_file), why)


def differing_classes(report: DataReport, dataset: CocoDataset, first: CocoDataset) -> DataReport:
    """The report, with an error where the data set could not be trained on together with the first one."""
    difference = other_classes(dataset, first)
    if difference is None:
        return report
    finding = Finding("error", str(dataset.annotation_file), difference)
    return replace(report, findings=(finding, *report.findings), refusals=report.refusals + 1)


def images_of_another(report: DataReport, first: DataReport, name: str) -> DataReport:
    """The report, with a note where its images are also those of the first one.

    Args:
        name: of the first one's annotation file.
    """
    both = count_in_both(first.files, report.files)
    if not both:
        return report
    text = f"{both:,} of these are also in {name}: never evaluate on images that are trained on"
    finding = Finding("note", amount(len(report.files), "image"), text)
    return replace(report, findings=(*report.findings, finding))


def report_text(report: DataReport, most: int = 20, *, is_for_any: bool = False) -> str:
    """The report for the terminal: errors first, what is left, and last whether it can be trained on.

    Args:
        most: lines of a severity, and classes. What is found alike many times takes one.
        is_for_any: whether nobody has said yet which model is to be trained.
    """
    lines: list[str] = []
    for severity in SEVERITIES:
        found = list(_grouped([finding for finding in report.findings if finding.severity == severity]))
        lines += [in_one_line(text) for text, _ in found[:most]]
        if len(found) > most:
            lines.append(f"{severity}: ... and {sum(count for _, count in found[most:])} more")
    if report.trained_images:
        lines += class_table(report.classes, most)
    label = "would be trained on: " if report.errors else "trained on: "
    lines.append(f"{label}{report.trained_images} of {report.images} images")
    crowds = f"; crowds, which are kept apart: {report.crowds}" if report.crowds else ""
    lines.append(f"{'':{len(label)}}{report.trained_annotations} of {report.annotations} annotations{crowds}")
    for name, of_images, of_annotations, words in (
        ("dropped: ", report.dropped_images, report.dropped_annotations, ""),
        ("with errors: ", report.erring_images, report.erring_annotations, ", all those in these images"),
    ):
        if of_images or of_annotations:
            counts = f"{amount(of_images, 'image')}, {amount(of_annotations, 'annotation')}"
            lines.append(f"{name:{len(label)}}{counts}{words if of_images else ''}")
    if is_for_any and report.trained_images and not report.has_outlines:
        lines.append(NO_OUTLINES_AT_ALL)
    if report.errors:
        lines.append(_verdict(report))
    return "\n".join(lines)


def _grouped(findings: Iterable[Finding]) -> Iterator[tuple[str, int]]:
    """A line for each finding, or for many that differ in their subjects and numbers only, and how many it is of."""
    alike: dict[str, list[Finding]] = {}
    for finding in findings:
        alike.setdefault(_NUMBER.sub("0", finding.text.replace(finding.subject, "")), []).append(finding)
    for found in alike.values():
        if len(found) < _MANY:
            yield from ((str(finding), 1) for finding in found)
        else:
            first, *others = found
            subjects = listed([finding.subject for finding in others], most=2)
            yield f"{first}; {len(others)} more like it: {subjects}", len(found)


def _verdict(report: DataReport) -> str:
    """What training makes of the errors."""
    errors = amount(len(report.errors), "error")
    if report.refusals:
        return f"train refuses this file: {errors}"
    return f"train would stop at an image, or train on what is spoiled: {errors}"


def _check_categories(dataset: CocoDataset, cfg: Config) -> Iterator[Finding]:
    if cfg.MODEL.NUM_CLASSES != len(dataset.classes):
        yield Finding(
            "error",
            str(dataset.annotation_file),
            f"{len(dataset.category_ids)} categories and the background are {len(dataset.classes)} classes, but "
            f"MODEL.NUM_CLASSES is {cfg.MODEL.NUM_CLASSES}",
        )
    used = {annotation["category_id"] for image in dataset.images for annotation in image.annotations}
    for category_id, name in zip(dataset.category_ids, dataset.classes[1:], strict=True):
        if category_id not in used:
            yield Finding("note", f"category {name}", "has no annotation")
    yield from _check_keypoint_names(dataset, cfg)


def _check_keypoint_names(dataset: CocoDataset, cfg: Config) -> Iterator[Finding]:
    """What the categories of annotations with keypoints say of these."""
    pointed = {
        annotation["category_id"]
        for image in dataset.images
        for annotation in image.annotations
        if annotation.get("keypoints") is not None
    }
    trained, faulty = cfg.MODEL.KEYPOINTS_ON, False
    for category in dataset.categories:
        count = cfg.KRCNN.NUM_KEYPOINTS if trained else named_count(category)
        subject, fault = f"category {category['name']}", names_fault(category, count)
        if fault is not None:
            faulty = True
            yield Finding("error" if trained else "note", subject, fault)
        elif category["id"] in pointed and not category.get("keypoints") and count == COUNT:
            yield Finding("note", subject, "does not name its keypoints: they are taken to be COCO's, in COCO's order")
        elif category.get("keypoints") and not category.get("skeleton"):
            yield Finding("note", subject, "has no skeleton: training does without, other tools draw no limbs")
    if trained and not faulty:
        try:
            mirrored_keypoints(dataset, cfg)
        except InputError as error:
            yield Finding("error", str(dataset.annotation_file), str(error))


def _check_file_names(dataset: CocoDataset) -> Iterator[Finding]:
    for file_name, count in Counter(image.file_name for image in dataset.images).items():
        if count > 1:
            yield Finding("note", file_name, f"{count} images of the annotation file have this file name")


def _check_repeated(dataset: CocoDataset, trained: TrainedObjects) -> Iterator[Finding]:
    columns, images = dataset.instances.columns, dataset.instances.images
    for first, row in repeated_objects(dataset, trained.rows.values):
        name = images.file_name(int(images.places(columns.image_ids[row : row + 1])[0]))
        text = f"has the image, class and box of annotation {columns.ids[first]}: an object listed twice counts twice"
        yield Finding("note", f"annotation {columns.ids[row]} of {name}", text)


def _check_annotations(image: CocoImage, trained: TrainedObjects) -> Iterator[Finding]:
    """What Detectron's rules leave out, and what Detectron could not train on."""
    for annotation, reason in zip(image.annotations, trained.reasons_to_drop(image.place), strict=True):
        subject = annotation_subject(annotation, image.file_name)
        if reason is not None:
            yield Finding("dropped", subject, reason)
        elif not annotation["iscrowd"]:
            yield from _check_segm(annotation, subject)


def _check_segm(annotation: Annotation, subject: str) -> Iterator[Finding]:
    """Outlines on which Detectron would crash, and parts that it leaves out; this port trains on both."""
    segm = annotation["segmentation"]
    if isinstance(segm, dict):
        yield Finding("note", subject, "a run-length encoding of no crowd: Detectron crashes on it, this port does not")
        return
    short = len(segm) - len(polygons(segm))
    if 0 < short < len(segm):
        yield Finding("dropped", subject, f"{short} of {len(segm)} polygons have fewer than three points")


def _check_keypoints(image: CocoImage, counts: Mapping[int, int]) -> Iterator[Finding]:
    """Keypoints that cannot be trained on, as an error, and what is odd about others; so many in each category."""
    for annotation in image.annotations:
        subject = annotation_subject(annotation, image.file_name)
        count = counts[annotation["category_id"]]
        fault = annotation_fault(annotation, count)
        if fault is not None:
            yield Finding("error", subject, fault)
            continue
        for oddity in oddities(annotation, image.height, image.width, count):
            yield Finding("note", subject, oddity)


def _unscalable(image: CocoImage, cfg: Config) -> str | None:
    """Why an image cannot be scaled as training would, at one of its scales at least."""
    faults = (scaling_fault(image.height, image.width, scale, cfg.TRAIN.MAX_SIZE) for scale in cfg.TRAIN.SCALES)
    return next((fault for fault in faults if fault is not None), None)


def _why_untrained(image: CocoImage, trained: TrainedObjects) -> str:
    if not image.annotations:
        return "the image has no annotation"
    if trained.lacks_keypoints(image.place):
        return "the image has no visible keypoint"
    return "the image has no annotation to train on but crowds and those listed"


class _CheckedFile(NamedTuple):
    """What was found about an image's file.

    Attributes:
        is_trained_on: whether training takes it all the same.
        is_found: whether there is one file that it is; if not, training refuses it before it begins.
        is_missing: whether there is none.
        name: of the file, relative to the folder; "" where none is found.
    """

    findings: list[Finding]
    is_trained_on: bool
    is_found: bool = True
    is_missing: bool = False
    name: str = ""


def _check_file(
    image: CocoImage, dataset: CocoDataset, find: Callable[[int], str], reading: ImageReading | None
) -> _CheckedFile:
    """What is wrong with an image's file, and whether EXIF turns it; without `reading` only whether it is there."""
    try:
        name = find(image.place)
    except InputError as error:
        refused = [Finding("error", image.file_name, str(error))]
        return _CheckedFile(refused, False, is_found=False, is_missing=isinstance(error, NoImageFile))
    findings = []
    if is_found_by_id(name, image.file_name):
        text = f"there is no such file; {name}, which is COCO's name for its id {image.id}, is taken for it"
        findings.append(Finding("note", image.file_name, text))
    if reading is None:
        return _CheckedFile(findings, is_trained_on=True, name=name)
    path = dataset.image_dir / name
    try:
        _, orientation, remark = read_training_image(path, reading, (image.height, image.width))
    except InputError as error:
        return _CheckedFile([*findings, Finding("error", image.file_name, str(error))], is_trained_on=False, name=name)
    if remark is not None:
        findings.append(Finding("error", image.file_name, f"{remark}; `test` and `detect` refuse it: copy it again"))
    if orientation != 1:
        done = "it is turned upright" if reading.exif == "apply" else "it is not turned, as --exif says"
        findings.append(Finding("note", image.file_name, f"has the EXIF orientation {orientation}: {done}"))
    return _CheckedFile(findings, is_trained_on=True, name=name)
