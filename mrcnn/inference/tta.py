"""Test-time augmentation: an image seen at several sizes, ratios and mirrored, and what is seen put together.

Answers to Detectron core/test.py:im_detect_bbox_aug, im_detect_mask_aug, im_detect_keypoints_aug and their helpers.
Which views there are is in `cfg.TEST.BBOX_AUG` for boxes, `MASK_AUG` for masks and `KPS_AUG` for keypoints, each by
itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.config.schema import Test
from detectron_gn.mrcnn.data.image_blob import Image, image_scale, scaled_size
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.ops.boxes import box_areas, flip_boxes, stretch_boxes


class Augmentation(Protocol):
    """The keys that the sections of boxes, masks and keypoints share."""

    @property
    def ENABLED(self) -> bool: ...
    @property
    def H_FLIP(self) -> bool: ...
    @property
    def SCALES(self) -> tuple[int, ...]: ...
    @property
    def MAX_SIZE(self) -> int: ...
    @property
    def SCALE_H_FLIP(self) -> bool: ...
    @property
    def ASPECT_RATIOS(self) -> tuple[float, ...]: ...
    @property
    def ASPECT_RATIO_H_FLIP(self) -> bool: ...


@dataclass(frozen=True)
class View:
    """A way to show an image to the network.

    Attributes:
        scale, max_size: wanted length of the short side and limit on the long one, as in `cfg.TEST`.
        ratio: what the width is multiplied by before anything else; None where it is left alone.
        flipped: mirrored left to right, after that.
    """

    scale: int
    max_size: int
    ratio: float | None = None
    flipped: bool = False

    def image(self, image: Image) -> Image:
        """An `[H, W, 3]` uint8 image as it is shown, not scaled yet (Detectron utils/image.py:aspect_ratio_rel)."""
        if self.ratio is not None:
            image = np.asarray(cv2.resize(image, (self.width(image.shape[1]), image.shape[0])), dtype=np.uint8)
        return np.ascontiguousarray(image[:, ::-1]) if self.flipped else image

    def width(self, width: int) -> int:
        """Of an image of this width, how wide `image` makes it: rounded half to even."""
        return width if self.ratio is None else round(self.ratio * width)

    def boxes(self, boxes: Tensor, width: int) -> Tensor:
        """Where `[..., 4K]` boxes of an image of this width are in the view; their class columns stay."""
        if self.ratio is not None:
            boxes = stretch_boxes(boxes, self.ratio)
        return flip_boxes(boxes, self.width(width)) if self.flipped else boxes

    def boxes_in_image(self, boxes: Tensor, width: int) -> Tensor:
        """The inverse of `boxes`; the width of a view is rounded, so they may leave the image by a part of a pixel."""
        if self.flipped:
            boxes = flip_boxes(boxes, self.width(width))
        return boxes if self.ratio is None else stretch_boxes(boxes, 1.0 / self.ratio)


def is_augmented(cfg: Config) -> bool:
    """Whether detection looks at an image more than once; what a model does not have is not augmented.

    Detectron's RetinaNet does not look at these keys at all (core/test.py:im_detect_all).
    """
    masks = cfg.MODEL.MASK_ON and cfg.TEST.MASK_AUG.ENABLED
    keypoints = cfg.MODEL.KEYPOINTS_ON and cfg.TEST.KPS_AUG.ENABLED
    has_boxes = not (cfg.RETINANET.RETINANET_ON or cfg.MODEL.RPN_ONLY)
    return has_boxes and (cfg.TEST.BBOX_AUG.ENABLED or masks or keypoints)


def check_views(image: Image, cfg: Config) -> None:
    """Raise InputError for an `[H, W, 3]` image of which a view of an enabled section would have no pixels left."""
    height, width = image.shape[:2]
    sections: dict[str, tuple[bool, Augmentation]] = {
        "BBOX_AUG": (True, cfg.TEST.BBOX_AUG),
        "MASK_AUG": (cfg.MODEL.MASK_ON, cfg.TEST.MASK_AUG),
        "KPS_AUG": (cfg.MODEL.KEYPOINTS_ON, cfg.TEST.KPS_AUG),
    }
    for name, (is_there, section) in sections.items():
        for view in further_views(section, cfg.TEST) if is_there and section.ENABLED else ():
            seen = (height, view.width(width))
            if 0 in seen or 0 in scaled_size(*seen, image_scale(*seen, view.scale, view.max_size)):
                key, value = ("SCALES", view.scale) if view.ratio is None else ("ASPECT_RATIOS", view.ratio)
                raise InputError(
                    f"an image of {width} x {height} pixels (width x height) has no pixels left in the view {value:g} "
                    f"of TEST.{name}.{key}: leave the image out, or the view"
                )


def plain_view(test: Test) -> View:
    """The image as it is, at the size of `cfg.TEST`."""
    return View(test.SCALE, test.MAX_SIZE)


def further_views(section: Augmentation, test: Test) -> list[View]:
    """All views but the plain one, in Detectron's order: it is the order of the union of their boxes."""
    plain = plain_view(test)
    views = [replace(plain, flipped=True)] if section.H_FLIP else []
    for scale in section.SCALES:
        views += _with_flip(View(scale, section.MAX_SIZE), section.SCALE_H_FLIP)
    for ratio in section.ASPECT_RATIOS:
        views += _with_flip(replace(plain, ratio=ratio), section.ASPECT_RATIO_H_FLIP)
    return views


def combined_boxes(seen: Sequence[tuple[Tensor, Tensor]], cfg: Config) -> tuple[Tensor, Tensor]:
    """Scores and boxes of all views together, by `cfg.TEST.BBOX_AUG.SCORE_HEUR` and `COORD_HEUR`.

    Args:
        seen: scores `[R, K]` and boxes `[R, 4K]` in image pixels of each view, the plain one last. Only for UNION may
            R differ.
    """
    section = cfg.TEST.BBOX_AUG
    scores, boxes = (list(column) for column in zip(*seen, strict=True))
    return _combined_rows(scores, section.SCORE_HEUR), _combined_rows(boxes, section.COORD_HEUR)


def combined_masks(seen: Sequence[Tensor], cfg: Config) -> Tensor:
    """Soft masks `[D, M, M]` of all views together, by `cfg.TEST.MASK_AUG.HEUR`."""
    heuristic = cfg.TEST.MASK_AUG.HEUR
    if heuristic == "SOFT_MAX":
        return _largest(seen)
    if heuristic == "SOFT_AVG":
        return _mean(seen)
    return 1.0 / (1.0 + torch.exp(-_mean([-torch.log((1.0 - probs) / probs.clamp(min=1e-20)) for probs in seen])))


def combined_heatmaps(seen: Sequence[tuple[View, Tensor]], boxes: Tensor, cfg: Config) -> Tensor:
    """Heatmaps `[D, 17, M, M]` of all views together, by `cfg.TEST.KPS_AUG.HEUR`.

    Args:
        seen: the plain view first.
        boxes: `[D, 4]` in image pixels. With `SCALE_SIZE_DEP`, smaller scales do not count for boxes below `AREA_TH`
            square pixels, and larger ones not for the rest (Detectron core/test.py:combine_heatmaps_size_dep).
    """
    section, plain = cfg.TEST.KPS_AUG, cfg.TEST.SCALE
    combine = _largest if section.HEUR == "HM_MAX" else _mean
    if not section.SCALE_SIZE_DEP:
        return combine([heatmaps for _, heatmaps in seen])
    together = torch.empty_like(seen[0][1])
    large = box_areas(boxes) >= section.AREA_TH
    for which, least, most in ((~large, plain, math.inf), (large, 0, plain)):
        together[which] = combine([heatmaps[which] for view, heatmaps in seen if least <= view.scale <= most])
    return together


def _with_flip(view: View, flipped_too: bool) -> list[View]:
    return [view, replace(view, flipped=True)] if flipped_too else [view]


def _combined_rows(seen: Sequence[Tensor], heuristic: str) -> Tensor:
    if heuristic == "ID":
        return seen[-1]
    return torch.cat(list(seen)) if heuristic == "UNION" else _mean(seen)


def _largest(seen: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(seen)).amax(dim=0)


def _mean(seen: Sequence[Tensor]) -> Tensor:
    """Added one after another, as numpy does along the first axis."""
    total = seen[0]
    for one in seen[1:]:
        total = total + one
    return total / len(seen)
