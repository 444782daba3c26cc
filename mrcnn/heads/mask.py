"""The second stage's mask head; answers to Detectron modeling/mask_rcnn_heads.py."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectron_gn.mrcnn import kernels
from detectron_gn.mrcnn.config import Config, mask_head_kind
from detectron_gn.mrcnn.layers import ConvNorm, FilledConv2d, FilledDeconv2d, filler_named, group_norm
from detectron_gn.mrcnn.ops.roi_align import pool_rois
from detectron_gn.mrcnn.structures import Features
from detectron_gn.mrcnn.training.losses import mask_loss
from detectron_gn.mrcnn.training.roi_targets import RoiSample

NUM_CONVS = 4


class MaskHead(nn.Module):
    """Four 3x3 convolutions, a 2x2 deconvolution, and one 1x1 map a class (`v1up4convs`, `v1up4convs_gn`)."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg = cfg
        with_gn = mask_head_kind(cfg) == "v1up4convs_gn"
        fill = filler_named(cfg.MRCNN.CONV_INIT, std=0.001)
        dim_in, dim = cfg.FPN.DIM, cfg.MRCNN.DIM_REDUCED
        self.convs = nn.Sequential()
        for _ in range(NUM_CONVS):
            conv = FilledConv2d(dim_in, dim, 3, dilation=cfg.MRCNN.DILATION, bias=not with_gn, fill=fill)
            self.convs.append(ConvNorm(conv, group_norm(cfg, dim) if with_gn else None, relu=True))
            dim_in = dim
        self.conv5_mask = FilledDeconv2d(dim, dim, fill)
        self.mask_fcn_logits = FilledConv2d(dim, cfg.MODEL.NUM_CLASSES, 1, fill=fill)

    def outputs(self, features: Features, rois: Tensor, classes: Tensor) -> Tensor:
        """Mask logits `[R, M, M]` of `[R, 5]` RoIs, for the class of each in `classes [R]` int64."""
        return torch.cat(
            [
                self.of_classes(self.roi_features(features, part), of_part)
                for part, of_part in zip(kernels.roi_parts(rois), kernels.roi_parts(classes), strict=True)
            ]
        )

    def probabilities(self, features: Features, rois: Tensor, classes: Tensor) -> Tensor:
        """Soft masks `[R, M, M]` float32 of `[R, 5]` RoIs, for the class of each; R may be 0."""
        if not len(rois):
            return rois.new_zeros((0, self.cfg.MRCNN.RESOLUTION, self.cfg.MRCNN.RESOLUTION))
        return self.outputs(features, rois, classes).float().sigmoid()

    def outputs_of_all_classes(self, features: Features, rois: Tensor) -> Tensor:
        """Mask logits `[R, K, M, M]` of `[R, 5]` RoIs."""
        return torch.cat([self(self.roi_features(features, part)) for part in kernels.roi_parts(rois)])

    def losses(self, features: Features, sample: RoiSample) -> dict[str, Tensor]:
        """`loss_mask` of the sampled RoIs that are objects."""
        assert sample.masks is not None
        return mask_loss(self.outputs(features, sample.masks.rois, sample.masks.classes), sample.masks, self.cfg)

    def roi_features(self, features: Features, rois: Tensor) -> Tensor:
        """The features `[R, C, S, S]` of `[R, 5]` RoIs in the resolution that this head takes."""
        return pool_rois(features, rois, self.cfg, self.cfg.MRCNN)

    def forward(self, roi_features: Tensor) -> Tensor:
        """`[R, C, S, S]` features to mask logits `[R, K, 2S, 2S]`, one map a class."""
        logits: Tensor = self.mask_fcn_logits(self._upsampled(roi_features))
        return logits

    def of_classes(self, roi_features: Tensor, classes: Tensor) -> Tensor:
        """The maps `[R, 2S, 2S]` of one class for each RoI, `classes [R]` int64: all that masks are made of.

        The other classes' maps, 80 of 81 on COCO, are neither computed nor given a gradient, which would be zero.
        """
        x = self._upsampled(roi_features)
        weight, bias = self.mask_fcn_logits.weight.flatten(1), self.mask_fcn_logits.bias
        assert bias is not None
        rows = x.permute(0, 2, 3, 1).flatten(1, 2)
        logits = torch.baddbmm(bias[classes][:, None, None], rows, weight[classes][:, :, None])
        return logits.view(len(x), x.shape[2], x.shape[3])

    def _upsampled(self, roi_features: Tensor) -> Tensor:
        return F.relu_(self.conv5_mask(self.convs(roi_features)))
