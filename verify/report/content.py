"""What the page of a ladder shows; the page itself is made in report.py."""

import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path

import torch

from detectron_gn.mrcnn.data.image_files import image_files
from detectron_gn.mrcnn.detectors.generalized_rcnn import MaskRCNN
from detectron_gn.mrcnn.evaluation.ap import AP_JSON_KEY, ApSummary, score
from detectron_gn.mrcnn.evaluation.coco_files import IouType, ResultRow, read_annotations
from detectron_gn.port.config.read import dump_config
from detectron_gn.verify.ladder import RUNGS, Ladder, LadderInputs, file_digest
from detectron_gn.verify.parity.blobs import ImageParity
from detectron_gn.verify.parity.results import DetectionParity, match_detections
from detectron_gn.verify.published import ApComparison
from detectron_gn.verify.report.dump_results import dump_results
from detectron_gn.verify.report.page import Report, Tile, machine_facts, scatter_points
from detectron_gn.verify.report.plots import Point
from detectron_gn.verify.report.side_by_side import Pair, Side, annotation_pairs, result_pairs
from detectron_gn.weights.catalog import lookup
from detectron_gn.weights.errors import UnknownModel

MOST_PAIRS = 8
_OURS = "detectron-gn"


def ladder_report(title: str, ladder: Ladder, inputs: LadderInputs, reference_title: str) -> Report:
    """The report of a ladder, however far it came.

    Args:
        title: the model's name.
        reference_title: what the reference's side of the pictures is called.
    """
    evaluation, rows = ladder.evaluation, ladder.reference_rows
    detections: Sequence[DetectionParity] = ladder.detections
    scatter: tuple[Sequence[tuple[float, float]], Sequence[tuple[float, float]]] = ((), ())
    pairs: Sequence[Pair] = ()
    if evaluation is not None and "bbox" in rows:
        scatter = scatter_points(detections[0], evaluation.boxes, rows["bbox"])
    if ladder.model is not None and ladder.blobs and not rows:
        # Without result files the detections of the dump are what there is to show.
        detections, scatter, pairs = _dump_sections(ladder.model, inputs, reference_title)
    device = torch.device("cpu") if ladder.model is None else ladder.model.device
    return Report(
        title=title,
        holds=ladder.holds,
        verdict=_verdict(ladder),
        lead=_lead(ladder),
        tiles=[*_ap_tiles(ladder.comparison), *_blob_tiles(ladder.blobs), *_detection_tiles(ladder)],
        rungs=ladder.rungs,
        comparison=ladder.comparison,
        ap={} if evaluation is None else {"box": evaluation.box_ap, "mask": evaluation.mask_ap},
        reference_ap=_reference_ap(rows, inputs.annotations),
        blobs=ladder.blobs,
        tolerance=inputs.tolerance,
        detections=detections,
        scatter=scatter,
        pairs=pairs or _pairs(ladder, inputs, reference_title),
        provenance=[*_facts(ladder, inputs), *machine_facts(device)],
    )


def _dump_sections(
    model: MaskRCNN, inputs: LadderInputs, reference_title: str
) -> tuple[list[DetectionParity], tuple[Sequence[Point], Sequence[Point]], list[Pair]]:
    """Detections beside those of the reference file, their scatter and their pictures."""
    assert inputs.reference is not None and inputs.images is not None
    found = dump_results(model, inputs.reference, inputs.images)
    boxes = match_detections(found.boxes, found.reference_boxes, "bbox")
    masks = match_detections(found.segms, found.reference_segms, "segm")
    reference = Side(reference_title, found.reference_boxes, found.reference_segms)
    ours = Side(_OURS, found.boxes, found.segms)
    pairs = result_pairs(found.coco, found.files, reference, ours, MOST_PAIRS)
    return [boxes, masks], scatter_points(boxes, found.boxes, found.reference_boxes), pairs


def model_title(source: str) -> str:
    """The catalog's name and id of a model, or the file's name."""
    try:
        entry = lookup(source)
    except UnknownModel:
        return Path(source).name
    return f"{entry.name} ({entry.id})"


def _verdict(ladder: Ladder) -> str:
    differs = next((rung.name for rung in ladder.rungs if rung.state == "differs"), None)
    if differs is not None:
        return f"Differs: {differs}"
    if [rung.name for rung in ladder.rungs] == ["AP"]:
        return "AP as expected"
    return "Agrees with Caffe2" if _complete(ladder) else "Agrees as far as it was compared"


def _lead(ladder: Ladder) -> str:
    last = ladder.rungs[-1]
    if last.state == "differs":
        return f"The first step that differs is {last.name}: {last.seen}."
    if _complete(ladder):
        return "File, values, every blob, every proposal, every detection and the average precision agree."
    if last.name == "AP" and len(ladder.rungs) == 1:
        return f"Measured {last.seen}."
    held = [rung.compared or rung.name for rung in ladder.rungs if rung.state == "holds"]
    left_out = [rung.not_compared for rung in ladder.rungs if rung.not_compared]
    told = f"Compared and found equal: {', '.join(held)}." if held else "Nothing was compared."
    return f"{told} Not compared: {'; '.join(left_out)}." if left_out else told


def _complete(ladder: Ladder) -> bool:
    """Whether every rung holds, and nothing was left out of any."""
    held = [rung.name for rung in ladder.rungs if rung.state == "holds" and not rung.not_compared]
    return held == list(RUNGS)


def _ap_tiles(comparison: ApComparison | None) -> list[Tile]:
    if comparison is None:
        return []
    decimals = 1 if comparison.expected.entry else 2
    return [
        Tile(f"{kind} AP", f"{measured:.2f}", f"reference {comparison.expected.ap[kind]:.{decimals}f}")
        for kind, measured in comparison.measured.items()
        if kind in comparison.expected.ap
    ]


def _blob_tiles(parities: Sequence[ImageParity]) -> list[Tile]:
    if not parities:
        return []
    rows = [row for parity in parities for row in parity.blobs]
    faulty = list(dict.fromkeys(row.blob for row in rows if row.fault))
    largest = max((row.relative_error for row in rows if not row.fault), default=0.0)
    if faulty:
        more = f" and {len(faulty) - 1} more" if len(faulty) > 1 else ""
        under = f"{faulty[0]}{more}: another shape, or not finite; the others differ by at most {largest:.1e}"
        return [Tile("blobs not comparable", str(len(faulty)), under)]
    where = f"{len(parities[0].blobs)} blobs, {len(parities)} image{'s' * (len(parities) > 1)}"
    return [Tile("largest blob error", f"{largest:.1e}", where)]


def _detection_tiles(ladder: Ladder) -> list[Tile]:
    names = {"bbox": "boxes matched", "segm": "masks matched"}
    return [
        Tile(names[parity.iou_type], f"{100 * parity.share_matched:.4g} %", f"{parity.matched} of {parity.reference}")
        for parity in ladder.detections
    ]


def _reference_ap(rows: dict[IouType, list[ResultRow]], annotations: Path | None) -> dict[str, ApSummary]:
    if annotations is None or not rows:
        return {}
    coco = read_annotations(annotations)
    return {AP_JSON_KEY[iou_type]: score(found, coco, iou_type) for iou_type, found in rows.items()}


def _pairs(ladder: Ladder, inputs: LadderInputs, reference_title: str) -> list[Pair]:
    """Pictures beside the reference's where there are its boxes and masks, else beside the annotations."""
    evaluation, rows = ladder.evaluation, ladder.reference_rows
    if evaluation is None or inputs.annotations is None or inputs.images is None:
        return []
    coco = read_annotations(inputs.annotations)
    files = image_files(coco, inputs.images)
    ours = Side(_OURS, evaluation.boxes, evaluation.segms)
    if rows.keys() == {"bbox", "segm"} and len(rows["bbox"]) == len(rows["segm"]):
        return result_pairs(coco, files, Side(reference_title, rows["bbox"], rows["segm"]), ours, MOST_PAIRS)
    return annotation_pairs(coco, files, ours, MOST_PAIRS)


def _facts(ladder: Ladder, inputs: LadderInputs) -> list[tuple[str, str]]:
    facts = [("model", inputs.source), ("sha256 of the file", ladder.sha256)]
    if ladder.model is not None:
        digest = hashlib.sha256(dump_config(ladder.model.cfg).encode()).hexdigest()
        changed = f" with {shlex.join(inputs.overrides)}" if inputs.overrides else ""
        facts.append(("configuration", f"{inputs.config or 'the one in the file'}{changed}, sha256 {digest}"))
        facts.append(("precision", ladder.model.precision))
    for name, path in (("annotations", inputs.annotations), ("reference blobs", inputs.reference)):
        if path is not None:
            facts.append((name, f"{path.name}, sha256 {file_digest(path)}"))
    for path in (inputs.reference_boxes, inputs.reference_masks):
        if path is not None:
            facts.append(("reference results", f"{path.name}, sha256 {file_digest(path)}"))
    if ladder.evaluation is not None:
        seconds = ladder.evaluation.speed.seconds_per_image()
        facts.append(("images", ladder.evaluation.naming))
        if seconds is not None:
            facts.append(("seconds an image", f"{seconds} (network + pasting)"))
    return facts
