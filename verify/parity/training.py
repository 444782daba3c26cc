"""Training parity: a run of the real Detectron replayed; losses, updates and parameters compared.

The reference is an HDF5 file, one group an iteration: see docs/training_traces.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.minibatch import Minibatch, load_minibatch
from detectron_gn.mrcnn.data.roidb import RoidbEntry
from detectron_gn.mrcnn.detectors.generalized_rcnn import MaskRCNN
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.training.anchor_targets import AnchorField, AnchorSample
from detectron_gn.mrcnn.training.network import TrainingNetwork
from detectron_gn.mrcnn.training.roi_targets import MaskSample, RoiSample
from detectron_gn.mrcnn.training.samplers import RandomSampler, Sampler
from detectron_gn.mrcnn.training.solver import MomentumSGD, learning_rate
from detectron_gn.port.blobs.table import BlobTable

Array = npt.NDArray[Any]

# RoIs are the same when their corners agree to this, in network pixels.
ROI_TOLERANCE = 0.05


@dataclass(frozen=True)
class SampleParity:
    """How the sampled targets of an iteration compare with Detectron's, as sets.

    Attributes:
        anchors, reference_anchors: anchors trained on; `different_anchors` have another label or are on one side only.
        rois, reference_rois: RoIs trained on; `different_rois` have no partner of the same image, box and label.
        box_target_error: largest difference of a box target of an anchor or RoI.
        masks, different_masks: mask targets, and those that differ in a pixel or in their class.
    """

    anchors: int
    reference_anchors: int
    different_anchors: int
    rois: int
    reference_rois: int
    different_rois: int
    box_target_error: float
    masks: int
    different_masks: int

    @property
    def different(self) -> int:
        """How many anchors, RoIs and masks differ."""
        return self.different_anchors + self.different_rois + self.different_masks


@dataclass(frozen=True)
class IterationParity:
    """One iteration on both sides: losses, and the update of each blob, or the sample of it that the reference holds.

    `samples` is None where the reference's samples were taken as given.
    """

    iteration: int
    lr: float
    reference_lr: float
    losses: dict[str, float]
    reference_losses: dict[str, float]
    updates: dict[str, Array]
    reference_updates: dict[str, Array]
    samples: SampleParity | None

    def loss_error(self, name: str) -> float:
        """The relative difference of a loss, or 0 where the absolute one is at most 1e-6."""
        difference, reference = abs(self.losses[name] - self.reference_losses[name]), abs(self.reference_losses[name])
        if difference <= 1e-6:
            return 0.0
        return difference / reference if reference else float("inf")

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


class _RecordingSampler:
    """A sampler that remembers what it drew, but has the heads trained on the reference's RoIs.

    Of two proposals whose scores tie the other one may be cut off; that shows in the comparison, and ends with it.
    """

    def __init__(self, sampler: Sampler, reference: "ReferenceSampler") -> None:
        self._sampler, self._reference = sampler, reference
        self.drawn_anchors: Sequence[AnchorSample] = ()
        self.drawn_rois: RoiSample | None = None

    def anchors(self, field: AnchorField, minibatch: Minibatch) -> Sequence[AnchorSample]:
        self.drawn_anchors = self._sampler.anchors(field, minibatch)
        return self.drawn_anchors

    def rois(self, proposals: Tensor, minibatch: Minibatch) -> RoiSample:
        self.drawn_rois = self._sampler.rois(proposals, minibatch)
        return self._reference.rois(proposals, minibatch)


class ReferenceSampler:
    """The anchors and RoIs that Detectron drew in one iteration of the reference."""

    def __init__(self, group: h5py.Group, cfg: Config, device: torch.device) -> None:
        self._group, self._cfg, self._device = group, cfg, device

    def anchors(self, field: AnchorField, minibatch: Minibatch) -> list[AnchorSample]:
        """From the `*_wide_fpnL` blobs, which cover the field of anchors level by level."""
        levels = range(self._cfg.FPN.RPN_MIN_LEVEL, self._cfg.FPN.RPN_MAX_LEVEL + 1)
        labels = np.concatenate([_by_anchor(self._blob(f"rpn_labels_int32_wide_fpn{n}"), 1) for n in levels], axis=1)
        targets = np.concatenate([_by_anchor(self._blob(f"rpn_bbox_targets_wide_fpn{n}"), 4) for n in levels], axis=1)
        samples = []
        for image_labels, image_targets in zip(labels[..., 0], targets, strict=True):
            index = np.flatnonzero(image_labels >= 0)
            arrays = (index, image_labels[index].astype(np.float32), image_targets[index])
            samples.append(AnchorSample(*(torch.from_numpy(array).to(self._device) for array in arrays)))
        return samples

    def rois(self, proposals: Tensor, minibatch: Minibatch) -> RoiSample:
        """From `rois`, `labels_int32`, `bbox_*` and, with a mask head, `mask_rois` and `masks_int32`."""
        weights = self._blob("bbox_inside_weights").reshape(-1, self._cfg.MODEL.NUM_CLASSES, 4)
        box_classes = weights.any(axis=2).argmax(axis=1)
        targets = self._blob("bbox_targets").reshape(weights.shape)[np.arange(len(weights)), box_classes]
        return RoiSample(
            self._tensor(self._blob("rois")),
            self._tensor(self._blob("labels_int32").astype(np.int64)),
            self._tensor(box_classes),
            self._tensor(targets),
            self._masks() if self._cfg.MODEL.MASK_ON else None,
        )

    def _masks(self) -> MaskSample:
        side = self._cfg.MRCNN.RESOLUTION
        class_masks = self._blob("masks_int32").reshape(-1, self._cfg.MODEL.NUM_CLASSES, side, side)
        classes = (class_masks >= 0).any(axis=(2, 3)).argmax(axis=1)
        targets = class_masks[np.arange(len(class_masks)), classes].astype(np.int8)
        return MaskSample(*map(self._tensor, (self._blob("mask_rois"), classes, targets)))

    def _tensor(self, array: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    def _blob(self, name: str) -> Array:
        if name not in self._group:
            raise InputError(
                f"{self._group.file.filename} has no {name} in {self._group.name}: a trace of random sampling must "
                "hold the sampled minibatch of every iteration"
            )
        values: Array = self._group[name][:]
        return values


def is_exhaustive(cfg: Config, field: AnchorField) -> bool:
    """Whether a configuration trains on every anchor and RoI there is, so that nothing is random."""
    train = cfg.TRAIN
    every_anchor = train.RPN_BATCH_SIZE_PER_IM * train.RPN_FG_FRACTION >= len(field.anchors)
    return every_anchor and train.BATCH_SIZE_PER_IM * train.FG_FRACTION >= 2 * train.RPN_POST_NMS_TOP_N


def replay(
    model: MaskRCNN, solver: MomentumSGD, roidb: Sequence[RoidbEntry], reference: h5py.File
) -> Iterator[IterationParity]:
    """Train through the iterations of a reference, on its images in its order, and compare each.

    Args:
        model: with the weights that the reference started from; it is trained in place.
        solver: of that model, with its momentum.
        roidb: where the reference's images and their ground truth are looked up, by file name.

    Where the configuration is exhaustive the samples are drawn here and compared as sets; otherwise the reference's
    are taken as given.
    """
    network = TrainingNetwork(model)
    field = AnchorField(model.cfg, model.device)
    random = not is_exhaustive(model.cfg, field)
    entries = {(entry.image.name, entry.flipped): entry for entry in roidb}
    blob_of = {row.parameter: row.blob for row in BlobTable.from_model(model).rows}
    for iteration in range(_iteration_count(reference)):
        group = reference[f"iter{iteration}"]
        minibatch = _minibatch(group, entries, model.cfg)
        reference_sampler = ReferenceSampler(group, model.cfg, model.device)
        sampler = _RecordingSampler(
            reference_sampler if random else RandomSampler(model.cfg, model.device, seed=0), reference_sampler
        )
        lr = learning_rate(model.cfg, iteration)
        solver.set_learning_rate(lr)
        solver.zero_grad()
        with model.products():
            outputs = network(minibatch, sampler)
            losses = {name: value for name, value in outputs.items() if name.startswith("loss")}
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        solver.step()
        updates = {
            blob_of[name]: solver.momentum_of(parameter)
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and f"{blob_of[name]}_grad" in group
        }
        yield IterationParity(
            iteration,
            lr,
            float(group.attrs["lr"]),
            {name: value.item() for name, value in losses.items()},
            {name: float(group.attrs[name]) for name in losses},
            {blob: _sample(update, group[f"{blob}_grad"]) for blob, update in updates.items()},
            {blob: _values(group[f"{blob}_grad"]) for blob in updates},
            None if random else compare_samples(sampler, reference_sampler, field, minibatch, group),
        )


def compare_final(
    model: MaskRCNN, solver: MomentumSGD, start: Mapping[str, Array], reference: h5py.File
) -> FinalParity:
    """Compare where the parameters and momenta have come to.

    Args:
        start: the blobs that the run started from.
    """
    final = FinalParity({}, {}, {}, {})
    parameters = dict(model.named_parameters())
    for row in BlobTable.from_model(model).rows:
        dataset = reference["final"][row.blob]
        final.parameters[row.blob] = _sample(parameters[row.parameter], dataset)
        final.reference_parameters[row.blob] = _values(dataset)
        before = _sample(torch.from_numpy(np.asarray(start[row.blob])), dataset)
        final.travelled[row.blob] = _values(dataset) - before
        if f"{row.blob}_momentum" in reference["final"]:
            momenta = reference["final"][f"{row.blob}_momentum"]
            ours = _sample(solver.momentum_of(parameters[row.parameter]), momenta)
            final.momentum_errors[row.blob] = share_apart(ours, _values(momenta), _values(momenta))
    return final


def compare_samples(
    ours: _RecordingSampler,
    reference: ReferenceSampler,
    field: AnchorField,
    minibatch: Minibatch,
    group: h5py.Group,
) -> SampleParity:
    """Compare what was drawn here with what Detectron drew; the anchors where the reference has them."""
    box_error = 0.0
    anchors = reference_anchors = different_anchors = 0
    if "rpn_labels_int32_wide_fpn2" in group:
        for mine, theirs in zip(ours.drawn_anchors, reference.anchors(field, minibatch), strict=True):
            my_labels, their_labels = (_label_map(sample, len(field.anchors)) for sample in (mine, theirs))
            anchors, reference_anchors = anchors + len(mine.anchors), reference_anchors + len(theirs.anchors)
            different_anchors += int((my_labels != their_labels).sum())
            if torch.equal(mine.anchors, theirs.anchors) and bool((theirs.labels == 1).any()):
                objects = theirs.labels == 1
                box_error = max(box_error, float((mine.box_targets - theirs.box_targets)[objects].abs().max()))
    drawn, expected = ours.drawn_rois, reference.rois(torch.empty(0), minibatch)
    assert drawn is not None
    pairs = _pair_rois(drawn.rois, drawn.labels, expected.rois, expected.labels)
    targets = (drawn.box_targets[pairs[:, 0]] - expected.box_targets[pairs[:, 1]]).abs()
    box_error = max(box_error, float(targets.max()) if len(pairs) else 0.0)
    masks = different_masks = 0
    if drawn.masks is not None and expected.masks is not None:
        mask_pairs = _pair_rois(drawn.masks.rois, drawn.masks.classes, expected.masks.rois, expected.masks.classes)
        ours_of_pair, theirs_of_pair = drawn.masks.targets[mask_pairs[:, 0]], expected.masks.targets[mask_pairs[:, 1]]
        equal = int((ours_of_pair == theirs_of_pair).flatten(1).all(dim=1).sum())
        masks = len(drawn.masks.targets)
        different_masks = max(masks, len(expected.masks.targets)) - equal
    return SampleParity(
        anchors,
        reference_anchors,
        different_anchors,
        len(drawn.rois),
        len(expected.rois),
        max(len(drawn.rois), len(expected.rois)) - len(pairs),
        box_error,
        masks,
        different_masks,
    )


def share_apart(ours: Array, theirs: Array, whole: Array) -> float:
    """`|ours - theirs| / |whole|`; 0 where both are equal, and `inf` where they are not and the whole is 0."""
    apart, norm = np.linalg.norm(ours - theirs), np.linalg.norm(whole)
    return float(apart / norm) if norm else (float("inf") if apart else 0.0)


def read_reference(path: Path) -> h5py.File:
    """Open a training reference; InputError for a file of another kind."""
    try:
        file = h5py.File(path)
    except OSError as error:
        raise InputError(f"{path} is not an HDF5 reference file ({error}): give a training trace") from None
    if "iter0" not in file or "final" not in file:
        raise InputError(f"{path} holds no training iteration: give a training trace of Detectron")
    return file


def _iteration_count(reference: h5py.File) -> int:
    return sum(name.startswith("iter") for name in reference)


def _minibatch(group: h5py.Group, entries: Mapping[tuple[str, bool], RoidbEntry], cfg: Config) -> Minibatch:
    """The images that an iteration of the reference was trained on."""
    chosen = []
    for name, flipped in zip(group.attrs["images"], group.attrs["flipped"], strict=True):
        key = (_text(name), bool(flipped))
        if key not in entries:
            raise InputError(
                f"{group.file.filename} was trained on {key[0]}{' (flipped)' if flipped else ''}, "
                "which is not among the training images: give the annotations and images of the reference run"
            )
        chosen.append(entries[key])
    if len(cfg.TRAIN.SCALES) != 1:
        raise InputError("TRAIN.SCALES holds several sizes, and the reference does not tell which one was drawn")
    return load_minibatch(chosen, [cfg.TRAIN.SCALES[0]] * len(chosen), cfg)


def _by_anchor(blob: Array, values: int) -> Array:
    """`[N, values * A, H, W]` of a level to `[N, H * W * A, values]`, rows (y, x, anchor)."""
    return np.ascontiguousarray(blob.transpose(0, 2, 3, 1)).reshape(len(blob), -1, values)


def _label_map(sample: AnchorSample, size: int) -> Tensor:
    labels = sample.labels.new_full((size,), -1)
    labels[sample.anchors] = sample.labels
    return labels


def _pair_rois(rois: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor) -> Tensor:
    """Pairs `[P, 2]` of RoIs of one image and label whose corners agree, each RoI in one pair at most."""
    distance = (rois[:, None] - others[None]).abs().amax(dim=2)
    distance[labels[:, None] != other_labels[None]] = float("inf")
    pairs = []
    for row in range(len(rois)):
        if not len(others):
            break
        column = int(distance[row].argmin())
        if distance[row, column] <= ROI_TOLERANCE:
            pairs.append((row, column))
            distance[:, column] = float("inf")
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)


def _sample(values: Tensor, dataset: h5py.Dataset) -> Array:
    """The values that a dataset holds of an array: every `stride`-th."""
    flat = values.detach().cpu().contiguous().reshape(-1)[:: int(dataset.attrs.get("stride", 1))]
    return flat.double().numpy()


def _values(dataset: h5py.Dataset) -> Array:
    return np.asarray(dataset[()], dtype=np.float64).reshape(-1)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
