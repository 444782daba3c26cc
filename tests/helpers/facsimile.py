"""What facsimiles of Detectron's files are built of: blobs by name, momenta, what is preserved, and how it is written.

Written as its time wrote it (Python 2, protocol 2) by code that shares nothing with the project's own writers.
"""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from detectron_gn.mrcnn.config import Config
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config
from tests.helpers.python2_pickle import Unicode, write_python2_pickle
from tests.helpers.recipe import recipe_blob
from tests.helpers.saved_config import STATE_2018, Values, april_2018, dumped, january_2018

Blobs = dict[str, Any]

NARROW: list[str] = (
    "FPN.DIM 16 FAST_RCNN.CONV_HEAD_DIM 16 FAST_RCNN.MLP_HEAD_DIM 16 MRCNN.DIM_REDUCED 16 RESNETS.WIDTH_PER_GROUP 4 "
    "GROUP_NORM.NUM_GROUPS 4"
).split()
BN_50, BN_101 = "e2e_mask_rcnn_R-50-FPN_2x", "e2e_mask_rcnn_R-101-FPN_2x"
GN_50, GN_101 = f"{BN_50}_gn", f"{BN_101}_gn"
X_101 = "e2e_mask_rcnn_X-101-32x8d-FPN_1x"


@dataclass(frozen=True)
class Facsimile:
    """One file, and what must become of it.

    Attributes:
        name: what it is a facsimile of, and what is odd about it.
        write: writes it to a path.
        title: how `inspect` must call it.
        counts: blobs that are neither momentum nor preserved, momenta, preserved blobs.
        file: its name.
        detect, train: `works`, or what the one sentence that refuses it must say. `train` is finetuning with --weights.
        remark: what must be said beside the result where it works.
        config: the configuration that detection and training need beside the file, with its overrides.
    """

    name: str
    write: Callable[[Path], None]
    title: str
    counts: tuple[int, int, int]
    file: str = "model_final.pkl"
    detect: str = "works"
    train: str = "works"
    remark: str = ""
    config: tuple[str, ...] = ()


@cache
def config(name: str, *overrides: str) -> Config:
    """A configuration of the catalog, narrowed."""
    return bundled_config(name, [*NARROW, *overrides])


@cache
def parameters(cfg: Config) -> Blobs:
    """The blobs that the network itself has, by the recipe of the tests."""
    return {row.blob: recipe_blob(row.blob, row.shape, 1) for row in BlobTable.from_config(cfg).rows}


def full_width(name: str) -> Blobs:
    """Those of a configuration of the catalog as it is; many rows repeat, for random numbers take their time."""
    return {
        row.blob: np.resize(recipe_blob(row.blob, (min(128, row.shape[0]), *row.shape[1:]), 1), row.shape)
        for row in BlobTable.from_config(bundled_config(name)).rows
    }


def momenta(blobs: Blobs, freeze: tuple[str, ...] = ("conv1_", "res_conv1_", "res2_")) -> Blobs:
    """Momenta of what Detectron trains: neither the frozen stages nor the AffineChannels."""
    trained = [name for name in blobs if not name.startswith(freeze) and not name.endswith(("_bn_s", "_bn_b"))]
    return {f"{name}_momentum": 0.01 * blobs[name][::-1] for name in trained}


def body_of(blobs: Blobs) -> Blobs:
    """The body's part of a detector's blobs."""
    return {name: blob for name, blob in blobs.items() if name.startswith(("conv1_", "res"))}


def biases(blobs: Blobs, conv1: bool = False) -> Blobs:
    """A zero bias for every convolution of the body, as MSRA's files have; the stem's own may be random."""
    convolutions = [name for name in body_of(blobs) if name.endswith("_w")]
    found = {f"{name[:-2]}_b": np.zeros(len(blobs[name]), np.float32) for name in convolutions}
    if conv1:
        found["conv1_b"] = recipe_blob("conv1_b", found["conv1_b"].shape, 2)
    return found


def classifier(name: str, channels: int = 2048) -> Blobs:
    """The 1000-class layer of an ImageNet file: `fc1000` of MSRA's, `pred` of Caffe2's."""
    rows = recipe_blob(f"{name}_w", (1000, 8), 3)
    return {f"{name}_w": np.tile(rows, channels // 8), f"{name}_b": recipe_blob(f"{name}_b", (1000,), 3)}


def shuffled(blobs: Blobs) -> Blobs:
    """In an order that says nothing, as Python 2's dictionaries had."""
    names = list(blobs)
    np.random.RandomState(5).shuffle(names)
    return {name: blobs[name] for name in names}


def without_momenta(blobs: Blobs) -> Blobs:
    """Those that are no momenta."""
    return {name: blob for name, blob in blobs.items() if not name.endswith("_momentum")}


def without(blobs: Blobs, *prefixes: str) -> Blobs:
    """Those whose names do not begin so."""
    return {name: blob for name, blob in blobs.items() if not name.startswith(prefixes)}


def january(name: str, *overrides: str, change: Callable[[Values], object] = lambda values: None) -> str:
    """A configuration as a BN* baseline saved it, with a change that someone made."""
    values = january_2018(config(name, *overrides))
    change(values)
    return dumped(values)


def april(name: str, change: Callable[[Values], object] = lambda values: None) -> str:
    """A configuration as a GN model saved it, with a change that someone made."""
    values = april_2018(config(name))
    change(values)
    return dumped(values, state=STATE_2018)


def pickled(content: Callable[[], Mapping[str, Any]], protocol: int = 2) -> Callable[[Path], None]:
    """Writes what Python 2 would, byte strings for keys."""
    return lambda path: write_python2_pickle(path, dict(content()), protocol)


def detector(
    blobs: Callable[[], Blobs], cfg: Callable[[], str] | None, protocol: int = 2
) -> Callable[[Path], None]:
    """Writes `{'blobs', 'cfg'}`, the blobs in no order."""
    return pickled(lambda: {"blobs": shuffled(blobs())} | ({"cfg": cfg()} if cfg is not None else {}), protocol)


def saved_by_torch(content: Callable[[], Any]) -> Callable[[Path], None]:
    """Writes with `torch.save`."""
    return lambda path: torch.save(content(), path)


def msra_file(name: str) -> Blobs:
    """What MSRA's file held for the body of a configuration: a bare dictionary, its names unicode."""
    blobs = body_of(parameters(config(name)))
    blobs |= biases(blobs, conv1="R-50" in name) | classifier("fc1000")
    return {Unicode(blob): array for blob, array in shuffled(blobs).items()}


def gn_file(name: str, more: Blobs = MappingProxyType({})) -> Blobs:  # type: ignore[assignment]
    """What R-50-GN.pkl held: `{'blobs': ...}`, and perhaps `more` among the blobs."""
    return {"blobs": shuffled(body_of(parameters(config(name))) | classifier("pred") | more)}


def baseline(name: str, blobs: Blobs | None = None) -> Blobs:
    """A BN* baseline of December 2017, finetuned from MSRA's file: Detectron preserved what it did not use."""
    blobs = parameters(config(name)) if blobs is None else blobs
    return blobs | momenta(blobs) | biases(blobs, conv1="R-50" in name) | classifier("fc1000")


def gn_baseline(name: str) -> Blobs:
    """A GN model of April 2018, finetuned from R-50-GN or R-101-GN."""
    blobs = parameters(config(name))
    return blobs | momenta(blobs) | classifier("pred")


def write_python3_pickle(path: Path, content: object) -> None:
    """As Python 3 of today writes."""
    path.write_bytes(pickle.dumps(content))
