"""Our proposals and RoIs in the reference's order, so that what is computed of them can be compared row by row.

A reference may hold only a sample of the RoIs: then the coordinates that it has kept, and the scores of the proposals,
which are always whole, tell the rows apart.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from detectron_gn.mrcnn.detectors import GeneralizedRCNN, ProposalNetwork
from detectron_gn.mrcnn.ops.numpy_ties import argsort
from detectron_gn.mrcnn.ops.pairs import PARTNER_DISTANCE
from detectron_gn.port.blobs.activations import Trace
from detectron_gn.port.blobs.names.rpn import level_suffix
from detectron_gn.verify.parity.matching import order_like, without_partner
from detectron_gn.verify.reference.image_dump import ImageReference
from detectron_gn.verify.reference.reference_blob import ReferenceBlob

# Where not all corners are known, scores of partners are no further apart than this either.
PARTNER_SCORE = 1e-3

# Scores this close may stand in either order; of saturated ones (a float32 sigmoid is 1 from a logit of 17 on) more
# may tie at the cut than there are places.
TIE = 1e-6


@dataclass(frozen=True)
class ProposalParity:
    """The proposals of one pyramid level.

    Attributes:
        level: 2 for P2, ...; of one map the one of its stride, 4 for C4.
        count, reference_count: proposals after NMS on either side.
        unmatched: proposals of either side without a partner on the other.
        tied: those of them whose score ties with the last one that was taken before NMS.
    """

    level: int
    count: int
    reference_count: int
    unmatched: int
    tied: int


class RoiPairing(NamedTuple):
    """The RoIs that the second stage is compared on.

    Attributes:
        rois: `[R, 5]` float32 in network pixels, in the reference's order; None where the reference does not tell.
        same: whether they are the network's own.
    """

    rois: Tensor | None
    same: bool


def pair_proposals(
    model: GeneralizedRCNN | ProposalNetwork, trace: Trace, blobs: Mapping[str, ReferenceBlob]
) -> Iterator[ProposalParity]:
    """Bring each level's proposals in the trace into the reference's order, and count those without a partner.

    The proposals of a level that has some without a partner leave the trace.
    """
    for level in () if model.rpn is None else model.rpn.levels:
        suffix = level_suffix(model.cfg, level)
        name, scores_name = f"rpn_rois{suffix}", f"rpn_roi_probs{suffix}"
        if name not in blobs or scores_name not in blobs or not blobs[scores_name].is_whole:
            continue
        rois, scores = trace[name], trace[scores_name]
        theirs, their_scores = blobs[name].known().to(rois), blobs[scores_name].known().to(rois)
        rows, their_rows = rois, theirs
        if not blobs[name].is_whole:
            weight = PARTNER_DISTANCE / PARTNER_SCORE
            rows = torch.cat((rois, scores * weight), dim=1)
            their_rows = torch.cat((theirs, their_scores * weight), dim=1)
        order = order_like(rows, their_rows)
        unmatched, tied = 0, 0
        if order is None:
            alone = torch.cat((scores[without_partner(rows, their_rows)],
                               their_scores[without_partner(their_rows, rows)]))  # fmt: skip
            candidates = trace[f"rpn_cls_probs{suffix}"].flatten()
            last_taken = candidates.topk(min(len(candidates), model.cfg.TEST.RPN_PRE_NMS_TOP_N)).values[-1]
            unmatched, tied = len(alone), int(((alone - last_taken).abs() <= TIE).sum())
            del trace[name], trace[scores_name]
        else:
            trace[name], trace[scores_name] = rois[order], scores[order]
        yield ProposalParity(level, len(rois), len(theirs), unmatched, tied)


def pair_rois(model: GeneralizedRCNN, trace: Trace, boxes: Tensor, reference: ImageReference) -> RoiPairing:
    """Our RoIs in the reference's order, or the reference's own where ours are others.

    Args:
        trace: of the first pass, its proposals paired already.
        boxes: `[R, 4K]` that ours were decoded to, as the reference's dataset of that name.
    """
    ours = trace["rois"]
    theirs = reference_rois(model, trace, reference.blobs)
    if not reference.blobs["rois"].is_whole:
        # Nothing tells RoIs apart like all the boxes they became, if only the second stage is right.
        order = order_like(boxes, torch.from_numpy(reference.boxes))
        if order is not None:
            return RoiPairing(ours[order], True)
    if theirs is None:
        return RoiPairing(None, False)
    order = order_like(ours, theirs)
    if order is not None:
        return RoiPairing(ours[order], True)
    # On RoIs that are not finite nothing can be computed; that they are not, the comparison of `rois` tells.
    return RoiPairing(theirs, False) if bool(theirs.isfinite().all()) else RoiPairing(ours, True)


def reference_rois(model: GeneralizedRCNN, trace: Trace, blobs: Mapping[str, ReferenceBlob]) -> Tensor | None:
    """The reference's RoIs `[R, 5]`: as it holds them, or collected from proposals that ours are partners of.

    None where it holds only a sample, and a level's proposals are others or left out.
    """
    known = blobs["rois"].known().to(trace["rois"])
    if blobs["rois"].is_whole:
        return known
    if model.rpn is None:
        return None
    rois, scores = [], []
    for level in model.rpn.levels:
        suffix = level_suffix(model.cfg, level)
        name, scores_name = f"rpn_rois{suffix}", f"rpn_roi_probs{suffix}"
        if name not in blobs or name not in trace or scores_name not in blobs or not blobs[scores_name].is_whole:
            return None
        rois.append(trace[name])
        scores.append(blobs[scores_name].known().flatten())
    # The reference's scores to the last digit, so that ties come out in its order.
    collected = torch.cat(rois)
    if model.cfg.FPN.FPN_ON:
        best = argsort(-torch.cat(scores))[: len(known)]
        collected = collected[best.to(known.device)]
    if collected.shape != known.shape:
        return None
    near = (collected - known).abs() <= PARTNER_DISTANCE
    return collected if bool((near | known.isnan()).all()) else None


