"""What the RPN is trained towards, labelled and sampled; answers to Detectron roi_data/rpn.py and data_utils.py."""

from typing import NamedTuple

import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.ops.anchors import anchor_grid, pyramid_anchors, single_level_anchors
from detectron_gn.mrcnn.ops.boxes import box_overlaps, encode_boxes
from detectron_gn.mrcnn.ops.proposals import RPN_BOX_WEIGHTS, ImInfo


class AnchorSample(NamedTuple):
    """The anchors of one image that the RPN is trained on.

    `anchors [S]` (int64) index the field of anchors, `labels [S]` (float32, 1 object, 0 background) and `box_targets
    [S, 4]`, which count where the label is 1.
    """

    anchors: Tensor
    labels: Tensor
    box_targets: Tensor


class AnchorField:
    """The anchors of every level on a square that holds the largest training image, and where they lie on the maps.

    `anchors [F, 4]` has the levels one after the other, finest first, and rows (y, x, anchor) within a level. Without a
    pyramid there is one level, of the stride `cfg.RPN.STRIDE`.
    """

    def __init__(self, cfg: Config, device: torch.device | str = "cpu") -> None:
        if cfg.FPN.FPN_ON:
            strides = [2**level for level in range(cfg.FPN.RPN_MIN_LEVEL, cfg.FPN.RPN_MAX_LEVEL + 1)]
            bases = pyramid_anchors(cfg)
        else:
            strides = [cfg.RPN.STRIDE]
            bases = [single_level_anchors(cfg, cfg.RPN.STRIDE)]
        positions = [field_side(cfg, stride) for stride in strides]
        grids = [anchor_grid(base, s, n, n) for base, s, n in zip(bases, strides, positions, strict=True)]
        self.anchors = torch.cat(grids).to(device)
        self._anchors_a_position = len(bases[0])
        self._side = torch.tensor(positions, device=device)
        sizes = torch.tensor([len(grid) for grid in grids], device=device)
        self._ends = sizes.cumsum(0)
        self._starts = self._ends - sizes

    def locate(self, index: Tensor, map_sizes: list[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Where anchors `index [S]` stand in the RPN's outputs.

        Args:
            map_sizes: (height, width) of each level's map.

        Returns:
            The level's number `[S]` from 0, the position `[S]` among all levels' outputs put one after the other with
            rows (y, x, anchor), and which `[S]` of them lie on the maps at all: Detectron cuts the field to the map
            with SpatialNarrowAs.
        """
        level = torch.bucketize(index, self._ends, right=True)
        in_level = index - self._starts[level]
        position, anchor = in_level // self._anchors_a_position, in_level % self._anchors_a_position
        y, x = position // self._side[level], position % self._side[level]
        heights, widths = index.new_tensor(map_sizes).T
        map_sizes_in_anchors = heights * widths * self._anchors_a_position
        map_starts = map_sizes_in_anchors.cumsum(0) - map_sizes_in_anchors
        where = map_starts[level] + (y * widths[level] + x) * self._anchors_a_position + anchor
        return level, where, (y < heights[level]) & (x < widths[level])


def level_suffixes(cfg: Config) -> list[str]:
    """What Detectron's names of an RPN's blobs and losses end in, level by level; nothing without a pyramid."""
    if not cfg.FPN.FPN_ON:
        return [""]
    return [f"_fpn{level}" for level in range(cfg.FPN.RPN_MIN_LEVEL, cfg.FPN.RPN_MAX_LEVEL + 1)]


def field_side(cfg: Config, stride: int) -> int:
    """How many positions of a stride lie side by side in the field of anchors.

    The field is a square with the side `cfg.TRAIN.MAX_SIZE` rounded up to `cfg.FPN.COARSEST_STRIDE`, whatever the size
    of the images (Detectron roi_data/data_utils.py:get_field_of_anchors).
    """
    coarsest = cfg.FPN.COARSEST_STRIDE
    side = -(-cfg.TRAIN.MAX_SIZE // coarsest) * coarsest
    return -(-side // stride)


def sample_anchors(
    anchors: Tensor, gt_boxes: Tensor, im_info: ImInfo, cfg: Config, generator: torch.Generator
) -> AnchorSample:
    """Label the anchors of one image and draw those that are trained on.

    Args:
        anchors: `[F, 4]`, the field's.
        gt_boxes: `[G, 4]` float32 in network pixels, crowds left out.
        generator: of the anchors' device.

    Anchors that leave the image by `cfg.TRAIN.RPN_STRADDLE_THRESH` or more are out. Objects are the anchors that
    overlap a gt box by `RPN_POSITIVE_OVERLAP`, and for each gt box those that overlap it most, all of them where they
    tie; of more than `RPN_FG_FRACTION * RPN_BATCH_SIZE_PER_IM` a random subset. The background is drawn from overlaps
    under `RPN_NEGATIVE_OVERLAP` *with replacement*, which also draws, and so turns over, objects that are only the
    best of a poor lot (Detectron roi_data/rpn.py:_get_rpn_blobs).
    """
    found = anchor_candidates(anchors, gt_boxes, im_info, cfg)
    labels = torch.where(found.matched.is_object, 1, -1)
    objects = (labels == 1).nonzero()[:, 0]
    surplus = len(objects) - most_object_anchors(cfg)
    if surplus > 0:
        labels[random_subset(objects, surplus, generator)] = -1
        objects = (labels == 1).nonzero()[:, 0]
    background = found.background.nonzero()[:, 0]
    wanted = cfg.TRAIN.RPN_BATCH_SIZE_PER_IM - len(objects)
    if len(background) > wanted:
        drawn = torch.randint(len(background), (wanted,), generator=generator, device=background.device)
        background = background[drawn]
    labels[background] = 0
    return anchor_sample(found, labels, anchors, gt_boxes)


def anchor_sample(found: "AnchorCandidates", labels: Tensor, anchors: Tensor, gt_boxes: Tensor) -> AnchorSample:
    """The anchors that were drawn, with their targets: the gt box that each overlaps most.

    Args:
        found: `[S]` candidates.
        labels: `[S]`, 1 object, 0 background, -1 for those that were not drawn.
        anchors, gt_boxes: as of `sample_anchors`.
    """
    sampled = (labels >= 0).nonzero()[:, 0]
    boxes = anchors[found.anchors[sampled]]
    if len(gt_boxes):
        box_targets = encode_boxes(boxes, gt_boxes[found.matched.best_gt[sampled]], RPN_BOX_WEIGHTS)
    else:
        box_targets = torch.zeros_like(boxes)
    return AnchorSample(found.anchors[sampled], labels[sampled].to(boxes.dtype), box_targets)


def is_drawn_whole(anchors: Tensor, gt_boxes: Tensor, im_info: ImInfo, cfg: Config) -> bool:
    """Whether `sample_anchors` of the same arguments takes all there are, so that nothing is random."""
    found = anchor_candidates(anchors, gt_boxes, im_info, cfg)
    objects, background = int(found.matched.is_object.sum()), int(found.background.sum())
    return objects <= most_object_anchors(cfg) and background <= cfg.TRAIN.RPN_BATCH_SIZE_PER_IM - objects


class AnchorCandidates(NamedTuple):
    """The anchors `[S]` int64 of the field that lie in an image, and which of them may be objects or background."""

    anchors: Tensor
    matched: "MatchedAnchors"
    background: Tensor


def anchor_candidates(anchors: Tensor, gt_boxes: Tensor, im_info: ImInfo, cfg: Config) -> AnchorCandidates:
    """What `sample_anchors` of the same arguments draws from."""
    train = cfg.TRAIN
    inside = _within_image(anchors, im_info, train.RPN_STRADDLE_THRESH).nonzero()[:, 0]
    matched = match_anchors(anchors[inside], gt_boxes, train.RPN_POSITIVE_OVERLAP)
    return AnchorCandidates(inside, matched, matched.best_overlap < train.RPN_NEGATIVE_OVERLAP)


def most_object_anchors(cfg: Config) -> int:
    """How many anchors of an image are drawn as objects at most."""
    return int(cfg.TRAIN.RPN_FG_FRACTION * cfg.TRAIN.RPN_BATCH_SIZE_PER_IM)


def random_subset(indices: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """`size` of the indices `[N]`, each subset equally likely."""
    return indices[torch.randperm(len(indices), generator=generator, device=indices.device)[:size]]


class MatchedAnchors(NamedTuple):
    """How anchors meet the gt boxes of their image.

    Attributes:
        best_overlap: `[S]` with the gt box that each overlaps most; 0 where there is none.
        best_gt: `[S]` int64, that gt box; the first of equals.
        is_object: `[S]`, whether an anchor may stand for an object.
    """

    best_overlap: Tensor
    best_gt: Tensor
    is_object: Tensor


def match_anchors(anchors: Tensor, gt_boxes: Tensor, positive_overlap: float) -> MatchedAnchors:
    """Match `[S, 4]` anchors with `[G, 4]` gt boxes.

    Objects are the anchors that overlap a gt box by `positive_overlap`, and for each gt box those that overlap it most,
    all of them where they tie: every anchor, where none overlaps it. Without gt boxes, where Detectron stops, there are
    no objects (Detectron roi_data/rpn.py:_get_rpn_blobs, roi_data/retinanet.py:_get_retinanet_blobs).
    """
    overlaps = box_overlaps(anchors, gt_boxes)
    if not overlaps.numel():
        nothing = anchors.new_zeros(len(anchors))
        return MatchedAnchors(nothing, nothing.long(), nothing.bool())
    best_overlap, best_gt = overlaps.max(dim=1)
    is_best = (overlaps == overlaps.amax(dim=0)).any(dim=1)
    return MatchedAnchors(best_overlap, best_gt, is_best | (best_overlap >= positive_overlap))


def _within_image(anchors: Tensor, im_info: ImInfo, straddle: float) -> Tensor:
    """Which of `[F, 4]` anchors lie in the scaled image, give or take `straddle` pixels; all where it is negative."""
    if straddle < 0:
        return torch.ones(len(anchors), dtype=torch.bool, device=anchors.device)
    x1, y1, x2, y2 = anchors.unbind(1)
    return (x1 >= -straddle) & (y1 >= -straddle) & (x2 < im_info.width + straddle) & (y2 < im_info.height + straddle)
