"""Which part of a network a blob belongs to, told by its name: parameters and activations alike."""

from __future__ import annotations

import re

MOMENTA, OTHERS = "momentum", "other blobs"

# In the order of the network: the first rule that fits counts. The last stage of a C4 body, which runs in the heads, is
# counted as body: its names are the same.
_RULES = {
    "input": r"(data|im_info)$",
    "mask head": r".*mask",
    "keypoint head": r"_\[pose\]|kps_|.*keypoint|conv_fcn",
    "RetinaNet head": r"retnet_",
    "RPN": r"conv_rpn|rpn_",
    "pyramid": r"fpn_",
    "box head": r"fc[67]|head_conv|cls_(score|prob)|bbox_pred|_?roi|_concat_roi|boxes$|scores$|pool5",
    "body": r"conv\d|_?res|pool\d|norm\d",
}
ORDER = ("input", "body", "pyramid", "RPN", "RetinaNet head", "box head", "mask head", "keypoint head", OTHERS, MOMENTA)
"""The parts, in the order of the network."""


def part_of(blob: str) -> str:
    """The part of a blob: one of `ORDER`."""
    if blob.endswith("_momentum"):
        return MOMENTA
    return next((part for part, rule in _RULES.items() if re.match(rule, blob)), OTHERS)


def by_part(blob: str) -> tuple[int, list[tuple[int, str]]]:
    """A key that sorts blobs: part by part, and in a part by name, with numbers by their value."""
    pieces = [(-1, piece) if place % 2 == 0 else _number(piece) for place, piece in enumerate(re.split(r"(\d+)", blob))]
    return ORDER.index(part_of(blob)), pieces


def _number(digits: str) -> tuple[int, str]:
    """Sorts as the number does, however many digits it has."""
    significant = digits.lstrip("0")
    return len(significant), significant
