"""Which way to the same numbers is taken, by device and mode; the ways themselves are the modules beside this one.

Whoever calls these functions gets what torch's own operator gives, but for the order of sums. The choices:

| function | CPU, detection | CPU, training | other devices |
| --- | --- | --- | --- |
| `conv2d`, 1x1 | torch | matrix product | torch |
| `conv2d`, 3x3, wide and large | Winograd | Winograd | torch |
| `sparsely_trained_conv2d` | as `conv2d` | gradient at few positions | torch |
| `group_norm`, large maps | exact sums, in place | exact sums | few copies, in place; torch in training |
| `affine_channel` | in place | torch | in place; torch in training |
| `roi_parts` | parts that stay in the cache | one part | one part |

While torch writes operators down (`mrcnn.tracing`) all are its own, and none is in place.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from detectron_gn.mrcnn.kernels.group_norm import exact_group_norm, exact_group_norm_in_place, group_norm_in_place
from detectron_gn.mrcnn.kernels.pointwise import pointwise_conv
from detectron_gn.mrcnn.kernels.sparse_gradient import sparse_gradient_conv
from detectron_gn.mrcnn.kernels.winograd import winograd_conv, winograd_pays
from detectron_gn.mrcnn.tracing import is_traced

# Maps of fewer positions than this stay in the processor's cache, and torch's GroupNorm is exact enough and faster.
LARGE_MAP = 1024
ROIS_AT_ONCE = 64


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: str | tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Tensor:
    """`F.conv2d`; the padding keeps the size at stride 1."""
    if _plain_on_cpu(x) and groups == 1:
        if weight.shape[2:] == (1, 1) and torch.is_grad_enabled():
            return pointwise_conv(x, weight, bias, stride[0])
        if stride == dilation == (1, 1) and winograd_pays(x, weight):
            return winograd_conv(x, weight, bias)
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def sparsely_trained_conv2d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.conv2d(x, weight, bias, padding=1)` of a 3x3 `weight`, whose gradient comes from few positions."""
    if torch.is_grad_enabled() and _plain_on_cpu(x):
        return sparse_gradient_conv(x, weight, bias)
    return conv2d(x, weight, bias, (1, 1), (1, 1), (1, 1), 1)


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """`F.group_norm` of `[N, C, H, W]`; without gradients the result may be `x` itself."""
    if is_traced():
        return F.group_norm(x.float(), groups, weight, bias, eps).to(x.dtype)
    if x.device.type != "cpu":
        if torch.is_grad_enabled():
            return F.group_norm(x, groups, weight, bias, eps)
        return group_norm_in_place(x, weight, bias, groups, eps)
    small = x.shape[2] * x.shape[3] < LARGE_MAP
    if x.dtype in (torch.bfloat16, torch.float16) and small:
        # torch's operator takes four times as long on many small maps of 16 bits as on float32.
        return F.group_norm(x.float(), groups, weight, bias, eps).to(x.dtype)
    if x.dtype != torch.float32 or small:
        return F.group_norm(x, groups, weight, bias, eps)
    if not torch.is_grad_enabled():
        return exact_group_norm_in_place(x, weight, bias, groups, eps)
    if x.is_contiguous():
        return F.group_norm(x, groups, weight, bias, eps)
    return exact_group_norm(x, weight, bias, groups, eps)


def affine_channel(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`x * weight + bias` per channel, in float32 and then in the type of `x`; the result may be `x` itself.

    Args:
        x: `[N, C, H, W]`.
        weight, bias: `[C]` float32.
    """
    weight, bias = weight[:, None, None], bias[:, None, None]
    if torch.is_grad_enabled() or is_traced():
        return torch.addcmul(bias, x, weight).to(x.dtype)
    return torch.addcmul(bias, x, weight, out=x)


def roi_parts(rois: Tensor) -> list[Tensor]:
    """RoIs, or what belongs to each of them, `[R, ...]`, in parts to compute one after another; at least one part.

    On a CPU without gradients the maps of a part stay in the processor's cache.
    """
    if torch.is_grad_enabled() or rois.device.type != "cpu" or is_traced():
        return [rois]
    return [rois[first : first + ROIS_AT_ONCE] for first in range(0, max(len(rois), 1), ROIS_AT_ONCE)]


def _plain_on_cpu(x: Tensor) -> bool:
    """Whether `x` is computed with in float32 on a CPU, by whatever operators."""
    if is_traced():
        return False
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
