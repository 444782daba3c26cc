"""Which weights a reference was recorded with: a digest of every parameter, which dump_blobs.py writes.

The attribute `weights_sha256` of the file holds lines `NAME SHA256`, of the parameter's values as float32 in C order,
lowest byte first. References of before it was written have none.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.wording import listed
from detectron_gn.verify.reference.image_dump import opened_reference

ATTRIBUTE = "weights_sha256"


def recorded_digests(path: Path) -> dict[str, str]:
    """The digest of each parameter by its blob's name; none where the reference does not tell.

    Raises InputError for an attribute that holds anything else.
    """
    with opened_reference(path) as file:
        told = file.attribute(ATTRIBUTE)
        lines = [] if told is None else np.asarray(told).reshape(-1).tolist()
        texts = [line.decode("utf-8", "replace") if isinstance(line, bytes) else line for line in lines]
        if not all(isinstance(text, str) and re.fullmatch(r"\S+ [0-9a-f]{64}", text) for text in texts):
            file.refuse(f"attribute {ATTRIBUTE}", "holds other lines than NAME SHA256")
    pairs = (text.split(" ", 1) for text in texts)
    return dict(pairs)


def digest_of(array: npt.NDArray[Any]) -> str:
    """The digest of a parameter."""
    return hashlib.sha256(np.ascontiguousarray(array, "<f4").tobytes()).hexdigest()


class ComparedWeights(NamedTuple):
    """The parameters of a network beside those that a reference was recorded with.

    Attributes:
        parameters: how many the network has.
        compared: those of which the reference tells the digest.
        others: the blobs of those that are not the same.
    """

    parameters: int
    compared: int
    others: tuple[str, ...]

    @property
    def told(self) -> str:
        """Half a sentence about it."""
        if not self.compared:
            return (
                "the weights themselves were not compared: the reference has no digests of them, which this version's "
                "dump_blobs.py records"
            )
        left = self.parameters - self.compared
        rest = f"; {left} have no digest in it and were not compared" if left else ""
        if self.others:
            found = f"{len(self.others)} of {self.parameters} parameters are not the reference's: {listed(self.others)}"
        elif left:
            found = f"{self.compared} of {self.parameters} parameters are the reference's, to the bit"
        else:
            found = f"all {self.parameters} parameters are the reference's, to the bit"
        return f"{found}{rest}"

    @property
    def not_compared(self) -> str:
        """What was not compared, in words for a list; empty where every parameter was."""
        if not self.compared:
            return "the weights themselves (no digests)"
        left = self.parameters - self.compared
        return f"{left} of {self.parameters} parameters (no digests)" if left else ""


def compare_weights(path: Path, blobs: Mapping[str, npt.NDArray[Any]]) -> ComparedWeights:
    """Compare the parameters of a network, by their blobs' names, with what a reference tells of its own."""
    both = {name: digest for name, digest in recorded_digests(path).items() if name in blobs}
    others = tuple(name for name, digest in both.items() if digest_of(blobs[name]) != digest)
    return ComparedWeights(len(blobs), len(both), others)
