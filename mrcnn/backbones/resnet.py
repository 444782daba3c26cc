"""The ResNet body, or ResNeXt, with GroupNorm or AffineChannel; answers to Detectron modeling/ResNet.py."""

import torch.nn.functional as F
from torch import Tensor, nn

from detectron_gn.mrcnn.config import Config, backbone_depth, norm_of_backbone
from detectron_gn.mrcnn.layers import AffineChannel, ConvNorm, FilledConv2d, group_norm
from detectron_gn.mrcnn.ops.max_pool import max_pool

BLOCK_COUNTS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STEM_CHANNELS = 64
STAGE_CHANNELS = (256, 512, 1024, 2048)


def _conv_norm(
    cfg: Config,
    dim_in: int,
    dim_out: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    relu: bool,
) -> ConvNorm:
    """A convolution without bias and the normalisation that the config chose for the body."""
    conv = FilledConv2d(dim_in, dim_out, kernel, stride=stride, dilation=dilation, groups=groups, bias=False)
    norm = group_norm(cfg, dim_out) if norm_of_backbone(cfg) == "gn" else AffineChannel(dim_out)
    return ConvNorm(conv, norm, relu=relu)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut, named as Detectron names them.

    The stride stands on the 3x3 convolution, or on the first 1x1 with `cfg.RESNETS.STRIDE_1X1` (the MSRA weights of
    the BN* baselines); no shape shows which (Detectron modeling/ResNet.py:bottleneck_transformation).
    """

    def __init__(
        self, cfg: Config, dim_in: int, dim_inner: int, dim_out: int, stride: int, dilation: int = 1
    ) -> None:
        super().__init__()
        stride_1x1, stride_3x3 = (stride, 1) if cfg.RESNETS.STRIDE_1X1 else (1, stride)
        groups = cfg.RESNETS.NUM_GROUPS
        self.branch2a = _conv_norm(cfg, dim_in, dim_inner, 1, stride=stride_1x1, relu=True)
        self.branch2b = _conv_norm(
            cfg, dim_inner, dim_inner, 3, stride=stride_3x3, dilation=dilation, groups=groups, relu=True
        )
        self.branch2c = _conv_norm(cfg, dim_inner, dim_out, 1, relu=False)
        self.branch1 = None
        if dim_in != dim_out:
            self.branch1 = _conv_norm(cfg, dim_in, dim_out, 1, stride=stride, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.branch1 is None else self.branch1(x)
        return F.relu_(self.branch2c(self.branch2b(self.branch2a(x))).add_(shortcut))


def stage(
    cfg: Config, count: int, dim_in: int, dim_inner: int, dim_out: int, stride: int, dilation: int = 1
) -> nn.Sequential:
    """`count` blocks, the first of which changes the width and, where nothing is dilated, has the stride.

    Detectron modeling/ResNet.py:add_stage, add_residual_block.
    """
    blocks = [Bottleneck(cfg, dim_in, dim_inner, dim_out, stride if dilation == 1 else 1, dilation)]
    blocks += [Bottleneck(cfg, dim_out, dim_inner, dim_out, 1, dilation) for _ in range(count - 1)]
    return nn.Sequential(*blocks)


def res5_of_rois(cfg: Config, dim_inner: int, resolution: int, dilation: int = 1) -> nn.Sequential:
    """Stage res5 of a ResNet as a head on RoIs pooled from res4: `[R, 1024, S, S]` to `[R, 2048, 7, 7]`.

    Args:
        dim_inner: width inside the bottlenecks.
        resolution: S; the stride is a seventh of it. Dilated, the stage has none.
    """
    return stage(cfg, 3, STAGE_CHANNELS[2], dim_inner, STAGE_CHANNELS[3], resolution // 7, dilation)


class ResNet(nn.Module):
    """Stem and stages res2 to res5 of a ResNet-50, -101 or -152; or only those up to `last_stage`.

    The widths inside the bottlenecks come from `cfg.RESNETS.NUM_GROUPS * cfg.RESNETS.WIDTH_PER_GROUP`; the widths
    between them are fixed. The stem and the stages up to `cfg.TRAIN.FREEZE_AT` ask for no gradient; 0 freezes nothing.
    """

    def __init__(self, cfg: Config, last_stage: int = 5) -> None:
        super().__init__()
        self.stages = range(2, last_stage + 1)
        self.conv1 = _conv_norm(cfg, 3, STEM_CHANNELS, 7, stride=2, relu=True)
        dim_in, dim_inner = STEM_CHANNELS, cfg.RESNETS.NUM_GROUPS * cfg.RESNETS.WIDTH_PER_GROUP
        for number, count, dim_out in zip(self.stages, BLOCK_COUNTS[backbone_depth(cfg)], STAGE_CHANNELS):
            # res2 follows the max pooling and keeps its resolution.
            self.add_module(f"res{number}", stage(cfg, count, dim_in, dim_inner, dim_out, 1 if number == 2 else 2))
            dim_in, dim_inner = dim_out, 2 * dim_inner
        frozen_stages = range(2, min(cfg.TRAIN.FREEZE_AT, last_stage) + 1)
        if frozen_stages:
            for part in ("conv1", *(f"res{number}" for number in frozen_stages)):
                self.get_submodule(part).requires_grad_(False)

    def forward(self, data: Tensor) -> list[Tensor]:
        """`[N, 3, H, W]` prepared images to the outputs of res2 to res5, strides 4, 8, 16 and 32.

        No gradient passes into the frozen part (Detectron modeling/ResNet.py:add_ResNet_convX_body, StopGradient).
        """
        x = max_pool(self.conv1(data))
        outputs = []
        for number in self.stages:
            x = self.get_submodule(f"res{number}")(x)
            outputs.append(x)
        return outputs
