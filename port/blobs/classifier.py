"""From an ImageNet file of Detectron's (`R-50-GN.pkl`) to the classifier it was trained as."""

import torch

from detectron_gn.mrcnn.backbones.classifier import Classifier
from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.blobs.convert import match_blobs
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config
from detectron_gn.weights.weights_file import WeightsFile

# The fully connected layer of the Caffe2 models, and of the MSRA ones.
_HEADS = ("pred", "fc1000")


def build_classifier(weights: WeightsFile, cfg: Config | None = None) -> Classifier:
    """The classifier of a file, ready to classify.

    Args:
        cfg: of a detector with this body; where it is left out, R-50 or R-101 with GroupNorm or AffineChannel,
            whichever the blobs are of.

    Raises InputError for a file without a classification head or with blobs missing. What a finetuned detector has
    besides is not looked at: its body is no longer the one that the head was trained with, so it is refused too.
    """
    blobs = weights.blobs
    head = next((name for name in _HEADS if f"{name}_w" in blobs and f"{name}_b" in blobs), None)
    if head is None:
        raise InputError(
            f"{weights.source} has no classification head (pred_w, pred_b): give an ImageNet file such as R-50-GN"
        )
    if any(name.startswith(("conv_rpn", "cls_score")) for name in blobs):
        raise InputError(
            f"{weights.source} is a detector; its body was trained on after its classification head: "
            "give the ImageNet file it was begun from"
        )
    cfg = cfg or bundled_config(_config_name(weights))
    classes, channels = blobs[f"{head}_w"].shape
    with torch.device("meta"):
        model = Classifier(cfg, classes)
    match = match_blobs(BlobTable.from_component(model.body, cfg), weights)
    if match.missing:
        raise InputError(
            f"{weights.source} lacks {match.missing[0].blob} and {len(match.missing) - 1} more blobs of the body: "
            "the file is damaged or of another model"
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


def _config_name(weights: WeightsFile) -> str:
    """A bundled configuration whose body is that of the file."""
    depth = 101 if "res4_22_branch2a_w" in weights.blobs else 50
    ending = "_gn" if any(name.endswith("_gn_s") for name in weights.blobs) else ""
    return f"e2e_mask_rcnn_R-{depth}-FPN_2x{ending}"
