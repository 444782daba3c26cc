"""The rungs of the ladder: what each compares, and what is said of it.

Each takes for granted what the ones before it have shown: file, names, statistics, blobs, proposals, detections, AP.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.coco import read_annotations
from detectron_gn.mrcnn.data.image_files import id_in_name
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.ap import AP_JSON_KEY, score
from detectron_gn.mrcnn.evaluation.coco_eval import MAX_DETECTIONS
from detectron_gn.mrcnn.evaluation.evaluate import Evaluation
from detectron_gn.mrcnn.evaluation.results_files import IouType, ResultRow, check_results, read_results
from detectron_gn.mrcnn.wording import listed
from detectron_gn.port.blobs.convert import check_family
from detectron_gn.port.blobs.fitting import way_out
from detectron_gn.port.blobs.layouts import with_blob_names
from detectron_gn.port.blobs.match import WrongShape, match_blobs
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.verify.parity.blobs import ImageParity
from detectron_gn.verify.parity.coverage import remark_of_thin, thin_not_compared, told_values
from detectron_gn.verify.parity.results import PLURAL, DetectionParity, match_detections, told_moved
from detectron_gn.verify.parity.usual import remark_of_errors
from detectron_gn.verify.published import TOLD, ApComparison, Expectation, compare_ap
from detectron_gn.verify.reference.image_dump import ImageReference
from detectron_gn.verify.reference.weights_digests import ComparedWeights
from detectron_gn.weights.weights_file import WeightsFile

State = Literal["holds", "differs", "not run"]
RUNGS = ("file", "names", "statistics", "blobs", "proposals", "detections", "AP")


@dataclass(frozen=True)
class Rung:
    """One rung: what was seen, and where it differs what that comes from.

    Attributes:
        suspect: where the evidence leaves no other; else empty.
        may_be: what it usually comes from, where the evidence does not tell; else empty.
        compared: what was compared and agrees, where the rung's name does not say all of it.
        not_compared: what there was nothing to compare with, though the rung holds.
    """

    name: str
    state: State
    seen: str
    suspect: str = ""
    may_be: str = ""
    compared: str = ""
    not_compared: str = ""


def check_names(cfg: Config, weights: WeightsFile, *, keep_unused: bool = False) -> Rung:
    """Whether the blobs of a file are those of the configuration, by name and shape."""
    table = BlobTable.from_config(cfg)
    wrong = "the file and the configuration are of different models"
    try:
        weights = with_blob_names(table, weights)
    except InputError as error:
        return Rung("names", "differs", str(error))  # which says whose names they are, and what to do
    try:
        check_family(cfg, table, weights, keep_unused=keep_unused)
        match = match_blobs(table, weights)
    except WrongShape as error:
        return Rung("names", "differs", error.found, f"{wrong}: {way_out(weights)}")
    except InputError as error:
        return Rung("names", "differs", str(error), wrong)
    preserved, trained = match.leftovers.preserved, match.leftovers.trained
    if keep_unused:
        preserved, trained = preserved + trained, ()
    if match.missing or trained:
        missing = ", ".join(row.blob for row in match.missing[:4]) or "none"
        unexpected = ", ".join(trained[:4]) or "none"
        return Rung(
            "names",
            "differs",
            f"missing: {missing} ({len(match.missing)}); of another network: {unexpected} ({len(trained)})",
            f"{wrong}: {way_out(weights)}",
        )
    left = f", {len(preserved)} unused blobs preserved" if preserved else ""
    return Rung("names", "holds", f"{len(table.rows)} parameters of the right shape{left}")


def check_statistics(cfg: Config, weights: WeightsFile) -> Rung:
    """Whether the values can be those of a trained model: finite, and not what layers are filled with at first."""
    table = BlobTable.from_config(cfg)
    rows, weights = table.rows, with_blob_names(table, weights)
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


def compared_blobs(parities: Sequence[ImageParity], tolerance: float, weights: ComparedWeights) -> Rung:
    """The rung of blobs that agree to a tolerance; an error far above what rounding gives is remarked.

    Args:
        weights: what is known of the reference's weights, all of which are the same as far as it tells.
    """
    rows = [row for parity in parities for row in parity.blobs]
    if not rows:
        return Rung("blobs", "not run", "the reference holds no blob that the network has")
    worst = max((row.relative_error for row in rows), default=0.0)
    compared = f"{len(rows)} blobs of {len(parities)} images ({told_values(parities)})"
    left_out = "; ".join(_left_out(parities))
    seen = f"{compared}, relative error at most {worst:.1e}" + (f"; not compared: {left_out}" if left_out else "")
    for remark in filter(None, (weights.told, remark_of_thin(parities), remark_of_errors(parities, tolerance))):
        seen += f"; {remark}"
    not_compared = ", ".join(filter(None, (weights.not_compared, thin_not_compared(parities), left_out)))
    return Rung("blobs", "holds", seen, compared=compared, not_compared=not_compared)


def compared_proposals(parities: Sequence[ImageParity], pyramid_levels: range) -> Rung:
    """The rung of proposals that agree, or that the reference does not hold."""
    levels = [level for parity in parities for level in parity.proposals]
    if not levels:
        return Rung("proposals", "not run", "the reference holds no proposals, or a sample of their scores alone")
    count, tied = sum(level.reference_count for level in levels), sum(level.tied for level in levels)
    excused = f", but for {tied} of tied scores" if tied else ""
    lacking = {level for parity in parities for level in {*pyramid_levels} - {row.level for row in parity.proposals}}
    return Rung(
        "proposals",
        "holds",
        f"{count} proposals have their partner{excused}",
        compared=f"{count} proposals",
        not_compared=f"proposals of {', '.join(f'P{level}' for level in sorted(lacking))}" if lacking else "",
    )


def compared_given_proposals(
    stored: StoredProposals, references: Iterable[ImageReference], coco: COCO | None, cfg: Config
) -> Rung:
    """The rung of proposals from a file: those of each image beside the ones that went into the reference's run.

    Args:
        coco: annotations that tell the ids of images whose names do not.
    """
    count = 0
    for reference in references:
        assert reference.proposals is not None
        image_id = _image_id(reference.name, coco)
        if image_id is None:
            return Rung("proposals", "not run", f"needs --annotations, which tell the id of {reference.name}")
        ours = stored.of_image(image_id, *reference.image_size, cfg.TEST.PROPOSAL_LIMIT)
        if ours.shape != reference.proposals.shape:
            were = len(reference.proposals)
            evidence = f"{reference.name}: {len(ours)} proposals of the file are fit for use, but {were} went in"
            causes = (
                "another file of proposals, TEST.PROPOSAL_LIMIT, or making them fit: clipped to the image, those that "
                "are the same to the pixel once, sides above 2 pixels"
            )
            return Rung("proposals", "differs", evidence, may_be=causes)
        apart = np.abs(ours - reference.proposals)
        if apart.max(initial=0.0) > 0:
            row = int(apart.max(axis=1).argmax())
            other = _box(reference.proposals[row])
            evidence = f"{reference.name}: proposal {row} is {_box(ours[row])}, but {other} went in"
            return Rung("proposals", "differs", evidence, _why_other_proposals(ours, reference))
        count += len(ours)
    told = f"{count} proposals of the file"
    return Rung("proposals", "holds", f"{told} are those that went into the reference's run", compared=told)


def _image_id(name: str, coco: COCO | None) -> int | None:
    """Of an image of the annotations, or of one that is named by its id, as COCO's are."""
    of_name = {} if coco is None else {image["file_name"]: image_id for image_id, image in coco.imgs.items()}
    return of_name.get(name, id_in_name(name))


def _why_other_proposals(ours: npt.NDArray[np.float32], reference: ImageReference) -> str:
    assert reference.proposals is not None
    height, width = reference.image_size
    ends = np.array([width - 1, height - 1, width - 1, height - 1], np.float32)
    if np.array_equal(np.clip(ours, 0, ends), reference.proposals):
        return "clipping: proposals of a file are clipped to the image, whose last pixel is size - 1"
    return "another file of proposals, or its order: best first, as they stand in it"


def _box(corners: npt.NDArray[np.float32]) -> str:
    return f"({', '.join(f'{corner:.2f}' for corner in corners)})"


class ComparedResults(NamedTuple):
    """What result files were found to be: the rung, each comparison, and the rows of the reference by type."""

    rung: Rung
    detections: list[DetectionParity]
    reference_rows: dict[IouType, list[ResultRow]]


def compare_results(
    evaluation: Evaluation, annotations: Path, files: Mapping[IouType, Path]
) -> ComparedResults:
    """Our results on the data set beside Detectron's result files, where there are any."""
    coco = read_annotations(annotations)
    detections: list[DetectionParity] = []
    reference_rows: dict[IouType, list[ResultRow]] = {}
    for iou_type, path in files.items():
        if iou_type in evaluation.rows:
            rows = read_results(path)
            check_results(rows, iou_type, str(path), coco)
            reference_rows[iou_type] = rows
            detections.append(match_detections(evaluation.rows[iou_type], rows, iou_type))
    absent = [iou_type for iou_type in evaluation.rows if iou_type not in files]
    return ComparedResults(_results_rung(detections, absent), detections, reference_rows)


def _results_rung(detections: Sequence[DetectionParity], absent: Sequence[IouType]) -> Rung:
    if not detections:
        return Rung("detections", "not run", "needs Detectron's result files")
    shares = [(PLURAL[each.iou_type], 100 * each.share_matched) for each in detections]
    seen = ", ".join(f"{share:.2f} % of {kind} matched" for kind, share in shares)
    for each in detections:
        if each.moved_keypoints:
            seen += f" ({told_moved(each.moved_keypoints, each.keypoints, each.max_box_difference)})"
    apart = next((each for each in detections if not each.holds), None)
    if apart is None:
        compared = " and ".join(f"{each.reference} {PLURAL[each.iou_type]} of the data set" for each in detections)
        left_out = ", ".join(f"{PLURAL[kind]} of the data set" for kind in absent)
        return Rung("detections", "holds", seen, compared=compared, not_compared=left_out)
    boxes_hold = detections[0].iou_type == "bbox" and detections[0].holds
    if apart.iou_type == "segm" and boxes_hold:
        causes = "the mask head or the pasting of masks, since the boxes agree: a dump of dump_blobs.py tells which"
    elif apart.iou_type == "keypoints" and boxes_hold:
        causes = "the keypoint head or reading keypoints off its heatmaps, since the boxes agree: a dump tells which"
    else:
        causes = "the network, the proposals or NMS: a dump of dump_blobs.py tells which (--reference)"
    return Rung("detections", "differs", seen, may_be=causes)


def compare_average_precision(
    source: str,
    measured: Mapping[str, float],
    expected: Expectation | None,
    annotations: Path,
    reference_rows: Mapping[IouType, list[ResultRow]],
    seconds_per_image: str | None = None,
    max_detections: int = MAX_DETECTIONS,
) -> tuple[Rung, ApComparison | None]:
    """Our AP beside the expected one: the catalog's, the user's, or what Detectron's result files score.

    Args:
        measured: 0..1, by the names of `published.TOLD`.
        max_detections: those of an image and category that count, where result files are scored.
    """
    seen = ", ".join(f"{TOLD[kind]} {100 * ap:.2f}" for kind, ap in measured.items())
    if expected is None and reference_rows:
        coco = read_annotations(annotations)
        scores = {
            AP_JSON_KEY[kind]: score(rows, coco, kind, max_detections).AP for kind, rows in reference_rows.items()
        }
        expected = Expectation({kind: 100 * ap for kind, ap in scores.items()})
    if expected is None:
        return Rung("AP", "not run", f"{seen}; nothing to compare with"), None
    known = expected.ap.keys() & measured.keys()
    if not known:
        told = " and ".join(TOLD[kind] for kind in expected.ap)
        return Rung("AP", "not run", f"{seen}; {told} is expected, which the model does not give"), None
    # An AP of -1 is none: there are no objects to find.
    unknown = [kind for kind in known if expected.ap[kind] < 0 and measured[kind] < 0]
    expected = replace(expected, ap={kind: value for kind, value in expected.ap.items() if kind not in unknown})
    if len(unknown) == len(known):
        return Rung("AP", "not run", "the annotations hold no objects, so that there is no AP"), None
    comparison = compare_ap(source, expected, measured, seconds_per_image)
    apart = comparison.told_differences()
    if comparison.holds:
        compared = " and ".join(TOLD[kind] for kind in comparison.differences)
        left_out = ", ".join(TOLD[kind] for kind in measured if kind not in comparison.differences)
        return Rung("AP", "holds", f"{seen} ({apart})", compared=compared, not_compared=left_out), comparison
    causes = "the data set: other annotations or images than the expected AP was measured on (`verify published`)"
    return Rung("AP", "differs", f"{seen} ({apart})", may_be=causes), comparison


def _left_out(parities: Sequence[ImageParity]) -> Iterator[str]:
    """What was not compared of the blobs, image by image."""
    for parity in parities:
        if parity.not_compared:
            yield f"{listed(parity.not_compared)} of the reference ({parity.image})"
        if parity.absent:
            yield f"{listed(parity.absent)}, which the reference does not hold ({parity.image})"
