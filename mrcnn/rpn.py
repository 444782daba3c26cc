"""The region proposal network's head; answers to Detectron modeling/FPN.py:add_fpn_rpn_outputs."""

import torch.nn.functional as F
from torch import Tensor, nn

from mrcnn.config import Config
from mrcnn.layers import FilledConv2d, gauss_fill


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
        hidden = (F.relu_(self.conv(level)) for level in levels)
        return [(self.cls_logits(h), self.bbox_pred(h)) for h in hidden]
