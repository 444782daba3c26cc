"""RetinaNet's head, one for all levels; answers to Detectron modeling/retinanet_heads.py."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.layers import ConvNorm, FilledConv2d, gauss_fill
from detectron_gn.mrcnn.structures import Features
from detectron_gn.mrcnn.training.dense_targets import DenseField, DenseTargets
from detectron_gn.mrcnn.training.retinanet_losses import retinanet_losses


class LevelOutputs(NamedTuple):
    """Class logits `[N, A * C, H, W]` and box deltas `[N, A * B * 4, H, W]` of one level.

    C counts the classes, with the background before them for a softmax; B is 1, or the number of classes without the
    background where each has its own boxes.
    """

    cls_pred: Tensor
    bbox_pred: Tensor


class RetinaNetHead(nn.Module):
    """A tower of 3x3 convolutions for classes and one for boxes, and a 3x3 convolution after each.

    With `cfg.RETINANET.SHARE_CLS_BBOX_TOWER` the boxes too come from the tower of the classes. No normalisation.
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg = cfg
        dense, dim = cfg.RETINANET, cfg.FPN.DIM
        self.num_anchors = dense.SCALES_PER_OCTAVE * len(dense.ASPECT_RATIOS)
        self.softmax = dense.SOFTMAX
        num_classes = cfg.MODEL.NUM_CLASSES - 1
        self.prior = dense.PRIOR_PROB
        self.cls_convs = _tower(cfg)
        scores = self.num_anchors * (num_classes + 1 if dense.SOFTMAX else num_classes)
        self.cls_pred = FilledConv2d(dim, scores, 3, fill=gauss_fill(0.01))
        self.bbox_convs = None if dense.SHARE_CLS_BBOX_TOWER else _tower(cfg)
        boxes = self.num_anchors * (num_classes if dense.CLASS_SPECIFIC_BBOX else 1)
        self.bbox_pred = FilledConv2d(dim, 4 * boxes, 3, fill=gauss_fill(0.01))
        self._fill_class_bias(num_classes)
        self._field: DenseField | None = None

    def forward(self, features: Features) -> list[LevelOutputs]:
        """The outputs of each level, finest first."""
        outputs = []
        for level in features.maps:
            of_classes = self.cls_convs(level)
            of_boxes = of_classes if self.bbox_convs is None else self.bbox_convs(level)
            outputs.append(LevelOutputs(self.cls_pred(of_classes), self.bbox_pred(of_boxes)))
        return outputs

    def training_anchors(self) -> DenseField:
        """The anchors that are trained on, on the device of the parameters; made once."""
        device = self.cls_pred.weight.device
        if self._field is None or self._field.anchors.device != device:
            self._field = DenseField(self.cfg, device)
        return self._field

    def losses(self, outputs: Sequence[LevelOutputs], targets: Sequence[DenseTargets]) -> dict[str, Tensor]:
        """`retnet_loss_bbox_fpnL` and `fl_fpnL` of each level L and two metrics, from the targets of each image."""
        # Losses are in float32 whatever the network computed in.
        in_full = [(cls_pred.float(), bbox_pred.float()) for cls_pred, bbox_pred in outputs]
        return retinanet_losses(in_full, targets, self.training_anchors(), self.cfg)

    def probabilities(self, cls_pred: Tensor) -> Tensor:
        """Class logits of a level to probabilities of the same shape `[N, A * C, H, W]`, float32.

        A sigmoid, or with `cfg.RETINANET.SOFTMAX` a softmax over the C channels of each anchor.
        """
        if not self.softmax:
            return cls_pred.float().sigmoid()
        images, _, height, width = cls_pred.shape
        by_anchor = cls_pred.float().reshape(images, self.num_anchors, -1, height, width)
        return by_anchor.softmax(dim=2).flatten(1, 2)

    def _fill_class_bias(self, num_classes: int) -> None:
        """Every position begins with the probability `cfg.RETINANET.PRIOR_PROB` to be an object."""
        bias = self.cls_pred.bias
        assert bias is not None
        if bias.is_meta:
            return
        odds = math.log((1 - self.prior) / self.prior)
        with torch.no_grad():
            if self.softmax:
                bias.zero_().view(self.num_anchors, -1)[:, 0] = odds + math.log(num_classes)
            else:
                bias.fill_(-odds)


def _tower(cfg: Config) -> nn.Sequential:
    dim = cfg.FPN.DIM
    convs = (FilledConv2d(dim, dim, 3, fill=gauss_fill(0.01)) for _ in range(cfg.RETINANET.NUM_CONVS))
    return nn.Sequential(*(ConvNorm(conv, None, relu=True) for conv in convs))
