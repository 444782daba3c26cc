"""Training parity: a run of the real Detectron replayed; losses, updates and parameters compared.

The reference is an HDF5 file with one group per iteration: see docs/training_traces.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import Parameter

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.minibatch import Minibatch, load_minibatch
from detectron_gn.mrcnn.data.read_image import AS_IMREAD, ImageReading
from detectron_gn.mrcnn.data.roidb import RoidbEntry
from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.training.anchor_targets import AnchorField
from detectron_gn.mrcnn.training.network import TrainingNetwork
from detectron_gn.mrcnn.training.outputs import losses_of
from detectron_gn.mrcnn.training.samplers import RandomSampler
from detectron_gn.mrcnn.training.solver import MomentumSGD, learning_rate
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.verify.parity.recorded_targets import compare_recorded
from detectron_gn.verify.parity.sample_parity import SampleParity, compare_samples
from detectron_gn.verify.parity.training_samples import RecordingSampler, ReferenceSampler, is_exhaustive
from detectron_gn.verify.reference.training_trace import TraceIteration, TrainingTrace

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class IterationParity:
    """One iteration on both sides: losses, samples, and the update of each blob, or what the reference holds of it."""

    iteration: int
    lr: float
    reference_lr: float
    losses: dict[str, float]
    reference_losses: dict[str, float]
    updates: dict[str, Array]
    reference_updates: dict[str, Array]
    samples: SampleParity

    def loss_error(self, name: str) -> float:
        """The relative difference of a loss, or 0 where the absolute one is at most 1e-6; `inf` where ours is NaN."""
        difference, reference = abs(self.losses[name] - self.reference_losses[name]), abs(self.reference_losses[name])
        if difference <= 1e-6:
            return 0.0
        return difference / reference if reference and np.isfinite(difference) else float("inf")

    @property
    def update_errors(self) -> dict[str, float]:
        """`|ours - reference| / |reference|` of each blob's update."""
        pairs = ((blob, update, self.reference_updates[blob]) for blob, update in self.updates.items())
        return {blob: share_apart(update, reference, reference) for blob, update, reference in pairs}


@dataclass(frozen=True)
class FinalParity:
    """The parameters, or samples of them, at the end on both sides, and the way that Detectron's went, by blob."""

    parameters: dict[str, Array]
    reference_parameters: dict[str, Array]
    travelled: dict[str, Array]
    momentum_errors: dict[str, float]

    @property
    def errors(self) -> dict[str, float]:
        """How far the parameters end from Detectron's, as a share of the way that Detectron's went."""
        return {
            blob: share_apart(ours, self.reference_parameters[blob], self.travelled[blob])
            for blob, ours in self.parameters.items()
        }


def replay(
    model: Detector,
    solver: MomentumSGD,
    roidb: Sequence[RoidbEntry],
    trace: TrainingTrace,
    reading: ImageReading = AS_IMREAD,
) -> Iterator[IterationParity]:
    """Train through the iterations of a reference, on its images in its order, and compare each.

    Args:
        model: with the weights that the reference started from; it is trained in place.
        solver: of that model, with its momentum.
        roidb: where the reference's images and their ground truth are looked up, by file name.

    Where a minibatch is trained on whole the samples are drawn here and compared as sets; otherwise the reference's are
    trained on, and compared with the labels and targets that our rules give them. Raises InputError for a trace that is
    damaged, or of which nothing can be compared.
    """
    parameters = _parameters_by_blob(model)
    trained = {blob: parameter for blob, parameter in parameters.items() if parameter.requires_grad}
    trace.check_blobs({blob: tuple(parameter.shape) for blob, parameter in parameters.items()}, trained.keys())
    network = TrainingNetwork(model)
    field = AnchorField(model.cfg, model.device)
    entries = {(entry.image.name, entry.flipped): entry for entry in roidb}
    for iteration in trace.iterations:
        minibatch = reference_minibatch(iteration, entries, model.cfg, reading)
        random = not is_exhaustive(model.cfg, field, minibatch)
        reference_sampler = ReferenceSampler(iteration, model.cfg, model.device)
        own = reference_sampler if random else RandomSampler(model.cfg, model.device, seed=0)
        sampler = RecordingSampler(own, reference_sampler)
        lr = learning_rate(model.cfg, iteration.number)
        solver.set_learning_rate(lr)
        solver.zero_grad()
        with model.products():
            outputs = network(minibatch, sampler)
            losses = losses_of(outputs)
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        solver.step()
        theirs = {
            blob: iteration.update(blob, tuple(parameter.shape))
            for blob, parameter in trained.items()
            if iteration.has_update(blob)
        }
        if random:
            drawn = sampler.drawn_anchors, sampler.drawn_rois
            samples = compare_recorded(*drawn, field, minibatch, model.cfg, sampler.proposals)
        else:
            anchors_too = bool(sampler.drawn_anchors) and iteration.has_anchors(model.cfg)
            samples = compare_samples(sampler, reference_sampler, field, minibatch, anchors_too=anchors_too)
        yield IterationParity(
            iteration.number,
            lr,
            iteration.lr,
            {name: value.item() for name, value in losses.items()},
            {name: iteration.loss(name) for name in losses},
            {blob: update.sample_of(solver.momentum_of(trained[blob])) for blob, update in theirs.items()},
            {blob: update.doubles() for blob, update in theirs.items()},
            samples,
        )


def compare_final(
    model: Detector, solver: MomentumSGD, start: Mapping[str, Array], trace: TrainingTrace
) -> FinalParity:
    """Compare where the parameters and momenta have come to, those that the reference holds.

    Args:
        start: the blobs that the run started from.
    """
    final = FinalParity({}, {}, {}, {})
    for blob, parameter in _parameters_by_blob(model).items():
        if not trace.has_final(blob):
            continue
        theirs = trace.final(blob, tuple(parameter.shape))
        final.parameters[blob] = theirs.sample_of(parameter)
        final.reference_parameters[blob] = theirs.doubles()
        final.travelled[blob] = theirs.doubles() - theirs.sample_of(start[blob])
        momentum = trace.final_momentum(blob, tuple(parameter.shape))
        if momentum is not None:
            ours, expected = momentum.sample_of(solver.momentum_of(parameter)), momentum.doubles()
            final.momentum_errors[blob] = share_apart(ours, expected, expected)
    return final


def share_apart(ours: Array, theirs: Array, whole: Array) -> float:
    """`|ours - theirs| / |whole|`; 0 where both are equal.

    `inf` where they are not and the whole is 0, and where values are not finite or too large to be squared.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        apart, norm = np.linalg.norm(ours - theirs), np.linalg.norm(whole)
    if not (np.isfinite(apart) and np.isfinite(norm)):
        return float("inf")
    return float(apart / norm) if norm else (float("inf") if apart else 0.0)


def _parameters_by_blob(model: Detector) -> dict[str, Parameter]:
    parameters = dict(model.named_parameters())
    return {row.blob: parameters[row.parameter] for row in BlobTable.from_model(model).rows}


def reference_minibatch(
    iteration: TraceIteration,
    entries: Mapping[tuple[str, bool], RoidbEntry],
    cfg: Config,
    reading: ImageReading = AS_IMREAD,
) -> Minibatch:
    """The images that an iteration of the reference was trained on.

    Args:
        entries: by file name, and whether they are mirrored.
    """
    for name, flipped in iteration.images:
        if (name, flipped) not in entries:
            raise InputError(
                f"{iteration.path} was trained on {name}{' (flipped)' if flipped else ''}, "
                "which is not among the training images: give the annotations and images of the reference run"
            )
    if len(cfg.TRAIN.SCALES) != 1:
        raise InputError("TRAIN.SCALES holds several sizes, and the reference does not tell which one was drawn")
    chosen = [entries[image] for image in iteration.images]
    return load_minibatch(chosen, [cfg.TRAIN.SCALES[0]] * len(chosen), cfg, reading=reading)
