"""PyTorch's parameter names instead of Detectron's blob names: ours are translated, other projects' are named."""

import re
from collections.abc import Collection
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
    # First, as maskrcnn-benchmark's and detectron2's models share the names of its other parts.
    Layout("torchvision's detectors", re.compile(r"backbone\.fpn\.(inner|layer|extra)_blocks\."), _FROM_DETECTRON),
    Layout("Detectron.pytorch", re.compile(r"(Conv_Body|Box_Head|Mask_Head|RPN)\."), _FROM_DETECTRON),
    Layout(
        "maskrcnn-benchmark",
        re.compile(r"(backbone\.body\.(stem|layer\d)\.|rpn\.head\.|roi_heads\.(box|mask)\.)"),
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
        re.compile(r"(body\.)?layer[1-4]\.\d+\.(conv\d|bn\d|downsample)\."),
        "give Detectron's own ImageNet file, such as R-50-GN",
    ),
)
# What trainers put around a network: DataParallel, torch.compile, Lightning and the like; torch.compile inside it, too.
_WRAPPERS = re.compile(r"((module|_orig_mod|model|net|network)\.)*")
_COMPILED = "_orig_mod."
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
    own = own_names(names)
    if own is None:
        return weights
    rows = table.by_parameter
    strange = sorted(name for name, ours in own.items() if ours not in rows)
    if strange:
        raise InputError(
            f"{weights.source} is a state_dict of another network of this project than the configuration's (it has "
            f"{strange[0]}): pass --config with the YAML it was trained with"
        )
    return replace(weights, blobs={rows[own[name]].blob: array for name, array in weights.blobs.items()})


def own_names(names: Collection[str]) -> dict[str, str] | None:
    """The names of a `state_dict` of ours without what trainers wrap around a network; None where they are not ours."""
    bare = _unwrapped(names)
    return bare if any(_OWN.fullmatch(name) for name in bare.values()) else None


def _unwrapped(names: Collection[str]) -> dict[str, str]:
    """Names without the wrappers that all of them begin with; as they are where two would become one."""
    first = next(iter(names), "")
    prefix = _WRAPPERS.match(first)[0]  # type: ignore[index]
    while prefix and not all(name.startswith(prefix) for name in names):
        prefix = prefix[:-1].rpartition(".")[0]
        prefix += "." * bool(prefix)
    bare = {name: name.removeprefix(prefix).replace(_COMPILED, "") for name in names}
    return bare if len(set(bare.values())) == len(bare) else {name: name for name in names}


def layout_of(names: Collection[str]) -> Layout | None:
    """Whose names they are, of the projects that are known; None for Detectron's, ours and unknown ones."""
    bare = _unwrapped(names).values()
    return next((layout for layout in _LAYOUTS if any(layout.name.match(name) for name in bare)), None)


def told_layout(source: str, layout: Layout) -> str:
    """What is said of a file with another project's parameter names."""
    return f"{source} has the parameter names of {layout.project}: {layout.way_out}"


def is_own_state_dict(names: Collection[str]) -> bool:
    """Whether the names are those of a `state_dict` of this project's networks."""
    return layout_of(names) is None and own_names(names) is not None
