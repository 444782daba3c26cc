"""Average precision by pycocotools; answers to Detectron datasets/json_dataset_evaluator.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from detectron_gn.mrcnn.data.coco import quiet, read_annotations
from detectron_gn.mrcnn.evaluation.coco_eval import CocoEvaluation
from detectron_gn.mrcnn.evaluation.mask_encoding import encode_masks
from detectron_gn.mrcnn.evaluation.results_files import SHAPE_KEY, IouType, ResultRow, check_results, read_results
from detectron_gn.mrcnn.tables import text_table
from detectron_gn.mrcnn.wording import percent

# What ap.json calls the two kinds of results.
AP_JSON_KEY: dict[IouType, str] = {"bbox": "box", "segm": "mask"}


@dataclass(frozen=True)
class ApSummary:
    """COCO's six summary numbers, each in 0..1, or -1 where there is no object to find.

    Attributes:
        AP: mean over IoU 0.50:0.05:0.95.
        AP50, AP75: at IoU 0.5 and 0.75.
        APs, APm, APl: of objects under 32^2, up to 96^2, and above 96^2 pixels.
        per_class: AP of each category by name, in the order of category ids.
    """

    AP: float
    AP50: float
    AP75: float
    APs: float
    APm: float
    APl: float
    per_class: dict[str, float] = field(repr=False)

    def metrics(self) -> dict[str, float]:
        """The six numbers as ap.json holds them."""
        return {name: getattr(self, name) for name in METRICS}


METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def score(results: Sequence[ResultRow] | Path, annotations: COCO | Path, iou_type: IouType) -> ApSummary:
    """Score detections against an annotation file, over all of its images.

    Args:
        results: rows of COCO's results format, or a file with them. No rows at all, which a network early in
            its training can give, score 0; a file of none is refused.
        annotations: a COCO instances file, or what `read_annotations` made of it.
        iou_type: "bbox" or "segm"; keys of the rows that belong to the other type are not looked at.

    Raises InputError for a file or row that is not what it should be.
    """
    source = str(results) if isinstance(results, Path) else "results"
    ground_truth = read_annotations(annotations) if isinstance(annotations, Path) else annotations
    rows = read_results(results) if isinstance(results, Path) else results
    check_results(rows, iou_type, source, ground_truth)
    return score_checked(rows, ground_truth, iou_type)


def score_checked(rows: Sequence[ResultRow], annotations: COCO, iou_type: IouType) -> ApSummary:
    """`score` of rows that are known to be what they should: our own, fresh from the network."""
    if iou_type == "segm":
        encode_masks(annotations)
    with quiet():
        evaluation = CocoEvaluation(annotations, _load(rows, annotations, iou_type), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    metrics = {name: float(value) for name, value in zip(METRICS, evaluation.stats)}
    return ApSummary(**metrics, per_class=_per_class(evaluation, annotations))


def ap_document(name: str, summaries: Mapping[str, ApSummary]) -> dict[str, object]:
    """What ap.json holds for the data set `name`, the annotation file's stem, of "box" and "mask" as there are."""
    return {name: {kind: summary.metrics() for kind, summary in summaries.items()}}


def ap_table(summaries: dict[str, ApSummary], per_class: bool = False) -> str:
    """A table with a row for each named summary, in percent with one decimal more than papers print.

    With `per_class`, the AP of every category follows under the six numbers.
    """
    names = list(summaries)
    table = text_table(
        ["", *METRICS], [[name, *map(percent, summaries[name].metrics().values())] for name in names]
    )
    if not per_class:
        return table
    rows = [
        [category, *(percent(summaries[name].per_class[category]) for name in names)]
        for category in summaries[names[0]].per_class
    ]
    return f"{table}\n\n{text_table(['AP of', *names], rows)}"


def _load(rows: Sequence[ResultRow], ground_truth: COCO, iou_type: IouType) -> COCO:
    """The rows as pycocotools holds them.

    It is given copies, because it writes into the rows, and only the keys of this type: where rows have boxes
    as well, it would take the boxes' areas for the masks'.
    """
    if not rows:
        empty = COCO()
        empty.dataset = {**ground_truth.dataset, "annotations": []}
        empty.createIndex()
        return empty
    keys = ("image_id", "category_id", "score", SHAPE_KEY[iou_type])
    return ground_truth.loadRes([{key: row[key] for key in keys} for row in rows])


def _per_class(evaluation: CocoEvaluation, annotations: COCO) -> dict[str, float]:
    # [IoU, recall, category, area range, most detections]: the first range is all areas, the last limit 100.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    summary = {}
    for place, category in enumerate(evaluation.params.catIds):
        known = precision[:, :, place][precision[:, :, place] > -1]
        name = str(annotations.cats[category].get("name", category))
        summary[name] = float(np.mean(known)) if known.size else -1.0
    return summary
