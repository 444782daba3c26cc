"""The files of an evaluation: `bbox.json`, `segm.json`, `keypoints.json`, `ap.json`, `rpn_proposals.pkl`."""

from pathlib import Path
from typing import Any

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.evaluation.ap import ap_document
from detectron_gn.mrcnn.evaluation.evaluate import Evaluation
from detectron_gn.mrcnn.evaluation.generate_proposals import GeneratedProposals
from detectron_gn.mrcnn.evaluation.partial_results import remove_partial_results
from detectron_gn.mrcnn.evaluation.recall import recall_document
from detectron_gn.port.config.yaml_dumper import dump_config
from detectron_gn.weights.files.json_file import JsonList, write_json
from detectron_gn.weights.formats.proposals_pickle import ProposalsPickle, write_proposals

REPORT = "report.html"
# What is written to the folder of an evaluation.
WRITTEN = ("bbox.json", "segm.json", "keypoints.json", "ap.json", "rpn_proposals.pkl", REPORT)

# Rows that are in memory at a time.
_ROWS = 4096


def write_evaluation(evaluation: Evaluation, name: str, folder: Path) -> dict[str, Any]:
    """Write `bbox.json`, `segm.json` and `keypoints.json` as there are, and `ap.json`; returns what `ap.json` holds.

    Args:
        name: of the data set, the annotation file's stem.

    The partial results that the folder kept are no longer needed then, and are removed.
    """
    document = ap_document(name, evaluation.summaries)
    for iou_type, rows in evaluation.rows.items():
        with JsonList(folder) as written:
            for start in range(0, len(rows), _ROWS):
                written.extend(rows[start : start + _ROWS])
            written.write(folder / f"{iou_type}.json")
    write_json(folder / "ap.json", document)
    remove_partial_results(folder)
    return document


def write_generated_proposals(found: GeneratedProposals, cfg: Config, name: str, folder: Path) -> dict[str, Any]:
    """Write `rpn_proposals.pkl`, as Detectron does, and `ap.json` with the recall; returns what that holds.

    Args:
        cfg: of the model, which the file of proposals holds too.
        name: of the data set, the annotation file's stem.
    """
    stored = ProposalsPickle(found.boxes, found.scores, found.ids, dump_config(cfg))
    write_proposals(folder / "rpn_proposals.pkl", stored)
    document = recall_document(name, found.recall)
    write_json(folder / "ap.json", document)
    return document
