"""Parameters from Detectron's blobs and back, momentum included; answers to Detectron utils/net.py."""

import logging

import numpy as np
import torch
from torch import Tensor

from detectron_gn.mrcnn.backbones.resnet import BLOCK_COUNTS
from detectron_gn.mrcnn.config import Config, a_family, backbone_depth, box_head_kind, mask_head_kind, with_values
from detectron_gn.mrcnn.detectors import Detector, build_detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.wording import listed
from detectron_gn.port.blobs.family import MOMENTUM, family_of
from detectron_gn.port.blobs.fitting import fitting_config, lacks_nothing, way_out
from detectron_gn.port.blobs.layouts import layout_of, told_layout, with_blob_names
from detectron_gn.port.blobs.leftovers import Leftovers, told_preserved, told_trained
from detectron_gn.port.blobs.match import BlobMatch, WrongShape, match_blobs
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.weights.weights_file import Array, WeightsFile

logger = logging.getLogger(__name__)


def build_model(cfg: Config, weights: WeightsFile, *, keep_unused: bool = False) -> Detector:
    """The network of a configuration with the parameters of a file, ready to detect.

    Every parameter must be in the file, and what is left over must be no part of another network, else InputError says
    in one sentence what kind of file this is and what the configuration wants. Blobs that are not used are told in a
    warning.

    Args:
        weights: blobs, or a `state_dict` of the same network.
        keep_unused: build the network although parts of another one are left over.
    """
    cfg = _sharing_res5(cfg, weights)
    with torch.device("meta"):
        model = build_detector(cfg)
    table = BlobTable.from_model(model)
    weights = with_blob_names(table, weights)
    check_family(cfg, table, weights, keep_unused=keep_unused)
    try:
        match = match_blobs(table, weights)
    except WrongShape as error:
        raise InputError(f"{error.found}: {way_out(weights)}") from None
    if match.missing:
        names = listed([row.blob for row in match.missing])
        raise InputError(
            f"{weights.source} lacks {names}, which the configuration needs: "
            f"the file is damaged or of another model; {way_out(weights)}"
        )
    check_leftovers(match.leftovers, weights, keep_unused=keep_unused)
    unused = match.leftovers.preserved + match.leftovers.trained
    if unused:
        logger.warning("%s", told_preserved(weights.source, unused))
    blobs = table.by_parameter
    parameters = {name: finite_values(weights, blobs[name].blob, array) for name, array in match.filled.items()}
    model.load_state_dict(parameters, assign=True)
    # The layout that convolutions are fastest in; it makes the maps channels-last too.
    return model.to(memory_format=torch.channels_last).eval()


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


def check_leftovers(leftovers: Leftovers, weights: WeightsFile, *, keep_unused: bool = False) -> None:
    """InputError where blobs of another network are left over, unless they are to be kept unused."""
    if leftovers.trained and not keep_unused:
        raise InputError(told_trained(weights.source, leftovers.trained, fitting_config(weights)))


def check_family(cfg: Config, table: BlobTable, weights: WeightsFile, *, keep_unused: bool = False) -> None:
    """Say what is wrong as a whole before single names are compared: the wrong kind of file for this configuration.

    Args:
        keep_unused: whether a deeper body may go unused.
    """
    check_is_detector(weights)
    family, source = family_of(weights.blobs), weights.source
    if (family.neck == "FPN") != cfg.FPN.FPN_ON:
        found, wanted = "without a feature pyramid", "with one"
        if family.neck == "FPN":
            found, wanted = "with a feature pyramid", "without one"
        raise InputError(
            f"{source} is a model {found}, but the configuration is for one {wanted}: {way_out(weights)}"
        )
    if (family.box_head == "RetinaNet") != cfg.RETINANET.RETINANET_ON:
        found = "a RetinaNet" if family.box_head == "RetinaNet" else "no RetinaNet"
        raise InputError(f"{source} is {found}, but the configuration is of {a_family(cfg)}: {way_out(weights)}")
    wanted_depth = backbone_depth(cfg)
    wanted_norm = "GN" if any(row.kind == "gn_scale" for row in table.rows) else "BN*"
    # Of another depth than these blocks are missing, which the sentence about missing blobs tells.
    is_deeper = keep_unused and family.norm == wanted_norm
    if not is_deeper and family.depth in BLOCK_COUNTS and (family.depth, family.norm) != (wanted_depth, wanted_norm):
        raise InputError(
            f"{source} is an {family.body} {family.norm} model, but the configuration is for R-{wanted_depth} "
            f"{wanted_norm}: {way_out(weights)}"
        )
    if family.classes not in (None, cfg.MODEL.NUM_CLASSES):
        is_enough = lacks_nothing(cfg, weights, family.classes)
        raise InputError(
            f"{source} has {family.classes} classes (cls_score_b), but MODEL.NUM_CLASSES is {cfg.MODEL.NUM_CLASSES}: "
            + way_out(weights, f"--set MODEL.NUM_CLASSES {family.classes}" if is_enough else None)
        )


def check_is_detector(weights: WeightsFile) -> None:
    """InputError where the blobs are no detector's, saying whose they are."""
    family, source = family_of(weights.blobs), weights.source
    layout = layout_of(weights.blobs)
    if layout is not None:
        raise InputError(told_layout(source, layout))
    if family.has_unfolded_norms:
        raise InputError(told_unfolded(source))
    if family.kind == "backbone":
        raise InputError(
            f"{source} is an ImageNet backbone ({family.body}, {family.norm}), which has no heads: give a trained "
            "detector, or train one from it with `train --weights`"
        )
    if not family.is_detector:
        raise InputError(
            f"{source} has none of the blobs of a detector (it has {listed(tuple(weights.blobs))}): give a Detectron "
            "model, or a file that this project wrote"
        )


def told_unfolded(source: str) -> str:
    """What is said of a file whose BatchNorm statistics stand beside their scales."""
    return (
        f"{source} is a checkpoint of a classification trainer: its BatchNorms have running means and variances "
        "(*_bn_rm, *_bn_riv), which Detectron's files have folded into scale and shift; give the converted file, such "
        "as R-50.pkl"
    )


def _sharing_res5(cfg: Config, weights: WeightsFile) -> Config:
    """The configuration with a mask head that has the res5 which the file has: its own, or the box head's.

    Detectron fills `_[mask]_res5_*` of a test graph from the file's blobs of that name, or else from `res5_*`,
    whichever head the configuration names (utils/net.py:initialize_gpu_from_weights_file).
    """
    if not cfg.MODEL.MASK_ON or mask_head_kind(cfg) not in ("v0up", "v0upshare"):
        return cfg
    own = {blob: array for blob, array in weights.blobs.items() if blob.startswith("_[mask]_res5_")}
    shared = all(np.array_equal(array, weights.blobs.get(blob.partition("]_")[2], [])) for blob, array in own.items())
    same_size = cfg.MRCNN.ROI_XFORM_RESOLUTION == cfg.FAST_RCNN.ROI_XFORM_RESOLUTION and cfg.MRCNN.DILATION == 1
    if mask_head_kind(cfg) == "v0up" and not own and box_head_kind(cfg) == "res5" and same_size:
        return with_values(cfg, {"MRCNN.ROI_MASK_HEAD": "mask_rcnn_heads.mask_rcnn_fcn_head_v0upshare"})
    if mask_head_kind(cfg) == "v0upshare" and not shared:
        return with_values(cfg, {"MRCNN.ROI_MASK_HEAD": "mask_rcnn_heads.mask_rcnn_fcn_head_v0up"})
    return cfg


def finite_values(weights: WeightsFile, blob: str, array: Array) -> Tensor:
    """A copy of a blob in float32; InputError unless all of its values are numbers there."""
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
