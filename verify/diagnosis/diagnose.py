"""Where a port begins to differ from Caffe2, and what that comes from, told from the values alone.

The blobs of a reference are looked at in the order in which data flows. Which one differs first, and how, says which
part of the port is wrong: `data` differs as if channels were swapped, a map has twice its size, boxes of all anchors
are off by a pixel, masks differ only after they are pasted. A suspect is named where the evidence leaves no other;
else there is a list of what it may be.
"""

from collections.abc import Sequence

from detectron_gn.mrcnn.detectors import Detector, GeneralizedRCNN, ProposalNetwork, RetinaNet
from detectron_gn.port.blobs.names.rpn import level_suffix
from detectron_gn.verify.diagnosis.blobs import explain_blob
from detectron_gn.verify.diagnosis.dense_detections import explain_dense_boxes
from detectron_gn.verify.diagnosis.detections import explain_boxes, explain_pasted_masks, explain_soft_masks
from detectron_gn.verify.diagnosis.diagnosis import Diagnosis
from detectron_gn.verify.diagnosis.flow import in_flow
from detectron_gn.verify.diagnosis.look import ONSET, Look
from detectron_gn.verify.diagnosis.proposals import explain_proposals
from detectron_gn.verify.parity.blobs import NOT_FINITE, BlobParity, ImageParity, compare_detections
from detectron_gn.verify.parity.usual import USUAL_ERROR, is_far_above_rounding
from detectron_gn.verify.reference.image_dump import ImageReference


def diagnose(
    model: Detector, parity: ImageParity, reference: ImageReference, tolerance: float
) -> Diagnosis | None:
    """The first difference of one image in the order of data, or None where everything agrees.

    Args:
        parity: what `verify.parity.blobs` found for the image.
        reference: of that image, for a closer look.
        tolerance: largest relative error of a blob.
    """
    with model.without_augmentation():
        return _diagnose(Look(model, reference, parity, tolerance))


def _diagnose(look: Look) -> Diagnosis | None:
    model = look.model
    for step, blobs in in_flow(look.parity.blobs).items():
        diagnosis = None
        if step == "detections":
            diagnosis = _at_detections(look) if isinstance(model, GeneralizedRCNN) else _at_dense_detections(look)
        elif step == "proposals" and not isinstance(model, RetinaNet):
            diagnosis = _at_proposals(look)
        diagnosis = diagnosis or _at_blobs(look, step, blobs)
        if diagnosis is not None:
            return diagnosis
    return _at_masks(look) or _at_keypoints(look)


def _at_blobs(look: Look, step: str, blobs: Sequence[BlobParity]) -> Diagnosis | None:
    """The first blob of a step that differs, where one is out of tolerance."""
    if all(look.is_within(blob) for blob in blobs):
        return None
    first = next(blob for blob in blobs if not look.is_within(blob, ONSET))
    rung = {"proposals": "proposals", "boxes": "detections", "detections": "detections"}.get(step, "blobs")
    return _placed(look, rung, first.blob, explain_blob(look, step, first).before(_told_onset(look, first)))


def _told_onset(look: Look, first: BlobParity) -> str:
    """Where errors that are tolerated begin to be far above rounding, if that is in an earlier blob than the first."""
    in_order = (row for rows in in_flow(look.parity.blobs).values() for row in rows)
    onset = next((row for row in in_order if row is first or is_far_above_rounding(row)), first)
    if onset is first:
        return ""
    usual = f"{USUAL_ERROR:g}, which rounding gives with trained weights"
    return f"; errors far above {usual}, begin in {onset.blob} ({onset.told})"


def _at_proposals(look: Look) -> Diagnosis | None:
    """Proposals without a partner that no tie excuses; what the RPN gave agrees."""
    apart = [level for level in look.parity.proposals if level.unmatched > level.tied]
    if apart:
        count = sum(level.unmatched for level in apart)
        found = explain_proposals(look.model.cfg, look.trace(), look.reference.blobs)
        though = look.though("rpn_cls_probs", "rpn_bbox_pred")
        found = found.after(f"{count} proposals have no partner{though}; ")
        return _placed(look, "proposals", f"rpn_rois{level_suffix(look.model.cfg, apart[0].level)}", found)
    tied = any(level.tied for level in look.parity.proposals)
    damaged = any(row.blob == "rois" and row.fault == NOT_FINITE for row in look.parity.blobs)
    if not tied and not damaged and (count := look.rois_without_partner()):
        evidence = f"{count} of the RoIs collected from the proposals have no partner"
        suspect = "collecting the levels: the RPN_POST_NMS_TOP_N best of all levels together"
        found = Diagnosis(f"the proposals agree, but {evidence}", suspect)
        if not look.parity.proposals:
            evidence += ", and the reference holds no proposals to compare"
            found = Diagnosis(evidence, may_be=f"the proposals, or {suspect}")
        return _placed(look, "proposals", "rois", found)
    return None


def _at_detections(look: Look) -> Diagnosis | None:
    """Detections without a partner, or other than theirs, though the boxes and scores of all RoIs agree."""
    parity = look.parity.detections
    if not parity.box_fault:
        return None
    if all(row.blob != "boxes" for row in look.parity.blobs):
        found = Diagnosis(
            f"{parity.box_fault}; our RoIs are others, or cannot be told from the sample of them that the reference "
            "holds, so that no blob after them was compared",
            may_be="the second stage or the choice of RoIs: a reference with whole rois tells which",
        )
        return _placed(look, "detections", "detections", found)
    second_stage = look.second_stage()
    if second_stage is not None and not compare_detections(second_stage, look.reference).box_fault:
        found = Diagnosis(
            f"{parity.box_fault}, but with the RoIs in hand the second stage finds the reference's",
            "GeneralizedRCNN.start_batch: what it hands from stage to stage (RoIs, the image's size, its scale)",
        )
        return _placed(look, "detections", "detections", found)
    return _placed(look, "detections", "detections", explain_boxes(parity, look.detections, look.reference))


def _at_dense_detections(look: Look) -> Diagnosis | None:
    """Detections of a RetinaNet, or the proposals of an RPN by itself, that are not the reference's."""
    if not (fault := look.parity.detections.box_fault):
        return None
    if isinstance(look.model, ProposalNetwork):
        suspect = "collecting the levels, or the way back to image pixels: divided by the scale, not clipped again"
        found = Diagnosis(f"{fault}, though the proposals of each level agree", suspect)
        return _placed(look, "proposals", "proposals", found)
    return _placed(look, "detections", "detections", explain_dense_boxes(look))


def _at_masks(look: Look) -> Diagnosis | None:
    """Soft masks that differ though the mask head's maps agree, or pasted ones though the soft ones do."""
    parity = look.parity.detections
    if parity.soft_mask_fault:
        compared = look.agree("mask_fcn_probs") or look.agree("mask_fcn_logits")
        found = explain_soft_masks(parity, look.detections, look.mask_logits(), compared)
    elif parity.pasted_mask_fault:
        found = explain_pasted_masks(parity, look.detections, look.reference)
    else:
        return None
    return _placed(look, "detections", "masks", found)


def _at_keypoints(look: Look) -> Diagnosis | None:
    """Keypoints that are elsewhere though the heatmaps agree."""
    fault = look.parity.detections.keypoint_fault
    if not fault:
        return None
    suspect = (
        "reading keypoints off heatmaps: enlarged bicubically to x2 - x1 and y2 - y1, rounded up, half a position "
        "added, KRCNN.INFERENCE_MIN_SIZE"
    )
    found = Diagnosis(f"{fault}, though the keypoint head's maps agree", suspect)
    if not look.agree("kps_score"):
        found = Diagnosis(fault, may_be=f"the keypoint head, or {suspect}")
    return _placed(look, "detections", "keypoints", found)


def _placed(look: Look, rung: str, where: str, found: Diagnosis) -> Diagnosis:
    return found.at(rung, f"{where} ({look.parity.image})")
