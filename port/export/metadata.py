"""What an exported file says of itself."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from detectron_gn.mrcnn.config import Config, padding_stride
from detectron_gn.mrcnn.data.categories import numbered
from detectron_gn.mrcnn.detectors import Detector, ProposalNetwork
from detectron_gn.mrcnn.wording import listed, printable
from detectron_gn.port.classes import UNNAMED
from detectron_gn.port.config.yaml_dumper import dump_config
from detectron_gn.weights.files.digest import file_digest

InputForm = Literal["image", "blob"]

LICENCE = (
    "The weights keep the licence of the file they come from. The models that Detectron published belong to their "
    "authors, under CC BY-SA 3.0; images of COCO are under terms of their own."
)


def metadata_of(model: Detector, form: InputForm, facts: Mapping[str, str]) -> dict[str, str]:
    """What an exported file says of itself, every value a text.

    `class_names` is a JSON list, the background first, and `category_ids`, where they are known, the data set's own id
    of each: class k is `category_ids[k]`, and the background null. `config` is a YAML that --config takes,
    `preprocessing` what a caller of the `blob` form does to a picture, as JSON, and `mask_threshold` what a soft mask
    must exceed once it is pasted; the rest is text.
    """
    known = {} if model.categories is None else {"category_ids": json.dumps([None, *model.categories.ids])}
    return {
        "class_names": json.dumps(list(class_names_of(model))),
        **known,
        "config": dump_config(model.cfg),
        "detectron_gn_version": version("detectron-gn"),
        "input": form,
        "licence": LICENCE,
        "mask_threshold": str(model.cfg.MRCNN.THRESH_BINARIZE),
        "preprocessing": json.dumps(_preprocessing(model.cfg)),
        **facts,
    }


def _preprocessing(cfg: Config) -> dict[str, object]:
    """Numbers of `mrcnn.data.image_blob`: docs/export.md tells what is done with them."""
    return {
        "channels": "BGR",
        "pixel_means": list(cfg.PIXEL_MEANS),
        "scale": cfg.TEST.SCALE,
        "max_size": cfg.TEST.MAX_SIZE,
        "multiple": padding_stride(cfg),
    }


def class_names_of(model: Detector) -> tuple[str, ...]:
    """Names of all classes, the background first."""
    if isinstance(model, ProposalNetwork):
        return ("background", "proposal")
    return (model.categories or numbered(model.cfg.MODEL.NUM_CLASSES - 1)).classes


def told_classes(model: Detector) -> str:
    """What a file keeps of a model's classes, in a sentence for its maker."""
    if isinstance(model, ProposalNetwork):
        return "an RPN has no classes: the metadata call what it finds 'proposal'"
    known = model.categories
    if known is None:
        return f"{UNNAMED} to name them; as it is, the metadata call them so, and hold no category ids"
    names = listed([printable(name) for name in known.names])
    return f"the metadata hold the names and the category ids of {len(known.names)} classes: {names}"


def source_facts(source: Path) -> dict[str, str]:
    """The name and the sha256 of the file that weights come from, for metadata."""
    return {"source": source.name, "source_sha256": file_digest(source)}
