"""The feature pyramid; answers to Detectron modeling/FPN.py:add_fpn."""

import torch.nn.functional as F
from torch import Tensor, nn

from detectron_gn.mrcnn.backbones.resnet import STAGE_CHANNELS, ResNet
from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.layers import ConvNorm, FilledConv2d, Filler, group_norm, xavier_fill, zero_fill
from detectron_gn.mrcnn.structures import Features


def _conv(cfg: Config, dim_in: int, kernel: int, fill: Filler) -> ConvNorm:
    """A pyramid convolution: with GroupNorm and no bias (`cfg.FPN.USE_GN`), or with a bias alone; never a ReLU."""
    gn = group_norm(cfg, cfg.FPN.DIM) if cfg.FPN.USE_GN else None
    return ConvNorm(FilledConv2d(dim_in, cfg.FPN.DIM, kernel, bias=gn is None, fill=fill), gn, relu=False)


class PyramidBackbone(nn.Module):
    """A ResNet body under a feature pyramid: images to the levels P2 to P6, strides 4 to 64."""

    strides = (4, 8, 16, 32, 64)

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.body = ResNet(cfg)
        self.fpn = FPN(cfg)

    def forward(self, data: Tensor) -> Features:
        """`[N, 3, H, W]` prepared images, H and W multiples of 32, to their features."""
        return Features(self.fpn(self.body(data)), self.strides)


class FPN(nn.Module):
    """Lateral 1x1 convolutions, a top-down sum of nearest neighbours, a 3x3 convolution a level, and P6.

    `inner` and `output` hold one ConvNorm a stage, coarsest first, as Detectron creates them.
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        # The coarsest stage seeds the recursion and is never zero-filled (Detectron modeling/FPN.py:add_fpn).
        lateral_fill = zero_fill if cfg.FPN.ZERO_INIT_LATERAL else xavier_fill
        fills = {"res5": xavier_fill, "res4": lateral_fill, "res3": lateral_fill, "res2": lateral_fill}
        dims = zip(fills.items(), reversed(STAGE_CHANNELS), strict=True)
        self.inner = nn.ModuleDict({stage: _conv(cfg, dim, 1, fill) for (stage, fill), dim in dims})
        self.output = nn.ModuleDict({stage: _conv(cfg, cfg.FPN.DIM, 3, xavier_fill) for stage in fills})

    def forward(self, stages: list[Tensor]) -> list[Tensor]:
        """Outputs of res2 to res5 to the levels P2 to P6, finest first, each `[N, cfg.FPN.DIM, H, W]`.

        Every stage is half the size of the one before; images padded to `cfg.FPN.COARSEST_STRIDE` see to that.
        GroupNorm stands on the lateral before the sum, nothing after it. P6 takes every second position of P5, as
        Detectron's MaxPool with kernel 1 does, and serves the RPN alone.
        """
        levels: list[Tensor] = []
        top_down: Tensor | None = None
        for name, stage in zip(self.inner, reversed(stages), strict=True):
            lateral = self.inner[name](stage)
            top_down = lateral if top_down is None else lateral.add_(self.upsampled(top_down))
            levels.insert(0, self.output[name](top_down))
        return [*levels, levels[-1][:, :, ::2, ::2]]

    @staticmethod
    def upsampled(x: Tensor) -> Tensor:
        """`[N, C, H, W]` to `[N, C, 2H, 2W]`, nearest neighbours: each value twice (Detectron's UpsampleNearest)."""
        return F.interpolate(x, scale_factor=2.0)
