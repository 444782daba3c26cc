"""From scored boxes to detections, as nodes of an ONNX graph; what `mrcnn.inference.dynamic` computes."""

from typing import NamedTuple

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.inference.dynamic import SOFT_NMS_SCORE_THRESH
from detectron_gn.port.export.boxes import by_index, overlaps, suppressed
from detectron_gn.port.export.graph import BOOL, FLOAT, INT, Graph, Value
from detectron_gn.port.export.tensors import (
    ascending,
    chosen,
    concat,
    count_up,
    filled,
    gather,
    ints,
    largest_of,
    negated,
    part,
    reshape,
    size,
    smallest_of,
    squeeze,
    top,
    total,
    transpose,
    unsqueeze,
    where_true,
)


class Found(NamedTuple):
    """Boxes `[D, 4]` float32 in image pixels, scores `[D]` float32, classes `[D]` int64 from 1 on."""

    boxes: Value
    scores: Value
    classes: Value

    def at(self, index: Value) -> "Found":
        """Some of them, by their numbers `[K]`."""
        return Found(*(gather(column, index) for column in self))


class Kept(NamedTuple):
    """What suppression leaves of lists of boxes.

    Attributes:
        which, place: `[K]` int64, its list and where it stood there.
        scores: `[K]` float32.
        order: `[K]` int64, smaller for what comes first within a list.
    """

    which: Value
    place: Value
    scores: Value
    order: Value


def select(scores: Value, boxes: Value, cfg: Config) -> Found:
    """`dynamic.select_detections` of class probabilities `[R, K]` and boxes `[R, K, 4]` in image pixels."""
    of_class = transpose(part(boxes, 1, 1, cfg.MODEL.NUM_CLASSES), 1, 0, 2)
    ranked = transpose(part(scores, 1, 1, cfg.MODEL.NUM_CLASSES), 1, 0)
    kept = suppress(of_class, ranked, cfg.TEST.SCORE_THRESH, cfg)
    in_order = ascending(kept.which * size(ranked, 1) + kept.order)
    which, place, kept_scores = (gather(column, in_order) for column in kept[:3])
    found = Found(by_index(of_class, which, place), kept_scores, which + 1)
    if cfg.TEST.BBOX_VOTE.ENABLED:
        voters = chosen(ranked > cfg.TEST.SCORE_THRESH, ranked, ranked * 0.0)
        found = _voted(found, gather(of_class, which), gather(voters, which), cfg)
    return _limited(found, cfg.TEST.DETECTIONS_PER_IM)


def suppress(boxes: Value, scores: Value, above: float, cfg: Config) -> Kept:
    """NMS, or Soft-NMS, within each list of boxes `[B, N, 4]` whose scores `[B, N]` are above a threshold."""
    if cfg.TEST.SOFT_NMS.ENABLED:
        return _softly(boxes, scores, above, cfg)
    which, place = suppressed(boxes, scores, cfg.TEST.NMS, above)
    return Kept(which, place, by_index(scores, which, place), place)


def _limited(found: Found, limit: int) -> Found:
    """Those that score as high as number `limit`; 0 and less are no limit."""
    if limit <= 0:
        return found
    # There are always enough to count, for those that are added score least.
    padded = concat([found.scores, filled(ints(found.scores, [limit]), -1)], 0)
    best, _ = top(padded, ints(padded, [limit]))
    return found.at(where_true(found.scores >= smallest_of(best, 0)))


def _voted(found: Found, boxes: Value, scores: Value, cfg: Config) -> Found:
    """`ops.box_voting.vote_boxes`, each by the boxes `[D, N, 4]` of its class; what does not vote scores 0.

    Detectron leaves the temperature and the exponent of its methods at 1, which makes all but two of them the mean.
    """
    vote = cfg.TEST.BBOX_VOTE
    overlap = overlaps(unsqueeze(found.boxes, 1), boxes)
    votes = (overlap >= vote.VOTE_TH) & (scores > 0)
    weights = chosen(votes, scores, scores * 0.0)
    weight = total(weights, 1)
    moved = squeeze(total(boxes * unsqueeze(weights, 2), 1), 1) / weight
    if vote.SCORING_METHOD == "ID":
        return found._replace(boxes=moved)
    if vote.SCORING_METHOD == "IOU_AVG":
        counted = chosen(votes, overlap, overlap * 0.0)
        scored = total(weights * counted, 1) / total(counted, 1)
    else:
        scored = weight / total(votes.to(FLOAT), 1)
    return found._replace(boxes=moved, scores=squeeze(scored, 1))


def _softly(boxes: Value, scores: Value, above: float, cfg: Config) -> Kept:
    """`ops.soft_nms.soft_nms` of all lists together: each trip picks the best box of every list.

    A list without a box left picks one of score 0, which is thrown away afterwards.
    """
    graph = boxes.graph
    lists, count = size(boxes, 0), size(boxes, 1)
    left = chosen(scores > above, scores, scores * 0.0)

    def pick(body: Graph, _number: Value, carried: list[Value]) -> tuple[Value, list[Value], list[Value]]:
        (rest,) = carried
        best, place = body.ops("TopK", rest, body.const([1], INT), dtypes=[None, INT], axis=1)
        is_picked = body.op("Equal", body.op("Identity", count_up(count)), place, dtype=BOOL)
        box = body.op("GatherND", boxes, place, dtype=FLOAT, batch_dims=1)
        overlap = overlaps(unsqueeze(box, 1), body.op("Identity", boxes))
        decayed = chosen(overlap > 0, rest * _decay(overlap, cfg), rest)
        decayed = chosen((overlap > 0) & (decayed < SOFT_NMS_SCORE_THRESH), rest * 0.0, decayed)
        rest = chosen(is_picked, rest * 0.0, decayed)
        more = squeeze(largest_of(largest_of(rest, 1, keep=False), 0), 0) > 0
        return more, [rest], [best, place]

    _, picked, places = graph.loop(squeeze(count, 0), [left], pick)
    # `[trips, lists, 1]` to one list after another, in the order of the trips.
    picked, places = (reshape(transpose(column, 1, 0, 2), (-1,)) for column in (picked, places))
    trips = graph.op("Div", size(picked, 0), lists)
    number = count_up(size(picked, 0))
    kept = where_true(picked > 0)
    which, order = graph.op("Div", number, trips), graph.op("Mod", number, trips)
    return Kept(*(gather(column, kept) for column in (which, places, picked, order)))


def _decay(overlap: Value, cfg: Config) -> Value:
    """What a box's score is multiplied by that overlaps the picked one so much."""
    method, sigma = cfg.TEST.SOFT_NMS.METHOD, cfg.TEST.SOFT_NMS.SIGMA
    if method == "gaussian":
        return overlap.graph.op("Exp", -(overlap * overlap) / sigma)
    is_over = overlap > cfg.TEST.NMS
    if method == "linear":
        return chosen(is_over, 1.0 - overlap, overlap.graph.const(1, FLOAT))
    return negated(is_over).to(FLOAT)
