"""What an exported file says of itself."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from detectron_gn.mrcnn.data.categories import numbered
from detectron_gn.mrcnn.detectors import Detector, ProposalNetwork
from detectron_gn.port.config.yaml_dumper import dump_config
from detectron_gn.weights.files.digest import file_digest

InputForm = Literal["image", "blob"]

LICENCE = (
    "The weights keep the licence of the file they come from. The models that Detectron published belong to their "
    "authors, under CC BY-SA 3.0; images of COCO are under terms of their own."
)


def metadata_of(model: Detector, form: InputForm, facts: Mapping[str, str]) -> dict[str, str]:
    """What an exported file says of itself.

    `class_names` is a JSON list, the background first, `config` a YAML that --config takes; the rest is text.
    """
    return {
        "class_names": json.dumps(list(class_names_of(model))),
        "config": dump_config(model.cfg),
        "detectron_gn_version": version("detectron-gn"),
        "input": form,
        "licence": LICENCE,
        **facts,
    }


def class_names_of(model: Detector) -> tuple[str, ...]:
    """Names of all classes, the background first."""
    if isinstance(model, ProposalNetwork):
        return ("background", "proposal")
    return (model.categories or numbered(model.cfg.MODEL.NUM_CLASSES - 1)).classes


def source_facts(source: Path) -> dict[str, str]:
    """The name and the sha256 of the file that weights come from, for metadata."""
    return {"source": source.name, "source_sha256": file_digest(source)}
