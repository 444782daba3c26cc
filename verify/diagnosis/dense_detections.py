"""Why the detections of a RetinaNet differ though all of its maps agree."""

import torch

from detectron_gn.mrcnn.detectors import RetinaNet
from detectron_gn.verify.diagnosis.diagnosis import Diagnosis
from detectron_gn.verify.diagnosis.look import Look
from detectron_gn.verify.parity.blobs import compare_detections

_USUAL = (
    "the anchors (RETINANET.ASPECT_RATIOS, SCALES_PER_OCTAVE, ANCHOR_SCALE); decoding boxes, which are scaled to the "
    "image afterwards; or choosing detections: RETINANET.INFERENCE_TH (0 on the coarsest level), "
    "RETINANET.PRE_NMS_TOP_N, TEST.NMS, TEST.DETECTIONS_PER_IM"
)


def explain_dense_boxes(look: Look) -> Diagnosis:
    """Detections that are others, or have other boxes or scores: whether moving all anchors by half a stride helps."""
    fault = look.parity.detections.box_fault
    if not look.though("retnet_cls_pred_", "retnet_bbox_pred_").endswith("agree"):
        return Diagnosis(f"{fault}; not all of the head's maps could be compared", may_be=f"the head; {_USUAL}")
    evidence = f"{fault}, though the head's maps agree"
    for sign in (1, -1):
        if _agrees_with_moved_anchors(look, 0.5 * sign):
            return Diagnosis(
                f"{evidence}; they agree once all anchors are moved by half a stride",
                "the anchors: they are centred on the middle of a stride's first pixels, (stride - 1) / 2",
            )
    return Diagnosis(evidence, may_be=_USUAL)


@torch.inference_mode()
def _agrees_with_moved_anchors(look: Look, strides: float) -> bool:
    model = look.model
    assert isinstance(model, RetinaNet)
    anchors = {level: model.get_buffer(f"anchors_fpn{level}") for level in model.levels}
    try:
        for level, right in anchors.items():
            setattr(model, f"anchors_fpn{level}", right + strides * 2**level)
        return not compare_detections(model.detect(look.reference.image), look.reference).box_fault
    finally:
        for level, right in anchors.items():
            setattr(model, f"anchors_fpn{level}", right)
