"""Blob parity: one test run of the network beside Caffe2's, every blob and every detection compared.

The reference is an HDF5 file with one group per image: see docs/reference_layout.md.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pycocotools.mask
import torch
from torch import Tensor

from detectron_gn.mrcnn.data.read_image import AS_IMREAD, ImageReading
from detectron_gn.mrcnn.detectors import Detector, GeneralizedRCNN, ProposalNetwork
from detectron_gn.mrcnn.inference.rois import rois_of_boxes
from detectron_gn.mrcnn.structures import Detections
from detectron_gn.mrcnn.tables import text_table
from detectron_gn.mrcnn.wording import listed
from detectron_gn.port.blobs.activations import Trace, trace_boxes, trace_keypoints, trace_masks
from detectron_gn.verify.parity.first_pass import detected, detected_in, first_pass, returned
from detectron_gn.verify.parity.matching import pair_detections
from detectron_gn.verify.parity.proposals import ProposalParity, pair_proposals, pair_rois
from detectron_gn.verify.parity.results import MOST_BOX_ERROR, MOST_KEYPOINT_ERROR, most_moved, told_moved
from detectron_gn.verify.reference.image_dump import ImageReference, read_references
from detectron_gn.verify.reference.reference_blob import ReferenceBlob

Array = npt.NDArray[Any]

# What the names of blobs begin with that are computed before there are RoIs.
BEFORE_ROIS = ("data", "im_info", "conv1", "pool1", "res", "fpn_", "conv_rpn", "rpn_")

# What float32 makes of an image's size and scale, as a share of them.
_ROUNDING = 1e-6

# A norm is told instead of the values' error where only the norm differs by more than this.
_TOLD_NORM = 1e-3

# The fault of a blob that holds NaN or infinity on either side.
NOT_FINITE = "not finite"

# How far detections may be from Caffe2's: what the order of float32 sums explains in models of random weights, whose
# errors grow most (docs/reference_layout.md). Trained ones stay a hundred times below.
MOST_SCORE_ERROR = 1e-3
MOST_MASK_ERROR = 5e-3

# A pixel whose soft mask is within those errors of the threshold may fall on either side: few masks have one. Where
# more have, our pasting is right if it makes the reference's masks of the reference's own soft masks and boxes.
LEAST_EQUAL_MASKS = 0.8
LEAST_MASK_IOU = 0.98

MOST_LOGIT_ERROR = 1e-3  # of keypoints


@dataclass(frozen=True)
class BlobParity:
    """How far one blob is from Caffe2's.

    Attributes:
        blob: its name.
        shape: its whole shape (a reference may hold a sample of it).
        max_error: largest absolute difference.
        relative_error: that difference over the largest magnitude of the reference.
        fault: why there is no difference to tell, and both errors are infinite; empty where there is one.
        values: how many values were compared; fewer than the shape has where the reference holds a sample.
        norm_error: relative difference of the norms of the whole blob, where the reference holds a sample and tells it.
    """

    blob: str
    shape: tuple[int, ...]
    max_error: float
    relative_error: float
    fault: str = ""
    values: int = 0
    norm_error: float = 0.0

    @property
    def told(self) -> str:
        """The relative error as text, or what is at fault."""
        if self.relative_error <= _TOLD_NORM < self.norm_error:
            return f"norm {self.norm_error:.1e}"
        return self.fault or f"{self.relative_error:.1e}"

    @property
    def size(self) -> int:
        """Values of the whole blob."""
        return math.prod(self.shape)

    @property
    def worst_error(self) -> float:
        """The larger one of the relative errors of the values and of the norm."""
        return max(self.relative_error, self.norm_error)

    def is_within(self, tolerance: float, share: float = 1.0) -> bool:
        """Whether both errors are at most `limit_of` the blob, or a share of it."""
        return self.worst_error <= share * limit_of(self.blob, tolerance)


@dataclass(frozen=True)
class DetectionRowParity:
    """How far the detections of one image are from Caffe2's, after pairing them by class and box.

    Attributes:
        count, reference_count: detections on either side.
        matched: pairs of one class whose boxes are partners.
        box_error: largest difference of a coordinate, in pixels.
        score_error: largest difference of a score.
        mask_error: largest difference of a soft mask's value.
        equal_rles: pairs whose pasted masks are equal to the pixel.
        min_mask_iou: smallest overlap of the pasted masks of a pair.
        wrong_pastes: pairs of unequal pasted masks where the reference's own soft mask in its own box does not come out
            as it pasted it. Where none is wrong, values near the threshold, or a corner near a whole pixel, part them.
        masks: of all pairs.
        keypoints: of all pairs.
        moved_keypoints: those that are elsewhere, by more than `MOST_KEYPOINT_ERROR` pixels.
        moved_distance: largest distance of those, in pixels.
        keypoint_error: largest difference of a coordinate of those that are not, in pixels.
        logit_error: largest difference of a logit.
    """

    count: int
    reference_count: int
    matched: int
    box_error: float
    score_error: float
    mask_error: float
    equal_rles: int
    min_mask_iou: float
    wrong_pastes: float = float("inf")
    masks: int = 0
    keypoints: int = 0
    moved_keypoints: int = 0
    moved_distance: float = 0.0
    keypoint_error: float = 0.0
    logit_error: float = 0.0

    @property
    def box_fault(self) -> str:
        """Which detections lack a partner, or how far partners' boxes or scores are apart; empty where they agree."""
        if not self.matched == self.count == self.reference_count:
            return f"{self.matched} of {self.reference_count} detections have a partner among our {self.count}"
        if not self.box_error <= MOST_BOX_ERROR:
            return f"boxes of detections are apart by up to {self.box_error:.2g} pixels"
        if not self.score_error <= MOST_SCORE_ERROR:
            return f"scores of detections are apart by up to {self.score_error:.2g}"
        return ""

    @property
    def soft_mask_fault(self) -> str:
        """How far soft masks are apart; empty where they agree."""
        return "" if self.mask_error <= MOST_MASK_ERROR else f"soft masks differ by {self.mask_error:.2g}"

    @property
    def pasted_mask_fault(self) -> str:
        """How many pasted masks are equal, where too few are; empty where they agree."""
        similar = self.min_mask_iou >= LEAST_MASK_IOU and self.equal_rles >= LEAST_EQUAL_MASKS * self.matched
        if similar or self.wrong_pastes == 0:
            return ""
        return f"{self.equal_rles} of {self.matched} pasted masks are equal (smallest IoU {self.min_mask_iou:.3f})"

    @property
    def keypoint_fault(self) -> str:
        """How many keypoints are elsewhere, where too many are, or how far logits are apart; empty where they agree."""
        if self.moved_keypoints > most_moved(self.keypoints):
            return self.told_keypoints
        if not self.logit_error <= MOST_LOGIT_ERROR:
            return f"logits of keypoints differ by {self.logit_error:.2g}"
        return ""

    @property
    def told_keypoints(self) -> str:
        """How many keypoints are elsewhere, and how far."""
        return told_moved(self.moved_keypoints, self.keypoints, self.moved_distance)

    @property
    def fault(self) -> str:
        """The first of these, in the order in which they are computed; empty where all detections agree."""
        return self.box_fault or self.soft_mask_fault or self.pasted_mask_fault or self.keypoint_fault


@dataclass(frozen=True)
class ImageParity:
    """The parity of one image: blobs in the order of the network, proposals, detections.

    Attributes:
        same_rois: whether the network's own RoIs are the reference's. Where they are not, what follows them was
            computed on the reference's. True of a network without RoIs.
        not_compared: blobs of the reference that were not compared, as the network has no counterpart of them or its
            RoIs are others.
        absent: blobs of the network that the reference does not hold.
    """

    image: str
    blobs: tuple[BlobParity, ...]
    proposals: tuple[ProposalParity, ...]
    same_rois: bool
    detections: DetectionRowParity
    not_compared: tuple[str, ...]
    absent: tuple[str, ...] = ()

    @property
    def compares(self) -> bool:
        """Whether there was anything to compare: a blob, proposals, or a detection on either side."""
        found = self.detections
        return bool(self.blobs or self.proposals or found.reference_count or found.count)


def limit_of(blob: str, tolerance: float) -> float:
    """The largest relative error of a blob: `tolerance`; for `im_info`, which no network computes, rounding."""
    return min(tolerance, _ROUNDING) if blob == "im_info" else tolerance


def parity_holds(parity: ImageParity, tolerance: float) -> bool:
    """Whether every blob is within `tolerance`, and every proposal and every detection agrees with its partner."""
    return first_difference(parity, tolerance) is None


def first_difference(parity: ImageParity, tolerance: float) -> str | None:
    """The first blob, in the order of the network, that is out of tolerance, else the proposals or detections that are.

    Proposals that tie with the last one taken may be others; any further one without a partner is a difference.
    """
    apart = (row.blob for row in parity.blobs if not row.is_within(tolerance))
    blob = next(apart, None)
    if blob is not None:
        return blob
    level = next((level for level in parity.proposals if level.unmatched != level.tied), None)
    if level is not None:
        return f"the proposals of P{level.level}"
    return f"its detections: {parity.detections.fault}" if parity.detections.fault else None


def remarks(parity: ImageParity) -> list[str]:
    """What a reader must know besides the numbers: proposals that differ, RoIs of the reference, blobs left out."""
    lines = [
        f"P{level.level}: {level.unmatched} proposals of either side are others, {level.tied} of them tied at the cut"
        for level in parity.proposals
        if level.unmatched
    ]
    if parity.detections.moved_keypoints:
        lines.append(parity.detections.told_keypoints)
    if not parity.same_rois:
        lines.append("the RoIs are not all the same: what follows them was computed on the reference's, or left out")
    if parity.not_compared:
        lines.append(f"not compared: {', '.join(parity.not_compared)}")
    if parity.absent:
        lines.append(f"not in the reference: {listed(parity.absent)}")
    return lines


def blob_table(parity: ImageParity) -> str:
    """Every blob of one image with its shape, largest and relative error, in the order of the network."""
    rows = [[row.blob, "x".join(map(str, row.shape)), *_told_errors(row)] for row in parity.blobs]
    return text_table(["blob", "shape", "max error", "relative"], rows, left=2)


def summary_table(parities: Sequence[ImageParity]) -> str:
    """Two tables with a row per image: its worst blob; its detections, and how far they are from Caffe2's."""
    blobs, header = [], ["image", "detections", "box px", "score"]
    with_masks = any(parity.detections.masks for parity in parities)
    with_keypoints = any(parity.detections.keypoints for parity in parities)
    header += ["equal masks"] * with_masks + ["keypoints in place"] * with_keypoints
    rows = []
    for parity in parities:
        worst, found = max(parity.blobs, key=lambda row: row.worst_error, default=None), parity.detections
        told = ["-", "-"] if worst is None else [worst.blob, worst.told]
        blobs.append([parity.image, str(len(parity.blobs)), *told])
        rows.append(
            [
                parity.image,
                f"{found.matched} of {found.reference_count}",
                f"{found.box_error:.1e}",
                f"{found.score_error:.1e}",
                *[f"{found.equal_rles} of {found.matched}"] * with_masks,
                *[f"{found.keypoints - found.moved_keypoints} of {found.keypoints}"] * with_keypoints,
            ]
        )
    first = text_table(["image", "blobs", "worst blob", "relative"], blobs, left=1)
    return f"{first}\n\n{text_table(header, rows, left=1)}"


def _told_errors(row: BlobParity) -> tuple[str, str]:
    """Both errors as text; what is at fault takes the place of the second one."""
    if row.fault:
        return "-", row.fault
    norm = row.told if row.told.startswith("norm") else ""
    return f"{row.max_error:.2e}", norm or f"{row.relative_error:.2e}"


def compare_file(
    model: Detector, reference: Path, images: Path, reading: ImageReading = AS_IMREAD
) -> Iterator[ImageParity]:
    """Compare the network with a reference file, image by image.

    Raises InputError for a reference that is damaged or of another kind, or an image that is missing in the folder.
    """
    for image_reference in read_references(reference, images, model.cfg, reading):
        yield compare_image(model, image_reference)


@torch.inference_mode()
def compare_image(model: Detector, reference: ImageReference) -> ImageParity:
    """Compare one image with its reference, which is of one look at the image, without test-time augmentation."""
    with model.without_augmentation():
        trace = first_pass(model, reference)
        if isinstance(model, GeneralizedRCNN):
            return _compare_two_stages(model, trace, reference)
        proposals = tuple(pair_proposals(model, trace, reference.blobs)) if isinstance(model, ProposalNetwork) else ()
        return _parity_of(trace, proposals, True, detected(model, reference), reference)


def _compare_two_stages(model: GeneralizedRCNN, trace: Trace, reference: ImageReference) -> ImageParity:
    """Compare one image of a model with RoIs.

    RoIs whose scores tie may stand in another order, so rows are paired first and the run is repeated on the RoIs in
    the reference's order. Where they are the same ones, the detections are what `detect` itself gives.
    """
    blobs, image = reference.blobs, reference.image
    proposals = tuple(pair_proposals(model, trace, blobs))
    pairing = pair_rois(model, trace, returned(model, trace, reference)[0], reference)
    data = trace["data"]
    if pairing.rois is None:
        # Of other RoIs than the reference's, and a reference that holds a sample of its own, no row can be compared.
        trace = {key: value for key, value in trace.items() if key.startswith(BEFORE_ROIS)}
    else:
        if not torch.equal(pairing.rois, trace["rois"]):
            again = trace_boxes(model, image, pairing.rois, reference.proposals)
            trace |= {key: value for key, value in again.items() if not key.startswith("rpn_ro")}
        trace["boxes"], trace["scores"] = returned(model, trace, reference)
    if pairing.rois is None or pairing.same:
        detections = detected(model, reference)
    else:
        detections = detected_in(model, reference, pairing.rois, data)
    if len(detections):
        rois_again = _paired_rois(model, detections, reference)
        if "mask_rois" in blobs:
            trace |= trace_masks(model, image, rois_again)
        if "keypoint_rois" in blobs:
            rois = rois_again
            if model.cfg.KRCNN.NMS_OKS and blobs["keypoint_rois"].is_whole:
                # The pass was over all people, of whom the similar ones were suppressed afterwards.
                rois = blobs["keypoint_rois"].known().to(model.device)
            trace |= trace_keypoints(model, image, rois)
    return _parity_of(trace, proposals, pairing.same, detections, reference)


def _parity_of(
    trace: Trace,
    proposals: tuple[ProposalParity, ...],
    same_rois: bool,
    detections: Detections,
    reference: ImageReference,
) -> ImageParity:
    """The trace's blobs, in the reference's order by now, and the detections beside the reference."""
    blobs = reference.blobs
    returned = {"boxes": reference.boxes, "scores": reference.scores}
    theirs = dict(blobs) | {name: ReferenceBlob(value.reshape(-1), value.shape) for name, value in returned.items()}
    return ImageParity(
        image=reference.name,
        blobs=tuple(_compare_blob(blob, value, theirs[blob]) for blob, value in trace.items() if blob in theirs),
        proposals=proposals,
        same_rois=same_rois,
        detections=compare_detections(detections, reference),
        not_compared=tuple(blob for blob in blobs if blob not in trace),
        # Caffe2 keeps no empty blobs: those of a level without RoIs.
        absent=tuple(blob for blob, value in trace.items() if value.numel() and blob not in theirs),
    )


def compare_detections(detections: Detections, reference: ImageReference) -> DetectionRowParity:
    """Pair the detections of an image with the reference's, class by class, and measure the pairs.

    Without a mask head there are no masks to differ.
    """
    boxes, scores = reference.det_boxes, reference.det_scores
    pairs = pair_detections(detections, boxes, reference.det_classes)
    ours, theirs = pairs[:, 0], pairs[:, 1]
    of_boxes = DetectionRowParity(
        count=len(detections),
        reference_count=len(scores),
        matched=len(pairs),
        box_error=_largest(detections.boxes[ours] - boxes[theirs]),
        score_error=_largest(detections.scores[ours] - scores[theirs]),
        mask_error=0.0,
        equal_rles=len(pairs),
        min_mask_iou=1.0,
    )
    if detections.keypoints is not None and reference.keypoints is not None:
        of_boxes = _with_keypoints(of_boxes, detections.keypoints[ours], reference.keypoints[theirs])
    if detections.mask_probs is None or reference.masks is None:
        return of_boxes
    rles = np.array([rle["counts"] for rle in detections.rles()], dtype=object)[ours]
    reference_rles = np.array(reference.rle_counts, dtype=object)[theirs]
    size = list(detections.image_size)
    unequal = [
        ({"size": size, "counts": a}, {"size": size, "counts": b})
        for a, b in zip(rles, reference_rles, strict=True)
        if a != b
    ]
    ious = [float(pycocotools.mask.iou([a], [b], [0])[0, 0]) for a, b in unequal]
    pasted = np.array(reference_pastes(reference, detections.mask_threshold), dtype=object)[theirs]
    wrong = [own != b for own, a, b in zip(pasted, rles, reference_rles, strict=True) if a != b]
    return replace(
        of_boxes,
        mask_error=_largest(detections.mask_probs[ours] - reference.masks[theirs]),
        equal_rles=len(pairs) - len(ious),
        min_mask_iou=min(ious, default=1.0),
        wrong_pastes=sum(wrong),
        masks=len(pairs),
    )


def _with_keypoints(parity: DetectionRowParity, ours: Array, theirs: Array) -> DetectionRowParity:
    """Keypoints `[P, 4, 17]` of pairs, each beside its partner."""
    distances = np.abs(ours[:, :2] - theirs[:, :2]).max(axis=1)
    moved = ~(distances <= MOST_KEYPOINT_ERROR)
    return replace(
        parity,
        keypoints=distances.size,
        moved_keypoints=int(moved.sum()),
        moved_distance=_largest(distances[moved]),
        keypoint_error=_largest(distances[~moved]),
        logit_error=_largest((ours - theirs)[:, 2]),
    )


def reference_pastes(reference: ImageReference, threshold: float) -> list[str]:
    """Run lengths of the reference's own soft masks, pasted by us into its own boxes; empty where it has none."""
    if reference.masks is None:
        return []
    theirs = Detections(
        boxes=reference.det_boxes.astype(np.float32),
        scores=reference.det_scores.astype(np.float32),
        classes=reference.det_classes,
        mask_probs=reference.masks.astype(np.float32),
        image_size=reference.image_size,
        mask_threshold=threshold,
    )
    return [rle["counts"] for rle in theirs.rles()]


def _compare_blob(blob: str, value: Tensor, reference: ReferenceBlob) -> BlobParity:
    """Compare a blob with a reference that may hold only every `stride`-th value of it."""
    shape = reference.shape
    if tuple(value.shape) != shape:
        return BlobParity(blob, shape, float("inf"), float("inf"), f"is {'x'.join(map(str, value.shape))}")
    theirs = reference.doubles()
    values = theirs.size
    errors = reference.sample_of(value) - theirs
    error = _largest(errors)
    if not np.isfinite(error):
        return BlobParity(blob, shape, float("inf"), float("inf"), NOT_FINITE)
    if blob == "im_info":
        # A size in hundreds of pixels and a scale near 1: each is held to its own magnitude.
        return BlobParity(blob, shape, error, _largest(errors / (np.abs(theirs) + 1e-6)), values=values)
    norm_error = reference.norm_error(value)
    return BlobParity(blob, shape, error, error / (reference.largest + 1e-6), values=values, norm_error=norm_error)


def _paired_rois(model: GeneralizedRCNN, detections: Detections, reference: ImageReference) -> Tensor:
    """The second pass's RoIs `[D, 5]` of our detections, those with a partner in the reference's order."""
    pairs = pair_detections(detections, reference.det_boxes, reference.det_classes)
    alone = np.setdiff1d(np.arange(len(detections)), pairs[:, 0])
    boxes = torch.from_numpy(detections.boxes[np.concatenate((pairs[:, 0], alone))])
    return rois_of_boxes(boxes, float(model.prepare(reference.image).scale), 0).to(model.device)


def _largest(values: Array) -> float:
    return float(np.abs(values).max()) if values.size else 0.0

