"""Where a port begins to differ from Caffe2, and what that comes from, told from the values alone.

The blobs of a reference are looked at in the order in which data flows. Which one differs first, and how, says which
part of the port is wrong: `data` differs as if channels were swapped, a map has twice its size, boxes of all anchors
are off by a pixel, masks differ only after they are pasted. A suspect is named where the evidence leaves no other;
else there is a list of what it may be.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detectron_gn.mrcnn.data.image_blob import scaled_size
from detectron_gn.mrcnn.detectors.generalized_rcnn import MaskRCNN
from detectron_gn.mrcnn.inference.dynamic import class_boxes
from detectron_gn.mrcnn.ops.roi_align import pyramid_roi_align
from detectron_gn.mrcnn.ops.roi_levels import roi_levels
from detectron_gn.mrcnn.structures import Detections
from detectron_gn.port.blobs.activations import Trace, trace_boxes, trace_masks
from detectron_gn.port.blobs.names.heads import mask_blob_prefix
from detectron_gn.verify.diagnosis.cause import Cause
from detectron_gn.verify.diagnosis.detections import explain_boxes, explain_pasted_masks, explain_soft_masks
from detectron_gn.verify.diagnosis.inputs import explain_input
from detectron_gn.verify.diagnosis.proposals import explain_proposals
from detectron_gn.verify.parity.blobs import NOT_FINITE, BlobParity, ImageParity, compare_detections, limit_of
from detectron_gn.verify.parity.matching import pair_proposals, pair_rois, reference_rois, without_partner
from detectron_gn.verify.reference.image_dump import ImageReference, ReferenceBlob, read_reference

# Blobs in the order in which data flows; what is named by no line is of the trace's own making.
FLOW = (
    ("input", r"data|im_info"),
    ("stem", r"conv1|conv1_.*|res_conv1.*|pool1"),
    ("res2", r"res2_.*"),
    ("res3", r"res3_.*"),
    ("res4", r"res4_.*"),
    ("res5", r"res5_.*"),
    ("pyramid", r"fpn_.*"),
    ("RPN", r"conv_rpn_.*|rpn_cls_.*|rpn_bbox_pred_.*"),
    ("proposals", r"rpn_roi.*|rois"),
    ("levels", r"rois_.*|_concat_roi_feat"),
    ("box features", r"roi_feat.*"),
    ("box head", r"head_conv.*|fc6|fc7|cls_score|bbox_pred|cls_prob"),
    ("boxes", r"boxes|scores"),
    ("detections", r"mask_rois"),
    ("mask levels", r"mask_rois_.*|_concat_.*mask.*"),
    ("mask features", r"_.*roi_feat.*"),
    ("mask head", r"_.*fcn.*|conv5_mask|mask_fcn_.*"),
)

# A difference that ends above the tolerance begins where it is a tenth of it.
_ONSET = 0.1


@dataclass(frozen=True)
class Finding:
    """The first thing that differs.

    Attributes:
        rung: `blobs`, `proposals` or `detections`.
        where: the blob or step, with the image.
        evidence: what was seen, in a sentence.
        suspect: what it comes from, where the evidence leaves no other; else empty.
        may_be: what it usually comes from, where the evidence does not tell; else empty.
    """

    rung: str
    where: str
    evidence: str
    suspect: str = ""
    may_be: str = ""


def first_finding(
    model: MaskRCNN, parity: ImageParity, reference: Path, images: Path, tolerance: float
) -> Finding | None:
    """The first difference of one image in the order of data, or None where everything agrees.

    Args:
        parity: what `verify.parity.blobs` found for the image.
        reference, images: the reference file and the folder of its images, for a closer look.
        tolerance: largest relative error of a blob.
    """
    look = _Look(model, read_reference(reference, parity.image, images, model.cfg), parity, tolerance)
    for name, blobs in _in_flow(parity).items():
        if name == "proposals":
            finding = look.at_proposals()
        elif name == "detections":
            finding = look.at_detections()
        else:
            finding = None
        finding = finding or look.at_blobs(name, blobs)
        if finding is not None:
            return finding
    return look.at_masks()


def step_of(blob: str) -> str:
    """The step of `FLOW` that a blob belongs to."""
    return next((step for step, pattern in FLOW if re.fullmatch(pattern, blob)), "other")


def _in_flow(parity: ImageParity) -> dict[str, list[BlobParity]]:
    """The blobs of every step, those of a step in the order in which the network computed them."""
    steps: dict[str, list[BlobParity]] = {step: [] for step, _ in FLOW}
    for blob in parity.blobs:
        steps.setdefault(step_of(blob.blob), []).append(blob)
    return steps


@dataclass(frozen=True)
class _Look:
    """A closer look at one image."""

    model: MaskRCNN
    reference: ImageReference
    parity: ImageParity
    tolerance: float

    def at_blobs(self, step: str, blobs: list[BlobParity]) -> Finding | None:
        """The first blob of a step that differs, where one is out of tolerance."""
        if all(self._within(blob) for blob in blobs):
            return None
        first = next(blob for blob in blobs if not self._within(blob, _ONSET))
        rung = {"proposals": "proposals", "boxes": "detections", "detections": "detections"}.get(step, "blobs")
        return self._finding(rung, first.blob, self._explain(step, first))

    def at_proposals(self) -> Finding | None:
        """Proposals without a partner that no tie excuses; what the RPN gave agrees."""
        apart = [level for level in self.parity.proposals if level.unmatched > level.tied]
        tied = any(level.tied for level in self.parity.proposals)
        if apart:
            count = sum(level.unmatched for level in apart)
            cause = explain_proposals(self.model.cfg, self._ours(), self.reference.blobs)
            before = f"{count} proposals have no partner{self._though('rpn_cls_probs_', 'rpn_bbox_pred_')}; "
            return self._finding(
                "proposals", f"rpn_rois_fpn{apart[0].level}", cause._replace(evidence=before + cause.evidence)
            )
        damaged = any(row.blob == "rois" and row.fault == NOT_FINITE for row in self.parity.blobs)
        if not tied and not damaged and (count := self._rois_without_partner()):
            evidence = f"{count} of the RoIs collected from the proposals have no partner"
            suspect = "collecting the levels: the RPN_POST_NMS_TOP_N best of all levels together"
            if not self.parity.proposals:
                return self._finding("proposals", "rois", Cause(f"{evidence}, and the reference holds no proposals to "
                                     "compare", may_be=f"the proposals, or {suspect}"))  # fmt: skip
            return self._finding("proposals", "rois", Cause(f"the proposals agree, but {evidence}", suspect))
        return None

    def at_detections(self) -> Finding | None:
        """Detections without a partner, or other than theirs, though the boxes and scores of all RoIs agree."""
        found = self.parity.detections
        if not found.box_fault:
            return None
        if all(row.blob != "boxes" for row in self.parity.blobs):
            return self._finding("detections", "detections", Cause(
                f"{found.box_fault}; our RoIs are others, or cannot be told from the sample of them that the reference "
                "holds, so that no blob after them was compared",
                may_be="the second stage or the choice of RoIs: a reference with whole rois tells which",
            ))  # fmt: skip
        alone = self._second_stage()
        if alone is not None and not compare_detections(alone, self.reference).box_fault:
            return self._finding("detections", "detections", Cause(
                f"{found.box_fault}, but with the RoIs in hand the second stage finds the reference's",
                "MaskRCNN.start_batch: what it hands from stage to stage (RoIs, the image's size, its scale)",
            ))  # fmt: skip
        return self._finding("detections", "detections", explain_boxes(found, self._detections(), self.reference))

    def at_masks(self) -> Finding | None:
        """Soft masks that differ though the mask head's maps agree, or pasted ones though the soft ones do."""
        found = self.parity.detections
        if found.soft_mask_fault:
            ours = self._detections()
            compared = self._holds("mask_fcn_probs") or self._holds("mask_fcn_logits")
            return self._finding(
                "detections", "masks", explain_soft_masks(found, ours, self._mask_logits(ours), compared)
            )
        if found.pasted_mask_fault:
            return self._finding("detections", "masks", explain_pasted_masks(found, self._detections(), self.reference))
        return None

    def _finding(self, rung: str, where: str, cause: Cause) -> Finding:
        return Finding(rung, f"{where} ({self.parity.image})", *cause)

    def _within(self, row: BlobParity, share: float = 1.0) -> bool:
        """Whether a blob is within the tolerance, or a share of it."""
        return row.relative_error <= share * limit_of(row.blob, self.tolerance)

    def _holds(self, *blobs: str) -> bool:
        """Whether blobs were compared, all of them, and agree."""
        rows = {row.blob: row for row in self.parity.blobs}
        return all(blob in rows and self._within(rows[blob]) for blob in blobs)

    def _though(self, *prefixes: str) -> str:
        """Words for blobs before that were compared, or that were not."""
        compared = all(any(row.blob.startswith(prefix) for row in self.parity.blobs) for prefix in prefixes)
        told = " and ".join(f"{prefix}*" for prefix in prefixes)
        return f", though {told} agree" if compared else f"; not all of {told} could be compared"

    def _second_stage(self) -> Detections | None:
        """What the second stage finds when it is run on its own, on the network's own RoIs."""
        rois = self._rois()
        if rois is None or not self.parity.same_rois:
            return None
        with torch.inference_mode():
            data, (info,), _ = self.model.network_input([self.reference.image])
            return self.model.detect_in_rois(self.model.features(data), rois, self.reference.image_size, info.scale)

    def _detections(self) -> Detections:
        """What `verify.parity.blobs` compared: of `detect`, or of the second stage on the reference's RoIs."""
        rois = self._rois()
        if self.parity.same_rois or rois is None:
            return self.model.detect(self.reference.image)
        with torch.inference_mode():
            data, (info,), _ = self.model.network_input([self.reference.image])
            return self.model.detect_in_rois(self.model.features(data), rois, self.reference.image_size, info.scale)

    def _mask_logits(self, ours: Detections) -> Tensor | None:
        """`[D, K, M, M]` that the mask head gives for detections of ours."""
        if not len(ours):
            return None
        scale = float(self.model.network_input([self.reference.image]).im_info[0].scale)
        rois = torch.from_numpy(ours.boxes).double() * scale
        rois = torch.cat((torch.zeros(len(rois), 1), rois.float()), dim=1).to(self.model.device)
        return trace_masks(self.model, self.reference.image, rois)["mask_fcn_logits"]

    def _explain(self, step: str, first: BlobParity) -> Cause:
        """Evidence and suspect of a blob that differs, from its name and values."""
        name, blobs = first.blob, self.reference.blobs
        evidence = f"its relative error is {first.relative_error:.1e}, all before it that was compared agrees"
        if first.fault:
            evidence = f"it {first.fault}" if first.fault.startswith("is ") else f"it is {first.fault}"
        if name == "data":
            return self._explain_data()
        if name == "im_info":
            return self._explain_info()
        ours = self._ours().get(name)
        if ours is not None and tuple(ours.shape) != first.shape:
            return self._explain_shape(name, tuple(ours.shape), first.shape)
        if first.fault:
            return Cause(evidence, may_be="a computation that overflowed on one side, or a damaged reference")
        if name.endswith("_gn_std") and ours is not None:
            return self._explain_std(ours, blobs[name], self._holds(name.replace("_gn_std", "_gn_mean")))
        computed = {"cls_prob": "cls_score", "mask_fcn_probs": "mask_fcn_logits"}
        computed |= {f"rpn_cls_probs_fpn{level}": f"rpn_cls_logits_fpn{level}" for level in range(2, 7)}
        if name in computed and self._holds(computed[name]):
            what = "the softmax: over the classes of each RoI" if name == "cls_prob" else "the sigmoid"
            return Cause(f"{evidence}, {computed[name]} that it is computed from as well", what)
        if name.endswith("_topdown"):
            cause = "upsampling in the pyramid: nearest neighbour, each value twice"
            return Cause(evidence, cause) if self._top_holds(name) else Cause(evidence, may_be=cause)
        if name.endswith("rois_idx_restore_int32"):
            return self._explain_levels(name, evidence)
        if step == "proposals":
            return self._explain_proposal_blob(name, evidence)
        if step in ("box features", "mask features"):
            return self._explain_roi_features(step, evidence)
        return Cause(evidence, may_be=_usual(step, name))

    def _top_holds(self, name: str) -> bool:
        """Whether the map that an upsampled one is made of was compared, and agrees."""
        stage = int(name.removeprefix("fpn_inner_res")[0])
        top = re.compile(rf"fpn_inner_res{stage + 1}_\d+_sum(_gn)?")
        above = [row.blob for row in self.parity.blobs if top.fullmatch(row.blob)]
        return bool(above) and self._holds(above[-1])

    def _explain_data(self) -> Cause:
        image = self.reference.image
        prepared = self.model.prepare(image)
        size = scaled_size(image.shape[0], image.shape[1], prepared.scale)
        return explain_input(
            self.model.cfg,
            lambda picture: self.model.network_input([picture]).data.cpu(),
            image,
            size,
            self.reference.blobs["data"],
        )

    def _explain_info(self) -> Cause:
        """Height, width and scale, each held to the reference's."""
        ours = self._ours()["im_info"].double().flatten().tolist()
        blob = self.reference.blobs["im_info"]
        if len(ours) != 3 or blob.shape != (1, 3) or not blob.is_whole:
            return Cause("it differs", may_be="the image's scale, or the size that is not the padded one")
        theirs = blob.doubles().tolist()
        if ours[:2] != theirs[:2]:
            sides = [f"{height:g}x{width:g}" for height, width in (ours[:2], theirs[:2])]
            evidence = f"its size is {sides[0]}, the reference's {sides[1]}"
            suspect = "the size that proposals are clipped to: that of the padded blob"
            padded = self._holds("data") and theirs[:2] == [float(n) for n in self._input().shape[2:]]
            return Cause(evidence, suspect) if padded else Cause(evidence, may_be=suspect)
        return Cause(
            f"its scale is {ours[2]:.7g}, the reference's {theirs[2]:.7g}",
            "the image's scale: the exact factor of TEST.SCALE and TEST.MAX_SIZE, not rounded",
        )

    def _explain_shape(self, name: str, ours: tuple[int, ...], theirs: tuple[int, ...]) -> Cause:
        evidence = f"it is {'x'.join(map(str, ours))}, the reference's {'x'.join(map(str, theirs))}"
        halved = len(ours) == len(theirs) == 4 and all(
            2 * min(a, b) - max(a, b) in (0, 1) for a, b in zip(ours[2:], theirs[2:], strict=True)
        )
        if re.fullmatch(r"res[345]_0_branch2[ab].*", name) and ours[:2] == theirs[:2] and halved:
            return Cause(
                evidence,
                "the stride of a stage stands on the other convolution: RESNETS.STRIDE_1X1 is "
                f"{self.model.cfg.RESNETS.STRIDE_1X1} here",
            )
        if name.endswith(("_gn_mean", "_gn_std")):
            return Cause(evidence, "the number of groups: GROUP_NORM.NUM_GROUPS or DIM_PER_GP")
        if step_of(name) in ("levels", "mask levels"):
            return self._explain_levels(name, evidence)
        return Cause(evidence, may_be=_usual(step_of(name), "shape"))

    def _explain_levels(self, name: str, evidence: str) -> Cause:
        """Another number of RoIs on a level, though the RoIs are the same ones."""
        rois = "mask_rois" if "mask" in name else "rois"
        told = "the level of a RoI: FPN.ROI_CANONICAL_SCALE, areas with + 1, the 1e-6 inside the logarithm"
        # RoIs that are apart by pixels may lie on either side of a level's border.
        close = any(row.blob == rois and self._within(row, _ONSET) for row in self.parity.blobs)
        return Cause(f"{evidence}; {rois} agree", told) if close else Cause(evidence, may_be=f"{told}; or {rois}")

    def _explain_std(self, ours: Tensor, blob: ReferenceBlob, means_agree: bool) -> Cause:
        """Variances that differ by a constant have another epsilon, by a factor another number of values."""
        mine, theirs = blob.sample_of(ours) ** -2.0, blob.doubles() ** -2.0
        difference = mine - theirs
        epsilon = float(np.median(difference))
        told = "the means agree, and" if means_agree else "the means were not compared;"
        if means_agree and np.abs(difference - epsilon).max() <= 0.05 * abs(epsilon) + 1e-4 * float(theirs.max()):
            return Cause(
                f"{told} variance + epsilon is {epsilon:.2g} more in every group",
                "GroupNorm's epsilon: GROUP_NORM.EPSILON is 1e-5 in all of Detectron's models",
            )
        return Cause(
            f"{told} the standard deviations do not agree",
            may_be="GroupNorm's variance: biased, over a whole group; its epsilon, the convolution before it",
        )

    def _explain_proposal_blob(self, name: str, evidence: str) -> Cause:
        """Proposals that all have their partner, and yet are out of tolerance."""
        if not name.startswith("rpn_rois_"):
            return Cause(evidence, may_be=_usual("proposals", name))
        cause = explain_proposals(self.model.cfg, self._ours(), self.reference.blobs)
        return cause._replace(evidence=f"every proposal has its partner, but {cause.evidence}")

    def _explain_roi_features(self, step: str, evidence: str) -> Cause:
        """Whether moving the RoIs by half a position of their level undoes the difference."""
        box = step == "box features"
        roi_blob = "rois" if box else "mask_rois"
        feature_blob = "roi_feat" if box else f"{mask_blob_prefix(self.model.cfg)}roi_feat"
        pooling = self.model.cfg.FAST_RCNN if box else self.model.cfg.MRCNN
        usual = "RoIAlign: corners moved by half a pixel, rounded, or another number of samples a bin"
        blobs = self.reference.blobs
        told = f"it differs, though {roi_blob} agree" if self._holds(roi_blob) else evidence
        rois = self._rois() if box else blobs[roi_blob].known().to(self.model.device) if roi_blob in blobs else None
        if rois is None or feature_blob not in blobs or not bool(rois.isfinite().all()):
            return Cause(told, may_be=usual)
        with torch.inference_mode():
            levels = self.model.features(self._input().to(self.model.device))
            for sign in (1, -1):
                moved = rois.clone()
                moved[:, 1:] += sign * 0.5 * 2.0 ** roi_levels(rois[:, 1:], self.model.cfg)[:, None]
                features = pyramid_roi_align(
                    levels, moved, self.model.cfg, pooling.ROI_XFORM_RESOLUTION, pooling.ROI_XFORM_SAMPLING_RATIO
                )
                if self._agrees(features, blobs[feature_blob]):
                    return Cause(
                        "it agrees once the RoIs are moved by half a position of the map",
                        "RoIAlign's half-pixel shift (aligned=True): Detectron's has none",
                    )
        return Cause(told, may_be=usual)

    def _rois(self) -> Tensor | None:
        """The RoIs that the blobs after them were computed on, in the reference's order."""
        with torch.inference_mode():
            trace = self._ours()
            list(pair_proposals(self.model, trace, self.reference.blobs))
            info = self.model.network_input([self.reference.image]).im_info[0]
            size = self.reference.image_size
            boxes = class_boxes(trace["rois"][:, 1:], trace["bbox_pred"], info.scale, size, self.model.cfg)
            return pair_rois(self.model, trace, boxes, self.reference).rois

    def _rois_without_partner(self) -> int:
        trace = self._ours()
        list(pair_proposals(self.model, trace, self.reference.blobs))
        theirs = reference_rois(self.model, trace, self.reference.blobs)
        if theirs is None:
            return 0
        ours = trace["rois"]
        return int(without_partner(ours, theirs).sum() + without_partner(theirs, ours).sum())

    def _agrees(self, ours: Tensor, blob: ReferenceBlob) -> bool:
        if tuple(ours.shape) != blob.shape:
            return False
        theirs = blob.doubles()
        return bool(np.abs(blob.sample_of(ours) - theirs).max() <= self.tolerance * np.abs(theirs).max())

    def _input(self) -> Tensor:
        return self.model.network_input([self.reference.image]).data.cpu()

    def _ours(self) -> Trace:
        return trace_boxes(self.model, self.reference.image)


def _usual(step: str, name: str) -> str:
    """What a difference that begins in a blob usually comes from."""
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
        "pyramid": "the pyramid: GroupNorm on the lateral before the sum, nothing after it; upsampling",
        "RPN": "the RPN's head: one for all levels, ReLU and no GroupNorm after its 3x3 convolution",
        "proposals": "what is done to proposals or their scores after NMS (nothing), or collecting them",
        "levels": "the level of a RoI (FPN.ROI_CANONICAL_SCALE, areas with + 1, the 1e-6 inside the logarithm), or "
        "the RoIs themselves",
        "mask levels": "the level of a mask's RoI, found anew from the detected box, or the RoIs themselves",
        "box head": "the box head: the order in which fc6 reads its features (channels first), or its ReLU",
        "boxes": "decoding boxes: widths with + 1, MODEL.BBOX_REG_WEIGHTS, clipping to the image, the image's scale",
        "detections": "the mask RoIs: detected boxes scaled in float64, not rounded",
        "mask head": "the mask head: ReLU after the deconvolution, MRCNN.DILATION",
    }
    if name in by_name:
        return by_name[name]
    suffix = next((suffix for suffix in ("_gn_mean", "_gn", "_bn") if name.endswith(suffix)), None)
    if suffix is not None:
        return by_name[suffix]
    return by_step.get(step, "the convolution before it: its weights, padding or RESNETS.STRIDE_1X1")
