"""From an ImageNet file of Detectron's (`R-50-GN.pkl`) to the classifier it was trained as, and what is known of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from detectron_gn.mrcnn.backbones.classifier import Classifier
from detectron_gn.mrcnn.backbones.resnet import BLOCK_COUNTS, STAGE_CHANNELS
from detectron_gn.mrcnn.config import Config, backbone_depth
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.blobs.convert import finite_values, told_unfolded
from detectron_gn.port.blobs.family import family_of
from detectron_gn.port.blobs.match import match_blobs
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config
from detectron_gn.weights.catalog import CatalogEntry, lookup
from detectron_gn.weights.errors import UnknownModel
from detectron_gn.weights.weights_file import WeightsFile

# The mean colour (BGR) that the trainer of the GN and ResNeXt bodies subtracted (fair_self_supervision_benchmark,
# data_input.py). Detectron subtracts another, PIXEL_MEANS, from the images of all its models.
TRAINERS_MEAN = (103.53, 116.28, 123.675)


def build_classifier(weights: WeightsFile, cfg: Config | None = None) -> Classifier:
    """The classifier of a file, ready to classify.

    Args:
        cfg: of a detector with this body; where it is left out, R-50 or R-101 with GroupNorm or AffineChannel,
            whichever the blobs are of.

    Raises InputError for a file without a classification head, with blobs missing, with a deeper body than the
    configuration's, with BatchNorms that are not folded, or with values that are no numbers. A finetuned detector is
    refused too: its body is no longer the one that the head was trained with.
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
    if family.has_unfolded_norms:
        raise InputError(told_unfolded(weights.source))
    if cfg is None:
        if family.config_name is None:
            raise InputError(
                f"{weights.source} has {family.blocks} residual blocks, but R-50 has 16 and R-101 has 33: "
                "pass --config with the YAML of a detector with this body, or give another file if this one is damaged"
            )
        cfg = bundled_config(family.config_name)
    depth = backbone_depth(cfg)
    if depth not in BLOCK_COUNTS:
        raise InputError(
            f"{weights.source} has the body of a ResNet, but MODEL.CONV_BODY is {cfg.MODEL.CONV_BODY}: "
            "pass --config with the YAML of a detector with this body"
        )
    weight, bias = blobs[f"{head}_w"], blobs[f"{head}_b"]
    if bias.ndim != 1 or weight.shape != (len(bias), STAGE_CHANNELS[-1]):
        raise InputError(
            f"{head}_w is {list(weight.shape)} and {head}_b {list(bias.shape)} in {weights.source}: "
            f"the head of a ResNet is [classes, {STAGE_CHANNELS[-1]}] and [classes]"
        )
    with torch.device("meta"):
        model = Classifier(cfg, len(bias))
    table = BlobTable.from_component(model.body, cfg)
    match = match_blobs(table, weights)
    if match.missing:
        raise InputError(
            f"{weights.source} lacks {match.missing[0].blob} and {len(match.missing) - 1} more blobs of the body: "
            "the file is damaged or of another model"
        )
    if family.depth != depth:
        raise InputError(
            f"{weights.source} has a body of {family.depth} layers, but the configuration is for R-{depth}: "
            "pass --config with the YAML of a detector with this body"
        )
    parameters = {
        f"body.{name}": finite_values(weights, table.by_parameter[name].blob, array)
        for name, array in match.filled.items()
    }
    parameters |= {
        "pred.weight": finite_values(weights, f"{head}_w", weight),
        "pred.bias": finite_values(weights, f"{head}_b", bias),
    }
    model.load_state_dict(parameters, assign=True)
    return model.eval()


class Mean(NamedTuple):
    """A mean colour, BGR, and why it is the one to subtract."""

    values: tuple[float, float, float]
    reason: str

    def __str__(self) -> str:
        blue, green, red = self.values
        return f"subtracted mean {blue:g}, {green:g}, {red:g} (BGR): {self.reason}"


def mean_to_subtract(
    weights: WeightsFile,
    cfg: Config | None = None,
    given: tuple[float, float, float] | None = None,
    overrides: Sequence[str] = (),
) -> Mean:
    """The mean colour that a classifier was trained with, as far as it is known.

    Args:
        weights: its file. A head that is called `pred` was trained by FAIR's own trainer, one called `fc1000` by MSRA.
        cfg: the user's configuration, if there is one: PIXEL_MEANS of its own count.
        given: what the user says; it counts before all.
        overrides: of the configuration (`["PIXEL_MEANS", "(1., 2., 3.)"]`): PIXEL_MEANS among them count even where
            they are Detectron's own, which every configuration has that says nothing of them.
    """
    if given is not None:
        return Mean(given, "--mean")
    detectrons = Config().PIXEL_MEANS
    if cfg is not None and (cfg.PIXEL_MEANS != detectrons or "PIXEL_MEANS" in overrides[::2]):
        return Mean(cfg.PIXEL_MEANS, "PIXEL_MEANS of the configuration")
    if family_of(weights.blobs).classifier == "pred":
        return Mean(TRAINERS_MEAN, "that of the trainer of Detectron's GN and ResNeXt bodies")
    return Mean(detectrons, "Detectron's PIXEL_MEANS, for bodies that Caffe trained")


def published_error(source: str) -> float | None:
    """The published top-1 error of an id, a URL, or a file that is called as its authors called it, in percent.

    None where there is none, as for MSRA's files. Raises InputError for a detector's.
    """
    for name in (source, Path(source).stem):
        try:
            return _error_of(lookup(name))
        except UnknownModel:
            continue
    return None


def _error_of(entry: CatalogEntry) -> float | None:
    if entry.kind != "ImageNet backbone":
        raise InputError(f"{entry.title} is a detector: `verify ap` checks it")
    return entry.top1_error
