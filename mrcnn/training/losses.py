"""The losses of one GPU's minibatch; answers to Detectron modeling/FPN.py, rpn_heads.py and the heads of RoIs.

Every loss is scaled by 1 / `cfg.NUM_GPUS` and the gradients of all GPUs are summed, so that each GPU's minibatch is
normalised by itself (Detectron modeling/detector.py:GetLossScale).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.training.anchor_targets import AnchorField, AnchorSample, level_suffixes
from detectron_gn.mrcnn.training.keypoint_targets import KeypointSample
from detectron_gn.mrcnn.training.roi_targets import IGNORE, MaskSample, RoiSample

RPN_BOX_BETA = 1.0 / 9.0
ROI_BOX_BETA = 1.0


def rpn_losses(
    rpn_outputs: Sequence[tuple[Tensor, Tensor]], samples: Sequence[AnchorSample], field: AnchorField, cfg: Config
) -> dict[str, Tensor]:
    """`loss_rpn_cls_fpnL` and `loss_rpn_bbox_fpnL` of each level L; `loss_rpn_cls` and `loss_rpn_bbox` of one map.

    Args:
        rpn_outputs: logits `[N, A, H, W]` and deltas `[N, 4A, H, W]` of each level.
        samples: of each image.

    The sigmoid cross-entropy is summed. On a pyramid it is divided by `RPN_BATCH_SIZE_PER_IM` and the number of images,
    however few anchors were drawn; without one by the anchors that were drawn and lie on the map. The smooth L1 loss of
    an image is divided by the number that was drawn there, objects and background (Detectron
    modeling/FPN.py:add_fpn_rpn_losses, modeling/rpn_heads.py:add_single_scale_rpn_losses, whose
    SigmoidCrossEntropyLoss has normalize=1, and roi_data/rpn.py: bbox_outside_weights).
    """
    logits = torch.cat([logits.permute(0, 2, 3, 1).flatten(1) for logits, _ in rpn_outputs], dim=1)
    deltas = torch.cat([deltas.permute(0, 2, 3, 1).flatten(1) for _, deltas in rpn_outputs], dim=1)
    deltas = deltas.view(*logits.shape, 4)
    map_sizes = [(logits.shape[2], logits.shape[3]) for logits, _ in rpn_outputs]
    cls_losses, bbox_losses = logits.new_zeros(len(rpn_outputs)), logits.new_zeros(len(rpn_outputs))
    drawn = 0
    for image, sample in enumerate(samples):
        level, where, on_map = field.locate(sample.anchors, map_sizes)
        level, where, labels = level[on_map], where[on_map], sample.labels[on_map]
        drawn += len(labels)
        cls = F.binary_cross_entropy_with_logits(logits[image, where], labels, reduction="none")
        cls_losses = cls_losses.index_add(0, level, cls)
        chosen = labels == 1
        bbox = F.smooth_l1_loss(
            deltas[image, where[chosen]],
            sample.box_targets[on_map][chosen],
            beta=RPN_BOX_BETA,
            reduction="none",
        )
        bbox_losses = bbox_losses.index_add(0, level[chosen], bbox.sum(dim=1) / max(len(sample.anchors), 1))
    anchors = cfg.TRAIN.RPN_BATCH_SIZE_PER_IM * cfg.TRAIN.IMS_PER_BATCH if cfg.FPN.FPN_ON else max(drawn, 1)
    cls_losses = cls_losses / (cfg.NUM_GPUS * anchors)
    bbox_losses = bbox_losses / (cfg.NUM_GPUS * len(samples))
    suffixes = level_suffixes(cfg)
    losses = {f"loss_rpn_cls{suffix}": loss for suffix, loss in zip(suffixes, cls_losses.unbind(), strict=True)}
    losses |= {f"loss_rpn_bbox{suffix}": loss for suffix, loss in zip(suffixes, bbox_losses.unbind(), strict=True)}
    return losses


def fast_rcnn_losses(cls_score: Tensor, bbox_pred: Tensor, sample: RoiSample, cfg: Config) -> dict[str, Tensor]:
    """`loss_cls`, the mean cross-entropy over the RoIs, and `loss_bbox`, the smooth L1 loss divided by their number.

    Args:
        cls_score: `[R, K]` logits.
        bbox_pred: `[R, 4B]` deltas, of which those of the RoI's own class count, or of any object where B is 2.

    Detectron modeling/fast_rcnn_heads.py:add_fast_rcnn_losses.
    """
    rows = (sample.box_classes > 0).nonzero()[:, 0]
    own_class = bbox_pred.view(len(bbox_pred), -1, 4)[rows, sample.box_classes[rows]]
    loss_bbox = F.smooth_l1_loss(own_class.float(), sample.box_targets[rows], beta=ROI_BOX_BETA, reduction="sum")
    return {
        "loss_cls": F.cross_entropy(cls_score.float(), sample.labels) / cfg.NUM_GPUS,
        "loss_bbox": loss_bbox / len(bbox_pred) / cfg.NUM_GPUS,
    }


def accuracy_cls(cls_score: Tensor, sample: RoiSample) -> Tensor:
    """The share of RoIs whose most likely class is theirs: Detectron's one metric beside the losses."""
    return (cls_score.detach().argmax(dim=1) == sample.labels).float().mean()


def mask_loss(mask_logits: Tensor, sample: MaskSample, cfg: Config) -> dict[str, Tensor]:
    """`loss_mask`: the sigmoid cross-entropy of each RoI's own class, averaged over the pixels that are trained on.

    Args:
        mask_logits: `[Q, M, M]`, of the RoI's own class.

    Detectron modeling/mask_rcnn_heads.py:add_mask_rcnn_losses; Caffe2 SigmoidCrossEntropyLoss with normalize=1.
    """
    trained = (sample.targets != IGNORE).float()
    loss = F.binary_cross_entropy_with_logits(
        mask_logits.float(), sample.targets.clamp(min=0).float(), trained, reduction="sum"
    )
    scale = cfg.MRCNN.WEIGHT_LOSS_MASK / cfg.NUM_GPUS
    return {"loss_mask": loss / trained.sum().clamp(min=1e-5) * scale}


def keypoint_loss(heatmaps: Tensor, sample: KeypointSample, cfg: Config) -> dict[str, Tensor]:
    """`loss_kps`: the cross-entropy of a softmax over each heatmap's positions, averaged over the visible keypoints.

    Args:
        heatmaps: `[Q, K, M, M]` logits.

    With `cfg.KRCNN.NORMALIZE_BY_VISIBLE_KEYPOINTS` off, `loss_kps_normalized`: the same divided not by how many are
    visible but by how many could be, in as many objects as a minibatch may have (Detectron
    modeling/keypoint_rcnn_heads.py:add_keypoint_losses, roi_data/keypoint_rcnn.py:finalize_keypoint_minibatch).
    """
    train, points = cfg.TRAIN, cfg.KRCNN
    logits = heatmaps.float().flatten(2)[sample.visible]
    count = len(logits)
    loss = F.cross_entropy(logits, sample.positions[sample.visible], reduction="sum")
    loss = loss / max(count, 1) * (points.LOSS_WEIGHT / cfg.NUM_GPUS)
    if points.NORMALIZE_BY_VISIBLE_KEYPOINTS:
        return {"loss_kps": loss}
    most = train.IMS_PER_BATCH * train.BATCH_SIZE_PER_IM * train.FG_FRACTION * points.NUM_KEYPOINTS
    return {"loss_kps_normalized": loss * (count / most)}
