"""What wrong proposals usually come from, told from those whose score only one proposal of the reference has.

The RPN's outputs agree by then, so a proposal of ours and one of the reference's with the same score began as the same
anchor. How their boxes differ, on which levels and for which anchors, says what was done to them on the way.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.ops.anchors import pyramid_anchors
from detectron_gn.mrcnn.ops.boxes import side
from detectron_gn.port.blobs.activations import Trace
from detectron_gn.verify.diagnosis.diagnosis import Diagnosis
from detectron_gn.verify.reference.reference_blob import ReferenceBlob

Array = npt.NDArray[np.float64]

# Boxes this near to each other, in pixels, are one box.
_SAME_BOX = 0.05

# What explains all but this share of the boxes is the cause.
_MOST = 0.95

# Sides that differ by less than this factor may come from rounding the anchors' sides (a window of P2 is 4 pixels).
_OTHER_SHAPE = 1.25


@dataclass(frozen=True)
class _ScorePairs:
    """Proposals of one score, one row a pair.

    Attributes:
        level, anchor: `[N]`, the pyramid level and the number of the anchor, which is that of its ratio.
        ours, theirs: `[N, 4]` boxes in network pixels; NaN where the reference has not kept a coordinate.
        inside: `[N, 4]`, which coordinates no side has clipped.
    """

    level: npt.NDArray[np.int64]
    anchor: npt.NDArray[np.int64]
    ours: Array
    theirs: Array
    inside: npt.NDArray[np.bool_]

    @property
    def sampled(self) -> bool:
        """Whether the reference has left coordinates out, so that few sides are known."""
        return bool(np.isnan(self.theirs).any())

    @property
    def moved(self) -> Array:
        """`[N, 4]` ours less theirs; NaN where a side has clipped or the reference does not know."""
        return np.where(self.inside, self.ours - self.theirs, np.nan)

    @property
    def growth(self) -> Array:
        """`[N, 2]` our width and height over theirs; NaN where one of the corners is unknown."""
        moved = self.moved
        sides = side(self.theirs[:, :2], self.theirs[:, 2:])
        return np.asarray(1 + (moved[:, 2:] - moved[:, :2]) / sides)


def explain_proposals(cfg: Config, trace: Trace, blobs: Mapping[str, ReferenceBlob]) -> Diagnosis:
    """Why proposals are not the reference's, though the RPN's outputs are."""
    for name, blob in blobs.items():
        if name.startswith("rpn_roi") and not np.isfinite(blob.doubles()).all():
            evidence = f"{name} of the reference holds values that are not finite"
            return Diagnosis(evidence, may_be="a damaged reference")
    if not cfg.FPN.FPN_ON:
        return Diagnosis(
            "there is one level",
            may_be="anchors (RPN.SIZES of each of RPN.ASPECT_RATIOS), decoding, clipping to the image, which is not "
            "padded, or the choice of proposals: RPN_NMS_THRESH, RPN_PRE_NMS_TOP_N, RPN_POST_NMS_TOP_N, RPN_MIN_SIZE",
        )
    pairs = _score_pairs(cfg, trace, blobs)
    ratios = cfg.FPN.RPN_ASPECT_RATIOS
    moved = np.abs(pairs.moved)
    medians = {ratio: _median(_largest(moved[pairs.anchor == anchor])) for anchor, ratio in enumerate(ratios)}
    medians = {ratio: median for ratio, median in medians.items() if not np.isnan(median)}
    if not medians:
        return Diagnosis(
            "none of them can be paired by a score of its own and a corner that is known",
            may_be="anchors, decoding, clipping, or the choice of proposals: a reference with whole rpn_rois_* tells "
            "which",
        )
    apart = [ratio for ratio, median in medians.items() if not median <= _SAME_BOX]
    if not apart:
        clipped = np.abs(np.where(pairs.inside, np.nan, pairs.ours - pairs.theirs))
        if (wrong := int((clipped > _SAME_BOX).sum())) and not (moved > _SAME_BOX).sum() > 0.05 * moved.size:
            return Diagnosis(
                f"those of equal score have equal corners, but for {wrong} at the image's border",
                "clipping proposals: to 0 and to height - 1 and width - 1 of im_info, which is the padded size",
            )
        return Diagnosis(
            "those of equal score have equal boxes",
            "choosing proposals: RPN_NMS_THRESH, RPN_PRE_NMS_TOP_N, RPN_POST_NMS_TOP_N, RPN_MIN_SIZE",
        )
    shifts = _shifts(pairs)
    if shifts is not None:
        return _moved(shifts)
    told = ", ".join(f"{ratio:g}: {median:.2g} px" for ratio, median in medians.items())
    evidence = f"boxes of equal score are apart, by the anchor's ratio, by {told} (median)"
    if _are_rounded(pairs):
        suspect = "rounding of proposals: they keep their fractions"
        return Diagnosis(f"{evidence}; all of ours are whole numbers", suspect)
    if _lack_one(cfg, pairs):
        return Diagnosis(
            f"{evidence}; sides are what they become without + 1",
            "the + 1 of box widths: a box from x1 to x2 is x2 - x1 + 1 wide, in the coder and everywhere",
        )
    growth = [_growth(pairs, anchor) for anchor in range(len(ratios)) if (pairs.anchor == anchor).any()]
    widths, heights = (np.array([each[side] for each in growth]) for side in (0, 1))
    if len(apart) < len(medians):
        return _wrong_ratios(evidence, widths, heights, pairs.sampled)
    if not pairs.sampled and _alike([*widths, *heights]) and abs(_median(widths) - 1) > 0.02:
        return Diagnosis(
            f"{evidence}; all are {_median(widths):.3g} times as large",
            "the size of the anchors: FPN.RPN_ANCHOR_START_SIZE, twice as large on every level",
        )
    size = ", or the size of the anchors" if pairs.sampled else ""
    return Diagnosis(
        evidence,
        may_be="decoding deltas: (dx, dy, dw, dh) of each anchor in turn, weights of 1, exp of dw and dh, centres at "
        f"x1 + width / 2{size}, widths with + 1",
    )


def _moved(shifts: dict[int, float]) -> Diagnosis:
    """Boxes of each level that are moved as a whole."""
    told = ", ".join(f"P{level}: {shift:+.2g}" for level, shift in shifts.items())
    evidence = f"boxes of equal score are moved by as many pixels right and down ({told})"
    # Half a stride, or half a window from 0 to stride - 1, which on P2 is three quarters of that.
    by_stride = [[shift / (2.0**level - less) for level, shift in shifts.items()] for less in (0, 1)]
    anchors = "the place of the anchors: a position's window runs from 0 to stride - 1, its anchors lie about "
    if len(shifts) > 1 and any(map(_alike, by_stride)):
        return Diagnosis(evidence, f"{anchors}(stride - 1) / 2")
    if len(shifts) > 1 and _alike(list(shifts.values())):
        return Diagnosis(evidence, "an offset in pixels: nothing is added to anchors or to decoded boxes")
    return Diagnosis(evidence, may_be=f"an offset in pixels; {anchors}(stride - 1) / 2")


def _wrong_ratios(evidence: str, widths: Array, heights: Array, sampled: bool) -> Diagnosis:
    """Boxes of some ratios that are apart while those of others are not."""
    turned = np.maximum(widths, heights) > _OTHER_SHAPE
    if bool((turned & (np.minimum(widths, heights) < 1 / _OTHER_SHAPE)).any()):
        return Diagnosis(
            evidence, "the order of the anchors: the RPN's channels are RPN_ASPECT_RATIOS, heights over widths"
        )
    order = "their order, or their sides, which" if sampled else "sides"
    return Diagnosis(
        evidence,
        f"the anchors of these ratios: {order} are rounded half to even on a window of the stride, then scaled",
    )


def _are_rounded(pairs: _ScorePairs) -> bool:
    """Whether all of our boxes are whole numbers, which those of the reference are not."""
    known = pairs.theirs[~np.isnan(pairs.theirs)]
    return not (pairs.ours % 1).any() and bool(np.mean(known % 1 != 0) > 0.5)


def _lack_one(cfg: Config, pairs: _ScorePairs) -> bool:
    """Whether our boxes are what the reference's become once a 1 is left out.

    A side that was decoded from an anchor one pixel less wide is less by its own growth, side / anchor's side; without
    the 1 that is taken off the far corner it is one more; or both.
    """
    first = cfg.FPN.RPN_MIN_LEVEL
    sides = np.array([_double(side(level[:, :2], level[:, 2:])) for level in pyramid_anchors(cfg)])
    grown = side(pairs.theirs[:, :2], pairs.theirs[:, 2:]) / sides[pairs.level - first, pairs.anchor]
    longer = pairs.moved[:, 2:] - pairs.moved[:, :2]
    known = ~np.isnan(longer)
    # Where the sides are as they should be, a near corner that is moved as well is something else.
    still = np.abs(np.nan_to_num(pairs.moved[:, :2])) <= _SAME_BOX
    candidates = ((1 - grown, np.ones_like(still)), (-grown, np.ones_like(still)), (np.ones_like(grown), still))
    return known.sum() >= 5 and any(
        bool(((np.abs(longer - wanted) <= _SAME_BOX) & allowed)[known].mean() >= _MOST)
        for wanted, allowed in candidates
    )


def _score_pairs(cfg: Config, trace: Trace, blobs: Mapping[str, ReferenceBlob]) -> _ScorePairs:
    """The pairs of all levels."""
    anchors = len(cfg.FPN.RPN_ASPECT_RATIOS)
    found: list[tuple[int, int, Array, Array]] = []
    every_ours, every_theirs = [np.zeros((0, 4))], [np.zeros((0, 4))]
    for level in range(cfg.FPN.RPN_MIN_LEVEL, cfg.FPN.RPN_MAX_LEVEL + 1):
        name, scores_name = f"rpn_rois_fpn{level}", f"rpn_roi_probs_fpn{level}"
        if name not in blobs or scores_name not in blobs:
            continue
        ours, theirs = (_double(value)[:, 1:] for value in (trace[name], blobs[name].known()))
        every_ours.append(ours)
        every_theirs.append(theirs)
        their_scores = _double(blobs[scores_name].known()).flatten()
        every = _double(trace[f"rpn_cls_probs_fpn{level}"][0].permute(1, 2, 0)).flatten()
        for score, box in zip(_double(trace[scores_name]).flatten(), ours, strict=True):
            near = np.flatnonzero(np.abs(their_scores - score) <= 1e-5 * score)
            if len(near) == 1 and int((np.abs(every - score) <= 1e-5 * score).sum()) == 1:
                found.append((level, int(np.abs(every - score).argmin()) % anchors, box, theirs[near[0]]))
    if not found:
        empty = np.zeros((0, 4))
        return _ScorePairs(np.zeros(0, np.int64), np.zeros(0, np.int64), empty, empty, np.zeros((0, 4), np.bool_))
    level_of, anchor_of, ours, theirs = (np.array(column) for column in zip(*found, strict=True))
    inside = _inside(ours, np.concatenate(every_ours)) & _inside(theirs, np.concatenate(every_theirs))
    return _ScorePairs(level_of, anchor_of, ours, theirs, inside)


def _inside(boxes: Array, every: Array) -> npt.NDArray[np.bool_]:
    """Which coordinates are not the outermost of all: those are where boxes were clipped."""
    low = np.where(np.isnan(every), np.inf, every).min(axis=0, initial=np.inf)
    high = np.where(np.isnan(every), -np.inf, every).max(axis=0, initial=-np.inf)
    return np.asarray((boxes > low + 0.01) & (boxes < high - 0.01) | np.isnan(boxes))


def _shifts(pairs: _ScorePairs) -> dict[int, float] | None:
    """By how much every corner on each level is moved, or None where corners are moved apart."""
    shifts = {}
    for level in np.unique(pairs.level).tolist():
        moved = pairs.moved[pairs.level == level]
        medians = [_median(moved[:, corner]) for corner in range(4)]
        if len(moved) < 5 or any(map(np.isnan, medians)):
            continue
        if not _alike(medians):
            return None
        shifts[level] = float(np.mean(medians))
    return shifts if any(abs(shift) > _SAME_BOX for shift in shifts.values()) else None


def _growth(pairs: _ScorePairs, anchor: int) -> tuple[float, float]:
    """Median growth of the width and the height of one ratio's boxes."""
    growth = pairs.growth[pairs.anchor == anchor]
    return _median(growth[:, 0]), _median(growth[:, 1])


def _alike(values: list[float]) -> bool:
    """Whether values are the same but for a twentieth."""
    known = [value for value in values if not np.isnan(value)]
    return bool(known) and max(known) - min(known) <= 0.05 * max(map(abs, known))


def _largest(rows: Array) -> Array:
    """The largest known value of each row; rows that know nothing are left out."""
    return np.asarray(np.nanmax(rows[~np.isnan(rows).all(axis=1)], axis=1)) if len(rows) else np.zeros(0)


def _median(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _double(values: Tensor) -> Array:
    return np.asarray(values.detach().cpu().double().numpy())
