"""Two-stage detection with test-time augmentation; answers to Detectron core/test.py:im_detect_all."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from detectron_gn.mrcnn.data.image_blob import Image, prepare_image
from detectron_gn.mrcnn.inference.dynamic import select_detections
from detectron_gn.mrcnn.inference.network_input import NetworkInput, network_input
from detectron_gn.mrcnn.inference.tta import View, combined_boxes, combined_masks, further_views, plain_view
from detectron_gn.mrcnn.structures import Detections, Features

if TYPE_CHECKING:
    from detectron_gn.mrcnn.detectors.generalized_rcnn import GeneralizedRCNN


class _Seen(NamedTuple):
    """An image as the network sees it in one view."""

    view: View
    batch: NetworkInput
    features: Features


def detect_augmented(model: GeneralizedRCNN, image: Image) -> Detections:
    """Find the objects in one `[H, W, 3]` uint8 BGR image, seen as `cfg.TEST.BBOX_AUG` and `MASK_AUG` say.

    Boxes of all views go through one selection; then every view gives its masks of the boxes that stay.
    """
    cfg, size = model.cfg, (image.shape[0], image.shape[1])
    plain = _see(model, image, plain_view(cfg.TEST))
    box_views = further_views(cfg.TEST.BBOX_AUG, cfg.TEST) if cfg.TEST.BBOX_AUG.ENABLED else []
    scored = [_scored(model, _see(model, image, view), size[1]) for view in box_views]
    scored.append(_scored(model, plain, size[1]))
    scores, boxes = combined_boxes(scored, cfg) if cfg.TEST.BBOX_AUG.ENABLED else scored[0]
    found = select_detections(scores, boxes, cfg)
    masks = None
    if model.mask_head is not None:
        masks = _masks(model, plain, found.boxes, found.classes, size[1])
        if cfg.TEST.MASK_AUG.ENABLED and len(found.boxes):
            every = [masks]
            for view in further_views(cfg.TEST.MASK_AUG, cfg.TEST):
                every.append(_masks(model, _see(model, image, view), found.boxes, found.classes, size[1]))
            masks = combined_masks(every, cfg)
    return Detections.from_tensors(*found, masks, size, cfg)


def _see(model: GeneralizedRCNN, image: Image, view: View) -> _Seen:
    shown = view.image(image)
    prepared = prepare_image(shown, model.cfg.PIXEL_MEANS, view.scale, view.max_size)
    batch = network_input([shown], [prepared], model.cfg.FPN.COARSEST_STRIDE, model.device)
    return _Seen(view, batch, model.features(batch.data))


def _scored(model: GeneralizedRCNN, seen: _Seen, width: int) -> tuple[Tensor, Tensor]:
    """Scores `[R, K]` of the view's own RoIs, and boxes `[R, 4K]` in pixels of the image, which is `width` wide."""
    (rois,) = model.rois_of_images(seen.features, seen.batch)
    scores, boxes = model.scored_boxes(seen.features, rois, seen.batch.image_sizes[0], seen.batch.im_info[0].scale)
    return scores, seen.view.boxes_in_image(boxes, width)


def _masks(model: GeneralizedRCNN, seen: _Seen, boxes: Tensor, classes: Tensor, width: int) -> Tensor:
    """Soft masks `[D, M, M]` of `[D, 4]` boxes in pixels of the image, as the image has them and not the view."""
    own = seen.view.boxes(boxes, width)
    masks = model.soft_masks(seen.features, own, classes, seen.batch.im_info[0].scale, image_index=0)
    return masks.flip(-1) if seen.view.flipped else masks
