"""`verify training` as a whole: replay a reference, and tell what differs from what rounding moves.

The gradient of a network with ReLUs is not continuous, and with random weights it is chaotic. The real Caffe2, run on
two machines, differs from itself by 1 % in some updates of its first iteration; after six iterations the parameters are
as far apart as they have moved. So the run is replayed again from weights that are changed only in their last bits, and
where that does not explain a difference, once in float64. A value that this moves as far as it is from the reference
shows no difference between the two programs.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from detectron_gn.mrcnn.config import Config, check_config, idle_training_remarks, refuse_training
from detectron_gn.mrcnn.data.coco import CocoDataset
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.data.read_image import AS_IMREAD, ImageReading
from detectron_gn.mrcnn.data.roidb import RoidbEntry, check_proposals, training_roidb
from detectron_gn.mrcnn.tables import text_table
from detectron_gn.mrcnn.training.solver import MomentumSGD
from detectron_gn.port.blobs.convert import build_model
from detectron_gn.port.blobs.family import MOMENTUM
from detectron_gn.port.blobs.match import match_blobs
from detectron_gn.port.blobs.solver_state import load_momentum
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.verify.parity.training import FinalParity, IterationParity, compare_final, replay, share_apart
from detectron_gn.verify.parity.training_remarks import replicas_remark, training_remarks
from detectron_gn.verify.reference.training_trace import TrainingTrace, open_trace
from detectron_gn.weights.weights_file import Array, WeightsFile

LOSS_TOLERANCE = 1e-4
UPDATE_TOLERANCE = 1e-3
FINAL_TOLERANCE = 1e-2
# About as much as Caffe2's and torch's activations differ by the order of their sums: the last four bits of a float32.
LAST_BITS = 1e-6
# How much further than rounding moves it a value may be from the reference. The reference has its own rounding too.
ROUNDING_MARGIN = 4.0

_Replay = tuple[list[IterationParity], FinalParity]


@dataclass(frozen=True)
class Verdict:
    """How many values of a kind there are, how many are within their tolerance, and how many only within rounding.

    `over` names those beyond both, with their error.
    """

    count: int
    within: int
    rounding: int
    over: dict[str, float]


@dataclass(frozen=True)
class TrainingParity:
    """A replayed run: its iterations, the final parameters, and the verdicts over both.

    `different_samples` counts anchors, RoIs, masks and keypoints that were drawn otherwise or have other targets: RoIs
    that the network proposed only while the runs were still the same, and those of the reference always. `remarks` are
    sentences about inputs that do not belong together, and about a verdict that more replays may change.
    """

    iterations: tuple[IterationParity, ...]
    final_errors: dict[str, float]
    losses: Verdict
    updates: Verdict
    parameters: Verdict
    different_samples: int
    remarks: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether nothing is beyond its tolerance and beyond what rounding does."""
        return not (self.losses.over or self.updates.over or self.parameters.over or self.different_samples)

    def document(self) -> dict[str, object]:
        """The figures for `--json`."""
        return {
            "holds": self.holds,
            "iterations": [
                {
                    **iteration.losses,
                    "lr": iteration.lr,
                    "reference": {**iteration.reference_losses, "lr": iteration.reference_lr},
                    "update_errors": iteration.update_errors,
                    "samples": {**asdict(iteration.samples), "classes": sorted(iteration.samples.classes)},
                }
                for iteration in self.iterations
            ],
            "final_errors": self.final_errors,
            "remarks": self.remarks,
        }


def check_training(
    cfg: Config,
    weights: WeightsFile,
    dataset: CocoDataset,
    reference: Path,
    *,
    proposals: StoredProposals | None = None,
    replicas: int = 4,
    reading: ImageReading = AS_IMREAD,
    say: Callable[[str], None] = print,
) -> TrainingParity:
    """Replay a reference and judge it.

    Args:
        weights: what the reference started from.
        proposals: what it was trained on, for a model that takes them.
        replicas: further replays from weights changed in their last bits, and one in float64 where these leave
            something unexplained; 0 judges only by the tolerances.

    Raises InputError where the inputs do not belong together, or where nothing can be compared.
    """
    check_config(cfg)
    refuse_training(cfg)
    for remark in idle_training_remarks(cfg):
        say(remark)
    with open_trace(reference) as trace:
        given = () if proposals is None else (proposals,)
        check_proposals([dataset], cfg, given)
        roidb = training_roidb([dataset], cfg, given)
        run = _replayed(cfg, weights, roidb, trace, reading)
        others = []
        for replica in range(replicas):
            say(f"replay {replica + 1} of {replicas} with the last bits of the weights changed")
            others.append(_replayed(cfg, _last_bits_changed(weights, replica), roidb, trace, reading))
        verdicts = _verdicts(run, others)
        if others and any(verdict.over for verdict in verdicts):
            say("replay in float64, since values are beyond what these replays move them by")
            others.append(_replayed(cfg, weights, roidb, trace, reading, in_double=True))
            verdicts = _verdicts(run, others)
    iterations, final = run
    # Anchors and the targets of what is given hang on the images alone, all else on what the network proposes.
    different = sum(i.samples.different_anchors for i in iterations)
    different += sum(i.samples.different_proposed for i in iterations if i.samples.are_given)
    together = [i.samples for i in _until_parted(iterations)]
    different += sum(s.unproposed + s.miscounted if s.are_given else s.different_proposed for s in together)
    remarks = [*training_remarks(iterations, cfg, dataset)]
    losses, *moved = verdicts
    if not losses.over and not different:
        beyond, count = (sum(numbers) for numbers in zip(*((len(v.over), v.count) for v in moved), strict=True))
        remarks += replicas_remark(beyond, count, replicas)
    return TrainingParity(tuple(iterations), final.errors, *verdicts, different, tuple(remarks))


def _verdicts(run: _Replay, others: Sequence[_Replay]) -> tuple[Verdict, Verdict, Verdict]:
    """On losses, updates and final parameters, with the replays that show what rounding does."""
    iterations, final = run
    losses, updates, parameters = _Judge(LOSS_TOLERANCE), _Judge(UPDATE_TOLERANCE), _Judge(FINAL_TOLERANCE)
    for place, iteration in enumerate(iterations):
        moved = [other[place] for other, _ in others]
        for name, value in iteration.losses.items():
            scale = abs(iteration.reference_losses[name]) or 1.0
            losses.judge(
                f"{name} of iteration {iteration.iteration}",
                iteration.loss_error(name),
                [abs(other.losses[name] - value) / scale for other in moved],
            )
        errors = {
            f"{blob} of iteration {iteration.iteration}": e for blob, e in iteration.update_errors.items()
        }
        moves = [_moved(other.updates, iteration.updates, iteration.reference_updates) for other in moved]
        updates.judge_blobs(errors, moves)
    ends = [other.parameters for _, other in others]
    parameters.judge_blobs(final.errors, [_moved(end, final.parameters, final.travelled) for end in ends])
    return losses.verdict(), updates.verdict(), parameters.verdict()


def training_tables(parity: TrainingParity) -> str:
    """The replay for the terminal: one line per iteration, and one per verdict."""
    header = ("step", "lr", "loss", "reference", "loss err", "update", "median", "samples")
    rows = []
    for iteration in parity.iterations:
        errors = sorted(iteration.update_errors.values())
        rows.append(
            (
                str(iteration.iteration),
                f"{iteration.lr:.3g}",
                f"{sum(iteration.losses.values()):.6f}",
                f"{sum(iteration.reference_losses.values()):.6f}",
                f"{max(map(iteration.loss_error, iteration.losses)):.1e}",
                f"{errors[-1]:.1e}",
                f"{errors[len(errors) // 2]:.1e}",
                f"{iteration.samples.different}{' of given ones' if iteration.samples.are_given else ''}",
            )
        )
    kinds = {
        f"losses, to {LOSS_TOLERANCE:g}": parity.losses,
        f"updates, to {UPDATE_TOLERANCE:g} of their norm": parity.updates,
        f"final parameters, to {FINAL_TOLERANCE:g} of their way": parity.parameters,
    }
    verdicts = [(k, str(v.count), str(v.within), str(v.rounding), str(len(v.over))) for k, v in kinds.items()]
    lines = [
        text_table(header, rows),
        "",
        text_table(("", "values", "within", "within rounding", "beyond"), verdicts),
    ]
    for verdict in kinds.values():
        worst = sorted(verdict.over, key=lambda name: -verdict.over[name])[:5]
        lines += [f"beyond: {name} {verdict.over[name]:.1e}" for name in worst]
    lines += parity.remarks
    return "\n".join(lines)


class _Judge:
    """Sorts values into those within a tolerance, those within what rounding moves them, and the rest.

    Infinite are the errors and movements of blobs that do not move in the reference: they have no scale, and excuse
    nothing.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._count = self._within = self._rounding = 0
        self._over: dict[str, float] = {}

    def judge_blobs(self, errors: Mapping[str, float], moved_by_rounding: Sequence[Sequence[float]]) -> None:
        """Judge the blobs of a network together, with how far each replica moved each of them.

        A ReLU that tips over moves the blobs below it, and it is chance which of them tip over in a replica. So what
        moves nine blobs out of ten counts for all of them.
        """
        farthest = [max(moved) for moved in zip(*moved_by_rounding)]
        scaled = [moved for moved in farthest if math.isfinite(moved)]
        of_most = float(np.quantile(scaled, 0.9)) if scaled else 0.0
        for place, (name, error) in enumerate(errors.items()):
            self.judge(name, error, [of_most, *(moved[place] for moved in moved_by_rounding)])

    def judge(self, name: str, error: float, moved_by_rounding: Sequence[float]) -> None:
        """Judge one value, with how far each replica moved it."""
        self._count += 1
        moved = max(filter(math.isfinite, moved_by_rounding), default=0.0)
        if error <= self._tolerance:
            self._within += 1
        elif error <= ROUNDING_MARGIN * moved:
            self._rounding += 1
        else:
            self._over[name] = error

    def verdict(self) -> Verdict:
        return Verdict(self._count, self._within, self._rounding, self._over)


def _replayed(
    cfg: Config,
    weights: WeightsFile,
    roidb: Sequence[RoidbEntry],
    trace: TrainingTrace,
    reading: ImageReading,
    *,
    in_double: bool = False,
) -> _Replay:
    """One replay from the given weights and their momentum, in float32 or in float64, which nobody trains in."""
    model = build_model(cfg, weights)
    if in_double:
        # A detector refuses it of its own.
        torch.nn.Module.double(model)
    solver = MomentumSGD.from_config(model, cfg)
    load_momentum(model, solver, match_blobs(BlobTable.from_model(model), weights))
    iterations = list(replay(model, solver, roidb, trace, reading))
    return iterations, compare_final(model, solver, weights.blobs, trace)


def _last_bits_changed(weights: WeightsFile, seed: int) -> WeightsFile:
    """The weights with each value changed by up to `LAST_BITS` of itself, up or down by chance."""
    rng = np.random.default_rng(seed)
    blobs = {}
    for name, array in weights.blobs.items():
        noise = 1 + LAST_BITS * rng.uniform(-1, 1, array.shape)
        blobs[name] = array if name.endswith(MOMENTUM) else (array * noise).astype(np.float32)
    return replace(weights, blobs=blobs)


def _moved(ours: Mapping[str, Array], before: Mapping[str, Array], whole: Mapping[str, Array]) -> list[float]:
    """How far each blob was moved, as a share of another array of it."""
    return [share_apart(ours[blob], before[blob], whole[blob]) for blob in before]


def _until_parted(iterations: Sequence[IterationParity]) -> Iterator[IterationParity]:
    """The iterations before rounding has parted the two runs so far that their proposals are others."""
    for iteration in iterations:
        if max(map(iteration.loss_error, iteration.losses)) > LOSS_TOLERANCE:
            return
        yield iteration
