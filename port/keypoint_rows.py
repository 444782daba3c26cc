"""The keypoint head of a weights file, fitted to the keypoints that are to be trained."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.layers import FilledDeconv2d
from detectron_gn.mrcnn.ops.keypoints import KEYPOINT_NAMES
from detectron_gn.mrcnn.wording import listed, printable
from detectron_gn.port.blobs.family import MOMENTUM
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.weights.categories import keypoints_of
from detectron_gn.weights.weights_file import Array, WeightsFile

_SCORE, _UPSAMPLING = "keypoint_head.score.", "keypoint_head.upsample."


class KeypointRows(NamedTuple):
    """What became of a keypoint head of other keypoints.

    Attributes:
        source_count: how many keypoints the file has.
        blobs: those that hang on their number and are trained.
        names: the keypoints whose rows were taken over; the rows of the others are freshly initialised.
        is_reordered: whether these are all, of the file and of the network.
        is_whole: whether these are all of the network, so that no row is freshly initialised.
        fixed: blobs that hang on their number and are not trained: made anew, as Detectron makes them.
    """

    source_count: int
    blobs: tuple[str, ...]
    names: tuple[str, ...]
    is_reordered: bool = False
    is_whole: bool = False
    fixed: tuple[str, ...] = ()

    def report(self) -> str:
        """A line that says it."""
        blobs = ", ".join(self.blobs)
        if self.is_reordered:
            return f"the file has the same keypoints in another order: the rows of {blobs} are put into this one"
        if not self.names:
            return f"the file has {self.source_count} keypoints, none of them of these names: initialised are {blobs}"
        told = listed([printable(name) for name in self.names], most=12)
        others = "" if self.is_whole else "; the others begin at random"
        return f"the file has {self.source_count} keypoints; partly copied, the rows of {told}{others}: {blobs}"


def fit_keypoints(
    model: Detector, table: BlobTable, weights: WeightsFile, names: Sequence[str] | None
) -> tuple[WeightsFile, KeypointRows | None]:
    """The weights with the rows of the keypoint head brought to the network's keypoints, and what was taken.

    Args:
        names: of the network's keypoints; None for unknown ones.

    Rows are taken by name. A file may name its keypoints; 17 without names are those of COCO's person; of unknown
    names no row is taken. None, and the weights as they are, where both have as many, and not other names, or where one
    has no such head. Momentum of the rows is left out.
    Raises InputError where more than the number of keypoints differs.
    """
    rows = {row.blob: row for row in table.rows if row.parameter.startswith((_SCORE, _UPSAMPLING))}
    bias = next((blob for blob, row in rows.items() if row.parameter == f"{_SCORE}bias"), None)
    if bias is None or bias not in weights.blobs:
        return weights, None
    count = weights.blobs[bias].size
    source_names = keypoints_of(weights.categories or ())
    if len(source_names) != count:
        source_names = KEYPOINT_NAMES if count == len(KEYPOINT_NAMES) else ()
    is_alike = not source_names or not names or tuple(names) == source_names
    if weights.blobs[bias].shape == rows[bias].shape and is_alike:
        return weights, None
    taken = [(place, source_names.index(name)) for place, name in enumerate(names or ()) if name in source_names]
    # A deconvolution's kernels lie [channels, keypoints, height, width].
    is_transposed = isinstance(model.get_submodule(_SCORE.rstrip(".")), FilledDeconv2d)
    blobs, parameters = dict(weights.blobs), dict(model.named_parameters())
    for blob, row in rows.items():
        fresh = parameters[row.parameter].detach().cpu().numpy()
        blobs.pop(blob + MOMENTUM, None)
        if row.parameter.startswith(_UPSAMPLING):
            blobs[blob] = fresh
            continue
        axis = int(is_transposed and row.parameter.endswith("weight"))
        blobs[blob] = _with_rows(weights, blob, fresh, axis, count, taken)
    trained = tuple(blob for blob, row in rows.items() if row.parameter.startswith(_SCORE))
    taken_names = tuple(source_names[source] for _, source in taken)
    is_whole = len(taken) == len(names or ())
    fixed = tuple(blob for blob, row in rows.items() if row.parameter.startswith(_UPSAMPLING))
    found = KeypointRows(count, trained, taken_names, is_whole and len(taken) == count, is_whole, fixed)
    return replace(weights, blobs=blobs), found


def _with_rows(
    weights: WeightsFile, blob: str, fresh: Array, axis: int, count: int, taken: Sequence[tuple[int, int]]
) -> Array:
    """A blob with the rows along an axis that are taken, in their new places, among fresh ones."""
    there = weights.blobs.get(blob)
    expected = (*fresh.shape[:axis], count, *fresh.shape[axis + 1 :])
    if there is None or there.shape != expected:
        found = "missing" if there is None else f"{list(there.shape)}"
        raise InputError(
            f"{blob} is {found} in {weights.source}, but the configuration makes it {list(expected)} for {count} "
            "keypoints: only the number of keypoints may differ"
        )
    result: Array = fresh.copy()
    for place, source in taken:
        np.moveaxis(result, axis, 0)[place] = np.moveaxis(there, axis, 0)[source]
    return result
