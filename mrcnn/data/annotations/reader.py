"""The one reader of annotation files in COCO's format: what every command makes of a file, decided record by record."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from detectron_gn.mrcnn.data.annotations.conventions import BoxConventions
from detectron_gn.mrcnn.data.annotations.findings import Fault, Findings
from detectron_gn.mrcnn.data.annotations.json_file import read_annotation_file
from detectron_gn.mrcnn.data.annotations.records import (
    Record,
    read_annotation,
    read_category,
    read_id,
    read_image_record,
)
from detectron_gn.mrcnn.data.categories import BACKGROUND
from detectron_gn.mrcnn.data.json_values import is_text, whole_number
from detectron_gn.mrcnn.errors import InputError


@dataclass(frozen=True)
class Instances:
    """An annotation file as it was understood: records as COCO's own files have them, each list in the file's order.

    Attributes:
        path: the file.
        categories, images, annotations: the records without fault. Ids are whole numbers, those of annotations the
            file's own, or new ones where it has none; every annotation has `bbox`, `area`, `iscrowd` and
            `segmentation`, which is `[]` where there is no outline.
        faults: of the records that cannot be used.
        remarks: what was mended, a sentence for each kind.
        image_count, annotation_count: of the file, those with faults too.
    """

    path: Path
    categories: tuple[Record, ...]
    images: tuple[Record, ...]
    annotations: tuple[Record, ...]
    faults: tuple[Fault, ...]
    remarks: tuple[str, ...]
    image_count: int
    annotation_count: int


def read_instances(path: str | Path) -> Instances:
    """Read an annotation file; InputError where it is none at all. What is wrong with single records is in `faults`."""
    path = Path(path)
    content = read_annotation_file(path)
    reading = _Reading(path)
    reading.read_categories(content["categories"])
    reading.read_images(content["images"])
    reading.read_annotations(content["annotations"])
    return Instances(
        path,
        tuple(reading.categories),
        tuple(reading.images.values()),
        tuple(reading.annotations),
        tuple(reading.findings.faults),
        reading.findings.remarks(),
        reading.image_count,
        len(content["annotations"]),
    )


class _Reading:
    """A file while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.findings = Findings()
        self.categories: list[Record] = []
        # Those with a fault too, whose annotations have none for that.
        self.category_ids: set[int] = set()
        self.usable_categories: set[int] = set()
        self.images: dict[int, Record] = {}
        # Likewise.
        self.image_names: dict[int, str] = {}
        self.image_count = 0
        self.annotations: list[Record] = []

    def read_categories(self, records: list[dict[str, Any]]) -> None:
        if not records:
            self.findings.refuse(
                str(self.path), "'categories' is empty: list what the annotations' category_id stand for"
            )
        for place, record in enumerate(records):
            subject = _subject("category", record.get("id"), place)
            number = whole_number(record.get("id"))
            if number is not None:
                self.category_ids.add(number)
            try:
                self.categories.append(read_category(record, partial(self.findings.mend, subject)))
            except InputError as error:
                self.findings.refuse(subject, error)
        self.usable_categories = {category["id"] for category in self.categories}
        for key in ("id", "name"):
            for value, count in Counter(category[key] for category in self.categories).items():
                if count > 1:
                    self.findings.refuse(f"category {value}", f"the {key} stands {count} times in 'categories'")
        if any(category["name"] == BACKGROUND for category in self.categories):
            self.findings.refuse(
                f"category {BACKGROUND}", "is the name of what is no object: give another one, or leave it out"
            )

    def read_images(self, records: list[dict[str, Any]]) -> None:
        originals: dict[int, Mapping[str, Any]] = {}
        for place, record in enumerate(records):
            name, number = record.get("file_name"), whole_number(record.get("id"))
            subject = name if is_text(name) and name else _subject("image", record.get("id"), place)
            if number is not None and number in originals:
                if originals[number] == record:
                    self.findings.mend(subject, "an image listed twice with the same record: taken once")
                else:
                    self.findings.refuse(subject, f"the id {number} stands twice in 'images'", number)
                continue
            self.image_count += 1
            if number is not None:
                originals[number] = record
                self.image_names[number] = subject
            try:
                image = read_image_record(record, partial(self.findings.mend, subject))
            except InputError as error:
                self.findings.refuse(subject, error, number)
            else:
                self.images[image["id"]] = image

    def read_annotations(self, records: list[dict[str, Any]]) -> None:
        conventions, before = BoxConventions(), len(self.findings.faults)
        next_id = 1 + max((n for record in records if (n := whole_number(record.get("id"))) is not None), default=0)
        seen: Counter[int] = Counter()
        for place, record in enumerate(records):
            subject, image_id = _subject("annotation", record.get("id"), place), None
            try:
                image_id = read_id(record.get("image_id"), "image_id")
                subject = f"{subject} of {self.image_names[image_id]}" if image_id in self.image_names else subject
                number = record.get("id")
                if number is None:
                    self.findings.mend(subject, "an annotation without 'id': numbered")
                    number, next_id = next_id, next_id + 1
                number = read_id(number)
                seen[number] += 1
                category_id = read_id(record.get("category_id"), "category_id")
                if category_id not in self.category_ids:
                    raise InputError(f"has category_id {category_id}, which 'categories' does not list")
                if image_id not in self.image_names:
                    raise InputError(f"has image_id {image_id}, which 'images' does not list")
                image = self.images.get(image_id)
                if image is None or category_id not in self.usable_categories:
                    # That fault is told already.
                    continue
                height, width = image["height"], image["width"]
                annotation, bounds = read_annotation(record, height, width, partial(self.findings.mend, subject))
            except InputError as error:
                self.findings.refuse(subject, error, image_id)
                continue
            oddity = conventions.watch(annotation["bbox"], bounds, height, width)
            if oddity is not None:
                self.findings.mend(subject, oddity)
            self.annotations.append({**annotation, "id": number, "image_id": image_id, "category_id": category_id})
        for number, count in seen.items():
            if count > 1:
                self.findings.refuse(
                    f"annotation {number}",
                    f"the id stands {count} times: give each its own, or leave 'id' out of all annotations",
                )
        convention = conventions.fault()
        if convention is not None:
            # It explains most others.
            self.findings.faults.insert(before, Fault(str(self.path), convention))


def _subject(kind: str, identity: Any, place: int) -> str:
    """What a record is called: by its id, or by its place in the list, from 1."""
    number = whole_number(identity)
    return f"{kind} {number}" if number is not None else f"{kind} number {place + 1}"
