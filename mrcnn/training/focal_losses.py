"""Focal losses, summed; answers to Caffe2's modules/detectron/sigmoid_focal_loss_op.cu and softmax_focal_loss_op.cu."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# The least probability that the kernels take the logarithm of (C's FLT_MIN).
_LEAST_LOG = math.log(torch.finfo(torch.float32).tiny)


def sigmoid_focal_loss(logits: Tensor, labels: Tensor, gamma: float, alpha: float) -> Tensor:
    """The sum `[]` over all anchors and classes.

    Args:
        logits: `[N, A, C, H, W]` float32 of C classes.
        labels: `[N, A, H, W]` int64, the class from 1 on, 0 for the background, -1 for anchors that do not count.

    With p the sigmoid of a logit, the anchor's own class counts `-alpha (1 - p)^gamma log p` and every other class
    `-(1 - alpha) p^gamma log(1 - p)`.
    """
    total: Tensor = _SigmoidFocalLoss.apply(logits, labels, gamma, alpha)  # type: ignore[no-untyped-call]
    return total


def softmax_focal_loss(logits: Tensor, labels: Tensor, gamma: float, alpha: float) -> Tensor:
    """The sum `[]` over all anchors.

    Args:
        logits: `[N, A, C, H, W]` float32 of C classes, the background first.
        labels: as of `sigmoid_focal_loss`.

    With p the softmax of the anchor's own class, it counts `-(1 - p)^gamma log p`, times alpha for an object and
    1 - alpha for the background.
    """
    own = labels.clamp(min=0)[:, :, None]
    log_p = logits.log_softmax(dim=2).gather(2, own)[:, :, 0]
    weight = torch.where(labels > 0, alpha, 1 - alpha).where(labels >= 0, 0.0)
    # The kernels bound the logarithm, but not the gradient.
    bounded = log_p + (log_p.detach().clamp(min=_LEAST_LOG) - log_p.detach())
    return -(weight * (1 - log_p.exp()) ** gamma * bounded).sum()


class _SigmoidFocalLoss(torch.autograd.Function):
    """With the gradient made along with the loss: of these maps no more than one is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, gamma: float, alpha: float) -> Tensor:
        p = logits.sigmoid()
        # -log(1 - p)
        surprise = F.softplus(logits)
        weight = p**gamma * ((1 - alpha) * (labels >= 0))[:, :, None]
        losses = weight * surprise
        gradient = surprise.mul_(1 - p).mul_(gamma).add_(p).mul_(weight)
        # Objects are few: their own class is written over what it would be as another one.
        image, anchor, y, x = (labels > 0).nonzero().unbind(1)
        own = (image, anchor, labels[image, anchor, y, x] - 1, y, x)
        p, log_p = p[own], F.logsigmoid(logits[own]).clamp(min=_LEAST_LOG)
        share = alpha * (1 - p) ** gamma
        losses[own] = -share * log_p
        gradient[own] = -share * (1 - p - gamma * p * log_p)
        ctx.save_for_backward(gradient)
        return losses.sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_of_sum: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradient_of_sum, None, None, None
