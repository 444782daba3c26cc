"""Which blob of a file is which parameter of a network; answers to Detectron utils/net.py."""

from dataclasses import dataclass

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.blobs.family import MOMENTUM
from detectron_gn.port.blobs.leftovers import Leftovers, sort_leftovers
from detectron_gn.port.blobs.table import BlobRow, BlobTable
from detectron_gn.weights.weights_file import Array, WeightsFile


@dataclass(frozen=True)
class BlobMatch:
    """How the blobs of a file meet the parameters of a network.

    Attributes:
        filled: parameter name -> its array, of the parameter's shape.
        momentum: parameter name -> its momentum, of the parameter's shape.
        missing: parameters that the file has no blob for.
        leftovers: blobs that no parameter takes.
    """

    filled: dict[str, Array]
    momentum: dict[str, Array]
    missing: tuple[BlobRow, ...]
    leftovers: Leftovers


class WrongShape(InputError):
    """A blob has another shape than the configuration makes it.

    Attributes:
        found: that, without what to do about it, which hangs on what else is in the file.
    """

    def __init__(self, found: str) -> None:
        super().__init__(f"{found}: pass --config with the YAML it was trained with")
        self.found = found


def match_blobs(table: BlobTable, weights: WeightsFile) -> BlobMatch:
    """Pair the blobs of a file with the rows of the dictionary, shapes checked before anything is assigned.

    A row whose name holds `]_` may take the blob named by the part after it
    (Detectron utils/net.py:initialize_gpu_from_weights_file). Raises InputError for a blob of another shape, also
    where numpy would broadcast it.
    """
    sources = {row.blob: _source_blob(row.blob, weights.blobs) for row in table.rows}
    used = set(sources.values())
    filled, momentum = {}, {}
    for row in table.rows:
        if sources[row.blob] in weights.blobs:
            filled[row.parameter] = _checked(weights, sources[row.blob], row)
        if row.blob + MOMENTUM in weights.blobs:
            momentum[row.parameter] = _checked(weights, row.blob + MOMENTUM, row)
            used.add(row.blob + MOMENTUM)
    leftovers = sort_leftovers(weights.blobs.keys(), used, (blob for blob in weights.blobs if blob not in used))
    missing = tuple(row for row in table.rows if row.parameter not in filled)
    return BlobMatch(filled, momentum, missing, leftovers)


def _source_blob(blob: str, blobs: dict[str, Array]) -> str:
    """The blob a row takes: its own name, or the part after `]_` where only that is in the file."""
    _, bracket, rest = blob.partition("]_")
    return rest if blob not in blobs and bracket and rest in blobs else blob


def _checked(weights: WeightsFile, blob: str, row: BlobRow) -> Array:
    """The array of a blob, if it has the shape of its row."""
    array = weights.blobs[blob]
    if array.shape != row.shape:
        raise WrongShape(
            f"{blob} is {list(array.shape)} in {weights.source}, but the configuration makes it {list(row.shape)}"
        )
    return array
