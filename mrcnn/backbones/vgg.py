"""VGG16 and VGG_CNN_M_1024; answers to Detectron modeling/VGG16.py and VGG_CNN_M_1024.py."""

import torch.nn.functional as F
from torch import Tensor, nn

from detectron_gn.mrcnn.layers import ConvNorm, FilledConv2d
from detectron_gn.mrcnn.structures import Features

# Of VGG16: the widths of its stages and the number of 3x3 convolutions of each; 2x2 maxima halve the maps in between.
VGG16_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class VGG16(nn.Module):
    """Thirteen 3x3 convolutions with ReLU: images to one map of stride 16. The first two stages are frozen."""

    strides = (16,)
    dim = 512

    def __init__(self) -> None:
        super().__init__()
        dim_in = 3
        for number, (dim, count) in enumerate(VGG16_STAGES, 1):
            for place in range(1, count + 1):
                conv = FilledConv2d(dim_in, dim, 3)
                self.add_module(f"conv{number}_{place}", ConvNorm(conv, None, relu=True))
                dim_in = dim
            if number <= 2:
                for place in range(1, count + 1):
                    self.get_submodule(f"conv{number}_{place}").requires_grad_(False)

    def forward(self, data: Tensor) -> Features:
        """`[N, 3, H, W]` prepared images, of any size, to `[N, 512, H / 16, W / 16]`, sides rounded down."""
        x = data
        for number, (_, count) in enumerate(VGG16_STAGES, 1):
            if number > 1:
                x = F.max_pool2d(x, kernel_size=2, stride=2)
            for place in range(1, count + 1):
                x = self.get_submodule(f"conv{number}_{place}")(x)
        return Features([x], self.strides)


class VGG_CNN_M_1024(nn.Module):
    """Five convolutions with ReLU, the first two without padding: images to one map of stride 16. conv1 is frozen."""

    strides = (16,)
    dim = 512

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvNorm(FilledConv2d(3, 96, 7, stride=2, padding=0), None, relu=True).requires_grad_(False)
        self.norm1 = nn.LocalResponseNorm(size=5, alpha=0.0005, beta=0.75, k=2.0)
        self.conv2 = ConvNorm(FilledConv2d(96, 256, 5, stride=2, padding=0), None, relu=True)
        self.norm2 = nn.LocalResponseNorm(size=5, alpha=0.0005, beta=0.75, k=2.0)
        self.conv3 = ConvNorm(FilledConv2d(256, 512, 3), None, relu=True)
        self.conv4 = ConvNorm(FilledConv2d(512, 512, 3), None, relu=True)
        self.conv5 = ConvNorm(FilledConv2d(512, 512, 3), None, relu=True)

    def forward(self, data: Tensor) -> Features:
        """`[N, 3, H, W]` prepared images to `[N, 512, h, w]`, where h and w are about H / 16 and W / 16."""
        x = F.max_pool2d(self.norm1(self.conv1(data)), kernel_size=3, stride=2)
        x = F.max_pool2d(self.norm2(self.conv2(x)), kernel_size=3, stride=2)
        return Features([self.conv5(self.conv4(self.conv3(x)))], self.strides)
