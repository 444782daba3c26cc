"""Why the first blob that differs does, told from its name and its values."""

import re
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from detectron_gn.mrcnn.data.image_blob import scaled_size
from detectron_gn.mrcnn.ops.roi_levels import roi_levels
from detectron_gn.port.blobs.activations import prepared_data
from detectron_gn.port.blobs.names.heads import KEYPOINT_PREFIX, mask_blob_prefix
from detectron_gn.verify.diagnosis.diagnosis import OTHER_WEIGHTS, Diagnosis
from detectron_gn.verify.diagnosis.flow import step_of
from detectron_gn.verify.diagnosis.inputs import explain_input
from detectron_gn.verify.diagnosis.look import ONSET, Look
from detectron_gn.verify.diagnosis.proposals import explain_proposals
from detectron_gn.verify.parity.blobs import BlobParity, limit_of
from detectron_gn.verify.reference.reference_blob import ReferenceBlob


class _Pooled(NamedTuple):
    """What a head pools: its attribute of the network, the blob of its RoIs, what its blobs begin with."""

    head: str
    rois: str
    prefix: str


_POOLED = {
    "box features": _Pooled("box_head", "rois", ""),
    "mask features": _Pooled("mask_head", "mask_rois", "_[mask]_"),
    "keypoint features": _Pooled("keypoint_head", "keypoint_rois", KEYPOINT_PREFIX),
}


def explain_blob(look: Look, step: str, first: BlobParity) -> Diagnosis:
    """Why a blob differs.

    Args:
        step: of the flow, that the blob belongs to.
        first: the blob; all before it that was compared agrees.
    """
    name, blobs = first.blob, look.reference.blobs
    evidence = f"its relative error is {first.relative_error:.1e}, all before it that was compared agrees"
    if look.is_within(first):
        # The step's blob that is out of tolerance comes after it.
        beyond = next(row for row in look.parity.blobs if step_of(row.blob) == step and not look.is_within(row))
        evidence = (
            f"its relative error, {first.relative_error:.1e}, is below the tolerance of {look.tolerance:g}, but the "
            f"first of this part above a tenth of it; {beyond.blob} is above it ({beyond.told})"
        )
    if first.relative_error <= limit_of(name, look.tolerance) < first.norm_error:
        return Diagnosis(
            f"{first.values:,} of its {first.size:,} values agree, all that the reference holds, but the norm of the "
            f"whole (l2) does not: its relative error is {first.norm_error:.1e}",
            may_be="values between those that the reference holds, or a reference that was changed after its recording",
        )
    if first.fault:
        evidence = f"it {first.fault}" if first.fault.startswith("is ") else f"it is {first.fault}"
    if name == "data":
        return _explain_data(look)
    if name == "im_info":
        return _explain_info(look)
    ours = look.trace().get(name)
    if ours is not None and tuple(ours.shape) != first.shape:
        return _explain_shape(look, name, tuple(ours.shape), first.shape)
    if first.fault:
        return Diagnosis(evidence, may_be="a computation that overflowed on one side, or a damaged reference")
    if name.endswith("_gn_std") and ours is not None:
        return _explain_std(ours, blobs[name], look.agree(name.replace("_gn_std", "_gn_mean")))
    computed = {"cls_prob": "cls_score", "mask_fcn_probs": "mask_fcn_logits", "rpn_cls_probs": "rpn_cls_logits"}
    computed |= {f"rpn_cls_probs_fpn{level}": f"rpn_cls_logits_fpn{level}" for level in range(2, 7)}
    computed |= {f"retnet_cls_prob_fpn{level}": f"retnet_cls_pred_fpn{level}" for level in range(2, 8)}
    if name in computed and look.agree(computed[name]):
        what = "the softmax: over the classes of each RoI" if name == "cls_prob" else "the sigmoid"
        if name.startswith("retnet") and look.model.cfg.RETINANET.SOFTMAX:
            what = "the softmax: over the classes of each anchor, the background among them"
        return Diagnosis(f"{evidence}, {computed[name]} that it is computed from as well", what)
    if name.endswith("_topdown"):
        cause = "upsampling in the pyramid: nearest neighbour, each value twice"
        return Diagnosis(evidence, cause) if _top_agrees(look, name) else Diagnosis(evidence, may_be=cause)
    if name.endswith("rois_idx_restore_int32"):
        return _explain_levels(look, name, evidence)
    if name.startswith("rpn_rois"):
        found = explain_proposals(look.model.cfg, look.trace(), blobs)
        return found.after("every proposal has its partner, but ")
    if step in _POOLED:
        return _explain_roi_features(look, step, evidence)
    return Diagnosis(evidence, may_be=_usual(step, name))


def _top_agrees(look: Look, name: str) -> bool:
    """Whether the map that an upsampled one is made of was compared, and agrees."""
    stage = int(name.removeprefix("fpn_inner_res")[0])
    top = re.compile(rf"fpn_inner_res{stage + 1}_\d+_sum(_gn)?")
    above = [row.blob for row in look.parity.blobs if top.fullmatch(row.blob)]
    return bool(above) and look.agree(above[-1])


def _explain_data(look: Look) -> Diagnosis:
    model, image = look.model, look.reference.image
    size = scaled_size(image.shape[0], image.shape[1], model.prepare(image).scale)
    data = look.reference.blobs["data"]
    return explain_input(model.cfg, lambda picture: prepared_data(model, picture).cpu(), image, size, data)


def _explain_info(look: Look) -> Diagnosis:
    """Height, width and scale, each held to the reference's."""
    ours = look.trace()["im_info"].double().flatten().tolist()
    blob = look.reference.blobs["im_info"]
    if len(ours) != 3 or blob.shape != (1, 3) or not blob.is_whole:
        return Diagnosis("it differs", may_be="the image's scale, or the size that is not the padded one")
    theirs = blob.doubles().tolist()
    if ours[:2] != theirs[:2]:
        sides = [f"{height:g}x{width:g}" for height, width in (ours[:2], theirs[:2])]
        evidence = f"its size is {sides[0]}, the reference's {sides[1]}"
        suspect = "the size that proposals are clipped to: that of the padded blob"
        padded = look.agree("data") and theirs[:2] == [float(n) for n in look.network_input().shape[2:]]
        return Diagnosis(evidence, suspect) if padded else Diagnosis(evidence, may_be=suspect)
    return Diagnosis(
        f"its scale is {ours[2]:.7g}, the reference's {theirs[2]:.7g}",
        "the image's scale: the exact factor of TEST.SCALE and TEST.MAX_SIZE, not rounded",
    )


def _explain_shape(look: Look, name: str, ours: tuple[int, ...], theirs: tuple[int, ...]) -> Diagnosis:
    evidence = f"it is {'x'.join(map(str, ours))}, the reference's {'x'.join(map(str, theirs))}"
    halved = len(ours) == len(theirs) == 4 and all(
        2 * min(a, b) - max(a, b) in (0, 1) for a, b in zip(ours[2:], theirs[2:], strict=True)
    )
    if re.fullmatch(r"res[345]_0_branch2[ab].*", name) and ours[:2] == theirs[:2] and halved:
        return Diagnosis(
            evidence,
            "the stride of a stage stands on the other convolution: RESNETS.STRIDE_1X1 is "
            f"{look.model.cfg.RESNETS.STRIDE_1X1} here",
        )
    if name.endswith(("_gn_mean", "_gn_std")):
        return Diagnosis(evidence, "the number of groups: GROUP_NORM.NUM_GROUPS or DIM_PER_GP")
    if step_of(name) in ("levels", "mask levels", "keypoint levels"):
        return _explain_levels(look, name, evidence)
    return Diagnosis(evidence, may_be=_usual(step_of(name), "shape"))


def _explain_levels(look: Look, name: str, evidence: str) -> Diagnosis:
    """Another number of RoIs on a level, though the RoIs are the same ones."""
    rois = "mask_rois" if "mask" in name else "keypoint_rois" if "keypoint" in name or "pose" in name else "rois"
    told = "the level of a RoI: FPN.ROI_CANONICAL_SCALE, areas with + 1, the 1e-6 inside the logarithm"
    # RoIs that are apart by pixels may lie on either side of a level's border.
    close = any(row.blob == rois and look.is_within(row, ONSET) for row in look.parity.blobs)
    return Diagnosis(f"{evidence}; {rois} agree", told) if close else Diagnosis(evidence, may_be=f"{told}; or {rois}")


def _explain_std(ours: Tensor, blob: ReferenceBlob, means_agree: bool) -> Diagnosis:
    """Variances that differ by a constant have another epsilon, by a factor another number of values."""
    mine, theirs = blob.sample_of(ours) ** -2.0, blob.doubles() ** -2.0
    difference = mine - theirs
    epsilon = float(np.median(difference))
    told = "the means agree, and" if means_agree else "the means were not compared;"
    if means_agree and np.abs(difference - epsilon).max() <= 0.05 * abs(epsilon) + 1e-4 * float(theirs.max()):
        return Diagnosis(
            f"{told} variance + epsilon is {epsilon:.2g} more in every group",
            "GroupNorm's epsilon: GROUP_NORM.EPSILON is 1e-5 in all of Detectron's models",
        )
    return Diagnosis(
        f"{told} the standard deviations do not agree",
        may_be=f"{OTHER_WEIGHTS}; or GroupNorm's variance: biased, over a whole group; its epsilon, the convolution "
        "before it",
    )


def _explain_roi_features(look: Look, step: str, evidence: str) -> Diagnosis:
    """Whether moving the RoIs by half a position of their level undoes the difference."""
    model, blobs = look.two_stages, look.reference.blobs
    pooled = _POOLED[step]
    prefix = mask_blob_prefix(model.cfg) if pooled.head == "mask_head" else pooled.prefix
    feature_blob = next((name for name in (f"{prefix}roi_feat", f"{prefix}pool5") if name in blobs), None)
    roi_blob, head = pooled.rois, getattr(model, pooled.head)
    usual = "RoIAlign: corners moved by half a pixel, rounded, or another number of samples a bin"
    told = f"it differs, though {roi_blob} agree" if look.agree(roi_blob) else evidence
    rois = look.rois if roi_blob == "rois" else None
    if rois is None and roi_blob in blobs:
        rois = blobs[roi_blob].known().to(model.device)
    if rois is None or feature_blob is None or not bool(rois.isfinite().all()):
        return Diagnosis(told, may_be=usual)
    with torch.inference_mode():
        levels = model.features(look.network_input().to(model.device))
        stride = 2.0 ** roi_levels(rois[:, 1:], model.cfg)[:, None] if model.cfg.FPN.FPN_ON else levels.strides[0]
        for sign in (1, -1):
            moved = rois.clone()
            moved[:, 1:] += sign * 0.5 * stride
            if look.equals(head.roi_features(levels, moved), blobs[feature_blob]):
                return Diagnosis(
                    "it agrees once the RoIs are moved by half a position of the map",
                    "RoIAlign's half-pixel shift (aligned=True): Detectron's has none",
                )
    return Diagnosis(told, may_be=usual)


# Steps that compute without weights.
_WITHOUT_WEIGHTS = ("proposals", "levels", "mask levels", "keypoint levels", "boxes", "detections")


def _usual(step: str, name: str) -> str:
    """What a difference that begins in a blob usually comes from; first other weights, where the blob is of a layer."""
    weightless = step in _WITHOUT_WEIGHTS or name in ("shape", "cls_prob", "mask_fcn_probs", "pool1")
    usual = _usual_of_the_port(step, name)
    return usual if weightless else f"{OTHER_WEIGHTS}; or {usual}"


def _usual_of_the_port(step: str, name: str) -> str:
    by_name = {
        "_gn_mean": "the convolution before it, or the groups of GroupNorm: GROUP_NORM.NUM_GROUPS or DIM_PER_GP",
        "_gn": "GroupNorm's scale and shift, or the ReLU or the sum of a block after it",
        "_bn": "AffineChannel's scale and shift (*_bn_s, *_bn_b), or the ReLU or the sum after it",
        "shape": "a stride, a padding or a number of channels of the configuration",
        "cls_prob": "the softmax, or what goes into it: cls_score",
        "mask_fcn_probs": "the sigmoid, or what goes into it: mask_fcn_logits",
    }
    by_step = {
        "stem": "the first convolution, or the max pooling: 3x3, stride 2, padded by 1",
        "pyramid": "the pyramid: GroupNorm on the lateral before the sum, nothing after it; upsampling; extra levels, "
        "which begin at the output of res5, each after the first with a ReLU before it",
        "RPN": "the RPN's head: one for all levels, ReLU and no GroupNorm after its 3x3 convolution",
        "RetinaNet": "RetinaNet's head: one for all levels, ReLU and no normalisation in its towers",
        "proposals": "what is done to proposals or their scores after NMS (nothing), or collecting them",
        "levels": "the level of a RoI (FPN.ROI_CANONICAL_SCALE, areas with + 1, the 1e-6 inside the logarithm), or "
        "the RoIs themselves",
        "mask levels": "the level of a mask's RoI, found anew from the detected box, or the RoIs themselves",
        "box head": "the box head: the order in which fc6 reads its features (channels first), or its ReLU",
        "boxes": "decoding boxes: widths with + 1, MODEL.BBOX_REG_WEIGHTS, clipping to the image, the image's scale",
        "detections": "the mask RoIs: detected boxes scaled in float64, not rounded",
        "keypoint levels": "the level of a person's RoI, found anew from the detected box, or the RoIs themselves",
        "keypoint head": "the keypoint head: ReLU after each convolution, the deconvolutions' padding, the fixed "
        "kps_score_w, which interpolates",
        "VGG": "a convolution of VGG, its ReLU, or the maxima after it, 2x2 at stride 2 without padding",
        "mask head": "the mask head: ReLU after the deconvolution, MRCNN.DILATION; of C4 res5, which is the box "
        "head's",
    }
    if name in by_name:
        return by_name[name]
    suffix = next((suffix for suffix in ("_gn_mean", "_gn", "_bn") if name.endswith(suffix)), None)
    if suffix is not None:
        return by_name[suffix]
    return by_step.get(step, "the convolution before it: its weights, padding or RESNETS.STRIDE_1X1")
