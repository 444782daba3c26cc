"""The files of an evaluation: `bbox.json`, `segm.json`, `ap.json`."""

from pathlib import Path
from typing import Any

from detectron_gn.mrcnn.evaluation.ap import ap_document
from detectron_gn.mrcnn.evaluation.evaluate import Evaluation
from detectron_gn.mrcnn.evaluation.partial_results import remove_partial_results
from detectron_gn.weights.files.json_file import write_json


def write_evaluation(evaluation: Evaluation, name: str, folder: Path) -> dict[str, Any]:
    """Write `bbox.json`, `segm.json` (with a mask head) and `ap.json` into a folder; returns what `ap.json` holds.

    Args:
        name: of the data set, the annotation file's stem.

    The partial results that the folder kept are no longer needed then, and are removed.
    """
    document = ap_document(name, evaluation.summaries)
    for iou_type, rows in evaluation.rows.items():
        write_json(folder / f"{iou_type}.json", rows)
    write_json(folder / "ap.json", document)
    remove_partial_results(folder)
    return document
