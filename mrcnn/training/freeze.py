"""Parts of a network that are not trained, by name: an extension, which Detectron does not have.

Detectron freezes the first stages of the body (TRAIN.FREEZE_AT), or the body with its pyramid (TRAIN.FREEZE_CONV_BODY).
"""

from collections.abc import Sequence

from torch import nn

from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.errors import InputError

# The parts that a network may have, by the names of their modules.
_PARTS = {
    "body": "backbone.body",
    "fpn": "backbone.fpn",
    "rpn": "rpn",
    "box": "box_head",
    "mask": "mask_head",
    "keypoint": "keypoint_head",
    "retinanet": "head",
}


def freeze_parts(model: Detector, names: Sequence[str]) -> None:
    """Have no gradient be computed for the parameters of some parts; call it before a solver is made.

    Raises InputError, with the names that the network has, for any other name and where nothing would be trained.
    """
    parts = _parts(model)
    for name in names:
        if name not in parts:
            raise InputError(
                f"--freeze {name}: the model has no such part: choose from {', '.join(parts)}, several with commas "
                "between them"
            )
        parts[name].requires_grad_(False)
    if names and not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"--freeze {','.join(names)} leaves nothing to train: leave one of {', '.join(parts)} out")


def _parts(model: Detector) -> dict[str, nn.Module]:
    modules = dict(model.named_modules())
    return {
        name: modules[module]
        for name, module in _PARTS.items()
        if module in modules and any(True for _ in modules[module].parameters())
    }
