"""What network a configuration asks for, told without any weights: its family, its parts and its blobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from detectron_gn.mrcnn.config import Config, model_family
from detectron_gn.mrcnn.tables import text_table
from detectron_gn.port.blobs.table import BlobRow, BlobTable


@dataclass(frozen=True)
class Architecture:
    """A network as its configuration describes it.

    Attributes:
        source: what the configuration is called.
        family: `Mask R-CNN`, `Faster R-CNN`, ..., as in the catalog.
        classes: the background included.
        blobs: in the order in which Detectron creates and saves them.
    """

    source: str
    family: str
    classes: int
    blobs: tuple[BlobRow, ...]

    @property
    def parts(self) -> dict[str, tuple[int, int]]:
        """The parts of the network, each with its number of blobs and of values."""
        parts: dict[str, tuple[int, int]] = {}
        for row in self.blobs:
            part = row.parameter.partition(".")[0]
            blobs, values = parts.get(part, (0, 0))
            parts[part] = (blobs + 1, values + torch.Size(row.shape).numel())
        return parts

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for `--json`."""
        return {
            "source": self.source,
            "family": self.family,
            "classes": self.classes,
            "parts": [{"name": name, "blobs": blobs, "values": n} for name, (blobs, n) in self.parts.items()],
            "blobs": [{"name": row.blob, "shape": list(row.shape), "kind": row.kind} for row in self.blobs],
        }

    def __str__(self) -> str:
        parts = [[name, str(blobs), f"{values:,}"] for name, (blobs, values) in self.parts.items()]
        total = sum(values for _, values in self.parts.values())
        parts.append(["all", str(len(self.blobs)), f"{total:,}"])
        head = f"{self.source}: {self.family}, {self.classes} classes with the background"
        return f"{head}\n\n{text_table(['part', 'blobs', 'values'], parts)}"

    def blob_table(self) -> str:
        """Name, shape and kind of every blob."""
        blobs = [[row.blob, "x".join(map(str, row.shape)), row.kind] for row in self.blobs]
        return text_table(["blob", "shape", "kind"], blobs, left=3)


def describe_config(cfg: Config, source: str) -> Architecture:
    """The network of a configuration, built without giving it any memory; raises what `build_detector` raises."""
    return Architecture(source, model_family(cfg), cfg.MODEL.NUM_CLASSES, BlobTable.from_config(cfg).rows)
