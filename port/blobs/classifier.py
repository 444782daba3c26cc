"""From an ImageNet file of Detectron's (`R-50-GN.pkl`) to the classifier it was trained as."""

import torch

from detectron_gn.mrcnn.backbones.classifier import Classifier
from detectron_gn.mrcnn.config import Config, backbone_depth
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.blobs.convert import match_blobs
from detectron_gn.port.blobs.family import family_of
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config
from detectron_gn.weights.weights_file import WeightsFile


def build_classifier(weights: WeightsFile, cfg: Config | None = None) -> Classifier:
    """The classifier of a file, ready to classify.

    Args:
        cfg: of a detector with this body; where it is left out, R-50 or R-101 with GroupNorm or AffineChannel,
            whichever the blobs are of.

    Raises InputError for a file without a classification head, with blobs missing, or with a deeper body than the
    configuration's. A finetuned detector is refused too: its body is no longer the one that the head was trained with.
    """
    blobs, family = weights.blobs, family_of(weights.blobs)
    head = family.classifier
    if head is None or f"{head}_b" not in blobs:
        raise InputError(
            f"{weights.source} has no classification head (pred_w, pred_b): give an ImageNet file such as R-50-GN"
        )
    if family.is_detector:
        raise InputError(
            f"{weights.source} is a detector; its body was trained on after its classification head: "
            "give the ImageNet file it was begun from"
        )
    if cfg is None:
        if family.config_name is None:
            raise InputError(
                f"{weights.source} has {family.blocks} residual blocks, but R-50 has 16 and R-101 has 33: "
                "pass --config with the YAML of a detector with this body, or give another file if this one is damaged"
            )
        cfg = bundled_config(family.config_name)
    classes, channels = blobs[f"{head}_w"].shape
    with torch.device("meta"):
        model = Classifier(cfg, classes)
    match = match_blobs(BlobTable.from_component(model.body, cfg), weights)
    if match.missing:
        raise InputError(
            f"{weights.source} lacks {match.missing[0].blob} and {len(match.missing) - 1} more blobs of the body: "
            "the file is damaged or of another model"
        )
    depth = backbone_depth(cfg)
    if family.depth != depth:
        raise InputError(
            f"{weights.source} has a body of {family.depth} layers, but the configuration is for R-{depth}: "
            "pass --config with the YAML of a detector with this body"
        )
    if channels != model.pred.in_features or blobs[f"{head}_b"].shape != (classes,):
        raise InputError(
            f"{head}_w is {[classes, channels]} and {head}_b {list(blobs[f'{head}_b'].shape)} in {weights.source}: "
            f"the head of a ResNet is [classes, {model.pred.in_features}] and [classes]"
        )
    body = {f"body.{name}": array for name, array in match.filled.items()}
    arrays = {**body, "pred.weight": blobs[f"{head}_w"], "pred.bias": blobs[f"{head}_b"]}
    parameters = {name: torch.from_numpy(array.astype("float32")) for name, array in arrays.items()}
    model.load_state_dict(parameters, assign=True)
    return model.eval()
