"""The second stage's keypoint head; answers to Detectron modeling/keypoint_rcnn_heads.py."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectron_gn.mrcnn import kernels
from detectron_gn.mrcnn.backbones.resnet import STAGE_CHANNELS, res5_of_rois
from detectron_gn.mrcnn.config import Config, keypoint_head_kind
from detectron_gn.mrcnn.layers import (
    ConvNorm,
    FilledConv2d,
    FilledDeconv2d,
    bilinear_fill,
    filler_named,
    gauss_fill,
)
from detectron_gn.mrcnn.ops.pool_rois import pool_rois
from detectron_gn.mrcnn.structures import Features
from detectron_gn.mrcnn.tracing import refuse_export
from detectron_gn.mrcnn.training.losses import keypoint_loss
from detectron_gn.mrcnn.training.roi_targets import RoiSample

# The width inside res5 of a keypoint head, whatever the body's is (Detectron keypoint_rcnn_heads.py).
RES5_WIDTH = 512


class KeypointHead(nn.Module):
    """Convolutions with ReLU (`v1convX`) or stage res5 of a ResNet, then one heatmap a keypoint.

    The heatmaps come from a deconvolution (`cfg.KRCNN.USE_DECONV_OUTPUT`) or a 1x1 convolution, perhaps after another
    deconvolution (`USE_DECONV`), and are enlarged by a deconvolution that interpolates (`UP_SCALE`). Detectron saves
    the weights of the last one with all others, and never trains them.

    Args:
        dim: channels of the features.
    """

    def __init__(self, cfg: Config, dim: int) -> None:
        super().__init__()
        self.cfg = cfg
        points = cfg.KRCNN
        self.res5: nn.Sequential | None = None
        self.convs = nn.Sequential()
        if keypoint_head_kind(cfg) == "res5":
            self.res5 = res5_of_rois(cfg, RES5_WIDTH, points.ROI_XFORM_RESOLUTION, points.DILATION)
            dim = STAGE_CHANNELS[-1]
        else:
            fill = filler_named("KRCNN.CONV_INIT", points.CONV_INIT, std=0.01)
            for _ in range(points.NUM_STACKED_CONVS):
                conv = FilledConv2d(dim, points.CONV_HEAD_DIM, points.CONV_HEAD_KERNEL, fill=fill)
                self.convs.append(ConvNorm(conv, None, relu=True))
                dim = points.CONV_HEAD_DIM
        self.kps_deconv: FilledDeconv2d | None = None
        if points.USE_DECONV:
            self.kps_deconv = FilledDeconv2d(dim, points.DECONV_DIM, gauss_fill(0.01), points.DECONV_KERNEL)
            dim = points.DECONV_DIM
        fill = filler_named("KRCNN.CONV_INIT", points.CONV_INIT, std=0.001)
        self.score: FilledConv2d | FilledDeconv2d
        if points.USE_DECONV_OUTPUT:
            self.score = FilledDeconv2d(dim, points.NUM_KEYPOINTS, fill, points.DECONV_KERNEL)
        else:
            self.score = FilledConv2d(dim, points.NUM_KEYPOINTS, 1, fill=fill)
        self.upsample: FilledDeconv2d | None = None
        if points.UP_SCALE > 1:
            count, scale = points.NUM_KEYPOINTS, points.UP_SCALE
            self.upsample = FilledDeconv2d(count, count, bilinear_fill, 2 * scale, scale)
            self.upsample.requires_grad_(False)

    def outputs(self, features: Features, rois: Tensor) -> Tensor:
        """Heatmaps `[R, K, M, M]` of `[R, 5]` RoIs: logits over the positions of each map; R may be 0."""
        if not len(rois):
            refuse_export("of no RoIs there are no heatmaps, which is decided")
            side = self.cfg.KRCNN.HEATMAP_SIZE
            return rois.new_zeros((0, self.cfg.KRCNN.NUM_KEYPOINTS, side, side))
        return torch.cat([self(self.roi_features(features, part)) for part in kernels.roi_parts(rois)])

    def losses(self, features: Features, sample: RoiSample) -> dict[str, Tensor]:
        """`loss_kps` of the RoIs that hold visible keypoints; 0 where there is none."""
        keypoints = sample.keypoints
        assert keypoints is not None
        # Of no RoI as well: every parameter has a gradient in every process.
        return keypoint_loss(self(self.roi_features(features, keypoints.rois)), keypoints, self.cfg)

    def roi_features(self, features: Features, rois: Tensor) -> Tensor:
        """The features `[R, C, S, S]` of `[R, 5]` RoIs in the resolution that this head takes."""
        return pool_rois(features, rois, self.cfg, self.cfg.KRCNN)

    def forward(self, roi_features: Tensor) -> Tensor:
        """`[R, C, S, S]` features to heatmaps `[R, K, M, M]`."""
        x: Tensor = (self.res5 or self.convs)(roi_features)
        if self.kps_deconv is not None:
            x = F.relu_(self.kps_deconv(x))
        x = self.score(x)
        return x if self.upsample is None else self.upsample(x)
