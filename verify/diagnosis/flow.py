"""The order in which data flows through the network: which step each blob of Caffe2's belongs to."""

import re
from collections.abc import Sequence

from detectron_gn.verify.parity.blobs import BlobParity

# Blobs in the order in which data flows. A blob that no line names is one that only our trace has.
FLOW = (
    ("input", r"data|im_info"),
    ("stem", r"conv1|conv1_.*|res_conv1.*|pool1"),
    ("VGG", r"conv[1-5](_\d)?|norm\d|pool[2-4]"),
    ("res2", r"res2_.*"),
    ("res3", r"res3_.*"),
    ("res4", r"res4_.*"),
    ("res5", r"res5_.*"),
    ("pyramid", r"fpn_.*"),
    ("RPN", r"conv_rpn.*|rpn_cls_.*|rpn_bbox_pred.*"),
    ("RetinaNet", r"retnet_.*"),
    ("proposals", r"rpn_roi.*|rois"),
    ("levels", r"rois_.*|_concat_roi_feat"),
    ("box features", r"roi_feat.*|pool5"),
    ("box head", r"head_conv.*|fc6|fc7|cls_score|bbox_pred|cls_prob"),
    ("boxes", r"boxes|scores"),
    ("detections", r"mask_rois|keypoint_rois"),
    ("mask levels", r"mask_rois_.*|_concat_.*mask.*"),
    ("mask features", r"_\[?mask\]?_(roi_feat.*|pool5)"),
    ("mask head", r"_\[?mask\]?_(fcn|res5).*|conv5_mask|mask_fcn_.*"),
    ("keypoint levels", r"keypoint_rois_.*|_concat_.*pose.*"),
    ("keypoint features", r"_\[pose\]_(roi_feat.*|pool5)"),
    ("keypoint head", r"_\[pose\]_res5.*|conv_fcn.*|kps_.*"),
)


def step_of(blob: str) -> str:
    """The step of `FLOW` that a blob belongs to."""
    return next((step for step, pattern in FLOW if re.fullmatch(pattern, blob)), "other")


def in_flow(blobs: Sequence[BlobParity]) -> dict[str, list[BlobParity]]:
    """The blobs of every step, those of a step in the order in which the network computed them."""
    order = [step for step, _ in FLOW]
    if any(blob.blob == "pool5" for blob in blobs):
        # Res5 is a head then: it runs on what was pooled.
        order.remove("res5")
        order.insert(order.index("box features") + 1, "res5")
    steps: dict[str, list[BlobParity]] = {step: [] for step in order}
    for blob in blobs:
        steps.setdefault(step_of(blob.blob), []).append(blob)
    return steps
