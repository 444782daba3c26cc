"""The ladder: from the file to the AP, rung by rung, up to the first one that differs from what Caffe2 gave.

Each rung takes for granted what the ones below have shown: file, names, statistics, blobs, proposals, detections, AP.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.detectors.generalized_rcnn import MaskRCNN
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.ap import score
from detectron_gn.mrcnn.evaluation.coco_files import IouType, ResultRow, check_results, read_annotations, read_results
from detectron_gn.mrcnn.evaluation.evaluate import Evaluation, Progress, evaluate, no_progress
from detectron_gn.mrcnn.evaluation.ranks import ALONE, Ranks
from detectron_gn.mrcnn.precision import Precision
from detectron_gn.mrcnn.tables import text_table
from detectron_gn.port.blobs.convert import build_model, check_family, match_blobs
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.runs.load import configured_weights, load_model, usable_device
from detectron_gn.verify.diagnosis.diagnose import Finding, first_finding
from detectron_gn.verify.evaluation_files import write_evaluation
from detectron_gn.verify.parity.blobs import ImageParity, compare_file, few
from detectron_gn.verify.parity.results import DetectionParity, match_detections
from detectron_gn.verify.published import ApComparison, Expectation, compare_ap
from detectron_gn.weights.download.cache import resolve
from detectron_gn.weights.weights_file import WeightsFile

State = Literal["holds", "differs", "not run"]
RUNGS = ("file", "names", "statistics", "blobs", "proposals", "detections", "AP")


@dataclass(frozen=True)
class LadderInputs:
    """What there is to compare; a rung without its inputs is not run.

    Attributes:
        source, config, overrides, device, precision: the model, as in `port.runs.load`.
        reference, images: a file that dump_blobs.py wrote, and the folder of images: blobs and proposals.
        annotations: of a data set in that folder: detections and AP.
        reference_boxes, reference_masks: result files of Detectron's on that data set.
        expected: the AP that the model should have there.
        out: folder for results.
        tolerance: largest relative error of a blob.
        batch: images of one padded size that run together.
        ranks: the processes that share the images of the data set out.
    """

    source: str
    out: Path
    config: str | None = None
    overrides: Sequence[str] = ()
    device: str = "auto"
    precision: Precision = "fp32"
    reference: Path | None = None
    images: Path | None = None
    annotations: Path | None = None
    reference_boxes: Path | None = None
    reference_masks: Path | None = None
    expected: Expectation | None = None
    tolerance: float = 1e-3
    batch: int = 1
    ranks: Ranks = ALONE


@dataclass(frozen=True)
class Rung:
    """One rung: what was seen, and where it differs what that comes from.

    Attributes:
        suspect: where the evidence leaves no other; else empty.
        may_be: what it usually comes from, where the evidence does not tell; else empty.
        compared: what was compared and agrees, where the rung's name does not say it all.
        not_compared: what there was nothing to compare with, though the rung holds.
    """

    name: str
    state: State
    seen: str
    suspect: str = ""
    may_be: str = ""
    compared: str = ""
    not_compared: str = ""


@dataclass
class Ladder:
    """How far a model came, and all that was measured on the way."""

    rungs: list[Rung] = field(default_factory=list)
    sha256: str = ""
    model: MaskRCNN | None = None
    blobs: list[ImageParity] = field(default_factory=list)
    detections: list[DetectionParity] = field(default_factory=list)
    reference_rows: dict[IouType, list[ResultRow]] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    comparison: ApComparison | None = None

    @property
    def holds(self) -> bool:
        """Whether no rung differs."""
        return all(rung.state != "differs" for rung in self.rungs)

    def document(self) -> dict[str, Any]:
        """What --json writes."""
        return {
            "holds": self.holds,
            "sha256": self.sha256,
            "rungs": [vars(rung) for rung in self.rungs],
            "detections": [parity.document() for parity in self.detections],
            "ap": None if self.comparison is None else self.comparison.document(),
        }


def climb(inputs: LadderInputs, say: Callable[[str], None], progress: Progress = no_progress) -> Ladder | None:
    """Climb the ladder up to the first rung that differs, saying each rung as it is reached.

    Of several processes the first climbs; the others wait until it comes to the data set, and share its images.

    Returns:
        How far it came; None in every process but the first.
    """
    if not inputs.ranks.is_first:
        _share_evaluation(inputs, progress)
        return None
    climber = _Climber(inputs, progress)
    try:
        for name, step in climber.steps().items():
            rung = step()
            say(f"{name:<11} {rung.state:<8} {rung.seen}")
            climber.ladder.rungs.append(rung)
            if rung.state == "differs":
                for label, told in (("suspect:", rung.suspect), ("may be:", rung.may_be)):
                    if told:
                        say(f"{label:>20} {told}")
                break
    finally:
        climber.release_others()
    return climber.ladder


def ap_ladder(inputs: LadderInputs, evaluation: Evaluation) -> Ladder:
    """The last rung alone, of an evaluation that was made already."""
    ladder = Ladder(sha256=file_digest(resolve(inputs.source)), evaluation=evaluation)
    ladder.rungs.append(compare_average_precision(ladder, inputs))
    return ladder


def ladder_table(ladder: Ladder) -> str:
    """The rungs as a table, the ones that were not reached as well."""
    states = {rung.name: rung.state for rung in ladder.rungs}
    return text_table(["rung", ""], [[name, states.get(name, "not reached")] for name in RUNGS], left=2)


def check_names(cfg: Config, weights: WeightsFile) -> Rung:
    """Whether the blobs of a file are those of the configuration, by name and shape."""
    table = BlobTable.from_config(cfg)
    wrong = "the file and the configuration are of different models: pass --config with the YAML it was trained with"
    try:
        check_family(cfg, table, weights)
        match = match_blobs(table, weights)
    except InputError as error:
        return Rung("names", "differs", str(error), wrong)
    if match.missing or match.unexpected:
        missing = ", ".join(row.blob for row in match.missing[:4]) or "none"
        unexpected = ", ".join(match.unexpected[:4]) or "none"
        return Rung(
            "names",
            "differs",
            f"missing: {missing} ({len(match.missing)}); unexpected: {unexpected} ({len(match.unexpected)})",
            wrong,
        )
    left = f", {len(match.left_over)} left over" if match.left_over else ""
    return Rung("names", "holds", f"{len(table.rows)} parameters of the right shape{left}")


def check_statistics(cfg: Config, weights: WeightsFile) -> Rung:
    """Whether the values can be those of a trained model: finite, and not what layers are filled with at first."""
    rows = BlobTable.from_config(cfg).rows
    arrays = {row.blob: weights.blobs[row.blob] for row in rows if row.blob in weights.blobs}
    for blob, array in arrays.items():
        if not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            return Rung(
                "statistics",
                "differs",
                f"{blob} holds {bad} values that are not finite",
                "the training diverged, or the file is damaged",
            )
    for row in rows:
        if row.kind == "weight" and row.blob in arrays and not np.ptp(arrays[row.blob]):
            value = arrays[row.blob].flat[0]
            return Rung("statistics", "differs", f"all values of {row.blob} are {value:g}", "it was never filled")
    shifts = [arrays[row.blob] for row in rows if row.kind in ("bias", "gn_shift") and row.blob in arrays]
    if shifts and not any(array.any() for array in shifts):
        return Rung("statistics", "differs", f"all {len(shifts)} biases are zero, as at first", "it is untrained")
    largest = max(arrays, key=lambda blob: float(np.abs(arrays[blob]).max()))
    return Rung("statistics", "holds", f"all finite; the largest is {np.abs(arrays[largest]).max():.3g} in {largest}")


def compare_results(ladder: Ladder, inputs: LadderInputs) -> Rung:
    """Our results on the data set beside Detectron's result files, where there are any."""
    assert ladder.evaluation is not None and inputs.annotations is not None
    files: dict[IouType, Path | None] = {"bbox": inputs.reference_boxes, "segm": inputs.reference_masks}
    ours: dict[IouType, Sequence[ResultRow]] = {"bbox": ladder.evaluation.boxes, "segm": ladder.evaluation.segms}
    annotations = read_annotations(inputs.annotations)
    for iou_type, path in files.items():
        if path is not None:
            rows = read_results(path)
            check_results(rows, iou_type, str(path), annotations)
            ladder.reference_rows[iou_type] = rows
            ladder.detections.append(match_detections(ours[iou_type], rows, iou_type))
    if not ladder.detections:
        return Rung("detections", "not run", "needs Detectron's result files")
    kinds = {"bbox": "boxes", "segm": "masks"}
    shares = [(kinds[each.iou_type], 100 * each.share_matched) for each in ladder.detections]
    seen = ", ".join(f"{share:.2f} % of {kind} matched" for kind, share in shares)
    compared = " and ".join(f"{each.reference} {kinds[each.iou_type]} of the data set" for each in ladder.detections)
    left_out = ", ".join(f"{kinds[kind]} of the data set" for kind, path in files.items() if path is None)
    apart = next((each for each in ladder.detections if not each.holds), None)
    if apart is None:
        return Rung("detections", "holds", seen, compared=compared, not_compared=left_out)
    boxes_hold = ladder.detections[0].iou_type == "bbox" and ladder.detections[0].holds
    if apart.iou_type == "segm" and boxes_hold:
        causes = "the mask head or the pasting of masks, since the boxes agree: a dump of dump_blobs.py tells which"
    else:
        causes = "the network, the proposals or NMS: a dump of dump_blobs.py tells which (--reference)"
    return Rung("detections", "differs", seen, may_be=causes)


def compare_average_precision(ladder: Ladder, inputs: LadderInputs) -> Rung:
    """Our AP beside the expected one: the catalog's, the user's, or what Detectron's result files score."""
    assert ladder.evaluation is not None and inputs.annotations is not None
    summaries = {"box": ladder.evaluation.box_ap, "mask": ladder.evaluation.mask_ap}
    seen = ", ".join(f"{kind} AP {100 * summary.AP:.2f}" for kind, summary in summaries.items())
    expected = inputs.expected
    if expected is None and ladder.reference_rows:
        coco = read_annotations(inputs.annotations)
        keys: dict[IouType, str] = {"bbox": "box", "segm": "mask"}
        expected = Expectation(
            {keys[kind]: 100 * score(rows, coco, kind).AP for kind, rows in ladder.reference_rows.items()}
        )
    if expected is None:
        return Rung("AP", "not run", f"{seen}; nothing to compare with")
    # An AP of -1 is none: there are no objects to find.
    unknown = [kind for kind, value in expected.ap.items() if value < 0 and summaries[kind].AP < 0]
    expected = replace(expected, ap={kind: value for kind, value in expected.ap.items() if kind not in unknown})
    if not expected.ap:
        return Rung("AP", "not run", "the annotations hold no objects, so that there is no AP")
    seconds = ladder.evaluation.speed.seconds_per_image()
    ladder.comparison = compare_ap(inputs.source, expected, summaries, seconds)
    apart = ladder.comparison.told_differences()
    if ladder.comparison.holds:
        compared = " and ".join(f"{kind} AP" for kind in ladder.comparison.differences)
        left_out = ", ".join(f"{kind} AP" for kind in summaries if kind not in ladder.comparison.differences)
        return Rung("AP", "holds", f"{seen} ({apart})", compared=compared, not_compared=left_out)
    causes = "the data set: other annotations or images than the expected AP was measured on (`verify published`)"
    return Rung("AP", "differs", f"{seen} ({apart})", may_be=causes)


class _Climber:
    """What the rungs hand on to each other."""

    def __init__(self, inputs: LadderInputs, progress: Progress) -> None:
        self.inputs = inputs
        self.progress = progress
        self.ladder = Ladder()
        self.cfg = Config()
        self.weights: WeightsFile | None = None
        self.finding: Finding | None = None
        self.others_wait = True

    def steps(self) -> dict[str, Callable[[], Rung]]:
        steps = (self.file, self.names, self.statistics, self.blobs, self.proposals, self.detections, self.ap)
        return dict(zip(RUNGS, steps, strict=True))

    def file(self) -> Rung:
        path = resolve(self.inputs.source)
        self.ladder.sha256 = file_digest(path)
        self.cfg, weights = configured_weights(self.inputs.source, self.inputs.config, self.inputs.overrides)
        self.weights = weights
        values = sum(array.size for array in weights.blobs.values())
        return Rung("file", "holds", f"{weights.container}, {len(weights.blobs)} blobs, {values:,} values")

    def names(self) -> Rung:
        assert self.weights is not None
        return check_names(self.cfg, self.weights)

    def statistics(self) -> Rung:
        assert self.weights is not None
        return check_statistics(self.cfg, self.weights)

    def blobs(self) -> Rung:
        assert self.weights is not None
        model = build_model(self.cfg, self.weights).to(usable_device(self.inputs.device))
        model.use_precision(self.inputs.precision)
        self.ladder.model = model
        reference, images = self.inputs.reference, self.inputs.images
        if reference is None or images is None:
            return Rung("blobs", "not run", "needs --reference and --images")
        self.ladder.blobs = list(compare_file(model, reference, images))
        looked = [
            first_finding(model, parity, reference, images, self.inputs.tolerance) for parity in self.ladder.blobs
        ]
        # Of several images the one whose difference begins at the lowest rung.
        self.finding = min(
            (finding for finding in looked if finding is not None),
            key=lambda finding: RUNGS.index(finding.rung),
            default=None,
        )
        if self.finding is not None:
            return self._found("blobs", f"they agree up to {self.finding.where}")
        blobs = [row for parity in self.ladder.blobs for row in parity.blobs]
        worst = max((row.relative_error for row in blobs), default=0.0)
        compared = f"{len(blobs)} blobs of {len(self.ladder.blobs)} images"
        left_out = "; ".join(_left_out(self.ladder.blobs))
        seen = f"{compared}, relative error at most {worst:.1e}" + (f"; not compared: {left_out}" if left_out else "")
        return Rung("blobs", "holds", seen, compared=compared, not_compared=left_out)

    def proposals(self) -> Rung:
        if not self.ladder.blobs:
            return Rung("proposals", "not run", "needs --reference and --images")
        levels = [level for parity in self.ladder.blobs for level in parity.proposals]
        if self.finding is not None and self.finding.rung == "proposals":
            return self._found("proposals", "")
        if not levels:
            return Rung("proposals", "not run", "the reference holds no proposals, or a sample of their scores alone")
        count, tied = sum(level.reference_count for level in levels), sum(level.tied for level in levels)
        excused = f", but for {tied} of tied scores" if tied else ""
        first, last = self.cfg.FPN.RPN_MIN_LEVEL, self.cfg.FPN.RPN_MAX_LEVEL
        lacking = sorted(
            {
                level
                for parity in self.ladder.blobs
                for level in set(range(first, last + 1)) - {row.level for row in parity.proposals}
            }
        )
        return Rung(
            "proposals",
            "holds",
            f"{count} proposals have their partner{excused}",
            compared=f"{count} proposals",
            not_compared=f"proposals of {', '.join(f'P{level}' for level in lacking)}" if lacking else "",
        )

    def detections(self) -> Rung:
        matched = sum(parity.detections.matched for parity in self.ladder.blobs)
        seen = f"{matched} detections of the reference matched" if self.ladder.blobs else ""
        dumped = f"{matched} detections of the reference" if self.ladder.blobs else ""
        if self.finding is not None:
            return self._found("detections", seen)
        if self.inputs.annotations is not None and self.inputs.images is not None:
            self._evaluate(self.inputs.annotations, self.inputs.images)
            rung = compare_results(self.ladder, self.inputs)
            if rung.state != "not run":
                compared = " and ".join(filter(None, (dumped, rung.compared)))
                return replace(rung, seen="; ".join(filter(None, (seen, rung.seen))), compared=compared)
        if not seen:
            return Rung("detections", "not run", "needs --reference, or Detectron's result files and --annotations")
        left_out = "detections of the data set" if self.ladder.evaluation is not None else ""
        return Rung("detections", "holds", seen, compared=dumped, not_compared=left_out)

    def ap(self) -> Rung:
        if self.ladder.evaluation is None:
            return Rung("AP", "not run", "needs --annotations and --images")
        return compare_average_precision(self.ladder, self.inputs)

    def release_others(self, *, evaluates: bool = False) -> None:
        """Tell the processes that wait, once, whether there is a data set to share."""
        if self.others_wait:
            self.others_wait = False
            self.inputs.ranks.exchange(evaluates)

    def _evaluate(self, annotations: Path, images: Path) -> None:
        assert self.ladder.model is not None
        inputs = self.inputs
        self.release_others(evaluates=True)
        evaluation = evaluate(
            self.ladder.model,
            annotations,
            images,
            self.progress,
            batch=inputs.batch,
            out=inputs.out,
            ranks=inputs.ranks,
        )
        assert evaluation is not None
        write_evaluation(evaluation, annotations.stem, inputs.out)
        self.ladder.evaluation = evaluation

    def _found(self, name: str, seen: str) -> Rung:
        """The rung that the finding belongs to differs; those below it hold."""
        if self.finding is None or self.finding.rung != name:
            return Rung(name, "holds", seen)
        evidence = f"{self.finding.where}: {self.finding.evidence}"
        return Rung(name, "differs", evidence, self.finding.suspect, self.finding.may_be)


def _left_out(parities: Sequence[ImageParity]) -> Iterator[str]:
    """What was not compared of the blobs, image by image."""
    for parity in parities:
        if parity.not_compared:
            yield f"{few(parity.not_compared)} of the reference ({parity.image})"
        if parity.absent:
            yield f"{few(parity.absent)}, which the reference does not hold ({parity.image})"


def _share_evaluation(inputs: LadderInputs, progress: Progress) -> None:
    """What the other processes do: wait for the first one's word, and detect in their share of the images."""
    if not inputs.ranks.exchange(False)[0]:
        return
    assert inputs.annotations is not None and inputs.images is not None
    model = load_model(inputs.source, inputs.config, inputs.overrides, inputs.device, inputs.precision)
    evaluate(
        model, inputs.annotations, inputs.images, progress, batch=inputs.batch, out=inputs.out, ranks=inputs.ranks
    )


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
