"""The region proposal network; answers to Detectron modeling/rpn_heads.py and FPN.py:add_fpn_rpn_outputs."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectron_gn.mrcnn import kernels
from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.layers import FilledConv2d, gauss_fill
from detectron_gn.mrcnn.ops.anchors import pyramid_anchors, single_level_anchors
from detectron_gn.mrcnn.ops.proposals import ImInfo, ProposalLimits, collect_proposals, level_proposals
from detectron_gn.mrcnn.structures import Features, Proposals
from detectron_gn.mrcnn.training.anchor_targets import AnchorField, AnchorSample
from detectron_gn.mrcnn.training.losses import rpn_losses

RpnOutputs = list[tuple[Tensor, Tensor]]


class RPN(nn.Module):
    """A 3x3 convolution with ReLU and two 1x1 convolutions, shared by all levels, without normalisation.

    Args:
        dim: channels of the maps.
        strides: of the maps.

    Attributes:
        levels: of the pyramid that there are proposals on, finest first; of one map the one of its stride.
    """

    def __init__(self, cfg: Config, dim: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.cfg = cfg
        if cfg.FPN.FPN_ON:
            self.levels = range(cfg.FPN.RPN_MIN_LEVEL, cfg.FPN.RPN_MAX_LEVEL + 1)
            all_anchors = pyramid_anchors(cfg)
        else:
            level = strides[0].bit_length() - 1
            self.levels = range(level, level + 1)
            all_anchors = [single_level_anchors(cfg, strides[0])]
        num_anchors = len(all_anchors[0])
        self.conv = _SparselyTrainedConv2d(dim, dim, 3, fill=gauss_fill(0.01))
        self.cls_logits = FilledConv2d(dim, num_anchors, 1, fill=gauss_fill(0.01))
        self.bbox_pred = FilledConv2d(dim, 4 * num_anchors, 1, fill=gauss_fill(0.01))
        # Constants of the configuration, not state: they follow the model's device, not its checkpoints.
        for level, anchors in zip(self.levels, all_anchors, strict=True):
            self.register_buffer(f"anchors_fpn{level}", anchors, persistent=False)
        self._field: AnchorField | None = None

    @property
    def anchors(self) -> list[Tensor]:
        """`[A, 4]` float32 of each level at the first position of its grid, finest first."""
        return [self.get_buffer(f"anchors_fpn{level}") for level in self.levels]

    def forward(self, features: Features) -> RpnOutputs:
        """Objectness logits `[N, A, H, W]` and box deltas `[N, 4A, H, W]` of each level."""
        hidden = (F.relu_(self.conv(level)) for level in features.maps)
        return [(self.cls_logits(h), self.bbox_pred(h)) for h in hidden]

    def proposals(
        self, outputs: RpnOutputs, strides: Sequence[int], image_index: int, im_info: ImInfo, limits: ProposalLimits
    ) -> list[Proposals]:
        """Proposals of one image of the batch, level by level, finest first.

        Args:
            outputs: what `forward` gives.
            strides: of the features it was given.
            limits: `cfg.TEST` or `cfg.TRAIN`.
        """
        return [
            level_proposals(
                logits[image_index].float(), deltas[image_index].float(), anchors, stride, image_index, im_info, limits
            )
            for (logits, deltas), anchors, stride in zip(outputs, self.anchors, strides, strict=True)
        ]

    def collected(
        self, outputs: RpnOutputs, strides: Sequence[int], image_index: int, im_info: ImInfo
    ) -> Proposals:
        """The best `cfg.TEST.RPN_POST_NMS_TOP_N` proposals of one image, best first.

        Those of one map stay as NMS left them: sorting them again would break ties another way
        (Detectron core/rpn_generator.py:im_proposals).
        """
        parts = self.proposals(outputs, strides, image_index, im_info, self.cfg.TEST)
        if not self.cfg.FPN.FPN_ON:
            return parts[0]
        return collect_proposals(parts, self.cfg.TEST.RPN_POST_NMS_TOP_N)

    @torch.no_grad()
    def training_rois(self, outputs: RpnOutputs, strides: Sequence[int], im_infos: Sequence[ImInfo]) -> Tensor:
        """The proposals `[P, 5]` that a minibatch is trained on.

        On a pyramid they are collected over all images of the minibatch, of which the best
        `cfg.TRAIN.RPN_POST_NMS_TOP_N` stay, so an image may take more than its share; on one map each image has as
        many as it has (Detectron ops/collect_and_distribute_fpn_rpn_proposals.py:collect, ops/generate_proposals.py).
        """
        train = self.cfg.TRAIN
        parts = [
            part
            for index, im_info in enumerate(im_infos)
            for part in self.proposals(outputs, strides, index, im_info, train)
        ]
        if not self.cfg.FPN.FPN_ON:
            return torch.cat([part.rois for part in parts])
        return collect_proposals(parts, train.RPN_POST_NMS_TOP_N).rois

    def training_anchors(self) -> AnchorField:
        """The anchors that samples are drawn from, on the device of the parameters; made once."""
        device = self.conv.weight.device
        if self._field is None or self._field.anchors.device != device:
            self._field = AnchorField(self.cfg, device)
        return self._field

    def losses(self, outputs: RpnOutputs, samples: Sequence[AnchorSample]) -> dict[str, Tensor]:
        """`loss_rpn_cls_fpnL` and `loss_rpn_bbox_fpnL` of each level L, from the samples of each image.

        Of one map: `loss_rpn_cls` and `loss_rpn_bbox`.
        """
        return rpn_losses(outputs, samples, self.training_anchors(), self.cfg)


class _SparselyTrainedConv2d(FilledConv2d):
    """A 3x3 convolution whose gradient, in training, comes only from the sampled anchors."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        return kernels.sparsely_trained_conv2d(x, self.weight, self.bias)
