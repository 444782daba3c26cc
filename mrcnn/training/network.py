"""A detector as a module whose forward pass ends in losses, for what wraps modules (DistributedDataParallel)."""

from functools import partial

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from detectron_gn.mrcnn.backbones.resnet import ResNet
from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.training.samplers import Sampler


class TrainingNetwork(nn.Module):
    """Calls the losses of a detector."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(self, minibatch: Minibatch, sampler: Sampler) -> dict[str, Tensor]:
        """`Detector.losses`."""
        return self.model.losses(minibatch, sampler)


def recompute_activations(model: Detector) -> None:
    """Keep only the outputs of the backbone's stages for the backward pass and compute what is within them again.

    That saves most of the memory of a training step for a third more time in the backbone; the numbers are the same.
    """
    bodies = [module for module in model.modules() if isinstance(module, ResNet)]
    for stage in (child for body in bodies for child in body.children()):
        if isinstance(stage, nn.Sequential):
            stage.forward = partial(checkpoint, stage.forward, use_reentrant=False)  # type: ignore[method-assign]
