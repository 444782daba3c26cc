"""What RetinaNet is trained towards: a class or none for every anchor; answers to Detectron roi_data/retinanet.py."""

from typing import NamedTuple

import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.ops.anchors import retinanet_anchors
from detectron_gn.mrcnn.ops.boxes import encode_boxes
from detectron_gn.mrcnn.training.anchor_targets import field_side, match_anchors

_BOX_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


class DenseTargets(NamedTuple):
    """What the anchors of one image are trained towards.

    Attributes:
        labels: `[F]` int64 of the field's anchors: the class from 1 on, 0 for the background, -1 for neither.
        objects: `[M]` int64, the anchors that have a class.
        box_targets: `[M, 4]` float32 of these.
        fg_num, bg_num: `[]` float32, what Detectron adds up over the images of a minibatch to `retnet_fg_num`, which
            the losses are divided by, and to `retnet_bg_num`, a figure.
    """

    labels: Tensor
    objects: Tensor
    box_targets: Tensor
    fg_num: Tensor
    bg_num: Tensor


class Places(NamedTuple):
    """Where anchors stand: `level [M]` from 0, and the `anchor [M]` at the position `y [M]`, `x [M]` of its map."""

    level: Tensor
    anchor: Tensor
    y: Tensor
    x: Tensor


class DenseField:
    """RetinaNet's anchors of every level on the field of anchors.

    `anchors [F, 4]` float32 has the levels one after the other, finest first, and rows (anchor, y, x) within a level,
    as the network's outputs have them. They are rounded to float32 after the position is added
    (Detectron roi_data/data_utils.py:get_field_of_anchors).
    """

    def __init__(self, cfg: Config, device: torch.device | str = "cpu") -> None:
        grids = []
        self._shapes: list[tuple[int, int, int]] = []
        for level, base in enumerate(retinanet_anchors(cfg), cfg.FPN.RPN_MIN_LEVEL):
            side = field_side(cfg, 2**level)
            shifts = torch.arange(side, dtype=torch.float64) * 2**level
            y, x = torch.meshgrid(shifts, shifts, indexing="ij")
            grid = base[:, None, None] + torch.stack((x, y, x, y), dim=2)
            grids.append(grid.float().reshape(-1, 4))
            self._shapes.append((len(base), side, side))
        self.anchors = torch.cat(grids).to(device)
        sizes = torch.tensor([len(grid) for grid in grids], device=device)
        self._ends = sizes.cumsum(0)
        self._starts = self._ends - sizes
        self._sides = torch.tensor([side for _, side, _ in self._shapes], device=device)

    def maps(self, labels: Tensor) -> list[Tensor]:
        """Labels `[F]` as `[A, side, side]` of each level."""
        sizes = [anchors * height * width for anchors, height, width in self._shapes]
        return [part.view(shape) for part, shape in zip(torch.split(labels, sizes), self._shapes, strict=True)]

    def places(self, index: Tensor) -> Places:
        """Where the anchors `index [M]` of the field stand."""
        level = torch.bucketize(index, self._ends, right=True)
        side = self._sides[level]
        in_level = index - self._starts[level]
        return Places(level, in_level // side**2, in_level // side % side, in_level % side)

    def index(self, places: Places) -> Tensor:
        """The anchors `[M]` of the field that stand at places on it."""
        side = self._sides[places.level]
        return self._starts[places.level] + (places.anchor * side + places.y) * side + places.x


def label_anchors(field: DenseField, gt_boxes: Tensor, gt_classes: Tensor, cfg: Config) -> DenseTargets:
    """Label every anchor of the field for one image; nothing is drawn.

    Args:
        gt_boxes: `[G, 4]` float32 in network pixels, crowds left out.
        gt_classes: `[G]` int64.

    An object has the class and the box of the gt box that it overlaps most, be it one of the best for another. Overlaps
    under `cfg.RETINANET.NEGATIVE_OVERLAP` are background at last, so an object that is only the best of a poor lot is
    not trained on as one, though Detectron has counted it by then; and it counts 1 more in every image
    (Detectron roi_data/retinanet.py:_get_retinanet_blobs).
    """
    dense, classes = cfg.RETINANET, cfg.MODEL.NUM_CLASSES - 1
    matched = match_anchors(field.anchors, gt_boxes, dense.POSITIVE_OVERLAP)
    is_background = matched.best_overlap < dense.NEGATIVE_OVERLAP
    if len(gt_classes):
        labels = gt_classes[matched.best_gt].where(matched.is_object, -1)
    else:
        labels = torch.full_like(matched.best_gt, -1)
    labels = labels.where(~is_background, 0)
    objects = (labels > 0).nonzero()[:, 0]
    targets = field.anchors.new_zeros((0, 4))
    if len(objects):
        targets = encode_boxes(field.anchors[objects], gt_boxes[matched.best_gt[objects]], _BOX_WEIGHTS)
    fg_num = matched.is_object.sum() + 1.0
    bg_num = (is_background.sum() + 1.0) * classes + fg_num * (classes - 1)
    return DenseTargets(labels, objects, targets, fg_num, bg_num)
