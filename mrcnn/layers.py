"""The layers that carry parameters, and Caffe2's fillers; answers to Detectron modeling/detector.py."""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectron_gn.mrcnn import kernels
from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.errors import InputError

Filler = Callable[[Tensor], object]
ParameterKind = Literal["weight", "bias", "gn_scale", "gn_shift", "affine"]


def xavier_fill(weight: Tensor) -> object:
    """Caffe2 XavierFill: uniform in +-sqrt(3 / fan_in), with fan_in = size / shape[0]."""
    bound = math.sqrt(3.0 * weight.shape[0] / weight.numel())
    return nn.init.uniform_(weight, -bound, bound)


def msra_fill(weight: Tensor) -> object:
    """Caffe2 MSRAFill: normal with variance 2 / fan_out, with fan_out = size / shape[1].

    This is not torch's kaiming `fan_out` where shape[0] and shape[1] differ, and for a ConvTranspose the two
    dimensions swap their meaning (Caffe2 operators/filler_op.h: MSRAFillOp).
    """
    return nn.init.normal_(weight, std=math.sqrt(2.0 * weight.shape[1] / weight.numel()))


def gauss_fill(std: float) -> Filler:
    """Caffe2 GaussianFill with mean 0."""
    return partial(nn.init.normal_, std=std)


def zero_fill(weight: Tensor) -> object:
    """Caffe2 ConstantFill with value 0."""
    return nn.init.zeros_(weight)


def bilinear_fill(weight: Tensor) -> object:
    """The kernel that enlarges each map by itself, bilinearly: `[K, K, 2s, 2s]` for a factor of s.

    Detectron modeling/detector.py:BilinearInterpolation.
    """
    side = weight.shape[2]
    ramp = 1 - (torch.arange(side) - (side - 1) / 2).abs() / (side // 2)
    with torch.no_grad():
        weight.zero_()
        weight[range(len(weight)), range(len(weight))] = torch.outer(ramp, ramp)
    return weight


def filler_named(key: str, name: str, std: float) -> Filler:
    """The filler a YAML key names (`MRCNN.CONV_INIT`); `std` is used by GaussianFill alone."""
    fillers = {"XavierFill": xavier_fill, "MSRAFill": msra_fill, "GaussianFill": gauss_fill(std)}
    if name not in fillers:
        raise InputError(f"{key} is {name!r}: give one of {', '.join(fillers)}")
    return fillers[name]


class FilledConv2d(nn.Conv2d):
    """A convolution, by default padded to keep its size at stride 1, filled as Caffe2 does, with a zero bias."""

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        fill: Filler = xavier_fill,
        padding: int | None = None,
    ) -> None:
        self.fill = fill
        if padding is None:
            padding = dilation * (kernel - 1) // 2
        super().__init__(dim_in, dim_out, kernel, stride, padding, dilation, groups, bias)

    def reset_parameters(self) -> None:
        """Fill the weight; the bias starts at 0."""
        _fill(self, self.fill)

    def forward(self, x: Tensor) -> Tensor:
        return kernels.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class FilledDeconv2d(nn.ConvTranspose2d):
    """A deconvolution that makes maps `stride` times as large, filled as Caffe2 does, with a zero bias.

    Args:
        kernel: even, and at least `stride`.
    """

    def __init__(self, dim_in: int, dim_out: int, fill: Filler, kernel: int = 2, stride: int = 2) -> None:
        self.fill = fill
        super().__init__(dim_in, dim_out, kernel, stride, padding=(kernel - stride) // 2)

    def reset_parameters(self) -> None:
        """Fill the weight; the bias starts at 0."""
        _fill(self, self.fill)


class FilledLinear(nn.Linear):
    """A fully connected layer filled as Caffe2 does, with a zero bias."""

    def __init__(self, dim_in: int, dim_out: int, fill: Filler = xavier_fill) -> None:
        self.fill = fill
        super().__init__(dim_in, dim_out)

    def reset_parameters(self) -> None:
        """Fill the weight; the bias starts at 0."""
        _fill(self, self.fill)


def _fill(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, fill: Filler) -> None:
    # Drawing numbers for a tensor without memory would only load torch's compiler, which takes a second.
    if not layer.weight.is_meta:
        fill(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


class GroupNorm(nn.GroupNorm):
    """Group normalisation with scale 1 and shift 0 at first; answers to Detectron's SpatialGN."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `[N, C, H, W]`; without gradients the result may be `x` itself."""
        return kernels.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def group_norm(cfg: Config, channels: int) -> GroupNorm:
    """Group normalisation with scale 1 and shift 0, of as many groups as the config says.

    `cfg.GROUP_NORM.NUM_GROUPS` or `cfg.GROUP_NORM.DIM_PER_GP`, never both (Detectron utils/net.py:get_group_gn).
    """
    per_group, groups = cfg.GROUP_NORM.DIM_PER_GP, cfg.GROUP_NORM.NUM_GROUPS
    if per_group > 0 and groups > 0:
        raise InputError("GROUP_NORM.DIM_PER_GP and GROUP_NORM.NUM_GROUPS are both set: set one of them to -1")
    if per_group > 0:
        key, divisor, groups = "GROUP_NORM.DIM_PER_GP", per_group, channels // per_group
    else:
        key, divisor = "GROUP_NORM.NUM_GROUPS", groups
    if divisor < 1 or channels % divisor:
        raise InputError(f"{key} is {divisor}, which does not divide the {channels} channels of a layer: change it")
    return GroupNorm(groups, channels, eps=cfg.GROUP_NORM.EPSILON)


class AffineChannel(nn.Module):
    """A fixed scale and shift a channel, what is left of batch normalisation in the BN* baselines.

    Neither is ever trained (Detectron modeling/detector.py:AffineChannel).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(channels), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift `[N, C, H, W]`, in float32 and then in the type of `x`; the result may be `x` itself."""
        return kernels.affine_channel(x, self.weight, self.bias)


class ConvNorm(nn.Module):
    """A convolution, its normalisation (GroupNorm, AffineChannel or none) and an optional ReLU.

    Detectron modeling/detector.py:ConvGN and ConvAffine, and the bare Conv of the layers that have neither.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.Module | None, *, relu: bool) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return F.relu_(x) if self.relu else x


def parameter_kinds(model: nn.Module) -> dict[str, ParameterKind]:
    """What each parameter of a model is, by name: the solver and the blob dictionary both go by this."""
    kinds: dict[str, ParameterKind] = {}
    for path, module in model.named_modules():
        for name, _ in module.named_parameters(prefix=path, recurse=False):
            is_weight = name.endswith("weight")
            if isinstance(module, AffineChannel):
                kinds[name] = "affine"
            elif isinstance(module, nn.GroupNorm):
                kinds[name] = "gn_scale" if is_weight else "gn_shift"
            else:
                kinds[name] = "weight" if is_weight else "bias"
    return kinds
