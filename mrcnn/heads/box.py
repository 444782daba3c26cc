"""The second stage's box head; answers to Detectron modeling/fast_rcnn_heads.py, ResNet.py and VGG*.py."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectron_gn.mrcnn import kernels
from detectron_gn.mrcnn.backbones.resnet import STAGE_CHANNELS, res5_of_rois
from detectron_gn.mrcnn.config import Config, box_head_kind, num_box_classes
from detectron_gn.mrcnn.layers import ConvNorm, FilledConv2d, FilledLinear, gauss_fill, group_norm, msra_fill
from detectron_gn.mrcnn.ops.pool_rois import pool_rois
from detectron_gn.mrcnn.structures import Features
from detectron_gn.mrcnn.training.losses import accuracy_cls, fast_rcnn_losses
from detectron_gn.mrcnn.training.roi_targets import RoiSample


class _FullyConnected(NamedTuple):
    """The widths of fc6 and fc7 (0: there is none), and the side of what is pooled."""

    fc6: int
    fc7: int
    side: int


class BoxHead(nn.Module):
    """What `cfg.FAST_RCNN.ROI_BOX_HEAD` names, then classes and boxes.

    `2mlp` and VGG's heads are fc6 and fc7; `Xconv1fc`, with or without GroupNorm, 3x3 convolutions and fc6; `res5` that
    stage of the ResNet and the mean over its positions.

    Args:
        dim: channels of the features.
    """

    def __init__(self, cfg: Config, dim: int) -> None:
        super().__init__()
        self.cfg = cfg
        kind = box_head_kind(cfg)
        self.convs = nn.Sequential()
        if kind in ("Xconv1fc", "Xconv1fc_gn"):
            for _ in range(cfg.FAST_RCNN.NUM_STACKED_CONVS):
                width = cfg.FAST_RCNN.CONV_HEAD_DIM
                gn = group_norm(cfg, width) if kind == "Xconv1fc_gn" else None
                conv = FilledConv2d(dim, width, 3, bias=gn is None, fill=msra_fill)
                self.convs.append(ConvNorm(conv, gn, relu=True))
                dim = width
        self.res5: nn.Sequential | None = None
        self.fc6: FilledLinear | None = None
        self.fc7: FilledLinear | None = None
        self.side = cfg.FAST_RCNN.ROI_XFORM_RESOLUTION
        if kind == "res5":
            width = 8 * cfg.RESNETS.NUM_GROUPS * cfg.RESNETS.WIDTH_PER_GROUP
            self.res5 = res5_of_rois(cfg, width, self.side)
            hidden = STAGE_CHANNELS[-1]
        else:
            layers = _fully_connected(cfg)
            hidden, self.side = layers.fc6, layers.side
            self.fc6 = FilledLinear(dim * self.side**2, hidden)
            if layers.fc7:
                self.fc7, hidden = FilledLinear(hidden, layers.fc7), layers.fc7
        self.cls_score = FilledLinear(hidden, cfg.MODEL.NUM_CLASSES, gauss_fill(0.01))
        self.bbox_pred = FilledLinear(hidden, 4 * num_box_classes(cfg), gauss_fill(0.001))

    @property
    def pools_for_body(self) -> bool:
        """Whether what is pooled goes into layers of the body: res5, or VGG's fully connected ones."""
        return box_head_kind(self.cfg) in ("res5", "vgg16", "vgg_cnn_m")

    def outputs(self, features: Features, rois: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits `[R, K]` and box deltas `[R, 4B]` of `[R, 5]` RoIs, for the B of `num_box_classes`."""
        parts = [self.conv_features(self.roi_features(features, part)) for part in kernels.roi_parts(rois)]
        return self.predict(torch.cat(parts))

    def losses(self, maps: Tensor, sample: RoiSample) -> dict[str, Tensor]:
        """`loss_cls`, `loss_bbox` and the metric `accuracy_cls` of sampled RoIs, of which `trunk` gave the maps."""
        cls_score, bbox_pred = self.predict(self._flat(maps))
        losses = fast_rcnn_losses(cls_score, bbox_pred, sample, self.cfg)
        return {**losses, "accuracy_cls": accuracy_cls(cls_score, sample)}

    def roi_features(self, features: Features, rois: Tensor) -> Tensor:
        """The features `[R, C, S, S]` of `[R, 5]` RoIs in the resolution that this head takes."""
        return pool_rois(features, rois, self.cfg, self.cfg.FAST_RCNN, self.side)

    def forward(self, roi_features: Tensor) -> tuple[Tensor, Tensor]:
        """`[R, C, S, S]` features to class logits `[R, K]` and box deltas `[R, 4B]`; class 0 is the background."""
        return self.predict(self.conv_features(roi_features))

    def conv_features(self, roi_features: Tensor) -> Tensor:
        """The convolutions' output `[R, C * S * S]`, channel by channel as fc6 reads it; of res5 its means `[R, C]`."""
        return self._flat(self.trunk(roi_features))

    def trunk(self, roi_features: Tensor) -> Tensor:
        """The convolutions' output `[R, C, S, S]`; of res5, which a mask head may share, `[R, 2048, 7, 7]`."""
        maps: Tensor = (self.convs if self.res5 is None else self.res5)(roi_features)
        return maps

    def _flat(self, maps: Tensor) -> Tensor:
        if self.res5 is not None:
            return F.avg_pool2d(maps, kernel_size=7, stride=1).flatten(1)
        if maps.requires_grad:
            # The gradient comes back in fc6's order; what is before this layer is fast in channels-last memory alone.
            maps.register_hook(_channels_last)  # type: ignore[no-untyped-call]
        return maps.flatten(1)

    def predict(self, conv_features: Tensor) -> tuple[Tensor, Tensor]:
        """The second half of `forward`, from what `conv_features` gives."""
        x = conv_features
        for layer in (self.fc6, self.fc7):
            if layer is not None:
                x = F.relu_(layer(x))
        return self.cls_score(x), self.bbox_pred(x)


def _fully_connected(cfg: Config) -> _FullyConnected:
    """VGG's heads have sizes of their own (Detectron modeling/VGG16.py, VGG_CNN_M_1024.py)."""
    kind, hidden = box_head_kind(cfg), cfg.FAST_RCNN.MLP_HEAD_DIM
    if kind == "vgg16":
        return _FullyConnected(4096, 4096, 7)
    if kind == "vgg_cnn_m":
        return _FullyConnected(4096, 1024, 6)
    return _FullyConnected(hidden, hidden if kind == "2mlp" else 0, cfg.FAST_RCNN.ROI_XFORM_RESOLUTION)


def _channels_last(maps: Tensor) -> Tensor:
    return maps.contiguous(memory_format=torch.channels_last)
