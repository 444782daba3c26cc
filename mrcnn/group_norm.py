"""Group normalisation that writes over its input where no gradient is asked for; answers to Detectron's SpatialGN."""

import torch
from torch import Tensor, nn

# Maps of fewer positions than this stay in the processor's cache, where torch's own operator is as fast.
LARGE_MAP = 1024


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` that, on a CPU and without gradients, overwrites large inputs with their normalised values.

    That way no second map of the size of the first is touched for the first time, which costs more than the
    arithmetic: 29 ms in place of 50 for P2 of an 800 x 1216 image on one core. The moments are those of each channel,
    in two passes, combined in float64; torch's own operator on channels-last maps is ten times less exact.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `[N, C, H, W]`; the result may be `x` itself."""
        if torch.is_grad_enabled() or x.device.type != "cpu" or x.shape[2] * x.shape[3] < LARGE_MAP:
            return super().forward(x)
        for index in range(len(x)):
            image = x[index : index + 1]
            scale, shift = self._scale_and_shift(image)
            torch.addcmul(shift, image, scale, out=image)
        return x

    def _scale_and_shift(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """What each channel of a `[1, C, H, W]` image is multiplied by and moved by, `[C, 1, 1]` float32 each."""
        channel_mean, channel_variance = torch.batch_norm_update_stats(image, None, None, 0.0)
        channel_mean, channel_variance = (
            moments.double().view(self.num_groups, -1) for moments in (channel_mean, channel_variance)
        )
        mean = channel_mean.mean(dim=1, keepdim=True)
        variance = (channel_variance + (channel_mean - mean).square()).mean(dim=1, keepdim=True)
        scale = (variance + self.eps).rsqrt().float() * self.weight.view(self.num_groups, -1)
        shift = self.bias.view(self.num_groups, -1) - mean.float() * scale
        return scale.view(-1, 1, 1), shift.view(-1, 1, 1)
