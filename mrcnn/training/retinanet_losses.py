"""RetinaNet's losses of one GPU's minibatch; answers to Detectron modeling/retinanet_heads.py."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.training.dense_targets import DenseField, DenseTargets, Places
from detectron_gn.mrcnn.training.focal_losses import sigmoid_focal_loss, softmax_focal_loss


def retinanet_losses(
    outputs: Sequence[tuple[Tensor, Tensor]], targets: Sequence[DenseTargets], field: DenseField, cfg: Config
) -> dict[str, Tensor]:
    """`retnet_loss_bbox_fpnL` and `fl_fpnL` of each level L, and the metrics `retnet_fg_num` and `retnet_bg_num`.

    Args:
        outputs: float32 class logits `[N, A * C, H, W]` and box deltas `[N, A * B * 4, H, W]` of each level.
        targets: of each image.

    All of them are divided by `retnet_fg_num`, the objects and one more of every image of this GPU's minibatch, on all
    levels together; with several GPUs each divides by its own, and by their number as every loss is
    (Detectron modeling/retinanet_heads.py:add_fpn_retinanet_losses).
    """
    dense = cfg.RETINANET
    fg_num = torch.stack([image.fg_num for image in targets]).sum()
    bg_num = torch.stack([image.bg_num for image in targets]).sum()
    scale = 1.0 / (cfg.NUM_GPUS * fg_num)
    focal_loss = softmax_focal_loss if dense.SOFTMAX else sigmoid_focal_loss
    labels = [torch.stack(maps) for maps in zip(*(field.maps(image.labels) for image in targets), strict=True)]
    places = [field.places(image.objects) for image in targets]
    losses: dict[str, Tensor] = {}
    focal: dict[str, Tensor] = {}
    for number, (cls_pred, bbox_pred) in enumerate(outputs):
        level, (height, width) = cfg.FPN.RPN_MIN_LEVEL + number, cls_pred.shape[2:]
        on_map = labels[number][:, :, :height, :width]
        logits = torch.unflatten(cls_pred, 1, (on_map.shape[1], -1))
        focal[f"fl_fpn{level}"] = focal_loss(logits, on_map, dense.LOSS_GAMMA, dense.LOSS_ALPHA) * scale
        deltas = torch.unflatten(bbox_pred, 1, (on_map.shape[1], -1, 4))
        boxes = [
            _box_loss(of_image, image, place, number, cfg)
            for of_image, image, place in zip(deltas, targets, places, strict=True)
        ]
        losses[f"retnet_loss_bbox_fpn{level}"] = torch.stack(boxes).sum() * dense.BBOX_REG_WEIGHT * scale
    return {**losses, **focal, "retnet_fg_num": fg_num, "retnet_bg_num": bg_num}


def _box_loss(deltas: Tensor, targets: DenseTargets, places: Places, number: int, cfg: Config) -> Tensor:
    """The smooth L1 loss of one image on one level, summed.

    Args:
        deltas: `[A, B, 4, H, W]`.
        number: of the level, from 0.

    An object whose position lies beyond the map, which Caffe2 would read from elsewhere, has no loss.
    """
    height, width = deltas.shape[3:]
    chosen = (places.level == number) & (places.y < height) & (places.x < width)
    anchor, y, x = (place[chosen] for place in places[1:])
    own = targets.labels[targets.objects[chosen]] - 1 if cfg.RETINANET.CLASS_SPECIFIC_BBOX else torch.zeros_like(anchor)
    predicted = deltas[anchor, own, :, y, x]
    return F.smooth_l1_loss(
        predicted, targets.box_targets[chosen], beta=cfg.RETINANET.BBOX_REG_BETA, reduction="sum"
    )
