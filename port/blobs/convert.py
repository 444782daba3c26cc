"""Parameters from Detectron's blobs and back, momentum included; answers to Detectron utils/net.py."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detectron_gn.mrcnn.backbones.resnet import BLOCK_COUNTS
from detectron_gn.mrcnn.config import Config, backbone_depth
from detectron_gn.mrcnn.detectors import Detector, GeneralizedRCNN, build_detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.wording import listed
from detectron_gn.port.blobs.family import CLASSIFIER_BLOBS, MOMENTUM, family_of
from detectron_gn.port.blobs.table import BlobRow, BlobTable
from detectron_gn.weights.weights_file import WeightsFile

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class BlobMatch:
    """How the blobs of a file meet the parameters of a network.

    Attributes:
        filled: parameter name -> its array, of the parameter's shape.
        momentum: parameter name -> its momentum, of the parameter's shape.
        missing: parameters that the file has no blob for.
        left_over: blob name -> why no parameter takes it; harmless.
        unexpected: blobs that nothing explains.
    """

    filled: dict[str, Array]
    momentum: dict[str, Array]
    missing: tuple[BlobRow, ...]
    left_over: dict[str, str]
    unexpected: tuple[str, ...]


def match_blobs(table: BlobTable, weights: WeightsFile) -> BlobMatch:
    """Pair the blobs of a file with the rows of the dictionary, shapes checked before anything is assigned.

    A row whose name holds `]_` may take the blob named by the part after it
    (Detectron utils/net.py:initialize_gpu_from_weights_file). Raises InputError for a blob of another shape, also
    where numpy would broadcast it.
    """
    sources = {row.blob: _source_blob(row.blob, weights.blobs) for row in table.rows}
    used = set(sources.values())
    filled, momentum = {}, {}
    left_over = dict(weights.left_out)
    unexpected = []
    for row in table.rows:
        if sources[row.blob] in weights.blobs:
            filled[row.parameter] = _checked(weights, sources[row.blob], row)
        if row.blob + MOMENTUM in weights.blobs:
            momentum[row.parameter] = _checked(weights, row.blob + MOMENTUM, row)
            used.add(row.blob + MOMENTUM)
    for blob in weights.blobs:
        if blob in used:
            continue
        if blob.removesuffix(MOMENTUM) in CLASSIFIER_BLOBS:
            left_over[blob] = "the ImageNet classifier, which a detector does not use"
        else:
            unexpected.append(blob)
    missing = tuple(row for row in table.rows if row.parameter not in filled)
    return BlobMatch(filled, momentum, missing, left_over, tuple(unexpected))


def build_model(cfg: Config, weights: WeightsFile) -> GeneralizedRCNN:
    """The network of a configuration with the parameters of a file, ready to detect.

    Every parameter must be in the file and every blob of the file must be explained, else InputError says in one
    sentence what kind of file this is and what the configuration wants.
    """
    with torch.device("meta"):
        model = build_detector(cfg)
    table = BlobTable.from_model(model)
    check_family(cfg, table, weights)
    match = match_blobs(table, weights)
    if match.missing:
        names = listed([row.blob for row in match.missing])
        raise InputError(
            f"{weights.source} lacks {names}, which the configuration needs: "
            "the file is damaged or of another model; pass --config with the YAML it was trained with"
        )
    if match.unexpected:
        raise InputError(
            f"{weights.source} holds {listed(match.unexpected)}, which the configuration has no place for: "
            "pass --config with the YAML it was trained with"
        )
    blobs = table.by_parameter
    parameters = {name: _finite(weights, blobs[name].blob, array) for name, array in match.filled.items()}
    model.load_state_dict(parameters, assign=True)
    # The layout that convolutions are fastest in; it makes the maps channels-last too.
    return model.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]


def fill_parameters(model: Detector, match: BlobMatch) -> None:
    """Copy the matched blobs into the parameters of a network; those without a blob keep what they hold."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, array in match.filled.items():
            parameters[name].copy_(torch.from_numpy(np.array(array, dtype=np.float32)))


def model_blobs(model: Detector, momentum: dict[str, Tensor] | None = None) -> dict[str, Array]:
    """The parameters of a network as Detectron's blobs, then the momenta, in Detectron's order.

    Args:
        momentum: parameter name -> momentum, of the trained parameters.

    Detectron writes parameters first and the momentum of the trained ones after them
    (utils/net.py:save_model_to_weights_file).
    """
    table = BlobTable.from_model(model)
    parameters = dict(model.named_parameters())
    blobs = {row.blob: _array(parameters[row.parameter]) for row in table.rows}
    for row in table.rows:
        if momentum and row.parameter in momentum:
            blobs[row.blob + MOMENTUM] = _array(momentum[row.parameter])
    return blobs


def check_family(cfg: Config, table: BlobTable, weights: WeightsFile) -> None:
    """Say what is wrong as a whole before single names are compared: the wrong kind of file for this configuration."""
    family, source = family_of(weights.blobs), weights.source
    if not family.is_detector:
        kind = "an ImageNet backbone" if family.classifier else "no detector"
        raise InputError(
            f"{source} is {kind}: it has no box or mask head; give a trained detector, "
            "or train one from it with --weights"
        )
    if family.neck != "FPN":
        raise InputError(
            f"{source} is a model without a feature pyramid (C4), which is not supported: give an FPN model"
        )
    wanted_depth = backbone_depth(cfg)
    wanted_norm = "GN" if any(row.kind == "gn_scale" for row in table.rows) else "BN*"
    # Of another depth than these blocks are missing, which the sentence about missing blobs tells.
    if family.depth in BLOCK_COUNTS and (family.depth, family.norm) != (wanted_depth, wanted_norm):
        named = "with" if family.config_name is None else f"{family.config_name} or"
        raise InputError(
            f"{source} is an R-{family.depth} {family.norm} model, but the configuration is for R-{wanted_depth} "
            f"{wanted_norm}: pass --config {named} the YAML it was trained with"
        )
    if family.classes not in (None, cfg.MODEL.NUM_CLASSES):
        raise InputError(
            f"{source} has {family.classes} classes (cls_score_b), but MODEL.NUM_CLASSES is "
            f"{cfg.MODEL.NUM_CLASSES}: pass --set MODEL.NUM_CLASSES {family.classes} or the YAML it was trained with"
        )


def _source_blob(blob: str, blobs: dict[str, Array]) -> str:
    """The blob a row takes: its own name, or the part after `]_` where only that is in the file."""
    _, bracket, rest = blob.partition("]_")
    return rest if blob not in blobs and bracket and rest in blobs else blob


def _checked(weights: WeightsFile, blob: str, row: BlobRow) -> Array:
    """The array of a blob, if it has the shape of its row."""
    array = weights.blobs[blob]
    if array.shape != row.shape:
        raise InputError(
            f"{blob} is {list(array.shape)} in {weights.source}, but the configuration makes it {list(row.shape)}: "
            "pass --config with the YAML it was trained with"
        )
    return array


def _finite(weights: WeightsFile, blob: str, array: Array) -> Tensor:
    """A copy in float32, if all of its values are numbers there."""
    with np.errstate(over="ignore"):
        values = np.array(array, dtype=np.float32)
    if not np.isfinite(values).all():
        raise InputError(
            f"{blob} in {weights.source} holds NaN or infinity: its training diverged, or the file is damaged"
        )
    return torch.from_numpy(values)


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().float().cpu().contiguous().numpy()
    return array
