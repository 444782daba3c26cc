"""The published models by id, name or URL; the facts are in catalog.yaml, beside this file.

Answers to Detectron's MODEL_ZOO.md and projects/GN/README.md.
"""

from __future__ import annotations

import difflib
import functools
import importlib.resources
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import unquote

import yaml

from detectron_gn.weights.errors import UnknownModel


@dataclass(frozen=True)
class CatalogEntry:
    """One model.

    Attributes:
        id: Detectron's model id.
        name: the name of its configuration in Detectron, or of the file for the ImageNet backbones.
        kind: `Mask R-CNN` or `ImageNet backbone`.
        backbone, norm, schedule: `R-50-FPN`, `GN` or `BN*`, `2x` or `3x`; schedule is None for a backbone.
        state: `published`, or `result only` where no file was published.
        config: its YAML, below `yaml_configs/`; None for a backbone.
        path, boxes, masks: where the model and its detections on minival lie, below the base URL, as in the
            URL (`%3A` and all); None where there is no such file.
        box_ap, mask_ap, top1_error: as published, in percent.
        train_memory_gb, train_seconds_per_iteration, train_hours: on 8 GPUs with 2 images each.
        inference_seconds_per_image: as published, `network + post-processing`.
        md5: of the model's file where it is known beforehand.
        superseded_by: the id of the run that replaced a struck-out one.
        note: what one should know, in sentences.
    """

    id: int
    name: str
    kind: str
    backbone: str
    norm: str
    state: str
    schedule: str | None = None
    config: str | None = None
    path: str | None = None
    boxes: str | None = None
    masks: str | None = None
    box_ap: float | None = None
    mask_ap: float | None = None
    top1_error: float | None = None
    train_memory_gb: float | None = None
    train_seconds_per_iteration: float | None = None
    train_hours: float | None = None
    inference_seconds_per_image: str | None = None
    md5: str | None = None
    superseded_by: int | None = None
    note: str | None = None


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
    entries = tuple(_entry(dict(model), data["layout"]) for model in data["models"])
    return Catalog(data["base_url"], tuple(data["old_base_urls"]), entries)


def lookup(source: int | str) -> CatalogEntry:
    """The entry of an id (`48616381`), a name, or a URL of its model or results, of today or of the old S3.

    Raises UnknownModel, with the nearest name, for everything else.
    """
    text = str(source).strip()
    wanted = below_base(text)
    for entry in catalog().entries:
        if text in (str(entry.id), entry.name) or text.lower() == entry.name.lower():
            return entry
        if wanted is not None and unquote(wanted) in {unquote(path) for path in _paths(entry)}:
            return entry
    names = {entry.name.lower(): entry for entry in catalog().entries}
    names |= {str(entry.id): entry for entry in catalog().entries}
    near = difflib.get_close_matches(text.lower(), names, 1)
    hint = f"did you mean {names[near[0]].id}, {names[near[0]].name}?" if near else "`models` lists them"
    raise UnknownModel(f"{ascii(text)[:80]} is no model of the catalog; {hint}")


def below_base(url: str, bases: Sequence[str] = ()) -> str | None:
    """The part of `url` below the base URL, one of its old forms, or one of `bases`; None for other URLs."""
    known = catalog()
    for base in (*bases, known.base_url, *known.old_base_urls):
        if url.startswith(base.rstrip("/") + "/"):
            return re.split("[?#]", url[len(base.rstrip("/")) + 1 :])[0]
    return None


def table() -> str:
    """The catalog as text: one line per model, then what the states and notes mean."""
    rows: list[tuple[str, ...]] = [("id", "name", "schedule", "box AP", "mask AP", "top-1 err", "hours", "files")]
    for entry in catalog().entries:
        files = [word for word, path in zip(("model", "boxes", "masks"), _files(entry)) if path]
        numbers = (entry.box_ap, entry.mask_ap, entry.top1_error, entry.train_hours)
        shown = ["-" if number is None else f"{number:.1f}" for number in numbers]
        rows.append((str(entry.id), entry.name, entry.schedule or "-", *shown, " ".join(files) or entry.state))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    lines += ["", "result only: no file was ever published; the configuration of the same name reproduces it."]
    lines += [f"{entry.id}: {entry.note}" for entry in catalog().entries if entry.superseded_by]
    return "\n".join(lines)


def rows() -> list[dict[str, Any]]:
    """The catalog as plain data, for `--json`: every field of every entry."""
    return [asdict(entry) for entry in catalog().entries]


def _entry(model: dict[str, Any], layout: dict[str, str]) -> CatalogEntry:
    run = model.pop("run", None)
    if run is not None:
        model |= {
            "path": f"{run}/{layout['model']}",
            "boxes": f"{run}/{layout['boxes']}",
            "masks": f"{run}/{layout['masks']}",
        }
    return CatalogEntry(**model)


def _files(entry: CatalogEntry) -> tuple[str | None, str | None, str | None]:
    return entry.path, entry.boxes, entry.masks


def _paths(entry: CatalogEntry) -> list[str]:
    return [path for path in _files(entry) if path]
