"""Random weights by the recipe that the reference runs used, so that no weights file needs to be stored.

Each blob is drawn from a generator seeded with its name: see the table in `recipe_blob`.
"""

import json
import zlib
from collections.abc import Mapping

import h5py
import numpy as np

from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.weights.weights_file import WeightsFile

GAINS = {"cls_score_w": 3.0, "rpn_cls_logits_fpn2_w": 2.0, "rpn_bbox_pred_fpn2_w": 0.2}


def recipe_blob(
    name: str,
    shape: tuple[int, ...],
    seed: int,
    gains: Mapping[str, float] = GAINS,
    offset: float | list[float] = 0.0,
) -> np.ndarray:
    """One blob, computed in float64 and rounded once.

    Args:
        gains: what weights are multiplied by, where it is not 1.
        offset: added before the rounding.
    """
    normal = np.random.RandomState((zlib.crc32(name.encode()) ^ seed) & 0xFFFFFFFF).standard_normal(shape)
    if name == "res_conv1_bn_s":
        values = 0.01 * (1 + 0.2 * normal)
    elif name.endswith("_branch2c_bn_s"):
        values = 0.15 * (1 + 0.2 * normal)
    elif name.endswith("_bn_s"):
        values = 0.6 * (1 + 0.2 * normal)
    elif name.endswith("_s"):
        values = 1 + 0.2 * normal
    elif name.endswith("_b"):
        values = 0.1 * normal
    else:
        values = np.sqrt(2 / np.prod(shape[1:])) * gains.get(name, 1.0) * normal
    return (values + np.asarray(offset)).astype(np.float32)


def initial_blob(shape: tuple[int, ...]) -> np.ndarray:
    """What Caffe2 fills `kps_score_w` with, which interpolates, or `kps_score_b`, and never trains."""
    blob = np.zeros(shape, np.float32)
    if len(shape) == 4:
        ramp = 1 - np.abs(np.arange(shape[2]) - (shape[2] - 1) / 2) / (shape[2] // 2)
        blob[range(len(blob)), range(len(blob))] = np.outer(ramp, ramp)
    return blob


def recipe_weights(table: BlobTable, seed: int) -> WeightsFile:
    """All blobs of a network."""
    blobs = {row.blob: recipe_blob(row.blob, row.shape, seed) for row in table.rows}
    return WeightsFile(blobs, None, None, f"recipe {seed}", "pkl")


def zoo_weights(table: BlobTable, reference: h5py.File) -> WeightsFile:
    """All blobs of a network whose reference says by which gains and offsets its recipe differs."""
    seed = int(reference.attrs["seed"])
    gains, offsets, initial = (json.loads(reference.attrs[name]) for name in ("gains", "offsets", "initial"))
    blobs = {
        row.blob: initial_blob(row.shape)
        if row.blob in initial
        else recipe_blob(row.blob, row.shape, seed, gains, offsets.get(row.blob, 0.0))
        for row in table.rows
    }
    return WeightsFile(blobs, None, None, f"recipe {seed}", "pkl")
