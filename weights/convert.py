"""Turns one weights file into another: any format of `formats.FORMATS` into any other."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from detectron_gn.weights.files.mapped_file import MappedFile
from detectron_gn.weights.formats import format_of_name, read_mapped, write_blobs
from detectron_gn.weights.weights_file import WeightsFile, iteration_from_name


@dataclass(frozen=True)
class Conversion:
    """What `convert` wrote, where, and in words what the new format cannot keep.

    The arrays are views of the file that was read: look at them, do not train them.
    """

    weights: WeightsFile
    out: Path
    not_kept: tuple[str, ...]


def convert(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    named: Callable[[WeightsFile], WeightsFile] = lambda weights: weights,
) -> Conversion:
    """Read `path` and write the same blobs, configuration and iteration to `out`.

    Args:
        named: gives the weights that are to be written, under other names perhaps.

    Raises what `read_blobs` and `write_blobs` raise; an unknown suffix before anything is read.
    """
    out = Path(out)
    format_of_name(out)
    with MappedFile(path, keep_mapped=True) as file:
        weights = named(read_mapped(file))
    write_blobs(out, weights)
    not_kept = [f"{name} {reason}" for name, reason in weights.left_out.items()]
    if out.suffix == ".pkl" and weights.iteration is not None and weights.iteration != iteration_from_name(out.name):
        not_kept.append(
            f"the iteration {weights.iteration}: a Detectron pickle tells it by its name only; call it "
            f"model_iter{weights.iteration}.pkl where training is to go on at {weights.iteration + 1}"
        )
    return Conversion(weights, out, tuple(not_kept))
