"""The proposals of an RPN for a data set; answers to Detectron core/rpn_generator.py:generate_rpn_on_dataset."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.data.coco import read_annotations
from detectron_gn.mrcnn.data.image_files import image_files, naming_used
from detectron_gn.mrcnn.data.read_image import AS_IMREAD, ImageReading
from detectron_gn.mrcnn.detectors import ProposalNetwork
from detectron_gn.mrcnn.distributed import ALONE, Ranks
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.evaluate import (
    THREADS_BESIDE_A_GPU,
    Progress,
    no_progress,
    plan_batches,
    read_listed,
)
from detectron_gn.mrcnn.evaluation.recall import RECALL_JSON_KEY, RECALL_MEASURED, proposal_recall
from detectron_gn.mrcnn.inference.predict import predict

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class GeneratedProposals:
    """What an RPN proposes in a data set.

    Attributes:
        boxes: of each image, `[R, 4]` in image pixels, not clipped to the image, best first.
        scores: of each image, `[R]`.
        ids: of the images, sorted.
        recall: average recall by number of proposals and area.
        naming: under which names the images were found.
        remarks: what was mended in the annotations, a sentence each.
    """

    boxes: list[Floats]
    scores: list[Floats]
    ids: list[int]
    recall: dict[str, float]
    naming: str
    remarks: tuple[str, ...]

    @property
    def measured(self) -> dict[str, float]:
        """The recall that papers print, of the 1,000 best: `{"proposal": AR}`, 0..1."""
        return {RECALL_JSON_KEY: self.recall[RECALL_MEASURED]}


def generate_proposals(
    model: ProposalNetwork,
    annotations: Path,
    images: Path,
    progress: Progress = no_progress,
    *,
    batch: int = 1,
    ranks: Ranks = ALONE,
    reading: ImageReading = AS_IMREAD,
) -> GeneratedProposals | None:
    """Propose boxes in every image of an annotation file and score them; None in every process but the first.

    Args:
        progress: wraps the results of this process as they come.
        batch: images a batch at most.
        ranks: the processes that share the images out.
        reading: how image files are read.

    Raises InputError before any work where the annotations or images are not as they should be.
    """
    coco = read_annotations(annotations)
    for image_id, image in coco.imgs.items():
        if type(image_id) is not int:
            raise InputError(f"{annotations}: image {image_id!r}: proposals are stored by ids that are whole numbers")
        if image.get("height") is None or image.get("width") is None:
            raise InputError(f"{annotations}: image {image_id} has no size, which its proposals are clipped to")
    files = image_files(coco, images)
    share = ranks.share(plan_batches(model, coco, batch))
    predictions = predict(
        model,
        share,
        lambda image_id: read_listed(coco, image_id, files[image_id], reading),
        lambda image_id, _, found: (image_id, found.boxes, found.scores),
        name=lambda image_id: str(files[image_id]),
        threads=0 if model.device.type == "cpu" else THREADS_BESIDE_A_GPU,
    )
    each = (result for done in predictions for result in done.results)
    own = {image_id: (boxes, scores) for image_id, boxes, scores in progress(each, sum(map(len, share)))}
    parts = ranks.collect(own)
    if not ranks.is_first:
        return None
    found = {image_id: row for part in parts for image_id, row in part.items()}
    recall = proposal_recall({image_id: boxes for image_id, (boxes, _) in found.items()}, coco, model.cfg)
    ids = sorted(found)
    return GeneratedProposals(
        [found[image_id][0] for image_id in ids],
        [found[image_id][1] for image_id in ids],
        ids,
        recall,
        naming_used(coco, files),
        tuple(coco.remarks),
    )
