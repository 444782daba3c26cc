"""The one reader of annotation files in COCO's format: what every command makes of a file."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from detectron_gn.mrcnn.data.annotations.columns import (
    AnnotationColumns,
    AnnotationRecords,
    annotation_columns,
    joined_columns,
)
from detectron_gn.mrcnn.data.annotations.conventions import KEPT, UNLIKE, BoxConventions
from detectron_gn.mrcnn.data.annotations.findings import Fault, Findings
from detectron_gn.mrcnn.data.annotations.images import ImageColumns, image_columns
from detectron_gn.mrcnn.data.annotations.json_file import read_annotation_file
from detectron_gn.mrcnn.data.annotations.keypoint_boxes import APART, boxes_without_their_keypoints
from detectron_gn.mrcnn.data.annotations.parts import AnnotationParts, Part, without_collection
from detectron_gn.mrcnn.data.annotations.plain import KnownRecords, Read, read_plain
from detectron_gn.mrcnn.data.annotations.ragged import IntArray
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
    """An annotation file as it was understood.

    Attributes:
        path: the file.
        categories: the records without fault, their ids whole numbers.
        images: those without fault.
        columns: the annotations without fault, in the file's order. Their ids are its own, or new ones where it has
            none.
        faults: of the records that cannot be used.
        remarks: what was mended, a sentence for each kind.
        image_count, annotation_count: of the file, those with faults too.
        digest: sha256 of its content; None of a file that had to be read as a whole.
    """

    path: Path
    categories: tuple[Record, ...]
    images: ImageColumns
    columns: AnnotationColumns
    faults: tuple[Fault, ...]
    remarks: tuple[str, ...]
    image_count: int
    annotation_count: int
    digest: str | None

    @property
    def annotations(self) -> AnnotationRecords:
        """The annotations as records, each with `bbox`, `area`, `iscrowd` and `segmentation`, `[]` without outline."""
        return AnnotationRecords(self.columns, self.images)


def read_instances(path: str | Path) -> Instances:
    """Read an annotation file; InputError where it is none at all. What is wrong with single records is in `faults`.

    The memory that it takes is that of the columns and of a part of the file.
    """
    path = Path(path)
    reading = _Reading(path)
    with AnnotationParts(path) as file:
        try:
            with without_collection():
                reading.read_categories(file.records("categories"))
                for part in file.parts("images"):
                    reading.read_images(part.exactly(), part.before)
                reading.begin_annotations()
                for part in file.parts("annotations"):
                    reading.read_annotations(part)
        except ValueError:
            file.check_unchanged()
            # Somewhere it is no JSON after all; read as a whole it is refused with the place.
            read_annotation_file(path)
            raise
        file.check_unchanged()
    columns = reading.columns()
    return Instances(
        path,
        tuple(reading.categories),
        image_columns(reading.images.values()),
        columns,
        tuple(reading.findings.faults),
        reading.findings.remarks(),
        reading.image_count,
        file.count("annotations"),
        file.digest,
    )


class _Reading:
    """A file while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.findings = Findings()
        self.categories: list[Record] = []
        # Those with a fault too, whose annotations have none for that.
        self.category_ids: set[int] = set()
        self._text_ids: set[str] = set()
        self.usable_categories: set[int] = set()
        self.images: dict[int, Record] = {}
        # Likewise.
        self.image_names: dict[int, str] = {}
        self.image_count = 0
        self._seen: dict[int, int] = {}
        self._read: list[AnnotationColumns] = []
        self._coordinates = bytearray()
        self._ids: list[IntArray] = []
        # Their places among all annotations that were read.
        self._without_id: list[int] = []
        self._conventions = BoxConventions()
        self._first_unlike = ""

    def read_categories(self, records: list[dict[str, Any]]) -> None:
        if not records:
            self.findings.refuse(
                str(self.path), "'categories' is empty: list what the annotations' category_id stand for"
            )
        for place, record in enumerate(records):
            subject = _subject("category", record.get("id"), place)
            number = whole_number(record.get("id"))
            if is_text(record.get("id")):
                self._text_ids.add(record["id"])
                number = int(record["id"]) if re.fullmatch("[0-9]{1,15}", record["id"]) else None
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
                    self.findings.refuse(f"category {value}", f"the {key} is there {count} times in 'categories'")
        if any(category["name"] == BACKGROUND for category in self.categories):
            self.findings.refuse(
                f"category {BACKGROUND}", "is the name of what is no object: give another one, or leave it out"
            )

    def read_images(self, records: list[dict[str, Any]], before: int) -> None:
        for place, record in enumerate(records, before):
            name, number = record.get("file_name"), whole_number(record.get("id"))
            subject = name if is_text(name) and name else _subject("image", record.get("id"), place)
            # A hash is told from another by its record, and needs a hundredth of its memory.
            content = hash(repr(sorted(record.items())))
            if number is not None and number in self._seen:
                if self._seen[number] == content:
                    self.findings.mend(subject, "an image listed twice with the same record: taken once")
                else:
                    self.findings.refuse(subject, f"the id {number} is there twice in 'images'", number)
                continue
            self.image_count += 1
            if number is not None:
                self._seen[number] = content
                self.image_names[number] = subject
            try:
                image = read_image_record(record, partial(self.findings.mend, subject))
            except InputError as error:
                self.findings.refuse(subject, error, number)
            else:
                self.images[image["id"]] = image

    def begin_annotations(self) -> None:
        """To be called once between images and annotations."""
        ids = sorted(self.images)
        sizes = [(self.images[each]["height"], self.images[each]["width"]) for each in ids]
        self._known = KnownRecords(np.array(ids, np.int64), sizes, np.array(sorted(self.usable_categories), np.int64))
        self._faults_before = len(self.findings.faults)

    def read_annotations(self, part: Part) -> None:
        records = part.quickly()
        found = read_plain(records, self._known) if records else None
        if found is not None:
            read, mended = found
            for first, text, times in mended:
                self.findings.mend(self._subject_of(read, first), text, times)
            self._ids.append(read.columns.ids)
        else:
            read = self._read_each(part)
        heights, widths = np.array(read.sizes, np.int64).reshape(-1, 2).T
        for places, text in self._conventions.watch(read.columns.boxes, read.bounds, heights, widths):
            self.findings.mend(self._subject_of(read, int(places[0])), text, len(places))
        unlike = self._conventions.unlike(read.columns.boxes, read.bounds)
        if len(unlike) and not self._first_unlike:
            self._first_unlike = self._subject_of(read, int(unlike[0]))
        apart = boxes_without_their_keypoints(read.columns)
        if len(apart):
            self.findings.mend(self._subject_of(read, int(apart[0])), APART, len(apart))
        self._keep(read.columns)

    def _keep(self, columns: AnnotationColumns) -> None:
        """Coordinates, which need most memory, go to the end of those before, so that nothing joins them later."""
        outlines = columns.outlines
        self._coordinates += outlines.polygons.values.tobytes()
        polygons = replace(outlines.polygons, values=np.zeros(0))
        self._read.append(replace(columns, outlines=replace(outlines, polygons=polygons)))

    def _subject_of(self, read: Read, place: int) -> str:
        name = self.image_names[int(read.columns.image_ids[place])]
        return f"{_subject('annotation', int(read.columns.ids[place]), place)} of {name}"

    def _read_each(self, part: Part) -> Read:
        """The annotations of a part that are without fault, each by the rules for one."""
        read: list[Record] = []
        bounds: list[tuple[float, float, float, float]] = []
        sizes, ids = [], []
        before = sum(map(len, self._read))
        for place, record in enumerate(part.exactly(), part.before):
            subject, image_id = _subject("annotation", record.get("id"), place), None
            try:
                image_id = read_id(record.get("image_id"), "image_id")
                subject = f"{subject} of {self.image_names[image_id]}" if image_id in self.image_names else subject
                number = record.get("id")
                if number is None:
                    self.findings.mend(subject, "an annotation without 'id': numbered")
                else:
                    number = read_id(number)
                    ids.append(number)
                if is_text(record.get("category_id")) and record["category_id"] in self._text_ids:
                    # That fault is told of the category.
                    continue
                category_id = read_id(record.get("category_id"), "category_id")
                if category_id not in self.category_ids:
                    raise InputError(f"has category_id {category_id}, which 'categories' does not list")
                if image_id not in self.image_names:
                    raise InputError(f"has image_id {image_id}, which 'images' does not list")
                image = self.images.get(image_id)
                if image is None or category_id not in self.usable_categories:
                    # That fault is told already.
                    continue
                size = image["height"], image["width"]
                annotation, outline = read_annotation(record, *size, partial(self.findings.mend, subject))
            except InputError as error:
                self.findings.refuse(subject, error, image_id)
                continue
            if number is None:
                self._without_id.append(before + len(read))
                number = 0
            read.append({**annotation, "id": number, "image_id": image_id, "category_id": category_id})
            bounds.append(outline or (np.nan,) * 4)
            sizes.append(size)
        self._ids.append(np.array(ids, np.int64))
        return Read(annotation_columns(read, sizes), np.array(bounds).reshape(-1, 4), sizes)

    def columns(self) -> AnnotationColumns:
        """All annotations that were read; their last faults are found."""
        columns = joined_columns(self._read or [annotation_columns([], [])])
        self._read.clear()
        polygons = replace(columns.outlines.polygons, values=np.frombuffer(self._coordinates, np.float64))
        columns = replace(columns, outlines=replace(columns.outlines, polygons=polygons))
        ids = np.concatenate([*self._ids, np.zeros(0, np.int64)])
        numbers, firsts, counts = np.unique(ids, return_index=True, return_counts=True)
        for place in sorted(np.flatnonzero(counts > 1).tolist(), key=lambda place: int(firsts[place])):
            self.findings.refuse(
                f"annotation {numbers[place]}",
                f"the id is there {counts[place]} times: take one away where they are one object, or give each its own",
            )
        columns.ids[self._without_id] = 1 + max(0, ids.max(initial=0)) + np.arange(len(self._without_id))
        if self._conventions.has_slips:
            self.findings.mend(self._first_unlike, UNLIKE, self._conventions.unlike_count)
        convention = self._conventions.fault()
        if convention is not None:
            # It explains most others, and nothing is taken as it is in a file that is refused for that.
            self.findings.forget(KEPT)
            self.findings.faults.insert(self._faults_before, Fault(str(self.path), convention))
        return columns


def _subject(kind: str, identity: Any, place: int) -> str:
    """What a record is called: by its id, or by its place in the list, from 1."""
    number = whole_number(identity)
    return f"{kind} {number}" if number is not None else f"{kind} number {place + 1}"
