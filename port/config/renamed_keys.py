"""Keys that Detectron once had: what they are called today, and which were dropped (Detectron core/config.py)."""

import re
from collections.abc import Callable
from typing import NamedTuple

# Detectron ignores these with a warning (_DEPRECATED_KEYS).
DROPPED_KEYS = frozenset({
    "FINAL_MSG",
    "MODEL.DILATION",
    "ROOT_GPU_ID",
    "RPN.ON",
    "TEST.NUM_TEST_IMAGES",
    "TRAIN.BBOX_NORMALIZE_TARGETS_PRECOMPUTED",
    "TRAIN.DROPOUT",
    "USE_GPU_NMS",
})


class NewKey(NamedTuple):
    """What a renamed key is called today, how its value changed, and the sentence about it for whoever must edit it."""

    key: str
    value: Callable[[object], object]
    advice: str = ""


def _same(value: object) -> object:
    return value


def _names(value: object) -> object:
    """`a:b` to `(a, b)`; the colon of a URL does not separate."""
    return tuple(re.split(r":(?!//)", value)) if isinstance(value, str) else value


def _single(value: object) -> object:
    """`(600,)` to `600`."""
    return value[0] if isinstance(value, (tuple, list)) and len(value) == 1 else value


# Detectron refuses these with the new name (_RENAMED_KEYS).
RENAMED_KEYS: dict[str, NewKey] = {
    "MODEL.PS_GRID_SIZE": NewKey("RFCN.PS_GRID_SIZE", _same),
    "MODEL.ROI_HEAD": NewKey("FAST_RCNN.ROI_BOX_HEAD", _same),
    "MRCNN.MASK_HEAD_NAME": NewKey("MRCNN.ROI_MASK_HEAD", _same),
    "TRAIN.DATASET": NewKey("TRAIN.DATASETS", _names, " as a list of names"),
    "TRAIN.PROPOSAL_FILE": NewKey("TRAIN.PROPOSAL_FILES", _names, " as a list of files"),
    "TEST.SCALES": NewKey("TEST.SCALE", _single, " as a single number"),
    "TEST.DATASET": NewKey("TEST.DATASETS", _names, " as a list of names"),
    "TEST.PROPOSAL_FILE": NewKey("TEST.PROPOSAL_FILES", _names, " as a list of files"),
}
