"""The feature pyramid; answers to Detectron modeling/FPN.py:add_fpn."""

import torch.nn.functional as F
from torch import Tensor, nn

from detectron_gn.mrcnn.backbones.resnet import STAGE_CHANNELS, ResNet
from detectron_gn.mrcnn.config import Config, pyramid_levels
from detectron_gn.mrcnn.layers import ConvNorm, FilledConv2d, Filler, group_norm, xavier_fill, zero_fill
from detectron_gn.mrcnn.structures import Features

# The coarsest stage of the body, res5, and the level of the pyramid that is made of it.
_LAST_STAGE = 5


def _conv(cfg: Config, dim_in: int, kernel: int, fill: Filler) -> ConvNorm:
    """A pyramid convolution: with GroupNorm and no bias (`cfg.FPN.USE_GN`), or with a bias alone; never a ReLU."""
    gn = group_norm(cfg, cfg.FPN.DIM) if cfg.FPN.USE_GN else None
    return ConvNorm(FilledConv2d(dim_in, cfg.FPN.DIM, kernel, bias=gn is None, fill=fill), gn, relu=False)


class PyramidBackbone(nn.Module):
    """A ResNet body under a feature pyramid: images to its levels, P2 to P6 of two-stage models, P3 to P7 of RetinaNet.

    Level l has stride 2^l.
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.body = ResNet(cfg)
        self.fpn = FPN(cfg)
        self.dim = cfg.FPN.DIM
        self.strides = tuple(2**level for level in pyramid_levels(cfg))

    def forward(self, data: Tensor) -> Features:
        """`[N, 3, H, W]` prepared images, H and W multiples of 32, to their features."""
        return Features(self.fpn(self.body(data)), self.strides)


class FPN(nn.Module):
    """Lateral 1x1 convolutions, a top-down sum of nearest neighbours, a 3x3 convolution a level, and what is coarser.

    `inner` and `output` hold one ConvNorm a stage, coarsest first, as Detectron creates them. Above level 5 there is P6
    without parameters, or, with `cfg.FPN.EXTRA_CONV_LEVELS`, a convolution a level in `extra`.
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        # The coarsest stage seeds the recursion and is never zero-filled (Detectron modeling/FPN.py:add_fpn).
        lateral_fill = zero_fill if cfg.FPN.ZERO_INIT_LATERAL else xavier_fill
        levels = pyramid_levels(cfg)
        self.inner, self.output, self.extra = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        of_body = range(_LAST_STAGE, levels.start - 1, -1)
        # All of one kind, then all of the other, so that the same seed fills them as it always did.
        for level in of_body:
            fill = xavier_fill if level == _LAST_STAGE else lateral_fill
            self.inner[f"res{level}"] = _conv(cfg, STAGE_CHANNELS[level - 2], 1, fill)
        for level in of_body:
            self.output[f"res{level}"] = _conv(cfg, cfg.FPN.DIM, 3, xavier_fill)
        above = range(_LAST_STAGE + 1, levels.stop)
        if cfg.FPN.EXTRA_CONV_LEVELS:
            dim = STAGE_CHANNELS[-1]
            for level in above:
                self.extra[f"P{level}"] = FilledConv2d(dim, cfg.FPN.DIM, 3, stride=2)
                dim = cfg.FPN.DIM
        self.has_subsampled_level = len(above) > 0 and not self.extra

    def forward(self, stages: list[Tensor]) -> list[Tensor]:
        """Outputs of res2 to res5 to the levels of the pyramid, finest first, each `[N, cfg.FPN.DIM, H, W]`.

        Every stage is half the size of the one before; images padded to `cfg.FPN.COARSEST_STRIDE` see to that.
        GroupNorm stands on the lateral before the sum, nothing after it. P6 takes every second position of P5, a
        maximum of one, as in Detectron, and serves the RPN alone. The convolutions of `extra` begin at the
        output of res5, not at P5; each further one reads the ReLU of the level before, which itself has none.
        """
        levels: list[Tensor] = []
        top_down: Tensor | None = None
        for name, stage in zip(self.inner, reversed(stages)):
            lateral = self.inner[name](stage)
            top_down = lateral if top_down is None else lateral.add_(self.upsampled(top_down))
            levels.insert(0, self.output[name](top_down))
        if self.has_subsampled_level:
            levels.append(F.max_pool2d(levels[-1], kernel_size=1, stride=2))
        above = stages[-1]
        for conv in self.extra.values():
            levels.append(conv(above))
            above = F.relu(levels[-1])
        return levels

    @staticmethod
    def upsampled(x: Tensor) -> Tensor:
        """`[N, C, H, W]` to `[N, C, 2H, 2W]`, nearest neighbours: each value twice (Detectron's UpsampleNearest)."""
        return F.interpolate(x, scale_factor=2.0)
