"""The published models by id, name or URL; the facts are in catalog.yaml, beside this file.

Answers to Detectron's MODEL_ZOO.md and projects/GN/README.md.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib.resources
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

from detectron_gn.weights.errors import UnknownModel
from detectron_gn.weights.shown import folded

# Columns of the table of models: titles and fields.
_NUMBERS = {
    "box AP": "box_ap",
    "mask AP": "mask_ap",
    "keypoint AP": "keypoint_ap",
    "AR@1000": "proposal_ar",
    "top-1 error": "top1_error",
}

# Models that a note names; one of more is marked in the table.
_MOST_NAMED = 4

# In bytes: R-50.pkl has about 100 million.
_SMALLEST_FILE = 90_000_000


@dataclass(frozen=True)
class CatalogEntry:
    """One model.

    Attributes:
        id: Detectron's model id; None for the ImageNet backbones that have none.
        name: the name of its configuration in Detectron, or of the file for the ImageNet backbones.
        kind: `Mask R-CNN`, `Faster R-CNN`, `Fast R-CNN`, `Keypoint R-CNN`, `RetinaNet`, `RPN`, `ImageNet backbone`.
        backbone, norm, schedule: `R-50-FPN`, `GN` or `BN*`, `1x`, `2x`, `3x` or `s1x`; schedule is None for a backbone.
        state: `published`, or `result only` where no file was published.
        config: its YAML, below `yaml_configs/`; None for a backbone.
        path, boxes, masks, keypoints: where the model and its detections on minival lie, below the base URL, as in the
            URL (`%3A` and all); None where there is no such file.
        proposals: where the proposals of an RPN on train, valminusminival and minival lie.
        proposals_of: the id of the RPN whose proposals it takes; None where it makes its own.
        box_ap, mask_ap, keypoint_ap, proposal_ar, top1_error: as published, in percent.
        images_per_gpu, train_memory_gb, train_seconds_per_iteration, train_hours: on 8 GPUs, memory on each.
        inference_seconds_per_image: as published, `network + post-processing`.
        md5: of the model's file where it is known beforehand.
        superseded_by: the id of the run that replaced a struck-out one.
        note: what one should know, in sentences.
    """

    name: str
    kind: str
    backbone: str
    norm: str
    state: str
    id: int | None = None
    schedule: str | None = None
    config: str | None = None
    path: str | None = None
    boxes: str | None = None
    masks: str | None = None
    keypoints: str | None = None
    proposals: tuple[str, ...] = ()
    proposals_of: int | None = None
    box_ap: float | None = None
    mask_ap: float | None = None
    keypoint_ap: float | None = None
    proposal_ar: float | None = None
    top1_error: float | None = None
    images_per_gpu: int | None = None
    train_memory_gb: float | None = None
    train_seconds_per_iteration: float | None = None
    train_hours: float | None = None
    inference_seconds_per_image: str | None = None
    md5: str | None = None
    superseded_by: int | None = None
    note: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What it is called: its id, where it has one, and its name."""
        return (self.name,) if self.id is None else (str(self.id), self.name)

    @property
    def title(self) -> str:
        """`48616381 (e2e_mask_rcnn_R-50-FPN_2x_gn)`, or the name where there is no id."""
        return self.name if self.id is None else f"{self.id} ({self.name})"

    @property
    def family(self) -> str:
        """Its kind, and whether it takes the proposals of another model."""
        return self.kind if self.proposals_of is None else f"{self.kind} on precomputed proposals"

    @property
    def files(self) -> dict[str, tuple[str, ...]]:
        """What was published of it: `model`, `boxes`, `masks`, `keypoints`, `proposals`, each with its places."""
        single = {"model": self.path, "boxes": self.boxes, "masks": self.masks, "keypoints": self.keypoints}
        files = {word: (path,) for word, path in single.items() if path is not None}
        return files | ({"proposals": self.proposals} if self.proposals else {})


@dataclass(frozen=True)
class Catalog:
    """All entries, and the addresses below which their files are or once were."""

    base_url: str
    old_base_urls: tuple[str, ...]
    entries: tuple[CatalogEntry, ...]


@functools.cache
def catalog() -> Catalog:
    """The catalog, read once."""
    text = importlib.resources.files("detectron_gn.weights").joinpath("catalog.yaml").read_text("utf-8")
    data = yaml.safe_load(text)
    models = [*data["models"], *(model for table in data["baselines"] for model in _baselines(table))]
    entries = tuple(_entry(model, data) for model in models)
    return Catalog(data["base_url"], tuple(data["old_base_urls"]), entries)


def lookup(source: int | str) -> CatalogEntry:
    """The entry of an id (`48616381`), a name, or a URL of its model or results, of today or of the old S3.

    Raises UnknownModel, with the nearest name, for everything else.
    """
    text = str(source).strip()
    wanted = below_base(text)
    by_name = {name.lower(): entry for entry in catalog().entries for name in entry.names}
    if text.lower() in by_name:
        return by_name[text.lower()]
    if wanted is not None:
        for entry in catalog().entries:
            if unquote(wanted) in {unquote(path) for paths in entry.files.values() for path in paths}:
                return entry
    near = difflib.get_close_matches(text.lower(), by_name, 1)
    hint = f"did you mean {', '.join(by_name[near[0]].names)}?" if near else "`models` lists them"
    raise UnknownModel(f"{ascii(text)[:80]} is no model of the catalog; {hint}")


def entry_of_file(path: Path) -> CatalogEntry | None:
    """The entry that a file is the model of: its path ends as the entry's does, or its md5 is the entry's.

    Only a file as large as the smallest published one is read for its md5.
    """
    place = "/" + unquote(path.absolute().as_posix())
    for entry in catalog().entries:
        if entry.path is not None and place.endswith("/" + unquote(entry.path)):
            return entry
    known = {entry.md5: entry for entry in catalog().entries if entry.md5 is not None}
    if path.stat().st_size < _SMALLEST_FILE:
        return None
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return known.get(digest.hexdigest())


def below_base(url: str, bases: Sequence[str] = ()) -> str | None:
    """The part of `url` below the base URL, one of its old forms, or one of `bases`; None for other URLs."""
    known = catalog()
    for base in (*bases, known.base_url, *known.old_base_urls):
        if url.startswith(base.rstrip("/") + "/"):
            return re.split("[?#]", url[len(base.rstrip("/")) + 1 :])[0]
    return None


def families() -> list[str]:
    """The kinds of models, in the order of the catalog."""
    return list(dict.fromkeys(entry.kind for entry in catalog().entries))


def chosen(kind: str | None = None, search: str | None = None) -> list[CatalogEntry]:
    """The models of a kind whose id, name, backbone, norm, schedule or state holds every word of `search`.

    Neither capitals nor the blanks and hyphens of a kind make a difference: `mask-rcnn` is `Mask R-CNN`.

    Raises UnknownModel where there is none.
    """
    words = (search or "").lower().split()
    entries = [
        entry
        for entry in catalog().entries
        if (kind is None or _letters(kind) == _letters(entry.kind)) and all(word in _searched(entry) for word in words)
    ]
    if not entries:
        asked = " ".join(ascii(text)[:80] for text in (kind, search) if text is not None)
        raise UnknownModel(f"no model of the catalog is {asked}: the families are {', '.join(families())}")
    return entries


def table(entries: Sequence[CatalogEntry]) -> str:
    """Models as text: a table for each family, one line per model, then what the states and notes mean.

    A note of many models is marked behind their names, and one of a few begins with their ids.
    """
    parts = []
    noted: dict[str, list[str]] = {}
    for entry in entries:
        if entry.note is not None:
            noted.setdefault(entry.note, []).append(entry.names[0])
    shared = [note for note, names in noted.items() if len(names) > _MOST_NAMED]
    marks = {note: "*" * number for number, note in enumerate(shared, 1)}
    for family in dict.fromkeys(entry.family for entry in entries):
        members = [entry for entry in entries if entry.family == family]
        files = _files_of(members)
        parts.append(f"{family} (files: {', '.join(files)})" if files else family)
        parts += [_family_table(members, files, marks), ""]
    if any(not entry.files for entry in entries):
        told = "none: no file was ever published; the configuration of the same name reproduces it."
        parts.append(folded(told, "  "))
    for note, names in noted.items():
        beginning = f"{marks[note]} " if note in marks else f"{', '.join(names)}: "
        parts.append(folded(f"{beginning}{note}", "  "))
    if any(entry.files for entry in entries):
        parts.append("The files belong to their authors, under CC BY-SA 3.0.")
    return "\n".join(parts)


def rows(entries: Sequence[CatalogEntry]) -> list[dict[str, Any]]:
    """Models as plain data, for `--json`: every field of every entry."""
    return [asdict(entry) for entry in entries]


def _files_of(entries: Sequence[CatalogEntry]) -> tuple[str, ...]:
    """What was published of the models of a family, where it is the same of all that have files."""
    published = {tuple(entry.files) for entry in entries if entry.files}
    return next(iter(published)) if len(published) == 1 else ()


def _family_table(entries: Sequence[CatalogEntry], files: Sequence[str], marks: Mapping[str, str]) -> str:
    """The lines of one family; columns in which no model has anything are left out.

    Args:
        files: what all of them have; where one has others, or none, a column says so.
        marks: what stands behind the names of models with these notes.
    """
    columns: dict[str, list[str]] = {
        "id": [str(entry.id or "-") for entry in entries],
        "name": [f"{entry.name} {marks.get(entry.note or '', '')}".rstrip() for entry in entries],
    }
    for title, field in _NUMBERS.items():
        values = [getattr(entry, field) for entry in entries]
        if any(value is not None for value in values):
            columns[title] = ["-" if value is None else f"{value:.1f}" for value in values]
    told = ["all" if (own := tuple(entry.files)) and own == files else ", ".join(own) or "none" for entry in entries]
    if {*told} != {"all"}:
        columns["files"] = told
    widths = {title: max(map(len, [title, *cells])) for title, cells in columns.items()}
    lines = ["  ".join(title.ljust(width) for title, width in widths.items())]
    lines += ["  ".join("-" * width for width in widths.values())]
    for cells in zip(*columns.values(), strict=True):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(cells, widths.values(), strict=True)))
    return "\n".join(line.rstrip() for line in lines)


def _baselines(table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The models of a table of catalog.yaml, each as an entry of its own is written."""
    shared: dict[str, Any] = {key: table[key] for key in ("kind", "layout", "note") if key in table}
    for row in table["rows"]:
        model = shared | dict(zip(table["columns"], row, strict=True))
        name = f"{table['prefix']}_{model['backbone']}_{model['schedule']}"
        config = f"12_2017_baselines/{name}.yaml"
        run = f"{model['id']}/{config}.{model.pop('stamp')}"
        yield model | {"name": name, "norm": "BN*", "state": "published", "config": config, "run": run}


def _entry(model: dict[str, Any], data: dict[str, Any]) -> CatalogEntry:
    model = dict(model)
    run = model.pop("run", None)
    if run is not None:
        layout = data["layouts"][model.pop("layout")]
        fields = {"path" if word == "model" else word: place for word, place in layout.items()}
        model |= {
            word: f"{run}/{place}" if isinstance(place, str) else tuple(f"{run}/{each}" for each in place)
            for word, place in fields.items()
        }
    return CatalogEntry(**model, md5=data["md5"].get(model.get("id")))


def _letters(kind: str) -> str:
    return re.sub(r"[\s_-]", "", kind).lower()


def _searched(entry: CatalogEntry) -> str:
    parts = (*entry.names, entry.family, entry.backbone, entry.norm, entry.schedule or "", entry.state)
    return " ".join(parts).lower()
