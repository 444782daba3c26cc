"""The ladder: from the file to the AP, rung by rung, up to the first one that differs from what Caffe2 gave.

The rungs themselves are in rungs.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from detectron_gn.mrcnn.config import Config, a_family
from detectron_gn.mrcnn.data.coco import read_annotations
from detectron_gn.mrcnn.data.read_image import AS_IMREAD, ImageReading
from detectron_gn.mrcnn.detectors import Detector, ProposalNetwork
from detectron_gn.mrcnn.distributed import ALONE, Ranks, usable_device
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.coco_eval import MAX_DETECTIONS
from detectron_gn.mrcnn.evaluation.evaluate import Evaluation, GoingOn, Progress, evaluate, no_progress, untold
from detectron_gn.mrcnn.evaluation.generate_proposals import GeneratedProposals, generate_proposals
from detectron_gn.mrcnn.evaluation.results_files import IouType, ResultRow
from detectron_gn.mrcnn.precision import Precision
from detectron_gn.mrcnn.wording import listed
from detectron_gn.port.blobs.convert import build_model, model_blobs
from detectron_gn.port.classes import categories_of
from detectron_gn.port.runs.load import configured_weights, load_model
from detectron_gn.port.runs.proposals import stored_proposals
from detectron_gn.verify.diagnosis.diagnose import diagnose
from detectron_gn.verify.diagnosis.diagnosis import OTHER_WEIGHTS, Diagnosis
from detectron_gn.verify.evaluation_files import write_evaluation, write_generated_proposals
from detectron_gn.verify.parity.blobs import ImageParity, compare_image
from detectron_gn.verify.parity.results import DetectionParity
from detectron_gn.verify.parity.usual import remark_of_detections
from detectron_gn.verify.published import ApComparison, Expectation
from detectron_gn.verify.reference.image_dump import read_references
from detectron_gn.verify.reference.weights_digests import compare_weights
from detectron_gn.verify.rungs import (
    RUNGS,
    Rung,
    check_names,
    check_statistics,
    compare_average_precision,
    compare_results,
    compared_blobs,
    compared_given_proposals,
    compared_proposals,
)
from detectron_gn.weights.download.cache import resolve
from detectron_gn.weights.files.digest import file_digest
from detectron_gn.weights.shown import folded
from detectron_gn.weights.weights_file import WeightsFile

# The rungs that compare with what Caffe2 computed.
COMPARING = ("blobs", "proposals", "detections", "AP")

# Where the words of a row begin.
_BESIDE = " " * 21


@dataclass(frozen=True)
class LadderInputs:
    """What there is to compare; a rung without its inputs is not run.

    Attributes:
        source, config, overrides, device, precision, keep_unused, classes: the model, as in `port.runs.load`.
        reference, images: a file that dump_blobs.py wrote, and the folder of images: blobs and proposals.
        annotations: of a data set in that folder: detections and AP.
        proposals: those of the data set, for a model without an RPN.
        reference_results: result files of Detectron's on that data set, by type.
        expected: the AP that the model should have there.
        out: folder for results.
        tolerance: largest relative error of a blob.
        batch: images of one padded size that run together.
        ranks: the processes that share the images of the data set out.
        reading: how image files are read.
        max_detections: those of an image and category that count for an AP.
    """

    source: str
    out: Path
    config: str | None = None
    overrides: Sequence[str] = ()
    device: str = "auto"
    precision: Precision = "fp32"
    keep_unused: bool = False
    classes: Sequence[str] | None = None
    reference: Path | None = None
    images: Path | None = None
    annotations: Path | None = None
    proposals: Path | None = None
    reference_results: Mapping[IouType, Path] = field(default_factory=dict)
    expected: Expectation | None = None
    tolerance: float = 1e-3
    batch: int = 1
    ranks: Ranks = ALONE
    reading: ImageReading = AS_IMREAD
    max_detections: int = MAX_DETECTIONS


@dataclass
class Ladder:
    """How far a model came, and all that was measured on the way."""

    rungs: list[Rung] = field(default_factory=list)
    sha256: str = ""
    model: Detector | None = None
    blobs: list[ImageParity] = field(default_factory=list)
    detections: list[DetectionParity] = field(default_factory=list)
    reference_rows: dict[IouType, list[ResultRow]] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    measured: dict[str, float] = field(default_factory=dict)
    comparison: ApComparison | None = None

    @property
    def compares(self) -> bool:
        """Whether anything was compared with Caffe2's: what the rungs before the blobs see, the file itself tells."""
        return any(rung.name in COMPARING and rung.state != "not run" for rung in self.rungs)

    @property
    def holds(self) -> bool:
        """Whether something was compared, and no rung differs."""
        return self.compares and all(rung.state != "differs" for rung in self.rungs)

    def document(self) -> dict[str, Any]:
        """What --json writes."""
        return {
            "holds": self.holds,
            "sha256": self.sha256,
            "rungs": [vars(rung) for rung in self.rungs],
            "detections": [parity.document() for parity in self.detections],
            "ap": None if self.comparison is None else self.comparison.document(),
        }


def climb(
    inputs: LadderInputs, say: Callable[[str], None], progress: Progress = no_progress, going_on: GoingOn = untold
) -> Ladder | None:
    """Climb the ladder up to the first rung that differs, saying each rung as it is reached.

    Of several processes the first climbs; the others wait until it comes to the data set, and share its images.

    Returns:
        How far it came; None in every process but the first.
    """
    if not inputs.ranks.is_first:
        _share_evaluation(inputs, progress)
        return None
    climber = _Climber(inputs, progress, going_on)
    try:
        for name, step in climber.steps().items():
            rung = step()
            say(_row(name, rung.state, rung.seen))
            climber.ladder.rungs.append(rung)
            if rung.state == "differs":
                for label, told in (("suspect:", rung.suspect), ("may be:", rung.may_be)):
                    if told:
                        say(folded(f"{label:>20} {told}", _BESIDE))
                break
        for name in RUNGS[len(climber.ladder.rungs) :]:
            say(_row(name, "not reached", ""))
    finally:
        climber.release_others()
    return climber.ladder


def ap_ladder(inputs: LadderInputs, found: Evaluation | GeneratedProposals) -> Ladder:
    """Only the last rung, of an evaluation that was made already; InputError where there is nothing to compare."""
    assert inputs.annotations is not None
    evaluation = found if isinstance(found, Evaluation) else None
    seconds = None if evaluation is None else evaluation.speed.seconds_per_image()
    rung, comparison = compare_average_precision(
        inputs.source, found.measured, inputs.expected, inputs.annotations, {}, seconds
    )
    if comparison is None:
        options = " or ".join(f"--expect-{kind}" for kind in found.measured)
        raise InputError(
            f"{inputs.source}: {rung.seen}, so that nothing can be compared: pass {options} for an AP that it gives"
        )
    digest = file_digest(resolve(inputs.source))
    return Ladder([rung], sha256=digest, evaluation=evaluation, measured=found.measured, comparison=comparison)


def _row(name: str, state: str, seen: str) -> str:
    """A row of the table of rungs, which is printed as they are reached."""
    return folded(f"{name:<11} {state:<8} {seen}".rstrip(), _BESIDE)


def check_inputs(inputs: LadderInputs) -> None:
    """InputError for what is given without its partner, so that it could not be used, before anything is read."""
    data = "--annotations and --images, a data set"
    if inputs.reference is not None and inputs.images is None:
        raise InputError("--reference needs --images: the folder of the images that it names")
    if inputs.annotations is not None and inputs.images is None:
        raise InputError("--annotations needs --images: the folder of its images")
    if inputs.images is not None and inputs.reference is None and inputs.annotations is None:
        raise InputError("--images says nothing by itself: pass --reference or --annotations too")
    if inputs.reference_results and inputs.annotations is None:
        raise InputError(f"Detectron's results are compared on a data set: pass {data}, with them")
    if inputs.annotations is not None and not (inputs.reference or inputs.reference_results or inputs.expected):
        raise InputError(
            f"there is nothing to compare with what {inputs.source} finds in {inputs.annotations}: pass --expect-box "
            "or --expect-mask with the AP that it should have, --reference-boxes with Detectron's, or --reference"
        )


def differing(ladder: Ladder) -> str | None:
    """The name of the rung that differs; None where none does."""
    return next((rung.name for rung in ladder.rungs if rung.state == "differs"), None)


def told_verdict(ladder: Ladder) -> str:
    """The end of it in one sentence; InputError where nothing was compared."""
    differs = differing(ladder)
    if differs is not None:
        return f"It differs from Caffe2, first in its {differs}."
    if not ladder.compares:
        raise InputError(
            "nothing was compared with Caffe2's values: that the file fits its configuration says nothing of what it "
            "finds; pass --reference with --images, or --annotations with --images (see verify all --help)"
        )
    not_run = [rung.name for rung in ladder.rungs if rung.state == "not run"]
    left_out = [*not_run, *(rung.not_compared for rung in ladder.rungs if rung.not_compared)]
    return f"It agrees with Caffe2{f' as far as it was compared, without {listed(left_out)}' if left_out else ''}."


class _Climber:
    """What the rungs hand on to each other."""

    def __init__(self, inputs: LadderInputs, progress: Progress, going_on: GoingOn) -> None:
        self.inputs = inputs
        self.progress = progress
        self.going_on = going_on
        self.ladder = Ladder()
        self.cfg = Config()
        self.weights: WeightsFile | None = None
        self.diagnosis: Diagnosis | None = None
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
        return Rung("file", "holds", f"{weights.format}, {len(weights.blobs)} blobs, {values:,} values")

    def names(self) -> Rung:
        assert self.weights is not None
        return check_names(self.cfg, self.weights, keep_unused=self.inputs.keep_unused)

    def statistics(self) -> Rung:
        assert self.weights is not None
        return check_statistics(self.cfg, self.weights)

    def blobs(self) -> Rung:
        assert self.weights is not None
        inputs = self.inputs
        model = build_model(self.cfg, self.weights, keep_unused=inputs.keep_unused).to(usable_device(inputs.device))
        parameters = {} if inputs.reference is None else model_blobs(model)
        model.categories = categories_of(self.cfg, self.weights, inputs.source, inputs.classes)
        model.use_precision(self.inputs.precision)
        self.ladder.model = model
        reference, images = self.inputs.reference, self.inputs.images
        if reference is None or images is None:
            return Rung("blobs", "not run", "needs --reference and --images")
        looked = []
        for image_reference in read_references(reference, images, model.cfg, self.inputs.reading):
            parity = compare_image(model, image_reference)
            self.ladder.blobs.append(parity)
            looked.append(diagnose(model, parity, image_reference, self.inputs.tolerance))
        # Of several images the one whose difference begins at the lowest rung.
        self.diagnosis = min(
            (diagnosis for diagnosis in looked if diagnosis is not None),
            key=lambda diagnosis: RUNGS.index(diagnosis.rung),
            default=None,
        )
        weights = compare_weights(reference, parameters)
        if weights.others:
            return self._of_other_weights(weights.told)
        if self.diagnosis is not None:
            return self._diagnosed("blobs", f"they agree up to {self.diagnosis.where}")
        return compared_blobs(self.ladder.blobs, inputs.tolerance, weights)

    def _of_other_weights(self, others: str) -> Rung:
        """What the reference tells of its weights leaves no other cause, and no agreement either."""
        seen = "the blobs are within the tolerance all the same"
        if self.diagnosis is not None:
            seen = f"{self.diagnosis.where}: {self.diagnosis.evidence}"
        return Rung("blobs", "differs", seen, f"{OTHER_WEIGHTS}: {others}")

    def proposals(self) -> Rung:
        if not self.ladder.blobs:
            return Rung("proposals", "not run", "needs --reference and --images")
        rpn = getattr(self.ladder.model, "rpn", None)
        if rpn is None:
            return self._given_proposals()
        if self.diagnosis is not None and self.diagnosis.rung == "proposals":
            return self._diagnosed("proposals", "")
        return compared_proposals(self.ladder.blobs, rpn.levels)

    def _given_proposals(self) -> Rung:
        """The proposals that a model without an RPN is given, as they are made fit for each image of the reference."""
        inputs, takes = self.inputs, self.ladder.model is not None and self.ladder.model.takes_proposals
        if not takes:
            return Rung("proposals", "not run", f"{a_family(self.cfg)} makes none")
        if inputs.proposals is None or inputs.reference is None or inputs.images is None:
            return Rung("proposals", "not run", "those of the reference were taken; needs --proposals")
        stored = stored_proposals(self.cfg, inputs.proposals)
        assert stored is not None
        references = read_references(inputs.reference, inputs.images, self.cfg, inputs.reading)
        coco = None if inputs.annotations is None else read_annotations(inputs.annotations)
        return compared_given_proposals(stored, references, coco, self.cfg)

    def detections(self) -> Rung:
        matched = sum(parity.detections.matched for parity in self.ladder.blobs)
        seen = f"{matched} detections of the reference matched" if self.ladder.blobs else ""
        for parity in self.ladder.blobs:
            if parity.detections.moved_keypoints:
                seen += f" ({parity.image}: {parity.detections.told_keypoints})"
        dumped = f"{matched} detections of the reference" if self.ladder.blobs else ""
        found = [parity.detections for parity in self.ladder.blobs]
        if matched:
            boxes, scores = max(each.box_error for each in found), max(each.score_error for each in found)
            seen += f", boxes to {boxes:.1g} pixels and scores to {scores:.1g}"
            if self.diagnosis is None and (remark := remark_of_detections(boxes, scores)):
                seen += f"; {remark}"
        if self.diagnosis is not None:
            return self._diagnosed("detections", seen)
        if self.inputs.annotations is not None and self.inputs.images is not None:
            evaluation = self._evaluate(self.inputs.annotations, self.inputs.images)
            if evaluation is None:
                return Rung("detections", "not run", "an RPN by itself finds none")
            rung, self.ladder.detections, self.ladder.reference_rows = compare_results(
                evaluation, self.inputs.annotations, self.inputs.reference_results
            )
            if rung.state != "not run":
                compared = " and ".join(filter(None, (dumped, rung.compared)))
                return replace(rung, seen="; ".join(filter(None, (seen, rung.seen))), compared=compared)
        if not seen:
            return Rung("detections", "not run", "needs --reference, or Detectron's result files and --annotations")
        left_out = "detections of the data set" if self.ladder.evaluation is not None else ""
        return Rung("detections", "holds", seen, compared=dumped, not_compared=left_out)

    def ap(self) -> Rung:
        ladder, inputs = self.ladder, self.inputs
        if not ladder.measured or inputs.annotations is None:
            return Rung("AP", "not run", "needs --annotations and --images")
        seconds = None if ladder.evaluation is None else ladder.evaluation.speed.seconds_per_image()
        rung, ladder.comparison = compare_average_precision(
            inputs.source, ladder.measured, inputs.expected, inputs.annotations, ladder.reference_rows, seconds,
            inputs.max_detections,
        )  # fmt: skip
        return rung

    def release_others(self, *, evaluates: bool = False) -> None:
        """Tell the processes that wait, once, whether there is a data set to share."""
        if self.others_wait:
            self.others_wait = False
            self.inputs.ranks.exchange(evaluates)

    def _evaluate(self, annotations: Path, images: Path) -> Evaluation | None:
        """What the model finds in the data set, which is written; None for an RPN, which has proposals only."""
        assert self.ladder.model is not None
        inputs = self.inputs
        self.release_others(evaluates=True)
        found = _found(self.ladder.model, inputs, annotations, images, self.progress, self.going_on)
        assert found is not None
        self.ladder.measured = found.measured
        if isinstance(found, GeneratedProposals):
            write_generated_proposals(found, self.cfg, annotations.stem, inputs.out)
            return None
        write_evaluation(found, annotations.stem, inputs.out)
        self.ladder.evaluation = found
        return found

    def _diagnosed(self, name: str, seen: str) -> Rung:
        """The rung that the diagnosis belongs to differs; those below it hold."""
        if self.diagnosis is None or self.diagnosis.rung != name:
            return Rung(name, "holds", seen)
        evidence = f"{self.diagnosis.where}: {self.diagnosis.evidence}"
        suspect, may_be = self.diagnosis.suspect, self.diagnosis.may_be
        if self.inputs.precision != "fp32":
            # Rounding to fewer bits is as large as what a wrong network changes, so the values name no suspect.
            suspect, may_be = "", f"--precision {self.inputs.precision}: fp32 shows whether anything else differs"
        return Rung(name, "differs", evidence, suspect, may_be)


def _share_evaluation(inputs: LadderInputs, progress: Progress) -> None:
    """What the other processes do: wait for the first one's word, and detect in their share of the images."""
    if not inputs.ranks.exchange(False)[0]:
        return
    assert inputs.annotations is not None and inputs.images is not None
    model = load_model(
        inputs.source,
        inputs.config,
        inputs.overrides,
        inputs.device,
        inputs.precision,
        keep_unused=inputs.keep_unused,
        classes=inputs.classes,
    )
    _found(model, inputs, inputs.annotations, inputs.images, progress)


def _found(
    model: Detector,
    inputs: LadderInputs,
    annotations: Path,
    images: Path,
    progress: Progress,
    going_on: GoingOn = untold,
) -> Evaluation | GeneratedProposals | None:
    """What a model finds in the data set; None in every process but the first."""
    if isinstance(model, ProposalNetwork):
        return generate_proposals(
            model, annotations, images, progress, batch=inputs.batch, ranks=inputs.ranks, reading=inputs.reading
        )
    return evaluate(
        model,
        annotations,
        images,
        progress,
        batch=inputs.batch,
        proposals=stored_proposals(model.cfg, inputs.proposals),
        out=inputs.out,
        ranks=inputs.ranks,
        reading=inputs.reading,
        max_detections=inputs.max_detections,
        going_on=going_on,
    )


