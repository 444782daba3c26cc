"""Detectron's own training, as `tests/data/zoo/train_*.h5.xz` and parity/zoo hold it, replayed and compared."""

import json
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import torch

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.coco import CocoDataset, read_dataset
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.training.solver import MomentumSGD
from detectron_gn.port.blobs.convert import build_model
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import merge_overrides
from detectron_gn.verify.parity.training import FinalParity, IterationParity, compare_final, replay
from detectron_gn.verify.parity.training_check import TrainingParity, check_training
from detectron_gn.verify.reference.training_trace import open_trace
from detectron_gn.weights.formats.proposals_pickle import read_proposals
from detectron_gn.weights.weights_file import WeightsFile
from tests.helpers.recipe import zoo_weights
from tests.helpers.zoo_reference import zoo_config

# What the annotations of the drawn images are called here, where a reference calls them otherwise.
_OTHER_NAMES = {"instances_train.json": "../train_images.json", "train_images.json": "../train_images.json"}


class Beginning(NamedTuple):
    """What a run of Detectron began with."""

    cfg: Config
    weights: WeightsFile
    dataset: CocoDataset
    proposals: tuple[StoredProposals, ...]

    def check(self, path: Path, replicas: int) -> TrainingParity:
        """What `verify training` finds."""
        return check_training(
            self.cfg,
            self.weights,
            self.dataset,
            path,
            proposals=self.proposals[0] if self.proposals else None,
            replicas=replicas,
            say=lambda line: None,
        )


def unpacked(data: Path, name: str, folder: Path) -> Path:
    """A trace of `tests/data/zoo`, unpacked into a folder where it is not there yet."""
    path = folder / f"{name}.h5"
    if not path.exists():
        path.write_bytes(lzma.decompress((data / "zoo" / f"{name}.h5.xz").read_bytes()))
    return path


def beginning(data: Path, path: Path) -> Beginning:
    """Of a trace on the drawn images."""
    with h5py.File(path) as file:
        annotations, proposals = str(file.attrs["ann"]), str(file.attrs.get("proposals", ""))
    annotations = _OTHER_NAMES.get(annotations, annotations)
    dataset = read_dataset(data / "zoo" / annotations, data / "train_images")
    return beginning_on(dataset, path, data / "zoo" / proposals if proposals else None)


def beginning_on(dataset: CocoDataset, path: Path, proposals: Path | None = None) -> Beginning:
    """Of a trace on other images."""
    with h5py.File(path) as file:
        cfg = merge_overrides(zoo_config(file), ["NUM_GPUS", "1"])
        weights = zoo_weights(BlobTable.from_config(cfg), file)
    if proposals is None:
        return Beginning(cfg, weights, dataset, ())
    read = read_proposals(proposals)
    return Beginning(cfg, weights, dataset, (StoredProposals(read.boxes, read.ids, proposals.name),))


def replayed(start: Beginning, path: Path) -> tuple[list[IterationParity], FinalParity]:
    """The iterations and the end of a replay in float64, which a detector refuses of its own."""
    cfg, weights, dataset, proposals = start
    model = build_model(cfg, weights)
    torch.nn.Module.double(model)
    solver = MomentumSGD.from_config(model, cfg)
    with open_trace(path) as trace:
        steps = list(replay(model, solver, training_roidb([dataset], cfg, proposals), trace))
        return steps, compare_final(model, solver, weights.blobs, trace)


def assert_caffe2s(steps: Sequence[IterationParity], final: FinalParity, path: Path, losses: int, updates: int) -> None:
    """Losses, gradients, samples, parameters and momentum of a replay are those of the trace, and as many as given.

    Losses are compared relatively, gradients and parameters with the largest value of their blob. After the first
    iteration losses may differ by ten times what rounding moves Caffe2 itself by, as the trace says, or by 1e-6.
    """
    with h5py.File(path) as file:
        noise = json.loads(str(file.attrs["noise"]))
    assert len(steps) == len(noise["loss"])
    for step in steps:
        assert step.lr == step.reference_lr and len(step.losses) == losses
        tolerance = max(10 * noise["loss"][step.iteration], 1e-6) if step.iteration else 1e-5
        assert step.losses == pytest.approx(step.reference_losses, rel=tolerance, abs=1e-9)
        assert len(step.updates) == updates
        errors = sorted(largest_share(step.updates[b], theirs) for b, theirs in step.reference_updates.items())
        assert errors[int(0.9 * updates)] < max(1e-4, noise["grad"][step.iteration]) and errors[-1] < 5e-3
        assert step.samples is not None
        assert step.samples.different == 0 and step.samples.box_target_error < 1e-4
    assert len(final.parameters) >= updates
    for blob, parameter in final.parameters.items():
        assert largest_share(parameter, final.reference_parameters[blob]) < 2e-6
    assert len(final.momentum_errors) == updates
    assert max(final.momentum_errors.values()) < max(1e-3, noise["momentum"])


def assert_found(parity: TrainingParity, shown_by: str) -> None:
    """Something wrong was found, in the `losses`, `updates` or `samples`; wrong updates with right losses at first."""
    assert not parity.holds
    found = {"losses": parity.losses.over, "updates": parity.updates.over, "samples": parity.different_samples}
    assert found[shown_by]
    if shown_by == "updates":
        assert not [loss for loss in parity.losses.over if loss.endswith("iteration 0")]


def largest_share(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> float:
    """How far apart two samples of a blob are, as a share of the largest value."""
    return float(np.abs(ours - theirs).max() / (np.abs(theirs).max() or 1.0))
