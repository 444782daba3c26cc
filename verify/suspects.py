"""Where a port begins to differ from Caffe2, and what that usually comes from, told from the values alone.

The blobs of a reference are looked at in the order in which data flows. Which one differs first, and how, says which
part of the port is wrong: `data` differs as if channels were swapped, a map has twice its size, boxes of all anchors
are off by a pixel, masks differ only after they are pasted.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from mrcnn.detections import class_boxes
from mrcnn.fpn import roi_levels
from mrcnn.image import Image, read_image
from mrcnn.model import MaskRCNN
from mrcnn.roi_align import pyramid_roi_align
from port.activations import Trace, trace_boxes
from verify.blobs import BlobParity, ImageParity, compare_detections
from verify.pairing import pair_proposals, pair_rois, reference_rois, without_partner
from verify.proposal_suspects import explain_proposals

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
        suspect: what this usually comes from.
    """

    rung: str
    where: str
    evidence: str
    suspect: str


def first_finding(
    model: MaskRCNN, parity: ImageParity, reference: Path, images: Path, tolerance: float
) -> Finding | None:
    """The first difference of one image in the order of data, or None where everything agrees.

    Args:
        parity: what `verify.blobs` found for the image.
        reference, images: the reference file and the folder of its images, for a closer look.
        tolerance: largest relative error of a blob.
    """
    steps = _in_flow(parity)
    with h5py.File(reference) as file:
        look = _Look(model, read_image(images / parity.image), file[parity.image], parity, tolerance)
        for name, blobs in steps.items():
            if name == "proposals":
                finding = look.at_proposals()
            elif name == "detections":
                finding = look.at_detections()
            else:
                finding = look.at_blobs(name, blobs)
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
    image: Image
    reference: h5py.Group
    parity: ImageParity
    tolerance: float

    def at_blobs(self, step: str, blobs: list[BlobParity]) -> Finding | None:
        """The first blob of a step that differs, where one is out of tolerance."""
        if all(blob.relative_error <= self.tolerance for blob in blobs):
            return None
        first = next(blob for blob in blobs if not blob.relative_error <= self.tolerance * _ONSET)
        evidence, suspect = self._explain(step, first)
        rung = "detections" if step == "boxes" else "blobs"
        return Finding(rung, f"{first.blob} ({self.parity.image})", evidence, suspect)

    def at_proposals(self) -> Finding | None:
        """Proposals without a partner that no tie excuses; what the RPN gave agrees."""
        apart = [level for level in self.parity.proposals if level.unmatched > level.tied]
        tied = any(level.tied for level in self.parity.proposals)
        if apart:
            count = sum(level.unmatched for level in apart)
            evidence, suspect = explain_proposals(self.model.cfg, self._ours(), self.reference["blobs"])
            evidence = f"{count} proposals have no partner, though the RPN's outputs agree; {evidence}"
            return Finding("proposals", f"rpn_rois_fpn{apart[0].level} ({self.parity.image})", evidence, suspect)
        if not tied and (count := self._rois_without_partner()):
            return Finding(
                "proposals",
                f"rois ({self.parity.image})",
                f"the proposals of every level agree, but {count} of the RoIs collected from them have no partner",
                "collecting the levels: the RPN_POST_NMS_TOP_N best of all levels together",
            )
        return None

    def at_detections(self) -> Finding | None:
        """Detections without a partner, though the boxes and scores of all RoIs agree."""
        found = self.parity.detections
        if found.matched == found.count == found.reference_count:
            return None
        counts = f"{found.matched} of {found.reference_count} detections have a partner among our {found.count}"
        where = f"detections ({self.parity.image})"
        if all(row.blob != "boxes" for row in self.parity.blobs):
            return Finding(
                "detections",
                where,
                f"{counts}; our RoIs are others, and of the reference's there is but a sample, so that no blob after "
                "them was compared",
                "the second stage or the choice of RoIs: a reference with whole rois tells which",
            )
        if self._stages_alone_agree():
            return Finding(
                "detections",
                where,
                f"{counts}, but with the RoIs in hand the second stage finds the reference's",
                "MaskRCNN.detect_batch: what it hands from stage to stage (RoIs, the image's size, its scale)",
            )
        return Finding(
            "detections",
            where,
            f"{counts}, though the boxes and scores of all RoIs agree",
            "choosing detections: TEST.NMS, TEST.SCORE_THRESH or TEST.DETECTIONS_PER_IM, or + 1 in the overlaps of NMS",
        )

    def _stages_alone_agree(self) -> bool:
        """Whether the second stage, run on its own, finds what `detect` does not."""
        rois = self._rois()
        if rois is None or not self.parity.same_rois:
            return False
        with torch.inference_mode():
            data, (info,) = self.model.network_input([self.image])
            size = (self.image.shape[0], self.image.shape[1])
            detections = self.model.detect_in_rois(self.model.features(data), rois, size, info.scale)
        found = compare_detections(detections, self.reference)
        return found.matched == found.count == found.reference_count

    def at_masks(self) -> Finding | None:
        """Pasted masks that differ, though the soft ones agree."""
        found = self.parity.detections
        where = f"masks ({self.parity.image})"
        if found.mask_error > 10 * self.tolerance:
            return Finding(
                "detections",
                where,
                f"soft masks differ by {found.mask_error:.2g}, though the mask head's maps agree",
                "choosing masks: each detection takes the channel of its own class, counted with the background",
            )
        if 2 * found.equal_rles < found.matched or found.min_mask_iou < 0.98:
            return Finding(
                "detections",
                where,
                f"{found.equal_rles} of {found.matched} pasted masks are equal (smallest IoU "
                f"{found.min_mask_iou:.3f}), though the soft masks agree",
                "pasting masks: one zero bin of padding around them, the box grown by (M + 2) / M and cut to whole "
                "pixels, cv2.resize, more than 0.5",
            )
        return None

    def _explain(self, step: str, first: BlobParity) -> tuple[str, str]:
        """Evidence and suspect of a blob that differs, from its name and values."""
        name = first.blob
        evidence = f"its relative error is {first.relative_error:.1e}, all before it agrees"
        if name == "data":
            return self._explain_data()
        if name == "im_info":
            return evidence, "the image's scale: TEST.SCALE, TEST.MAX_SIZE, or the size that is not the padded one"
        ours = self._ours().get(name)
        if ours is not None and tuple(ours.shape) != first.shape:
            return self._explain_shape(name, tuple(ours.shape), first.shape)
        if name.endswith("_gn_std") and ours is not None:
            return self._explain_std(ours, self.reference["blobs"][name])
        if name.endswith("_gn_mean"):
            return evidence, "the groups of GroupNorm: GROUP_NORM.NUM_GROUPS or DIM_PER_GP"
        if name.endswith("_gn"):
            return evidence, "GroupNorm's scale and shift, or the ReLU or the sum of a block after it"
        if name.endswith("_bn"):
            return evidence, "AffineChannel's scale and shift (*_bn_s, *_bn_b), or the ReLU or the sum after it"
        if name.endswith("_topdown"):
            return evidence, "upsampling in the pyramid: nearest neighbour, each value twice"
        if step in ("box features", "mask features"):
            return self._explain_roi_features(step)
        usual = {
            "stem": "the first convolution, or the max pooling: 3x3, stride 2, padded by 1",
            "pyramid": "the pyramid: GroupNorm on the lateral before the sum, nothing after it",
            "RPN": "the RPN's head: one for all levels, ReLU and no GroupNorm after its 3x3 convolution",
            "levels": "the level of a RoI: FPN.ROI_CANONICAL_SCALE, areas with + 1, the 1e-6 inside the logarithm",
            "mask levels": "the level of a mask's RoI: found anew from the detected box",
            "box head": "the box head: the order in which fc6 reads its features (channels first), or its ReLU",
            "boxes": "decoding boxes: widths with + 1, MODEL.BBOX_REG_WEIGHTS, clipping to the image",
            "mask head": "the mask head: ReLU after the deconvolution, MRCNN.DILATION",
        }
        return evidence, usual.get(step, "the convolution before it: its weights, padding or RESNETS.STRIDE_1X1")

    def _explain_data(self) -> tuple[str, str]:
        """What turns our network input into the reference's says how it was prepared otherwise."""
        dataset = self.reference["blobs"]["data"]
        data = self._input()
        shape = tuple(int(size) for size in dataset.attrs.get("shape", dataset.shape))
        if tuple(data.shape) != shape:
            return (
                f"the network's input is {list(data.shape)}, the reference's {list(shape)}",
                "the image's scale or its padding: TEST.SCALE, TEST.MAX_SIZE, FPN.COARSEST_STRIDE",
            )
        means = torch.tensor(self.model.cfg.PIXEL_MEANS)[:, None, None]
        inside = (data != 0).any(dim=1, keepdim=True)
        swapped = {
            "the channels": ((data + means).flip(1) - means) * inside,
            "the channels and their means": data.flip(1),
        }
        for what, candidate in swapped.items():
            if self._agrees(candidate, dataset):
                return f"it agrees once {what} are in the other order", "RGB instead of BGR"
        ours, theirs = _sampled(data, dataset), dataset[:].reshape(-1).astype(np.float64)
        filled = theirs != 0
        difference = (theirs - ours)[filled]
        position = np.arange(len(theirs))[filled] * int(dataset.attrs.get("stride", 1))
        channel = position // (shape[2] * shape[3]) % 3
        if all(np.ptp(difference[channel == c]) < 0.02 for c in range(3)):
            offsets = ", ".join(f"{difference[channel == c].mean():+.2f}" for c in range(3))
            return f"it is the same in every pixel but for {offsets} in B, G, R", "the mean colour: PIXEL_MEANS, BGR"
        factor = float(np.abs(theirs).mean() / max(float(np.abs(ours).mean()), 1e-12))
        if not 0.8 < factor < 1.25:
            return (
                f"it is {1 / factor:.3g} times the reference",
                "a division by a standard deviation or by 255: there is none",
            )
        return (
            f"it is the same picture, but {np.mean(np.abs(difference) > 0.01):.0%} of its pixels differ, by "
            f"{np.abs(difference).mean():.2g} grey levels on average",
            "resizing: cv2.resize in float by the exact factor, bilinear without smoothing; PIL's smooths",
        )

    def _explain_shape(self, name: str, ours: tuple[int, ...], theirs: tuple[int, ...]) -> tuple[str, str]:
        evidence = f"it is {'x'.join(map(str, ours))}, the reference's {'x'.join(map(str, theirs))}"
        if re.fullmatch(r"res[345]_0_branch2[ab].*", name) and ours[:2] == theirs[:2]:
            return evidence, (
                f"the stride of a stage stands on the other convolution: RESNETS.STRIDE_1X1 is "
                f"{self.model.cfg.RESNETS.STRIDE_1X1} here"
            )
        if step_of(name) in ("levels", "box features", "mask levels", "mask features"):
            return evidence, "the level of a RoI: FPN.ROI_CANONICAL_SCALE, areas with + 1, the 1e-6 in the logarithm"
        return evidence, "a stride, a padding or a number of channels of the configuration"

    def _explain_std(self, ours: Tensor, dataset: h5py.Dataset) -> tuple[str, str]:
        """Variances that differ by a constant have another epsilon, by a factor another number of values."""
        mine, theirs = _sampled(ours, dataset) ** -2.0, dataset[:].reshape(-1).astype(np.float64) ** -2.0
        difference = mine - theirs
        epsilon = float(np.median(difference))
        if np.abs(difference - epsilon).max() <= 0.05 * abs(epsilon) + 1e-4 * float(theirs.max()):
            return (
                f"the means agree, and variance + epsilon is {epsilon:.2g} more in every group",
                "GroupNorm's epsilon: GROUP_NORM.EPSILON is 1e-5 in all of Detectron's models",
            )
        return "the means agree, the standard deviations do not", "GroupNorm's variance: biased, over a whole group"

    def _explain_roi_features(self, step: str) -> tuple[str, str]:
        """Whether moving the RoIs by half a position of their level undoes the difference."""
        box = step == "box features"
        roi_blob = "rois" if box else "mask_rois"
        feature_blob = "roi_feat" if box else next(n for n in self.reference["blobs"] if re.fullmatch("_.*roi_feat", n))
        pooling = self.model.cfg.FAST_RCNN if box else self.model.cfg.MRCNN
        usual = "RoIAlign: corners moved by half a pixel, rounded, or another number of samples a bin"
        blobs = self.reference["blobs"]
        rois = self._rois() if box else torch.from_numpy(blobs[roi_blob][:]).to(self.model.device)
        if rois is None or feature_blob not in blobs:
            return "it differs, though the RoIs agree", usual
        with torch.inference_mode():
            levels = self.model.features(self._input().to(self.model.device))
            for sign in (1, -1):
                moved = rois.clone()
                moved[:, 1:] += sign * 0.5 * 2.0 ** roi_levels(rois[:, 1:], self.model.cfg)[:, None]
                features = pyramid_roi_align(
                    levels, moved, self.model.cfg, pooling.ROI_XFORM_RESOLUTION, pooling.ROI_XFORM_SAMPLING_RATIO
                )
                if self._agrees(features, blobs[feature_blob]):
                    return (
                        "it agrees once the RoIs are moved by half a position of the map",
                        "RoIAlign's half-pixel shift (aligned=True): Detectron's has none",
                    )
        return "it differs, though the RoIs agree", usual

    def _rois(self) -> Tensor | None:
        """The RoIs that the blobs after them were computed on, in the reference's order."""
        with torch.inference_mode():
            trace = self._ours()
            list(pair_proposals(self.model, trace, self.reference["blobs"]))
            info = self.model.network_input([self.image]).im_info[0]
            size = (self.image.shape[0], self.image.shape[1])
            boxes = class_boxes(trace["rois"][:, 1:], trace["bbox_pred"], info.scale, size, self.model.cfg)
            return pair_rois(self.model, trace, boxes, self.reference).rois

    def _rois_without_partner(self) -> int:
        trace = self._ours()
        list(pair_proposals(self.model, trace, self.reference["blobs"]))
        theirs = reference_rois(self.model, trace, self.reference["blobs"])
        if theirs is None:
            return 0
        ours = trace["rois"]
        return int(without_partner(ours, theirs).sum() + without_partner(theirs, ours).sum())

    def _agrees(self, ours: Tensor, dataset: h5py.Dataset) -> bool:
        theirs = dataset[:].reshape(-1).astype(np.float64)
        return bool(np.abs(_sampled(ours, dataset) - theirs).max() <= self.tolerance * np.abs(theirs).max())

    def _input(self) -> Tensor:
        return self.model.network_input([self.image]).data.cpu()

    def _ours(self) -> Trace:
        return trace_boxes(self.model, self.image)


def _sampled(ours: Tensor, dataset: h5py.Dataset) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The values of ours that the reference has kept."""
    return ours.detach().cpu().reshape(-1)[:: int(dataset.attrs.get("stride", 1))].double().numpy()
