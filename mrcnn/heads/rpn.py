"""The region proposal network's head; answers to Detectron modeling/FPN.py:add_fpn_rpn_outputs."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.kernels.sparse_gradient import sparse_gradient_conv
from detectron_gn.mrcnn.layers import FilledConv2d, gauss_fill, plain_on_cpu


class RPN(nn.Module):
    """A 3x3 convolution with ReLU and two 1x1 convolutions, shared by all levels, without normalisation."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        dim, anchors = cfg.FPN.DIM, len(cfg.FPN.RPN_ASPECT_RATIOS)
        self.conv = FilledConv2d(dim, dim, 3, fill=gauss_fill(0.01))
        self.cls_logits = FilledConv2d(dim, anchors, 1, fill=gauss_fill(0.01))
        self.bbox_pred = FilledConv2d(dim, 4 * anchors, 1, fill=gauss_fill(0.01))

    def forward(self, levels: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Objectness logits `[N, A, H, W]` and box deltas `[N, 4A, H, W]` of each level `[N, C, H, W]`."""
        hidden = (F.relu_(self._convolved(level)) for level in levels)
        return [(self.cls_logits(h), self.bbox_pred(h)) for h in hidden]

    def _convolved(self, level: Tensor) -> Tensor:
        """The 3x3 convolution; in training its gradient comes from the sampled anchors alone."""
        if torch.is_grad_enabled() and plain_on_cpu(level):
            assert self.conv.bias is not None
            return sparse_gradient_conv(level, self.conv.weight, self.conv.bias)
        mapped: Tensor = self.conv(level)
        return mapped
