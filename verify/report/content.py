"""What the report of a verification shows; page.py makes the page of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from detectron_gn.mrcnn.data.coco import read_annotations
from detectron_gn.mrcnn.data.image_files import image_files
from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.evaluation.ap import AP_JSON_KEY, ApSummary, score
from detectron_gn.mrcnn.evaluation.results_files import IouType, ResultRow
from detectron_gn.mrcnn.wording import listed, percent
from detectron_gn.verify.ladder import Ladder, LadderInputs
from detectron_gn.verify.parity.blobs import ImageParity
from detectron_gn.verify.parity.results import PLURAL, DetectionParity, match_detections, parity_rows
from detectron_gn.verify.published import TOLD, ApComparison, comparison_rows
from detectron_gn.verify.report.dump_results import dump_results
from detectron_gn.verify.report.plots import Point
from detectron_gn.verify.report.provenance import Fact, ladder_facts, machine_facts
from detectron_gn.verify.report.side_by_side import Pair, Side, annotation_pairs, result_pairs
from detectron_gn.verify.rungs import RUNGS, Rung
from detectron_gn.weights.catalog import lookup
from detectron_gn.weights.errors import UnknownModel
from detectron_gn.weights.shown import without_secrets

MOST_PAIRS = 8
_OURS = "detectron-gn"


@dataclass(frozen=True)
class Tile:
    """A number of the page's head: what it is, the number, and what stands beside it."""

    label: str
    value: str
    under: str = ""


class Table(NamedTuple):
    """Cells as text."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Bar(NamedTuple):
    """A metric from 0 to 1, and the reference's where there is one."""

    name: str
    value: float
    reference: float | None


@dataclass(frozen=True)
class Report:
    """What a page shows; a section without content is left out.

    Attributes:
        title: the model's name.
        holds: whether all that was compared agrees; `verdict` says it in a few words, `lead` in a sentence or two.
        ap, reference_ap: summaries by `box` and `mask`; the reference's may be fewer.
        scatter: (reference's score, our score) and (reference's score, box difference in pixels) of each pair.
        provenance: what the page is about and how it was made: file, hash, configuration, command.
    """

    title: str
    holds: bool
    verdict: str
    lead: str
    tiles: Sequence[Tile] = ()
    rungs: Sequence[Rung] = ()
    comparison: ApComparison | None = None
    ap: Mapping[str, ApSummary] = field(default_factory=dict)
    reference_ap: Mapping[str, ApSummary] = field(default_factory=dict)
    blobs: Sequence[ImageParity] = ()
    tolerance: float = 1e-3
    detections: Sequence[DetectionParity] = ()
    scatter: tuple[Sequence[Point], Sequence[Point]] = ((), ())
    pairs: Sequence[Pair] = ()
    provenance: Sequence[Fact] = ()

    def ap_table(self) -> Table:
        """Expected and measured AP, one row per column of Detectron's table: that is too wide for a phone."""
        assert self.comparison is not None
        header, (expected, measured) = comparison_rows(self.comparison)
        rows = [cells for cells in zip(header[2:], expected[2:], measured[2:]) if not {"-", ""}.issuperset(cells[1:])]
        return Table([expected[0], expected[1], measured[1]], rows)

    def blob_table(self) -> Table:
        """The relative error of every blob in each image."""
        cells: dict[str, list[str]] = {}
        for parity in self.blobs:
            for row in parity.blobs:
                cells.setdefault(row.blob, ["x".join(map(str, row.shape))]).append(row.told)
        columns = len(self.blobs) + 1
        rows = [[blob, *told, *["-"] * (columns - len(told))] for blob, told in cells.items()]
        return Table(["blob", "shape", *(parity.image for parity in self.blobs)], rows)

    def detection_table(self) -> Table:
        """How far the detections of both sides are apart."""
        return Table(*parity_rows(self.detections))

    def ap_bars(self) -> dict[str, list[Bar]]:
        """The metrics that there are, by `box` and `mask`."""
        bars = {}
        for kind, summary in self.ap.items():
            reference = self.reference_ap[kind].metrics() if kind in self.reference_ap else {}
            known = {name: value for name, value in reference.items() if value >= 0}
            metrics = summary.metrics().items()
            bars[kind] = [Bar(name, value, known.get(name)) for name, value in metrics if value >= 0]
        return bars

    def class_table(self) -> Table:
        """The AP of each class."""
        header, names = ["class"], list(next(iter(self.ap.values())).per_class)
        columns: list[Mapping[str, float]] = []
        for kind, summary in self.ap.items():
            header.append(f"{kind} AP")
            columns.append(summary.per_class)
            if kind in self.reference_ap:
                header.append(f"{kind} AP, reference")
                columns.append(self.reference_ap[kind].per_class)
        return Table(header, [[name, *(percent(column.get(name, -1.0)) for column in columns)] for name in names])


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
        scatter = _scatter(detections[0], evaluation.rows["bbox"], rows["bbox"])
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
        ap={} if evaluation is None else evaluation.summaries,
        reference_ap=_reference_ap(rows, inputs),
        blobs=ladder.blobs,
        tolerance=inputs.tolerance,
        detections=detections,
        scatter=scatter,
        pairs=pairs or _pairs(ladder, inputs, reference_title),
        provenance=[*ladder_facts(ladder, inputs), *machine_facts(device)],
    )


def model_title(source: str) -> str:
    """The catalog's name and id of a model, or the file's name."""
    try:
        return lookup(source).title
    except UnknownModel:
        return Path(without_secrets(source)).name


def _scatter(
    parity: DetectionParity, ours: Sequence[ResultRow], reference: Sequence[ResultRow]
) -> tuple[list[Point], list[Point]]:
    """Points of the two scatter plots from pairs of boxes."""
    scores, boxes = [], []
    for mine, theirs in parity.partners.tolist():
        a, b = ours[mine], reference[theirs]
        scores.append((b["score"], a["score"]))
        boxes.append((b["score"], float(np.abs(np.subtract(a["bbox"], b["bbox"])).max())))
    return scores, boxes


def _dump_sections(
    model: Detector, inputs: LadderInputs, reference_title: str
) -> tuple[list[DetectionParity], tuple[Sequence[Point], Sequence[Point]], list[Pair]]:
    """Detections beside those of the reference file, their scatter and their pictures."""
    assert inputs.reference is not None and inputs.images is not None
    found = dump_results(model, inputs.reference, inputs.images, inputs.reading)
    boxes = match_detections(found.boxes, found.reference_boxes, "bbox")
    parities = [boxes]
    if found.segms is not None and found.reference_segms is not None:
        parities.append(match_detections(found.segms, found.reference_segms, "segm"))
    if found.keypoints is not None and found.reference_keypoints is not None:
        parities.append(match_detections(found.keypoints, found.reference_keypoints, "keypoints"))
    reference = Side(reference_title, found.reference_boxes, found.reference_segms, found.reference_keypoints)
    ours = Side(_OURS, found.boxes, found.segms, found.keypoints)
    pairs = result_pairs(found.coco, found.files, reference, ours, MOST_PAIRS, inputs.reading)
    return parities, _scatter(boxes, found.boxes, found.reference_boxes), pairs


def _verdict(ladder: Ladder) -> str:
    differs = next((rung.name for rung in ladder.rungs if rung.state == "differs"), None)
    if differs is not None:
        return f"Differs: {differs}"
    if [rung.name for rung in ladder.rungs] == ["AP"]:
        return "AP as expected"
    if not ladder.compares:
        return "Nothing was compared"
    return "Agrees with Caffe2" if _complete(ladder) else "Agrees as far as it was compared"


def _lead(ladder: Ladder) -> str:
    last = ladder.rungs[-1]
    if last.state == "differs":
        return f"The first step that differs is {last.name}: {last.seen}."
    if _complete(ladder):
        blobs = next(rung.compared for rung in ladder.rungs if rung.name == "blobs") or "every blob"
        return f"File, values, {blobs}, every proposal, every detection and the average precision agree."
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
        Tile(TOLD[kind], f"{measured:.2f}", f"reference {comparison.expected.ap[kind]:.{decimals}f}")
        for kind, measured in comparison.measured.items()
        if kind in comparison.expected.ap
    ]


def _blob_tiles(parities: Sequence[ImageParity]) -> list[Tile]:
    if not parities:
        return []
    rows = [row for parity in parities for row in parity.blobs]
    faulty = list(dict.fromkeys(row.blob for row in rows if row.fault))
    largest = max((row.worst_error for row in rows if not row.fault), default=0.0)
    if faulty:
        told = listed(faulty, most=1)
        under = f"{told}: another shape, or not finite; the others differ by at most {largest:.1e}"
        return [Tile("blobs not comparable", str(len(faulty)), under)]
    where = f"{len(parities[0].blobs)} blobs, {len(parities)} image{'s' * (len(parities) > 1)}"
    return [Tile("largest blob error", f"{largest:.1e}", where)]


def _detection_tiles(ladder: Ladder) -> list[Tile]:
    return [
        Tile(
            f"{PLURAL[parity.iou_type]} matched",
            f"{100 * parity.share_matched:.4g} %",
            f"{parity.matched} of {parity.reference}",
        )
        for parity in ladder.detections
    ]


def _reference_ap(rows: dict[IouType, list[ResultRow]], inputs: LadderInputs) -> dict[str, ApSummary]:
    if inputs.annotations is None or not rows:
        return {}
    coco, most = read_annotations(inputs.annotations), inputs.max_detections
    return {AP_JSON_KEY[iou_type]: score(found, coco, iou_type, most) for iou_type, found in rows.items()}


def _pairs(ladder: Ladder, inputs: LadderInputs, reference_title: str) -> list[Pair]:
    """Pictures beside the reference's where there are its boxes and masks, else beside the annotations."""
    evaluation, rows = ladder.evaluation, ladder.reference_rows
    if evaluation is None or inputs.annotations is None or inputs.images is None:
        return []
    coco = read_annotations(inputs.annotations)
    files = image_files(coco, inputs.images)
    ours = _side(_OURS, evaluation.rows)
    if rows.keys() == evaluation.rows.keys() and len({len(found) for found in rows.values()}) == 1:
        reference = _side(reference_title, rows)
        return result_pairs(coco, files, reference, ours, MOST_PAIRS, inputs.reading)
    return annotation_pairs(coco, files, ours, MOST_PAIRS, inputs.reading)


def _side(title: str, rows: Mapping[IouType, Sequence[ResultRow]]) -> Side:
    """All that one side has found."""
    return Side(title, rows["bbox"], rows.get("segm"), rows.get("keypoints"))
