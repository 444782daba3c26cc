"""Detectron's 87 configurations: which of them the networks here can be built from."""

import re

_NOT_BUILT = re.compile("-C4_|keypoint|rpn_|/fast_rcnn|/mask_rcnn")


def is_built(name: str) -> bool:
    """Whether a configuration's network can be built; the others are refused by a key."""
    return _NOT_BUILT.search(name) is None
