"""The second stage's box head; answers to Detectron modeling/fast_rcnn_heads.py."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectron_gn.mrcnn import kernels
from detectron_gn.mrcnn.config import Config, box_head_kind, num_box_classes
from detectron_gn.mrcnn.layers import ConvNorm, FilledConv2d, FilledLinear, gauss_fill, group_norm, msra_fill
from detectron_gn.mrcnn.ops.roi_align import pool_rois
from detectron_gn.mrcnn.structures import Features
from detectron_gn.mrcnn.training.losses import accuracy_cls, fast_rcnn_losses
from detectron_gn.mrcnn.training.roi_targets import RoiSample


class BoxHead(nn.Module):
    """`2mlp` (fc6, fc7), or `Xconv1fc` with or without GroupNorm (3x3 convolutions, fc6), then classes and boxes.

    `cfg.FAST_RCNN.ROI_BOX_HEAD` says which; the heads' widths are `CONV_HEAD_DIM` and `MLP_HEAD_DIM`.
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg = cfg
        kind = box_head_kind(cfg)
        dim, hidden = cfg.FPN.DIM, cfg.FAST_RCNN.MLP_HEAD_DIM
        self.convs = nn.Sequential()
        if kind != "2mlp":
            for _ in range(cfg.FAST_RCNN.NUM_STACKED_CONVS):
                width = cfg.FAST_RCNN.CONV_HEAD_DIM
                gn = group_norm(cfg, width) if kind == "Xconv1fc_gn" else None
                conv = FilledConv2d(dim, width, 3, bias=gn is None, fill=msra_fill)
                self.convs.append(ConvNorm(conv, gn, relu=True))
                dim = width
        self.fc6 = FilledLinear(dim * cfg.FAST_RCNN.ROI_XFORM_RESOLUTION**2, hidden)
        self.fc7 = FilledLinear(hidden, hidden) if kind == "2mlp" else None
        self.cls_score = FilledLinear(hidden, cfg.MODEL.NUM_CLASSES, gauss_fill(0.01))
        self.bbox_pred = FilledLinear(hidden, 4 * num_box_classes(cfg), gauss_fill(0.001))

    def outputs(self, features: Features, rois: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits `[R, K]` and box deltas `[R, 4B]` of `[R, 5]` RoIs, for the B of `num_box_classes`."""
        parts = [self.conv_features(self.roi_features(features, part)) for part in kernels.roi_parts(rois)]
        return self.predict(torch.cat(parts))

    def losses(self, features: Features, sample: RoiSample) -> dict[str, Tensor]:
        """`loss_cls`, `loss_bbox` and the metric `accuracy_cls` of sampled RoIs."""
        cls_score, bbox_pred = self.outputs(features, sample.rois)
        losses = fast_rcnn_losses(cls_score, bbox_pred, sample, self.cfg)
        return {**losses, "accuracy_cls": accuracy_cls(cls_score, sample)}

    def roi_features(self, features: Features, rois: Tensor) -> Tensor:
        """The features `[R, C, S, S]` of `[R, 5]` RoIs in the resolution that this head takes."""
        return pool_rois(features, rois, self.cfg, self.cfg.FAST_RCNN)

    def forward(self, roi_features: Tensor) -> tuple[Tensor, Tensor]:
        """`[R, C, S, S]` features to class logits `[R, K]` and box deltas `[R, 4B]`; class 0 is the background."""
        return self.predict(self.conv_features(roi_features))

    def conv_features(self, roi_features: Tensor) -> Tensor:
        """The convolutions' output `[R, C * S * S]`, channel by channel as fc6 reads it."""
        x: Tensor = self.convs(roi_features)
        if x.requires_grad:
            # The gradient comes back in fc6's order; what is before this layer is fast in channels-last memory alone.
            x.register_hook(_channels_last)  # type: ignore[no-untyped-call]
        return x.flatten(1)

    def predict(self, conv_features: Tensor) -> tuple[Tensor, Tensor]:
        """The second half of `forward`, from what `conv_features` gives."""
        x = F.relu_(self.fc6(conv_features))
        if self.fc7 is not None:
            x = F.relu_(self.fc7(x))
        return self.cls_score(x), self.bbox_pred(x)


def _channels_last(maps: Tensor) -> Tensor:
    return maps.contiguous(memory_format=torch.channels_last)
