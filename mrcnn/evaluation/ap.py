"""Average precision, as pycocotools computes it; answers to Detectron datasets/json_dataset_evaluator.py."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from detectron_gn.mrcnn.data.annotations.findings import annotation_subject, refuse_faults
from detectron_gn.mrcnn.data.annotations.keypoints import keypoint_faults, scored_keypoints
from detectron_gn.mrcnn.data.coco import read_annotations
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.coco_eval import MAX_DETECTIONS, CocoEvaluation
from detectron_gn.mrcnn.evaluation.mask_encoding import encode_masks, lacks_outlines
from detectron_gn.mrcnn.evaluation.result_columns import ResultColumns
from detectron_gn.mrcnn.evaluation.results_files import IouType, ResultRow, checked_results, stream_results
from detectron_gn.mrcnn.ops.keypoints import KEYPOINT_NAMES
from detectron_gn.mrcnn.tables import text_table
from detectron_gn.mrcnn.wording import percent

# What ap.json calls the kinds of results.
AP_JSON_KEY: dict[IouType, str] = {"bbox": "box", "segm": "mask", "keypoints": "keypoint"}


@dataclass(frozen=True)
class ApSummary:
    """COCO's summary numbers, each in 0..1, or -1 where there is no object to find.

    Attributes:
        AP: mean over IoU 0.50:0.05:0.95; of keypoints their similarity (OKS) takes the place of IoU.
        AP50, AP75: at IoU 0.5 and 0.75.
        APs, APm, APl: of objects under 32^2, up to 96^2, and above 96^2 pixels; keypoints have no APs.
        per_class: AP of each category by name, in the order of category ids.
    """

    AP: float
    AP50: float
    AP75: float
    APs: float | None
    APm: float
    APl: float
    per_class: dict[str, float] = field(repr=False)

    def metrics(self) -> dict[str, float]:
        """The numbers as ap.json holds them."""
        return {name: value for name in METRICS if (value := getattr(self, name)) is not None}


METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
# In the order in which pycocotools summarises keypoints.
KEYPOINT_METRICS = ("AP", "AP50", "AP75", "APm", "APl")


def score(
    results: Sequence[ResultRow] | Path,
    annotations: COCO | Path,
    iou_type: IouType,
    max_detections: int = MAX_DETECTIONS,
) -> ApSummary:
    """Score detections against an annotation file, over all of its images.

    Args:
        results: rows of COCO's results format, or a file with them. No rows at all, as of a network early in its
            training, score 0.
        annotations: a COCO instances file, or what `read_annotations` made of it.
        iou_type: "bbox", "segm" or "keypoints"; keys of the rows that belong to another type are not looked at.
        max_detections: of an image and category that count, the best first; of keypoints always 20, as COCO has it.

    Raises InputError for a file or row that is not what it should be, and for masks where no object has an outline.
    """
    ground_truth = read_annotations(annotations) if isinstance(annotations, Path) else annotations
    return score_checked(checked_columns(results, ground_truth, iou_type), ground_truth, iou_type, max_detections)


def checked_columns(results: Sequence[ResultRow] | Path, annotations: COCO, iou_type: IouType) -> ResultColumns:
    """Detections as `score` takes them, row after row from a file, checked; raises InputError as it does."""
    source = str(results) if isinstance(results, Path) else "results"
    rows = stream_results(results) if isinstance(results, Path) else results
    found = ResultColumns.of(checked_results(rows, iou_type, source, annotations), iou_type)
    if iou_type == "segm" and lacks_outlines(annotations):
        raise InputError(
            f"{getattr(annotations, 'source', 'the annotations')}: no object has an outline, so there is no mask AP: "
            "score the file of boxes (bbox.json), or give annotations with 'segmentation'"
        )
    return found


def score_checked(
    rows: Sequence[ResultRow], annotations: COCO, iou_type: IouType, max_detections: int = MAX_DETECTIONS
) -> ApSummary:
    """`score` of rows that are known to be what they should: our own, fresh from the network, or `checked_columns`."""
    found = rows if isinstance(rows, ResultColumns) else ResultColumns.of(rows, iou_type)
    if iou_type == "segm":
        annotations = encode_masks(annotations)
    if iou_type == "keypoints":
        check_keypoints(annotations)
    evaluation = CocoEvaluation(annotations, found, iou_type, max_detections)
    find = evaluation.average_precision
    return ApSummary(
        AP=find(),
        AP50=find(threshold=0.5),
        AP75=find(threshold=0.75),
        APs=None if iou_type == "keypoints" else find("small"),
        APm=find("medium"),
        APl=find("large"),
        per_class=_per_class(evaluation, annotations),
    )


def scoring_remarks(
    annotations: COCO, rows: Sequence[ResultRow], max_detections: int = MAX_DETECTIONS
) -> Iterator[str]:
    """What a reader of the AP should know: no detections, images without any, more objects than COCO counts."""
    objects = [annotation for annotation in annotations.anns.values() if not annotation["iscrowd"]]
    if not objects:
        yield "the annotations have no object to find, so there is no AP"
    elif not rows:
        yield f"there are no detections: all {len(objects)} objects are missed"
    found = set(rows.image_ids) if isinstance(rows, ResultColumns) else {row["image_id"] for row in rows}
    missed = sum(annotation["image_id"] not in found for annotation in objects)
    if rows and missed:
        count = len(annotations.imgs.keys() - found)
        yield f"{count} of {len(annotations.imgs)} images have no detections: their {missed} objects are missed"
    crowded = Counter((annotation["image_id"], annotation["category_id"]) for annotation in objects)
    (image_id, category_id), most = max(crowded.items(), key=lambda item: item[1], default=((None, None), 0))
    if most > max_detections:
        name, category = annotations.imgs[image_id]["file_name"], annotations.cats[category_id]["name"]
        yield (
            f"{name} has {most} objects of {category}, and {_told_best(max_detections)}, as COCO does it: pass "
            f"--max-dets {most} to count more"
        )
    if max_detections != MAX_DETECTIONS:
        yield (
            f"{_told_best(max_detections)} (--max-dets), and COCO's own AP counts {MAX_DETECTIONS}"
        )


def _told_best(count: int) -> str:
    return f"the best {f'{count} detections' if count > 1 else 'detection'} of an image and category " + (
        "count" if count > 1 else "counts"
    )


def check_keypoints(annotations: COCO) -> None:
    """Raise InputError for keypoints that could not be trained on either, and where no object has a visible one.

    What objects leave out is filled in, in place, as COCO's own files have it.
    """
    objects = annotations.dataset["annotations"]
    named = ((annotation_subject(each, annotations.imgs[each["image_id"]]["file_name"]), each) for each in objects)
    faults = keypoint_faults(annotations.dataset["categories"], named, len(KEYPOINT_NAMES))
    refuse_faults(Path(annotations.source), tuple(faults))
    for each in objects:
        each.update(scored_keypoints(each))
    if objects and not any(visibility > 0 for each in objects for visibility in each["keypoints"][2::3]):
        raise InputError(
            f"{annotations.source}: no object has a visible keypoint, which keypoints are scored by: give the "
            "annotations of people, such as person_keypoints_val2017.json"
        )
    if objects and not any(each["num_keypoints"] for each in objects):
        raise InputError(
            f"{annotations.source}: 'num_keypoints' of every object is 0, and COCO's AP passes over such: leave it "
            "out to have the visible ones counted"
        )


def ap_document(name: str, summaries: Mapping[str, ApSummary]) -> dict[str, object]:
    """What ap.json holds for the data set `name`, the annotation file's stem, of "box" and "mask" as there are."""
    return {name: {kind: summary.metrics() for kind, summary in summaries.items()}}


def ap_table(summaries: dict[str, ApSummary], per_class: bool = False) -> str:
    """A table with a row for each named summary, in percent with one decimal more than papers print.

    With `per_class`, the AP of every category follows under the six numbers.
    """
    names = list(summaries)
    rows = []
    for name in names:
        metrics = summaries[name].metrics()
        rows.append([name, *(percent(metrics[metric]) if metric in metrics else "-" for metric in METRICS)])
    table = text_table(["", *METRICS], rows)
    if not per_class:
        return table
    rows = [
        [category, *(percent(summaries[name].per_class[category]) for name in names)]
        for category in summaries[names[0]].per_class
    ]
    return f"{table}\n\n{text_table(['AP of', *names], rows)}"


def _per_class(evaluation: CocoEvaluation, annotations: COCO) -> dict[str, float]:
    summary = {}
    for place, category in enumerate(evaluation.category_ids):
        # [IoU, recall, category, area range]: all areas come first.
        precision = evaluation.precision[:, :, place, 0]
        known = precision[precision > -1]
        name = str(annotations.cats[category].get("name", category))
        summary[name] = float(np.mean(known)) if known.size else -1.0
    return summary
