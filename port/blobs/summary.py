"""What is in a weights file, for people to read before they use it: the work of `inspect`."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from detectron_gn.mrcnn.data.categories import Categories
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.tables import text_table
from detectron_gn.mrcnn.wording import listed, printable
from detectron_gn.port.blobs.family import CLASSIFIER_BLOBS, MOMENTUM, family_of
from detectron_gn.port.blobs.layouts import layout_of
from detectron_gn.port.blobs.parts import ORDER, by_part, part_of
from detectron_gn.port.config.yaml_loader import yaml_nodes
from detectron_gn.weights.files.digest import file_digest
from detectron_gn.weights.formats import read_blobs
from detectron_gn.weights.shown import folded, one_line
from detectron_gn.weights.weights_file import Array, WeightsFile

_CONFIG_KEYS = (
    "MODEL.TYPE",
    "MODEL.CONV_BODY",
    "MODEL.NUM_CLASSES",
    "FAST_RCNN.ROI_BOX_HEAD",
    "MRCNN.ROI_MASK_HEAD",
    "GROUP_NORM.NUM_GROUPS",
    "RESNETS.STRIDE_1X1",
    "TRAIN.WEIGHTS",
    "TRAIN.DATASETS",
    "TRAIN.FREEZE_AT",
    "SOLVER.MAX_ITER",
    "SOLVER.BASE_LR",
    "NUM_GPUS",
)

# Types of numbers in a table that has little room.
_SHORT = {"float32": "f32", "float64": "f64", "float16": "f16", "int32": "i32", "int64": "i64", "uint8": "u8"}


@dataclass(frozen=True)
class BlobSummary:
    """One blob. The statistics are over its finite values, in float64; None where it has none."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    nan: int
    inf: int

    @property
    def largest(self) -> float | None:
        """The largest magnitude."""
        return None if self.min is None or self.max is None else max(abs(self.min), abs(self.max))


@dataclass(frozen=True)
class Summary:
    """What a file is.

    Attributes:
        source, container, bytes: the file, its format, its size.
        family: `ImageNet backbone`, `detector`, `training checkpoint` (a detector with momentum), `unknown`.
        norm: `GN`, `BN*` (frozen BatchNorm as a per-channel scale and shift), or None.
        depth: 50, 101 or 152 layers, counted from the residual blocks; None without any.
        body: `R-50`, `X-101-32x8d`; None without residual blocks.
        neck: `FPN`, `C4`, or None for a backbone.
        box_head: `2fc`, `4conv1fc`, `RetinaNet`, or None. masks: whether there is a mask head.
        classes: rows of the classifier, the background included in a detector; None without one, and of a RetinaNet.
        values: numbers in all blobs that are neither momentum nor unused.
        momentum: how many blobs have a momentum blob beside them.
        iteration: index of the last training iteration done, from 0; None if unknown.
        config: the configuration's main keys as the file writes them; None if it has no configuration.
        not_finite: names of the blobs that hold NaN or infinity.
        unused: blobs that the network of the file's configuration, or else of its names, does not use.
        left_out: what the file holds beside arrays, and why it is not read.
        class_names, category_ids: of classes 1, 2, ...; None where they are not known.
        sha256: of the whole file, which tells whether a copy is the same to the byte; None where nobody asked for it.
    """

    source: str
    container: str
    bytes: int
    family: str
    norm: str | None
    depth: int | None
    body: str | None
    neck: str | None
    box_head: str | None
    masks: bool
    classes: int | None
    values: int
    momentum: int
    iteration: int | None
    config: dict[str, str] | None
    not_finite: tuple[str, ...]
    unused: tuple[str, ...]
    left_out: dict[str, str]
    blobs: tuple[BlobSummary, ...]
    class_names: tuple[str, ...] | None = None
    category_ids: tuple[int, ...] | None = None
    sha256: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, for `--json`."""
        return asdict(self)

    def __str__(self) -> str:
        head = [f"{one_line(self.source)}: {self.title()}"]
        types = listed(list(dict.fromkeys(blob.dtype for blob in self.blobs)))
        size = f"  {self.container}, {self.bytes:,} bytes, {len(self.blobs)} blobs, {self.values:,} values"
        head.append(f"{size}, {types}" if types else size)
        if self.sha256 is not None:
            head.append(f"  sha256: {self.sha256}")
        layout = layout_of([blob.name for blob in self.blobs]) if self.family == "unknown" else None
        if layout is not None:
            head.append(f"  parameter names: those of {layout.project}")
        if self.class_names is not None:
            named = zip(self.class_names, self.category_ids or (), strict=True)
            head.append(f"  classes: {listed([f'{printable(name)} ({id})' for name, id in named], most=100)}")
        elif self.classes and self.family != "ImageNet backbone":
            head.append("  classes: not known by name")
        head.append(f"  momentum: {f'for {self.momentum} blobs' if self.momentum else 'none'}")
        head.append(f"  iteration: {self._iteration()}")
        if self.config is None:
            head.append("  config: none in the file")
        else:
            head.append("  config:")
            head += [f"    {key}: {one_line(value)}" for key, value in self.config.items()]
        head.append(f"  NaN or infinity: {one_line(', '.join(self.not_finite)) or 'none'}")
        if self.unused:
            preserved = one_line(f"{len(self.unused)} blobs ({listed(self.unused)})")
            head.append(f"  preserved, not used by the network: {preserved}")
        head += [one_line(f"  left out: {name} {reason}") for name, reason in self.left_out.items()]
        return "\n".join([head[0], *(folded(line, "    ") for line in head[1:]), "", self._part_table()])

    def _iteration(self) -> str:
        if self.iteration is not None:
            return str(self.iteration)
        return "unknown: a pickle tells it by its name, model_iterN.pkl" if self.container == "pkl" else "unknown"

    def _part_table(self) -> str:
        """Each part of the network with its blobs, their values, and the largest of these."""
        parts: dict[str, list[BlobSummary]] = {}
        for blob in self.blobs:
            parts.setdefault("not used" if blob.name in self.unused else part_of(blob.name), []).append(blob)
        ordered = [(part, parts[part]) for part in (*ORDER, "not used") if part in parts]
        rows = [_part_row(part, blobs) for part, blobs in [*ordered, ("all", list(self.blobs))]]
        return text_table(["part", "blobs", "values", "largest"], rows)

    def blob_table(self) -> str:
        """Name, shape and spread of every blob, in the order of the network, the type too where not all have the same.

        --json has the rest, in the order of the file.
        """
        types = {blob.dtype for blob in self.blobs}
        rows = [["blob", "shape", "type", "std", "largest"]]
        for blob in sorted(self.blobs, key=lambda blob: by_part(blob.name)):
            std, most = ("-" if number is None else f"{number:.2g}" for number in (blob.std, blob.largest))
            shape = "x".join(map(str, blob.shape)) or "-"
            rows.append([one_line(blob.name), shape, _SHORT.get(blob.dtype, blob.dtype), std, most])
        if len(types) < 2:
            rows = [[*row[:2], *row[3:]] for row in rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)

    def title(self) -> str:
        """The file in a few words: `training checkpoint, R-50 FPN, GN, 4conv1fc box head, masks, 81 classes`."""
        words = [self.family]
        backbone = " ".join(word for word in (self.body, self.neck) if word)
        words += [word for word in (backbone, self.norm) if word]
        words += [f"{self.box_head} box head"] if self.box_head else []
        words += ["masks"] if self.masks else []
        words += [f"{self.classes} classes"] if self.classes else []
        return ", ".join(words)


def describe(path: str | os.PathLike[str]) -> Summary:
    """Read a weights file and say what it is; raises what `read_blobs` raises."""
    return summarise(read_blobs(path), os.path.getsize(path), sha256=file_digest(Path(path)))


def summarise(
    weights: WeightsFile,
    size: int,
    unused: Sequence[str] | None = None,
    categories: Categories | None = None,
    sha256: str | None = None,
) -> Summary:
    """Say what `weights`, read from a file of `size` bytes, are.

    Args:
        unused: blobs that the network does not use; where it is left out, a detector's ImageNet classifier.
        categories: of its classes, as `port.classes.known_categories` finds them.
        sha256: of the file.
    """
    blobs, family = weights.blobs, family_of(weights.blobs)
    rows = tuple(_statistics(name, array) for name, array in blobs.items())
    kinds = {"backbone": "ImageNet backbone", "unknown": "unknown"}
    of_detector = "training checkpoint" if family.momenta else "detector"
    if unused is None:
        unused = [name for name in blobs if name in CLASSIFIER_BLOBS and family.is_detector]
    aside = frozenset(unused)
    return Summary(
        source=weights.source,
        container=weights.format,
        bytes=size,
        family=kinds.get(family.kind, of_detector),
        norm=" and ".join(family.norms) or None,
        depth=family.depth,
        body=family.body if family.depth else None,
        neck=family.neck,
        box_head=family.box_head,
        masks=family.masks,
        classes=family.classes,
        values=sum(a.size for n, a in blobs.items() if not n.endswith(MOMENTUM) and n not in aside),
        momentum=family.momenta,
        iteration=weights.iteration,
        config=None if weights.cfg is None else config_summary(weights.cfg),
        not_finite=tuple(row.name for row in rows if row.nan or row.inf),
        unused=tuple(unused),
        left_out=weights.left_out,
        blobs=rows,
        class_names=None if categories is None else categories.names,
        category_ids=None if categories is None else categories.ids,
        sha256=sha256,
    )


def config_summary(text: str, keys: Sequence[str] = _CONFIG_KEYS) -> dict[str, str]:
    """The values of some keys of a configuration, by default its main ones, as written.

    The YAML is parsed to nodes only: no tag is acted upon.
    """
    try:
        root = yaml_nodes(text, "the text")
    except InputError as error:
        return {"not readable": str(error)}
    found = {}
    for key in keys:
        node: yaml.Node | None = root
        for part in key.split("."):
            node = _child(node, part)
        if isinstance(node, yaml.ScalarNode):
            found[key] = node.value[:200]
        elif isinstance(node, yaml.SequenceNode):
            found[key] = ", ".join(item.value[:200] for item in node.value[:9] if isinstance(item, yaml.ScalarNode))
    return found or {"not readable": "none of a Detectron configuration's main keys is in it"}


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    """The value of `key` in a mapping; Detectron's AttrDict keeps its items under `dictitems`."""
    items = _items(node)
    return items[key] if key in items else _items(items.get("dictitems")).get(key)


def _items(node: yaml.Node | None) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {name.value: value for name, value in node.value if isinstance(name, yaml.ScalarNode)}


def _part_row(part: str, blobs: Sequence[BlobSummary]) -> list[str]:
    largest = max((blob.largest for blob in blobs if blob.largest is not None), default=None)
    values = sum(math.prod(blob.shape) for blob in blobs)
    return [part, str(len(blobs)), f"{values:,}", "-" if largest is None else f"{largest:.2g}"]


def _statistics(name: str, array: Array) -> BlobSummary:
    shape, dtype = array.shape, array.dtype.name
    nan = inf = 0
    if array.dtype.kind == "f":
        finite = np.isfinite(array)
        if not finite.all():
            nan = int(np.isnan(array).sum())
            inf = int(array.size - finite.sum()) - nan
            array = array[finite]
    if not array.size:
        return BlobSummary(name, shape, dtype, None, None, None, None, nan, inf)
    mean = float(array.mean(dtype=np.float64))
    # In pieces, so that a large blob is not held a second time in float64.
    parts = np.array_split(array.reshape(-1), max(1, array.size >> 20))
    std = math.sqrt(sum(float(np.square(part.astype(np.float64) - mean).sum()) for part in parts) / array.size)
    return BlobSummary(name, shape, dtype, mean, std, float(array.min()), float(array.max()), nan, inf)
