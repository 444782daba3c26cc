"""Blob parity: one test run of the network beside Caffe2's, every blob and every detection compared.

The reference is an HDF5 file, one group an image: see docs/reference_layout.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pycocotools.mask
import torch
from torch import Tensor

from mrcnn.detections import class_boxes
from mrcnn.errors import InputError
from mrcnn.image import Image, read_image
from mrcnn.model import MaskRCNN
from mrcnn.results import Detections
from port.activations import Trace, trace_boxes, trace_masks
from verify.tables import text_table

Array = npt.NDArray[Any]

# Two RoIs or detections are partners when no corner of theirs is further apart than this, in pixels. How far apart
# partners are is reported; this only says who they are.
PARTNER_DISTANCE = 0.5

# Scores this close may stand in either order; of saturated ones (a float32 sigmoid is 1 from a logit of 17 on) more
# may tie at the cut than there are places.
TIE = 1e-6

# What the names of blobs begin with that are computed before there are RoIs.
BEFORE_ROIS = ("data", "im_info", "conv1", "pool1", "res", "fpn_", "conv_rpn", "rpn_")


@dataclass(frozen=True)
class BlobParity:
    """How far one blob is from Caffe2's.

    Attributes:
        blob: its name.
        shape: its whole shape (a reference may hold a sample of it).
        max_error: largest absolute difference.
        relative_error: that difference over the largest magnitude of the reference.
    """

    blob: str
    shape: tuple[int, ...]
    max_error: float
    relative_error: float


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
    """

    count: int
    reference_count: int
    matched: int
    box_error: float
    score_error: float
    mask_error: float
    equal_rles: int
    min_mask_iou: float


@dataclass(frozen=True)
class ProposalParity:
    """The proposals of one pyramid level.

    Attributes:
        level: 2 for P2, ...
        count, reference_count: proposals after NMS on either side.
        unmatched: proposals of either side without a partner on the other.
        tied: those of them whose score ties with the last one that was taken before NMS.
    """

    level: int
    count: int
    reference_count: int
    unmatched: int
    tied: int


@dataclass(frozen=True)
class ImageParity:
    """The parity of one image: blobs in the order of the network, proposals, detections.

    Attributes:
        same_rois: whether the network's own RoIs are the reference's. Where they are not, what follows them was
            computed on the reference's.
        not_compared: blobs of the reference that the network has no counterpart of.
    """

    image: str
    blobs: tuple[BlobParity, ...]
    proposals: tuple[ProposalParity, ...]
    same_rois: bool
    detections: DetectionRowParity
    not_compared: tuple[str, ...]


def parity_holds(parity: ImageParity, tolerance: float) -> bool:
    """Whether every blob is within `tolerance` and every detection has its partner.

    Proposals that tie with the last one taken may be others; any further one without a partner is a difference.
    """
    found = parity.detections
    return (
        all(row.relative_error <= tolerance for row in parity.blobs)
        and all(level.unmatched == level.tied for level in parity.proposals)
        and found.matched == found.count == found.reference_count
    )


def first_difference(parity: ImageParity, tolerance: float) -> str | None:
    """The first blob, in the order of the network, that is out of tolerance."""
    return next((row.blob for row in parity.blobs if not row.relative_error <= tolerance), None)


def remarks(parity: ImageParity) -> list[str]:
    """What a reader must know besides the numbers: other proposals, RoIs taken from the reference, blobs left out."""
    lines = [
        f"P{level.level}: {level.unmatched} proposals of either side are others, {level.tied} of them tied at the cut"
        for level in parity.proposals
        if level.unmatched
    ]
    if not parity.same_rois:
        lines.append("the RoIs are not all the same: what follows them was computed on the reference's, or left out")
    if parity.not_compared:
        lines.append(f"not compared: {', '.join(parity.not_compared)}")
    return lines


def blob_table(parity: ImageParity) -> str:
    """Every blob of one image with its shape, largest and relative error, in the order of the network."""
    rows = [
        [row.blob, "x".join(map(str, row.shape)), f"{row.max_error:.2e}", f"{row.relative_error:.2e}"]
        for row in parity.blobs
    ]
    return text_table(["blob", "shape", "max error", "relative"], rows, left=2)


def summary_table(parities: Sequence[ImageParity]) -> str:
    """One row an image: its worst blob, its detections, and how far they are from Caffe2's."""
    header = ["image", "blobs", "worst blob", "relative", "detections", "box px", "score", "equal masks"]
    rows = []
    for parity in parities:
        worst, found = max(parity.blobs, key=lambda row: row.relative_error), parity.detections
        rows.append(
            [
                parity.image,
                str(len(parity.blobs)),
                worst.blob,
                f"{worst.relative_error:.1e}",
                f"{found.matched} of {found.reference_count}",
                f"{found.box_error:.1e}",
                f"{found.score_error:.1e}",
                f"{found.equal_rles} of {found.matched}",
            ]
        )
    return text_table(header, rows, left=1)


def compare_file(model: MaskRCNN, reference: Path, images: Path) -> Iterator[ImageParity]:
    """Compare the network with a reference file, image by image.

    Raises InputError for a reference file of another kind or an image that is missing in the folder.
    """
    try:
        file = h5py.File(reference)
    except OSError as error:
        cause = str(error).splitlines()[0]
        raise InputError(f"{reference} is not an HDF5 reference file ({cause}): make one with dump_blobs.py") from None
    with file:
        names = [name for name, group in file.items() if isinstance(group, h5py.Group) and "det_boxes" in group]
        if not names:
            raise InputError(f"{reference} holds no image with reference detections: make it with dump_blobs.py")
        for name in names:
            _check_group(file[name], f"{reference}: {name}")
            yield compare_image(model, read_image(images / name), file[name], name)


def _check_group(group: h5py.Group, place: str) -> None:
    """Raise InputError where a reference group lacks something or holds less of a blob than it says."""
    required = ["blobs", "blobs/rois", "boxes", "scores", "det_boxes", "det_scores", "det_classes", "rle_counts"]
    lacking = [key for key in required if key not in group]
    if "masks" not in group and "masks_of_class" not in group:
        lacking.append("masks")
    if lacking:
        raise InputError(f"{place} lacks {', '.join(lacking)}: make the reference again with dump_blobs.py")
    for blob, dataset in group["blobs"].items():
        stride = int(dataset.attrs.get("stride", 1))
        size = int(np.prod(dataset.attrs.get("shape", dataset.shape), dtype=np.int64))
        if stride < 1 or dataset.size != -(-size // stride):
            raise InputError(f"{place}: blob {blob} is damaged: it holds {dataset.size} values at stride {stride}")


@torch.inference_mode()
def compare_image(model: MaskRCNN, image: Image, reference: h5py.Group, name: str) -> ImageParity:
    """Compare one `[H, W, 3]` uint8 BGR image with its reference group.

    RoIs whose scores tie may stand in another order, so rows are paired first and the run is repeated on the RoIs in
    the reference's order.
    """
    blobs = reference["blobs"]
    scale = model.prepare(image).scale
    trace = trace_boxes(model, image)
    proposals = tuple(_pair_proposals(model, trace, blobs))
    rows = _class_boxes(model, trace, image, scale)
    order = _order_like(rows, torch.from_numpy(reference["boxes"][:]))
    same_rois = order is not None
    if same_rois or _is_whole(blobs["rois"]):
        rois = trace["rois"][order] if order is not None else _whole(blobs, "rois").to(rows)
        trace |= {key: value for key, value in trace_boxes(model, image, rois).items() if not key.startswith("rpn_ro")}
        trace["boxes"], trace["scores"] = _class_boxes(model, trace, image, scale), trace["cls_prob"]
    else:
        # Of other RoIs than the reference's, and a reference that holds a sample of its own, no row can be compared.
        rois = trace["rois"]
        trace = {key: value for key, value in trace.items() if key.startswith(BEFORE_ROIS)}
    levels = model.features(trace["data"].to(model.device))
    detections = model.detect_in_rois(levels, rois, (image.shape[0], image.shape[1]), scale)
    if len(detections) and "mask_rois" in blobs:
        trace |= trace_masks(model, image, _mask_rois(model, scale, detections, reference))
    datasets = dict(blobs.items()) | {"boxes": reference["boxes"], "scores": reference["scores"]}
    return ImageParity(
        image=name,
        blobs=tuple(_compare_blob(blob, value, datasets[blob]) for blob, value in trace.items() if blob in datasets),
        proposals=proposals,
        same_rois=same_rois,
        detections=compare_detections(detections, reference),
        not_compared=tuple(blob for blob in blobs if blob not in trace),
    )


def compare_detections(detections: Detections, reference: h5py.Group) -> DetectionRowParity:
    """Pair the detections of an image with the reference's, class by class, and measure the pairs."""
    boxes, scores, classes = (reference[f"det_{column}"][:] for column in ("boxes", "scores", "classes"))
    pairs = _pairs(detections, boxes, classes)
    ours, theirs = pairs[:, 0], pairs[:, 1]
    rles = np.array([rle["counts"] for rle in detections.rles()], dtype=object)[ours]
    reference_rles = np.array([_text(counts) for counts in reference["rle_counts"][:]], dtype=object)[theirs]
    size = list(detections.image_size)
    ious = [
        pycocotools.mask.iou([{"size": size, "counts": a}], [{"size": size, "counts": b}], [0])[0, 0]
        for a, b in zip(rles, reference_rles, strict=True)
        if a != b
    ]
    return DetectionRowParity(
        count=len(detections),
        reference_count=len(scores),
        matched=len(pairs),
        box_error=_largest(detections.boxes[ours] - boxes[theirs]),
        score_error=_largest(detections.scores[ours] - scores[theirs]),
        mask_error=_largest(detections.mask_probs[ours] - _own_class_masks(reference, classes)[theirs]),
        equal_rles=len(pairs) - len(ious),
        min_mask_iou=float(min(ious, default=1.0)),
    )


def _compare_blob(blob: str, value: Tensor, reference: h5py.Dataset) -> BlobParity:
    """Compare a blob with a reference dataset that may hold every `stride`-th value of it alone."""
    shape = tuple(int(size) for size in reference.attrs.get("shape", reference.shape))
    if tuple(value.shape) != shape:
        return BlobParity(blob, shape, float("inf"), float("inf"))
    ours = value.detach().cpu().reshape(-1)[:: int(reference.attrs.get("stride", 1))].double().numpy()
    theirs = reference[:].reshape(-1).astype(np.float64)
    error = _largest(ours - theirs)
    return BlobParity(blob, shape, error, error / (_largest(theirs) + 1e-6))


def _pair_proposals(model: MaskRCNN, trace: Trace, blobs: h5py.Group) -> Iterator[ProposalParity]:
    """Bring each level's proposals in the trace into the reference's order, and count those without a partner.

    Levels whose RoIs the reference holds only a sample of are left as they are.
    """
    for level in range(model.cfg.FPN.RPN_MIN_LEVEL, model.cfg.FPN.RPN_MAX_LEVEL + 1):
        name, scores_name = f"rpn_rois_fpn{level}", f"rpn_roi_probs_fpn{level}"
        if name not in blobs or not _is_whole(blobs[name]):
            continue
        rois, theirs = trace[name], _whole(blobs, name).to(trace[name])
        order = _order_like(rois, theirs)
        unmatched, tied = 0, 0
        if order is None:
            alone, alone_theirs = _without_partner(rois, theirs), _without_partner(theirs, rois)
            scores = torch.cat((trace[scores_name][alone], _whole(blobs, scores_name).to(rois)[alone_theirs]))
            candidates = trace[f"rpn_cls_probs_fpn{level}"].flatten()
            last_taken = candidates.topk(min(len(candidates), model.cfg.TEST.RPN_PRE_NMS_TOP_N)).values[-1]
            unmatched, tied = len(scores), int(((scores - last_taken).abs() <= TIE).sum())
            del trace[name], trace[scores_name]
        else:
            trace[name], trace[scores_name] = rois[order], trace[scores_name][order]
        yield ProposalParity(level, len(rois), len(theirs), unmatched, tied)


def _class_boxes(model: MaskRCNN, trace: Trace, image: Image, scale: float) -> Tensor:
    """What Detectron returns for each RoI: its boxes `[R, 4K]` in image pixels."""
    size = (image.shape[0], image.shape[1])
    return class_boxes(trace["rois"][:, 1:], trace["bbox_pred"], scale, size, model.cfg)


def _order_like(rows: Tensor, reference: Tensor) -> Tensor | None:
    """The permutation that brings `rows [R, D]` into the order of the reference, or None where they are not the same.

    Of several rows that are near enough the one in the same place is the partner, else the nearest free one.
    """
    if rows.shape != reference.shape:
        return None
    distances = torch.cdist(reference.to(rows), rows, p=float("inf")).cpu()
    order = torch.arange(len(rows))
    free = distances.diagonal() > PARTNER_DISTANCE
    for place in free.nonzero()[:, 0].tolist():
        candidates = torch.where(free, distances[place], torch.inf)
        partner = int(candidates.argmin())
        if candidates[partner] > PARTNER_DISTANCE:
            return None
        order[place] = partner
        free[partner] = False
    return order


def _without_partner(rows: Tensor, others: Tensor) -> Tensor:
    """Which of `rows [R, D]` are near none of `others`."""
    distances: Tensor = torch.cdist(rows, others, p=float("inf"))
    return distances.amin(dim=1) > PARTNER_DISTANCE


def _is_whole(dataset: h5py.Dataset) -> bool:
    return int(dataset.attrs.get("stride", 1)) == 1


def _whole(blobs: h5py.Group, name: str) -> Tensor:
    """A blob the reference must hold whole."""
    if not _is_whole(blobs[name]):
        raise InputError(
            f"the reference {blobs.file.filename} holds only a sample of {name}, and the RoIs are not the same: "
            "dump it whole"
        )
    return torch.from_numpy(blobs[name][:])


def _mask_rois(model: MaskRCNN, scale: float, detections: Detections, reference: h5py.Group) -> Tensor:
    """The second pass's RoIs `[D, 5]` of our detections, those with a partner in the reference's order."""
    pairs = _pairs(detections, reference["det_boxes"][:], reference["det_classes"][:])
    alone = np.setdiff1d(np.arange(len(detections)), pairs[:, 0])
    boxes = torch.from_numpy(detections.boxes[np.concatenate((pairs[:, 0], alone))]).double() * scale
    return torch.cat((torch.zeros(len(boxes), 1), boxes.float()), dim=1).to(model.device)


def _pairs(detections: Detections, boxes: Array, classes: Array) -> npt.NDArray[np.int64]:
    """Pairs (ours, reference's) of detections of one class whose boxes agree; each detection in one pair at most."""
    if not len(detections) or not len(boxes):
        return np.zeros((0, 2), dtype=np.int64)
    distance = np.abs(detections.boxes[:, None] - boxes[None]).max(axis=2)
    distance[detections.classes[:, None] != classes[None]] = np.inf
    pairs = []
    for ours, theirs in zip(*np.unravel_index(np.argsort(distance, axis=None), distance.shape), strict=True):
        if distance[ours, theirs] > PARTNER_DISTANCE:
            break
        pairs.append((ours, theirs))
        distance[ours], distance[:, theirs] = np.inf, np.inf
    return np.array(sorted(pairs, key=lambda pair: pair[1]), dtype=np.int64).reshape(-1, 2)


def _own_class_masks(reference: h5py.Group, classes: Array) -> Array:
    """The soft mask `[D, M, M]` of each reference detection's own class."""
    if "masks_of_class" in reference:
        return np.asarray(reference["masks_of_class"][:])
    return np.asarray(reference["masks"][:])[np.arange(len(classes)), classes]


def _largest(values: Array) -> float:
    return float(np.abs(values).max()) if values.size else 0.0


def _text(counts: Any) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else str(counts)
