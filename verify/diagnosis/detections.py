"""Why detections or their masks differ though all that they are chosen from agrees."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from detectron_gn.mrcnn.structures import Detections
from detectron_gn.verify.diagnosis.diagnosis import Diagnosis
from detectron_gn.verify.parity.blobs import DetectionRowParity, reference_pastes
from detectron_gn.verify.parity.matching import pair_detections
from detectron_gn.verify.reference.image_dump import ImageReference

_CHOICE = "choosing detections: TEST.NMS, TEST.SCORE_THRESH or TEST.DETECTIONS_PER_IM, or + 1 in the overlaps of NMS"
_PASTING = (
    "pasting masks: one zero bin of padding around them, the box grown by (M + 2) / M and cut to whole pixels, "
    "cv2.resize, more than MRCNN.THRESH_BINARIZE"
)

# Values of soft masks that are the same but for float32 sums in another order.
_SAME_MASK = 1e-3


def explain_boxes(found: DetectionRowParity, ours: Detections, reference: ImageReference) -> Diagnosis:
    """Detections that are others, or have other boxes or scores, though the boxes and scores of all RoIs agree."""
    evidence = f"{found.box_fault}, though the boxes and scores of all RoIs agree"
    if not found.matched == found.count == found.reference_count:
        pairs = pair_detections(ours, reference.det_boxes, reference.det_classes, any_class=True)
        if len(pairs) == found.count == found.reference_count:
            apart = ours.classes[pairs[:, 0]] != reference.det_classes[pairs[:, 1]]
            return Diagnosis(
                f"{evidence}; every box is there, but {int(apart.sum())} of {len(pairs)} in another class",
                "the number of a class: column 0 of the scores is the background, so that classes count from 1",
            )
        return Diagnosis(evidence, may_be=_CHOICE)
    pairs = pair_detections(ours, reference.det_boxes, reference.det_classes)
    moved = (ours.boxes[pairs[:, 0]] - reference.det_boxes[pairs[:, 1]]).astype(np.float64)
    if len(moved) and found.box_fault.startswith("boxes"):
        if not (ours.boxes % 1).any() and (reference.det_boxes % 1).any():
            suspect = "rounding of detected boxes: they keep their fractions"
            return Diagnosis(f"{evidence}; ours are whole numbers", suspect)
        if moved.size > 4 and np.ptp(moved) < 1e-3:
            return Diagnosis(f"{evidence}; every corner by {moved.mean():+.2g}", "an offset: nothing is added to boxes")
    usual = "what is done to detections after they are chosen: TEST.BBOX_VOTE, TEST.SOFT_NMS"
    return Diagnosis(evidence, may_be=usual)


def explain_soft_masks(
    found: DetectionRowParity, ours: Detections, logits: Tensor | None, compared: bool
) -> Diagnosis:
    """Soft masks that differ.

    Args:
        logits: `[D, K, M, M]` that the mask head gives for our detections, one by one, if they are known.
        compared: whether the mask head's maps were compared, and agree.
    """
    if not compared:
        evidence = f"{found.soft_mask_fault}, and the reference holds no maps of the mask head to compare"
        return Diagnosis(evidence, may_be="the mask head, its RoIs, or the choice of its channels")
    evidence = f"{found.soft_mask_fault}, though the mask head's maps agree"
    if logits is not None and len(logits) == len(ours):
        soft = torch.from_numpy(ours.mask_probs)
        # One mask for all classes is the only channel.
        rows, classes = torch.arange(len(ours)), torch.from_numpy(ours.classes).clamp(max=logits.shape[1] - 1)
        own = logits[rows, classes].cpu()
        if _same(soft, own):
            return Diagnosis(f"{evidence}; ours are the logits", "the sigmoid after the mask head: it is missing")
        channels = [_channel_of(mask, every) for mask, every in zip(soft, logits.sigmoid().cpu(), strict=True)]
        if None not in channels and channels != classes.tolist():
            told = ", ".join(f"{channel} of class {label}" for channel, label in zip(channels, classes.tolist()))
            return Diagnosis(
                f"{evidence}; ours are other channels of them ({told})",
                "choosing masks: each detection takes the channel of its own class, counted with the background",
            )
    return Diagnosis(
        evidence,
        may_be="what the mask head is handed outside of the trace: mask RoIs are scaled in float64 and not rounded; or "
        "what is done to its maps: a sigmoid, and the channel of the detection's own class",
    )


def explain_pasted_masks(found: DetectionRowParity, ours: Detections, reference: ImageReference) -> Diagnosis:
    """Pasted masks that differ though the soft ones agree: whether pasting the reference's own gives its masks."""
    evidence = f"{found.pasted_mask_fault}, though the soft masks agree"
    wrong = _unequal(reference_pastes(reference, ours.mask_threshold), reference.rle_counts)
    if wrong:
        count = len(reference.rle_counts)
        return Diagnosis(f"{evidence}; {wrong} of {count} of the reference's own come out otherwise", _PASTING)
    return Diagnosis(
        f"{evidence}, and the reference's own are pasted as it pasted them",
        may_be="boxes or soft masks that are apart by less than their tolerances, on objects of a few pixels",
    )


def _unequal(ours: Sequence[str], theirs: Sequence[str]) -> int:
    return sum(a != b for a, b in zip(ours, theirs, strict=True))


def _channel_of(mask: Tensor, channels: Tensor) -> int | None:
    """The channel of `[K, M, M]` that a mask `[M, M]` is; None where it is none."""
    distance = (channels - mask).abs().flatten(1).amax(dim=1)
    nearest = int(distance.argmin())
    return nearest if bool(distance[nearest] <= _SAME_MASK) else None


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a - b).abs() <= _SAME_MASK * (1 + b.abs())).all())
