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
from verify.pairing import ProposalParity, pair_detections, pair_proposals, pair_rois
from verify.tables import text_table

Array = npt.NDArray[Any]

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
        fault: why there is no difference to tell, and both errors are infinite; empty where there is one.
    """

    blob: str
    shape: tuple[int, ...]
    max_error: float
    relative_error: float
    fault: str = ""

    @property
    def told(self) -> str:
        """The relative error as text, or what is at fault."""
        return self.fault or f"{self.relative_error:.1e}"


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
        [row.blob, "x".join(map(str, row.shape)), *_told_errors(row)]
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
                worst.told,
                f"{found.matched} of {found.reference_count}",
                f"{found.box_error:.1e}",
                f"{found.score_error:.1e}",
                f"{found.equal_rles} of {found.matched}",
            ]
        )
    return text_table(header, rows, left=1)


def _told_errors(row: BlobParity) -> tuple[str, str]:
    """Both errors as text; what is at fault takes the place of the second one."""
    return ("-", row.fault) if row.fault else (f"{row.max_error:.2e}", f"{row.relative_error:.2e}")


def compare_file(model: MaskRCNN, reference: Path, images: Path) -> Iterator[ImageParity]:
    """Compare the network with a reference file, image by image.

    Raises InputError for a reference file of another kind or an image that is missing in the folder.
    """
    if not reference.is_file():
        raise InputError(f"{reference}: no such reference file: make one with dump_blobs.py")
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
    the reference's order. Where they are the same ones, the detections are what `detect` itself gives.
    """
    blobs = reference["blobs"]
    scale = float(model.network_input([image]).im_info[0].scale)
    trace = trace_boxes(model, image)
    proposals = tuple(pair_proposals(model, trace, blobs))
    pairing = pair_rois(model, trace, _class_boxes(model, trace, image, scale), reference)
    if pairing.rois is None:
        # Of other RoIs than the reference's, and a reference that holds a sample of its own, no row can be compared.
        trace = {key: value for key, value in trace.items() if key.startswith(BEFORE_ROIS)}
    else:
        if not torch.equal(pairing.rois, trace["rois"]):
            again = trace_boxes(model, image, pairing.rois)
            trace |= {key: value for key, value in again.items() if not key.startswith("rpn_ro")}
        trace["boxes"], trace["scores"] = _class_boxes(model, trace, image, scale), trace["cls_prob"]
    if pairing.rois is None or pairing.same:
        detections = model.detect(image)
    else:
        levels = model.features(trace["data"])
        detections = model.detect_in_rois(levels, pairing.rois, (image.shape[0], image.shape[1]), scale)
    if len(detections) and "mask_rois" in blobs:
        trace |= trace_masks(model, image, _mask_rois(model, scale, detections, reference))
    datasets = dict(blobs.items()) | {"boxes": reference["boxes"], "scores": reference["scores"]}
    return ImageParity(
        image=name,
        blobs=tuple(_compare_blob(blob, value, datasets[blob]) for blob, value in trace.items() if blob in datasets),
        proposals=proposals,
        same_rois=pairing.same,
        detections=compare_detections(detections, reference),
        not_compared=tuple(blob for blob in blobs if blob not in trace),
    )


def compare_detections(detections: Detections, reference: h5py.Group) -> DetectionRowParity:
    """Pair the detections of an image with the reference's, class by class, and measure the pairs."""
    boxes, scores, classes = (reference[f"det_{column}"][:] for column in ("boxes", "scores", "classes"))
    pairs = pair_detections(detections, boxes, classes)
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
        return BlobParity(blob, shape, float("inf"), float("inf"), f"is {'x'.join(map(str, value.shape))}")
    ours = value.detach().cpu().reshape(-1)[:: int(reference.attrs.get("stride", 1))].double().numpy()
    theirs = reference[:].reshape(-1).astype(np.float64)
    error = _largest(ours - theirs)
    if not np.isfinite(error):
        return BlobParity(blob, shape, float("inf"), float("inf"), "not finite")
    return BlobParity(blob, shape, error, error / (_largest(theirs) + 1e-6))


def _class_boxes(model: MaskRCNN, trace: Trace, image: Image, scale: float) -> Tensor:
    """What Detectron returns for each RoI: its boxes `[R, 4K]` in image pixels."""
    size = (image.shape[0], image.shape[1])
    return class_boxes(trace["rois"][:, 1:], trace["bbox_pred"], scale, size, model.cfg)


def _mask_rois(model: MaskRCNN, scale: float, detections: Detections, reference: h5py.Group) -> Tensor:
    """The second pass's RoIs `[D, 5]` of our detections, those with a partner in the reference's order."""
    pairs = pair_detections(detections, reference["det_boxes"][:], reference["det_classes"][:])
    alone = np.setdiff1d(np.arange(len(detections)), pairs[:, 0])
    boxes = torch.from_numpy(detections.boxes[np.concatenate((pairs[:, 0], alone))]).double() * scale
    return torch.cat((torch.zeros(len(boxes), 1), boxes.float()), dim=1).to(model.device)


def _own_class_masks(reference: h5py.Group, classes: Array) -> Array:
    """The soft mask `[D, M, M]` of each reference detection's own class."""
    if "masks_of_class" in reference:
        return np.asarray(reference["masks_of_class"][:])
    return np.asarray(reference["masks"][:])[np.arange(len(classes)), classes]


def _largest(values: Array) -> float:
    return float(np.abs(values).max()) if values.size else 0.0


def _text(counts: Any) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else str(counts)
