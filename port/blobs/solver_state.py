"""A run in Detectron's files: parameters and momentum in, a checkpoint that Detectron goes on from out.

Answers to Detectron utils/net.py:initialize_gpu_from_weights_file and save_model_to_weights_file.
"""

import numpy as np
import torch
from torch import Tensor

from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.training.solver import MomentumSGD
from detectron_gn.port.blobs.convert import model_blobs
from detectron_gn.port.blobs.match import BlobMatch
from detectron_gn.weights.categories import Category
from detectron_gn.weights.weights_file import Array, WeightsFile


def load_momentum(model: Detector, solver: MomentumSGD, match: BlobMatch) -> int:
    """Copy the momenta that a file has into the solver; returns how many it has.

    The solver's learning rate stays 0, so that its first step does not rescale them, as Detectron's does not.
    """
    trained = {id(parameter) for parameter in solver.parameters()}
    count = 0
    for name, parameter in model.named_parameters():
        if name in match.momentum and id(parameter) in trained:
            momentum = torch.from_numpy(np.array(match.momentum[name], dtype=np.float32))
            solver.momentum_of(parameter).copy_(momentum)
            count += 1
    return count


def momentum_by_name(model: Detector, solver: MomentumSGD) -> dict[str, Tensor]:
    """The momentum of every trained parameter, by the parameter's name."""
    trained = {id(parameter) for parameter in solver.parameters()}
    return {
        name: solver.momentum_of(parameter) for name, parameter in model.named_parameters() if id(parameter) in trained
    }


def detectron_weights(
    model: Detector,
    cfg_text: str,
    iteration: int | None = None,
    solver: MomentumSGD | None = None,
    preserved: dict[str, Array] | None = None,
    categories: tuple[Category, ...] | None = None,
) -> WeightsFile:
    """A network, and its solver's momentum, as the weights file that Detectron writes.

    Args:
        cfg_text: the configuration as YAML.
        iteration: the last one done, from 0.
        preserved: blobs that came with the weights and that no parameter takes, such as `pred_w`; Detectron carries
            them along, after its own.
        categories: id and name of classes 1, 2, ...
    """
    momentum = momentum_by_name(model, solver) if solver is not None else None
    blobs = model_blobs(model, momentum)
    for name, array in (preserved or {}).items():
        blobs.setdefault(name, array)
    return WeightsFile(blobs, cfg_text, iteration, "a training run", "pkl", categories=categories)
