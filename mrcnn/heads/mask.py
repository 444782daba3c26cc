"""The second stage's mask head; answers to Detectron modeling/mask_rcnn_heads.py."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectron_gn.mrcnn import kernels
from detectron_gn.mrcnn.backbones.resnet import STAGE_CHANNELS, res5_of_rois
from detectron_gn.mrcnn.config import Config, mask_head_kind, num_mask_classes
from detectron_gn.mrcnn.layers import (
    ConvNorm,
    FilledConv2d,
    FilledDeconv2d,
    FilledLinear,
    Filler,
    bilinear_fill,
    filler_named,
    gauss_fill,
    group_norm,
)
from detectron_gn.mrcnn.ops.pool_rois import pool_rois
from detectron_gn.mrcnn.structures import Features
from detectron_gn.mrcnn.tracing import refuse_export
from detectron_gn.mrcnn.training.losses import mask_loss
from detectron_gn.mrcnn.training.roi_targets import RoiSample

# 3x3 convolutions before the deconvolution.
NUM_CONVS = {"v1up": 2, "v1up4convs": 4, "v1up4convs_gn": 4}

# The width inside res5 of a mask head, whatever the body's is (Detectron mask_rcnn_heads.py).
RES5_WIDTH = 512


class MaskHead(nn.Module):
    """What comes before it, a 2x2 deconvolution, and one 1x1 map a class, as `cfg.MRCNN.ROI_MASK_HEAD` names it.

    Before it are 3x3 convolutions (`v1up`, `v1up4convs`, `v1up4convs_gn`), or stage res5 of the ResNet: its own
    (`v0up`) or the box head's (`v0upshare`): computed anew in detection, since the RoIs are others, and in training
    taken from the box head, whose RoIs those of objects are among (Detectron modeling/mask_rcnn_heads.py: SampleAs).

    `cfg.MRCNN` has variants of the last layer: one map for all classes (CLS_SPECIFIC_MASK False), a fully connected
    layer (USE_FC_OUTPUT), bilinear upsampling after it (UPSAMPLE_RATIO), whose kernel is in the file and never trained.

    Args:
        dim: channels of the features.
        shared_res5: the box head's.
    """

    def __init__(self, cfg: Config, dim: int, shared_res5: nn.Sequential | None) -> None:
        super().__init__()
        self.cfg = cfg
        kind = mask_head_kind(cfg)
        with_gn = kind == "v1up4convs_gn"
        fill = filler_named("MRCNN.CONV_INIT", cfg.MRCNN.CONV_INIT, std=0.001)
        width = cfg.MRCNN.DIM_REDUCED
        self.convs = nn.Sequential()
        for _ in range(NUM_CONVS.get(kind, 0)):
            conv = FilledConv2d(dim, width, 3, dilation=cfg.MRCNN.DILATION, bias=not with_gn, fill=fill)
            self.convs.append(ConvNorm(conv, group_norm(cfg, width) if with_gn else None, relu=True))
            dim = width
        self.res5: nn.Sequential | None = None
        # In a tuple the shared stage is no part of this module: its parameters are the box head's.
        self._shared: tuple[nn.Sequential, ...] = ()
        deconv_fill = fill
        if kind == "v0up":
            self.res5 = res5_of_rois(cfg, RES5_WIDTH, cfg.MRCNN.ROI_XFORM_RESOLUTION, cfg.MRCNN.DILATION)
            dim, deconv_fill = STAGE_CHANNELS[-1], gauss_fill(0.001)
        elif kind == "v0upshare":
            assert shared_res5 is not None
            self._shared = (shared_res5,)
            dim = STAGE_CHANNELS[-1]
        self.conv5_mask = FilledDeconv2d(dim, width, deconv_fill)
        self.num_classes = num_mask_classes(cfg)
        self.mask_fcn_logits, self.mask_fcn_logits_up = _last_layers(cfg, fill)

    @property
    def pools_for_body(self) -> bool:
        """Whether what is pooled goes into res5, a stage of the body."""
        return mask_head_kind(self.cfg) in ("v0up", "v0upshare")

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
            refuse_export("of no RoIs there are no masks, which is decided")
            return rois.new_zeros((0, self.cfg.MRCNN.RESOLUTION, self.cfg.MRCNN.RESOLUTION))
        return self.outputs(features, rois, classes).float().sigmoid()

    def outputs_of_all_classes(self, features: Features, rois: Tensor) -> Tensor:
        """Mask logits `[R, K, M, M]` of `[R, 5]` RoIs; K is 1 for one mask for all classes."""
        return torch.cat([self(self.roi_features(features, part)) for part in kernels.roi_parts(rois)])

    def losses(self, features: Features, sample: RoiSample, box_maps: Tensor) -> dict[str, Tensor]:
        """`loss_mask` of the sampled RoIs that are objects.

        Args:
            box_maps: `[R, C, S, S]`, what `BoxHead.trunk` made of all sampled RoIs.
        """
        masks = sample.masks
        assert masks is not None
        if self._shared:
            logits = self._of_classes(box_maps[masks.rows], masks.classes)
        else:
            logits = self.outputs(features, masks.rois, masks.classes)
        return mask_loss(logits, masks, self.cfg)

    def roi_features(self, features: Features, rois: Tensor) -> Tensor:
        """The features `[R, C, S, S]` of `[R, 5]` RoIs in the resolution that this head takes."""
        return pool_rois(features, rois, self.cfg, self.cfg.MRCNN)

    def forward(self, roi_features: Tensor) -> Tensor:
        """`[R, C, S, S]` features to mask logits `[R, K, M, M]`, one map a class or one for all."""
        return self._of_all(self.trunk(roi_features))

    def _of_all(self, maps: Tensor) -> Tensor:
        x = F.relu_(self.conv5_mask(maps))
        if isinstance(self.mask_fcn_logits, FilledLinear):
            size = self.cfg.MRCNN.RESOLUTION
            flat: Tensor = self.mask_fcn_logits(x.flatten(1))
            return flat.view(len(x), self.num_classes, size, size)
        logits: Tensor = self.mask_fcn_logits(x)
        return logits if self.mask_fcn_logits_up is None else self.mask_fcn_logits_up(logits)

    def of_classes(self, roi_features: Tensor, classes: Tensor) -> Tensor:
        """The maps `[R, M, M]` of one class for each RoI, `classes [R]` int64: all that masks are made of.

        The other classes' maps, 80 of 81 on COCO, are neither computed nor given a gradient, which would be zero.
        """
        return self._of_classes(self.trunk(roi_features), classes)

    def _of_classes(self, maps: Tensor, classes: Tensor) -> Tensor:
        channels = classes.clamp(max=self.num_classes - 1)
        if isinstance(self.mask_fcn_logits, FilledLinear) or self.mask_fcn_logits_up is not None:
            every = self._of_all(maps)
            return every[torch.arange(len(channels), device=channels.device), channels]
        x = F.relu_(self.conv5_mask(maps))
        weight, bias = self.mask_fcn_logits.weight.flatten(1), self.mask_fcn_logits.bias
        assert bias is not None
        rows = x.permute(0, 2, 3, 1).flatten(1, 2)
        logits = torch.baddbmm(bias[channels][:, None, None], rows, weight[channels][:, :, None])
        return logits.view(len(x), x.shape[2], x.shape[3])

    @property
    def trunk(self) -> nn.Sequential:
        """What comes before the deconvolution: convolutions, or stage res5, its own or the box head's."""
        return self.res5 or next(iter(self._shared), self.convs)


def _last_layers(cfg: Config, fill: Filler) -> tuple[FilledConv2d | FilledLinear, FilledDeconv2d | None]:
    """What makes logits, and what enlarges them (Detectron modeling/mask_rcnn_heads.py:add_mask_rcnn_outputs)."""
    mask, classes = cfg.MRCNN, num_mask_classes(cfg)
    if mask.USE_FC_OUTPUT:
        inputs = mask.DIM_REDUCED * (mask.RESOLUTION // mask.UPSAMPLE_RATIO) ** 2
        return FilledLinear(inputs, classes * mask.RESOLUTION**2, gauss_fill(0.001)), None
    logits = FilledConv2d(mask.DIM_REDUCED, classes, 1, fill=fill if mask.CLS_SPECIFIC_MASK else gauss_fill(0.001))
    if mask.UPSAMPLE_RATIO == 1:
        return logits, None
    enlarged = FilledDeconv2d(classes, classes, bilinear_fill, 2 * mask.UPSAMPLE_RATIO, mask.UPSAMPLE_RATIO)
    return logits, enlarged.requires_grad_(False)
