"""Two-stage detection with test-time augmentation; answers to Detectron core/test.py:im_detect_all."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from detectron_gn.mrcnn.config import padding_stride
from detectron_gn.mrcnn.data.image_blob import Image, prepare_image
from detectron_gn.mrcnn.inference.dynamic import select_detections
from detectron_gn.mrcnn.inference.network_input import NetworkInput, network_input
from detectron_gn.mrcnn.inference.tta import (
    View,
    combined_boxes,
    combined_heatmaps,
    combined_masks,
    further_views,
    plain_view,
)
from detectron_gn.mrcnn.ops.keypoints import flip_heatmaps
from detectron_gn.mrcnn.structures import Detections, Features

if TYPE_CHECKING:
    from detectron_gn.mrcnn.detectors.generalized_rcnn import GeneralizedRCNN


class _Seen(NamedTuple):
    """An image as the network sees it in one view."""

    view: View
    batch: NetworkInput
    features: Features


def detect_augmented(model: GeneralizedRCNN, image: Image, proposals: Tensor | None = None) -> Detections:
    """Find the objects in one image, seen as `cfg.TEST.BBOX_AUG`, `MASK_AUG` and `KPS_AUG` say.

    Boxes of all views go through one selection; then every view gives its masks and heatmaps of the boxes that stay.

    Args:
        image: `[H, W, 3]` uint8 BGR.
        proposals: `[R, 4]` float32 in its pixels, for a network that takes them.
    """
    cfg, size = model.cfg, (image.shape[0], image.shape[1])
    plain = _see(model, image, plain_view(cfg.TEST), proposals)
    box_views = further_views(cfg.TEST.BBOX_AUG, cfg.TEST) if cfg.TEST.BBOX_AUG.ENABLED else []
    scored = [_scored(model, _see(model, image, view, proposals), size[1]) for view in box_views]
    scored.append(_scored(model, plain, size[1]))
    scores, boxes = combined_boxes(scored, cfg) if cfg.TEST.BBOX_AUG.ENABLED else scored[0]
    found = select_detections(scores, boxes, cfg)
    masks = heatmaps = None
    if model.mask_head is not None:
        masks = _masks(model, plain, found.boxes, found.classes, size[1])
        if cfg.TEST.MASK_AUG.ENABLED and len(found.boxes):
            every = [masks]
            for view in further_views(cfg.TEST.MASK_AUG, cfg.TEST):
                every.append(_masks(model, _see(model, image, view), found.boxes, found.classes, size[1]))
            masks = combined_masks(every, cfg)
    if model.keypoint_head is not None:
        heatmaps = _heatmaps(model, plain, found.boxes, size[1])
        if cfg.TEST.KPS_AUG.ENABLED and len(found.boxes):
            each = [(plain.view, heatmaps)]
            for view in further_views(cfg.TEST.KPS_AUG, cfg.TEST):
                each.append((view, _heatmaps(model, _see(model, image, view), found.boxes, size[1])))
            heatmaps = combined_heatmaps(each, found.boxes, cfg)
    return Detections.from_tensors(*found, masks, size, cfg, heatmaps)


def _see(model: GeneralizedRCNN, image: Image, view: View, proposals: Tensor | None = None) -> _Seen:
    shown = view.image(image)
    prepared = prepare_image(shown, model.cfg.PIXEL_MEANS, view.scale, view.max_size)
    batch = network_input([shown], [prepared], padding_stride(model.cfg), model.device)
    if proposals is not None:
        batch = batch._replace(proposals=[view.boxes(proposals, image.shape[1])])
    return _Seen(view, batch, model.features(batch.data))


def _scored(model: GeneralizedRCNN, seen: _Seen, width: int) -> tuple[Tensor, Tensor]:
    """Scores `[R, K]` of the view's RoIs, and boxes `[R, 4K]` in pixels of the image, which is `width` wide."""
    (rois,) = model.rois_of_images(seen.features, seen.batch)
    scores, boxes = model.scored_boxes(seen.features, rois, seen.batch.image_sizes[0], seen.batch.im_info[0].scale)
    return scores, seen.view.boxes_in_image(boxes, width)


def _masks(model: GeneralizedRCNN, seen: _Seen, boxes: Tensor, classes: Tensor, width: int) -> Tensor:
    """Soft masks `[D, M, M]` of `[D, 4]` boxes in pixels of the image, as the image has them and not the view."""
    own = seen.view.boxes(boxes, width)
    masks = model.soft_masks(seen.features, own, classes, seen.batch.im_info[0].scale, image_index=0)
    return masks.flip(-1) if seen.view.flipped else masks


def _heatmaps(model: GeneralizedRCNN, seen: _Seen, boxes: Tensor, width: int) -> Tensor:
    """Heatmaps `[D, 17, M, M]` of `[D, 4]` boxes in pixels of the image, as the image has them and not the view."""
    own = seen.view.boxes(boxes, width)
    heatmaps = model.heatmaps(seen.features, own, seen.batch.im_info[0].scale, image_index=0)
    return flip_heatmaps(heatmaps) if seen.view.flipped else heatmaps
