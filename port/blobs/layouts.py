"""PyTorch's parameter names instead of Detectron's blob names: ours are translated, other projects' are named."""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.weights.weights_file import WeightsFile


class Layout(NamedTuple):
    """Whose parameter names they are: a name that it alone has, and what to do with such a file."""

    project: str
    name: re.Pattern[str]
    way_out: str


_FROM_DETECTRON = "give the Detectron .pkl that it was converted from; models trained there cannot be taken over"
_LAYOUTS = (
    Layout("Detectron.pytorch", re.compile(r"(module\.)?(Conv_Body|Box_Head|Mask_Head|RPN)\."), _FROM_DETECTRON),
    Layout(
        "maskrcnn-benchmark",
        re.compile(r"(module\.)?(backbone\.body\.(stem|layer\d)\.|rpn\.head\.|roi_heads\.(box|mask)\.)"),
        _FROM_DETECTRON,
    ),
    Layout(
        "detectron2",
        re.compile(r"(backbone\.(bottom_up|fpn_)|proposal_generator\.|roi_heads\.(box_head|box_predictor|mask_head)\.)"),
        _FROM_DETECTRON,
    ),
    Layout("mmdetection", re.compile(r"(neck\.|rpn_head\.|roi_head\.|bbox_head\.)"), _FROM_DETECTRON),
    Layout(
        "detectron2's backbones",
        re.compile(r"(stem\.conv1|res[2-5]\.\d+\.(conv\d|shortcut))\."),
        "give Detectron's own ImageNet file, such as R-50-GN",
    ),
    Layout(
        "torchvision's or timm's backbones",
        re.compile(r"(module\.)?(body\.)?layer[1-4]\.\d+\.(conv\d|bn\d|downsample)\."),
        "give Detectron's own ImageNet file, such as R-50-GN",
    ),
)
_OWN = re.compile(r"(backbone|rpn|box_head|mask_head)\.[\w.]+\.(weight|bias)")


def with_blob_names(table: BlobTable, weights: WeightsFile) -> WeightsFile:
    """The weights under Detectron's names: as they are, or those of a `state_dict` of this project translated.

    Raises InputError where the names are another project's, naming it, and where a `state_dict` of this project is of
    another network than the table's.
    """
    names = weights.blobs.keys()
    if any(name in names for row in table.rows for name in (row.blob, row.blob.partition("]_")[2])):
        return weights
    layout = layout_of(names)
    if layout is not None:
        raise InputError(told_layout(weights.source, layout))
    prefix = "module." if names and all(name.startswith("module.") for name in names) else ""
    own = {name.removeprefix(prefix) for name in names}
    if not any(_OWN.fullmatch(name) for name in own):
        return weights
    rows = table.by_parameter
    strange = sorted(own - rows.keys())
    if strange:
        raise InputError(
            f"{weights.source} is a state_dict of another network of this project than the configuration's (it has "
            f"{strange[0]}): pass --config with the YAML it was trained with"
        )
    return replace(
        weights, blobs={rows[name.removeprefix(prefix)].blob: array for name, array in weights.blobs.items()}
    )


def layout_of(names: Iterable[str]) -> Layout | None:
    """Whose names they are, of the projects that are known; None for Detectron's, ours and unknown ones."""
    names = list(names)
    return next((layout for layout in _LAYOUTS if any(layout.name.match(name) for name in names)), None)


def told_layout(source: str, layout: Layout) -> str:
    """What is said of a file with another project's parameter names."""
    return f"{source} has the parameter names of {layout.project}: {layout.way_out}"


def is_own_state_dict(names: Iterable[str]) -> bool:
    """Whether the names are those of a `state_dict` of this project's networks."""
    names = list(names)
    return layout_of(names) is None and any(_OWN.fullmatch(name.removeprefix("module.")) for name in names)
