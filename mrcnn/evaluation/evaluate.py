"""Detection over a data set and its AP; answers to Detectron core/test_engine.py:test_net_on_dataset."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from detectron_gn.mrcnn.config import Config, padding_stride
from detectron_gn.mrcnn.data.categories import Categories, match_categories
from detectron_gn.mrcnn.data.coco import read_annotations
from detectron_gn.mrcnn.data.image_blob import Image, image_scale, padded_size, scaled_size
from detectron_gn.mrcnn.data.image_files import image_files, naming_used
from detectron_gn.mrcnn.data.json_values import told
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.data.read_image import AS_IMREAD, ImageReading, read_image
from detectron_gn.mrcnn.detectors import Detector, ProposalNetwork
from detectron_gn.mrcnn.distributed import ALONE, Ranks
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.ap import AP_JSON_KEY, ApSummary, check_keypoints, score_checked, scoring_remarks
from detectron_gn.mrcnn.evaluation.coco_eval import MAX_DETECTIONS
from detectron_gn.mrcnn.evaluation.coco_results import ImageResults, add_image, image_results, result_columns
from detectron_gn.mrcnn.evaluation.mask_encoding import lacks_outlines
from detectron_gn.mrcnn.evaluation.partial_results import PartialResults, image_digest, run_identity
from detectron_gn.mrcnn.evaluation.result_columns import ResultColumns
from detectron_gn.mrcnn.evaluation.results_files import IouType
from detectron_gn.mrcnn.inference.predict import Predicted, predict
from detectron_gn.mrcnn.inference.static_shapes import StaticNetwork
from detectron_gn.mrcnn.ops.keypoints import KEYPOINT_NAMES

THREADS_BESIDE_A_GPU = 4

# Wraps results as they come, of which there will be so many, to show how far the work is: tqdm, or nothing.
Progress = Callable[[Iterable[Any], int], Iterable[Any]]
# Is told how many images of how many an earlier run has finished, where it has finished any.
GoingOn = Callable[[int, int], None]


@dataclass
class Speed:
    """What the images of this process took, without those that an earlier run had finished.

    Attributes:
        images: how many.
        network_seconds: from the prepared image to boxes, scores and soft masks; beside a GPU until a thread is free to
            take them.
        paste_seconds: from there to COCO's result rows.
    """

    images: int = 0
    network_seconds: float = 0.0
    paste_seconds: float = 0.0

    def seconds_per_image(self) -> str | None:
        """`network + post-processing`, as Detectron's tables have it; None where no image was left to do."""
        if not self.images:
            return None
        return f"{self.network_seconds / self.images:.3f} + {self.paste_seconds / self.images:.3f}"


@dataclass(frozen=True)
class Evaluation:
    """What a model finds in a data set.

    Attributes:
        rows: COCO result rows in Detectron's order: boxes, and masks and keypoints where the model has heads for them.
            They lie on the disk.
        ap: their AP; that of masks only where the annotations have outlines.
        speed: of this process.
        naming: under which names the images were found.
        remarks: what was mended in the annotations, and what a reader of the AP should know, a sentence each.
    """

    rows: dict[IouType, ResultColumns]
    ap: dict[IouType, ApSummary]
    speed: Speed
    naming: str
    remarks: tuple[str, ...]

    @property
    def summaries(self) -> dict[str, ApSummary]:
        """The AP under the names that tables and ap.json use: "box", "mask", "keypoint"."""
        return {AP_JSON_KEY[iou_type]: summary for iou_type, summary in self.ap.items()}

    @property
    def measured(self) -> dict[str, float]:
        """The AP that papers print, 0..1, under the same names."""
        return {kind: summary.AP for kind, summary in self.summaries.items()}


def no_progress(results: Iterable[Any], _count: int) -> Iterable[Any]:
    """Show nothing."""
    return results


def untold(_done: int, _count: int) -> None:
    """Tell nothing."""


def evaluate(
    model: Detector,
    annotations: Path,
    images: Path,
    progress: Progress = no_progress,
    *,
    batch: int = 1,
    proposals: StoredProposals | None = None,
    out: Path | None = None,
    ranks: Ranks = ALONE,
    threads: int | None = None,
    network: StaticNetwork | None = None,
    reading: ImageReading = AS_IMREAD,
    names: Sequence[str] | None = None,
    max_detections: int = MAX_DETECTIONS,
    going_on: GoingOn = untold,
) -> Evaluation | None:
    """Detect in every image of an annotation file and score the results.

    Args:
        progress: wraps the results of this process as they come.
        batch: images a batch at most. Only images of one padded size share one, so results hang on it by no more
            than the order of float32 sums.
        proposals: for a model that takes them.
        out: a folder to keep partial results in, from which a run that was killed goes on. Images whose file has
            changed since are detected again.
        ranks: the processes that share the images out. The results are the same for any number of them.
        threads: that read images while the network runs, and as many that paste masks; by default none beside a CPU,
            which is busy with the network, and 4 beside a GPU. The results are the same for any number of them.
        network: runs in place of the model's own, as in `Detector.start_batch`.
        reading: how image files are read.
        names: what the annotations call classes 1, 2, ...; by default the model's names, where they are known.
        max_detections: of an image and category that count for the AP, the best first.
        going_on: is told, in the first process, of the images that an earlier run has finished.

    Returns:
        The evaluation, or None in every process but the first.

    Raises InputError before any work where the annotations or images are not as they should be, or where its
    categories are not the model's classes. Results carry the data set's own category ids.
    """
    coco = read_annotations(annotations)
    if isinstance(model, ProposalNetwork):
        raise InputError("an RPN by itself finds no objects, so that it has no AP: `test` scores its proposals")
    model.check_proposals(proposals is not None)
    given = None if proposals is None else proposals.of_images(coco, model.cfg.TEST.PROPOSAL_LIMIT)
    if names is None and model.categories is not None:
        names = model.categories.names
    category_ids = matched_category_ids(model.cfg, coco, annotations, names)
    if scores_keypoints(model.cfg):
        check_keypoints(coco)
    files = image_files(coco, images)
    batches = plan_batches(model, coco, batch)
    speed = Speed()
    if threads is None:
        threads = 0 if model.device.type == "cpu" else THREADS_BESIDE_A_GPU
    partial = None if out is None else PartialResults(
        out, run_identity(model, annotations, batch, reading, proposals), files, ranks.rank
    )
    with partial or nullcontext():
        done = {} if partial is None else partial.done
        done_by_rank = ranks.exchange(set(done))
        if ranks.is_first and any(done_by_rank):
            going_on(len(set().union(*done_by_rank)), len(files))
        # A batch is done as a whole, so that a run that goes on makes the same batches as one in one go.
        left = [members for members in batches if not set().union(*done_by_rank).issuperset(members)]
        share = ranks.share(left)
        # What several processes have on record, since they share a disk, is the first one's of them.
        elsewhere = set().union(*done_by_rank[: ranks.rank])
        made = model.cfg.MODEL
        found = result_columns(category_ids, with_masks=made.MASK_ON, with_keypoints=made.KEYPOINTS_ON)
        for key in done:
            if key not in elsewhere:
                add_image(found, done[key])
        digests: dict[int, str] = {}

        def read(image_id: int) -> Image:
            # Before it is decoded: a file that is replaced meanwhile is then detected again, and not taken for it.
            if partial is not None:
                digests[image_id] = image_digest(files[image_id])
            return read_listed(coco, image_id, files[image_id], reading)

        predictions = predict(
            model,
            share,
            read,
            lambda image_id, _, detections: image_results(image_id, detections, category_ids),
            proposals=None if given is None else lambda image_id, _: given[image_id],
            name=lambda image_id: str(files[image_id]),
            threads=threads,
            network=network,
        )
        for image in progress(_results(predictions, partial, digests, speed), sum(map(len, share))):
            add_image(found, image)
        parts = ranks.collect(found)
    if not ranks.is_first:
        return None
    for part in parts[1:]:
        for iou_type, columns in part.items():
            found[iou_type].join(columns)
    rows = {iou_type: columns.sorted_rows() for iou_type, columns in found.items()}
    has_ap = {"bbox": True, "segm": not lacks_outlines(coco), "keypoints": scores_keypoints(model.cfg)}
    scored = {iou_type: own for iou_type, own in rows.items() if has_ap[iou_type]}
    ap = {iou_type: score_checked(own, coco, iou_type, max_detections) for iou_type, own in scored.items()}
    remarks = (*coco.remarks, *scoring_remarks(coco, rows["bbox"], max_detections), *_limit_remarks(model.cfg, coco))
    remarks = (*remarks, *_keypoint_remarks(model.cfg, model.categories, coco))
    return Evaluation(rows, ap, speed, naming_used(coco, files), remarks)


def _limit_remarks(cfg: Config, coco: COCO) -> Iterator[str]:
    """What to say where an image has more objects than the model keeps detections of."""
    most, limit = max(map(len, coco.imgToAnns.values()), default=0), cfg.TEST.DETECTIONS_PER_IM
    if 0 < limit < most:
        yield (
            f"an image has {most} objects, and the model keeps {limit} of its detections, the best: pass --set "
            f"TEST.DETECTIONS_PER_IM {most} to keep more"
        )


def scores_keypoints(cfg: Config) -> bool:
    """Whether the model finds the keypoints that COCO's evaluation knows: those of a person."""
    return cfg.MODEL.KEYPOINTS_ON and cfg.KRCNN.NUM_KEYPOINTS == len(KEYPOINT_NAMES)


def _keypoint_remarks(cfg: Config, categories: Categories | None, annotations: COCO) -> Iterator[str]:
    """What to say of keypoints that have no AP, and of those that the annotations have otherwise than the model."""
    named = next((each["keypoints"] for each in annotations.dataset["categories"] if each.get("keypoints")), None)
    if cfg.MODEL.KEYPOINTS_ON and categories is not None and categories.keypoints and named is not None:
        if list(categories.keypoints) != named:
            yield (
                f"the model's keypoints are {', '.join(categories.keypoints)}, in this order in keypoints.json; those "
                f"of the annotations are {told(named)}"
            )
    if cfg.MODEL.KEYPOINTS_ON and not scores_keypoints(cfg):
        yield (
            f"keypoints have no AP: KRCNN.NUM_KEYPOINTS is {cfg.KRCNN.NUM_KEYPOINTS}, and COCO's AP is of a person's "
            f"{len(KEYPOINT_NAMES)}"
        )


def plan_batches(model: Detector, coco: COCO, batch: int) -> list[list[int]]:
    """Image ids in batches of at most `batch` images that are padded to one and the same size.

    The plan is made of all images of the data set, so it hangs neither on what is done already nor on who does it.
    Images whose size the annotations do not give stay alone.
    """
    if batch < 1:
        raise InputError(f"a batch holds at least one image, not {batch}")
    test, stride = model.cfg.TEST, padding_stride(model.cfg)
    of_size: dict[object, list[int]] = defaultdict(list)
    for image_id in sorted(coco.imgs):
        height, width = (coco.imgs[image_id].get(side) for side in ("height", "width"))
        size: object = image_id
        if batch > 1 and height and width:
            scaled = scaled_size(height, width, image_scale(height, width, test.SCALE, test.MAX_SIZE))
            size = padded_size(*scaled, stride)
        of_size[size].append(image_id)
    plan = [ids[start : start + batch] for ids in of_size.values() for start in range(0, len(ids), batch)]
    return sorted(plan)


def matched_category_ids(cfg: Config, coco: COCO, annotations: Path, names: Sequence[str] | None) -> list[int]:
    """The category id of each class of a model in a data set: `match_categories` of annotations that are read."""
    return match_categories(names, cfg.MODEL.NUM_CLASSES - 1, coco.loadCats(coco.getCatIds()), annotations)


def _results(
    predictions: Iterable[Predicted[int, ImageResults]],
    partial: PartialResults | None,
    digests: dict[int, str],
    speed: Speed,
) -> Iterator[ImageResults]:
    """The results of each image as they come, on record before they are handed on."""
    detected = 0.0
    for done in predictions:
        speed.images += len(done.results)
        # A GPU takes one batch after the other, and begins when it has finished with the last.
        speed.network_seconds += done.detected - max(done.start, detected)
        speed.paste_seconds += done.finished - done.detected
        detected = done.detected
        if partial is not None:
            partial.add(done.results, [digests.pop(image_id) for image_id in done.items])
        yield from done.results


def read_listed(coco: COCO, image_id: int, path: Path, reading: ImageReading) -> Image:
    """An image of a data set, which must have the size that the annotations give, if they do."""
    height, width = (coco.imgs[image_id].get(side) for side in ("height", "width"))
    return read_image(path, reading, None if height is None or width is None else (height, width))
