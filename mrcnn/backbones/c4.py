"""A ResNet up to res4, for heads that go on with res5; answers to Detectron modeling/ResNet.py."""

from torch import Tensor, nn

from detectron_gn.mrcnn.backbones.resnet import STAGE_CHANNELS, ResNet
from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.structures import Features


class C4Backbone(nn.Module):
    """A ResNet without res5: images to one map of stride 16."""

    strides = (16,)
    dim = STAGE_CHANNELS[2]

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.body = ResNet(cfg, last_stage=4)

    def forward(self, data: Tensor) -> Features:
        """`[N, 3, H, W]` prepared images, of any size, to `[N, 1024, H / 16, W / 16]`, sides rounded up."""
        return Features([self.body(data)[-1]], self.strides)
