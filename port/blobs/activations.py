"""The activations of a test run under the names Caffe2 gives them: what a parity trace is made of.

Caffe2 computes in place where it can, so some names hold the last of several values: `conv1_gn` is after its ReLU,
`res2_0_branch2c_gn` after the sum of its block (Detectron modeling/ResNet.py:add_residual_block, inplace_sum).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectron_gn.mrcnn.backbones.fpn import PyramidBackbone
from detectron_gn.mrcnn.backbones.vgg import VGG16, VGG_CNN_M_1024
from detectron_gn.mrcnn.config import padding_stride
from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.detectors import Detector, GeneralizedRCNN, ProposalNetwork
from detectron_gn.mrcnn.heads.rpn import RPN
from detectron_gn.mrcnn.inference.network_input import network_input
from detectron_gn.mrcnn.layers import AffineChannel, ConvNorm
from detectron_gn.mrcnn.ops.proposals import ImInfo
from detectron_gn.mrcnn.ops.roi_levels import roi_levels
from detectron_gn.mrcnn.structures import Features
from detectron_gn.port.blobs.names import layer_blobs
from detectron_gn.port.blobs.names.fpn import lateral_blobs
from detectron_gn.port.blobs.names.heads import KEYPOINT_PREFIX, mask_blob_prefix
from detectron_gn.port.blobs.names.rpn import level_suffix
from detectron_gn.port.blobs.names.vgg import vgg_pools

Trace = dict[str, Tensor]
Boxes = npt.NDArray[np.float32]

# Layers without normalisation that a ReLU follows in place.
_WITH_RELU = ("fc6", "fc7", "conv5_mask", "kps_deconv")

# What runs once a level, under a name for each: see _trace_rpn, and retinanet_activations.py.
_ON_EVERY_LEVEL = ("rpn.", "head.")


@torch.inference_mode()
def trace_proposals(model: ProposalNetwork, image: Image) -> Trace:
    """Every blob of a run of an RPN by itself over one `[H, W, 3]` uint8 BGR image."""
    batch = model.network_input([image])
    trace: Trace = {"data": batch.data, "im_info": torch.tensor(batch.im_info)}
    with model.products(), recorded_layers(model, trace):
        _trace_rpn(model, model.rpn, model.features(batch.data), batch.im_info[0], trace)
    add_pyramid(model, trace)
    return trace


@torch.inference_mode()
def trace_boxes(
    model: GeneralizedRCNN, image: Image, rois: Tensor | None = None, proposals: Boxes | None = None
) -> Trace:
    """Every blob of the first pass over one `[H, W, 3]` uint8 BGR image, up to `cls_prob` and `bbox_pred`.

    Args:
        rois: `[R, 5]` to go on with in place of the network's own: the same ones in another order, say.
        proposals: `[P, 4]` in image pixels, for a network that takes them.

    Returns:
        Blob name -> tensor of the blob's own shape and order, as Caffe2's `data`, `rois`, ... have them.
    """
    batch = model.network_input([image], None if proposals is None else [proposals])
    trace: Trace = {"data": batch.data, "im_info": torch.tensor(batch.im_info)}
    head = model.box_head
    with model.products(), recorded_layers(model, trace):
        features = model.features(batch.data)
        if model.rpn is not None:
            _trace_rpn(model, model.rpn, features, batch.im_info[0], trace)
        else:
            trace["rois"] = next(model.rois_of_images(features, batch)).rois
        if rois is not None:
            trace["rois"] = rois
        trace["cls_score"], trace["bbox_pred"] = head.outputs(features, trace["rois"])
    add_pyramid(model, trace)
    _add_roi_features(head.roi_features(features, trace["rois"]), model, trace, "", "rois", head.pools_for_body)
    if head.res5 is not None:
        trace["res5_pool"] = F.avg_pool2d(trace["res5_2_sum"], kernel_size=7, stride=1)
    trace["cls_prob"] = trace["cls_score"].softmax(dim=1)
    return trace


@torch.inference_mode()
def trace_masks(model: GeneralizedRCNN, image: Image, mask_rois: Tensor) -> Trace:
    """Every blob of the second pass, for `[D, 5]` float32 RoIs in network pixels; none without a mask head."""
    head = model.mask_head
    if head is None:
        return {}
    trace: Trace = {"mask_rois": mask_rois}
    features = model.features(prepared_data(model, image))
    prefix = mask_blob_prefix(model.cfg)
    with model.products(), recorded_layers(model, trace, prefix):
        logits = head.outputs_of_all_classes(features, mask_rois)
    roi_features = head.roi_features(features, mask_rois)
    _add_roi_features(roi_features, model, trace, prefix, "mask_rois", head.pools_for_body)
    # Those of a fully connected layer are in rows.
    trace["mask_fcn_probs"] = logits.sigmoid().flatten(1) if model.cfg.MRCNN.USE_FC_OUTPUT else logits.sigmoid()
    return trace


@torch.inference_mode()
def trace_keypoints(model: GeneralizedRCNN, image: Image, keypoint_rois: Tensor) -> Trace:
    """Every blob of the pass for keypoints, for `[D, 5]` float32 RoIs; none without a keypoint head."""
    head = model.keypoint_head
    if head is None:
        return {}
    trace: Trace = {"keypoint_rois": keypoint_rois}
    features = model.features(prepared_data(model, image))
    with model.products(), recorded_layers(model, trace):
        trace["kps_score"] = head.outputs(features, keypoint_rois)
    roi_features = head.roi_features(features, keypoint_rois)
    _add_roi_features(roi_features, model, trace, KEYPOINT_PREFIX, "keypoint_rois", head.res5 is not None)
    return trace


def prepared_data(model: Detector, image: Image) -> Tensor:
    """`data` of one image, without the proposals that the network may want with it."""
    prepared = [model.prepare(image)]
    return network_input([image], prepared, padding_stride(model.cfg), model.device).data


@contextmanager
def recorded_layers(model: Detector, trace: Trace, shared_prefix: str = "") -> Iterator[None]:
    """Record what the layers of the dictionary compute while the context is open.

    Values are copied at once, since the network goes on in place. A layer that runs on the RoIs part by part has its
    parts put together; of several layers that write one blob the last one counts.

    Args:
        shared_prefix: what the blobs of the box head's res5 begin with, where another head runs it.
    """
    handles = []
    parts: dict[str, list[Tensor]] = {}
    writers: dict[str, nn.Module] = {}

    def note(module: nn.Module, name: str, value: Tensor) -> None:
        if writers.get(name) is not module:
            writers[name], parts[name] = module, []
        parts[name].append(value)
        trace.setdefault(name, value)  # keeps the trace in the order of the network

    def record(module: nn.Module, name: str, after: Callable[[Tensor], Tensor] = torch.clone) -> None:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            note(module, name, after(output))

        handles.append(module.register_forward_hook(hook))

    def record_input(module: nn.Module, name: str) -> None:
        def hook(_module: nn.Module, inputs: Any) -> None:
            note(module, name, inputs[0].clone())

        handles.append(module.register_forward_pre_hook(hook))

    blocks: dict[str, tuple[str, str]] = {}
    for path, blob in layer_blobs(model, model.cfg):
        if path.startswith(_ON_EVERY_LEVEL):
            continue
        if path.startswith("box_head.res5."):
            blob = shared_prefix + blob
        layer = model.get_submodule(path)
        if not isinstance(layer, ConvNorm):
            record(layer, blob, F.relu if blob in _WITH_RELU else torch.clone)
        elif isinstance(layer.norm, nn.GroupNorm):
            record(layer.conv, blob)
            record(layer.conv, f"{blob}_gn_mean", _group_mean(layer.norm))
            record(layer.conv, f"{blob}_gn_std", _group_inverse_std(layer.norm))
            record(layer, f"{blob}_gn")
        elif isinstance(layer.norm, AffineChannel) and blob.endswith(("_branch2c", "_branch1")):
            record(layer.conv, blob)
            record(layer, f"{blob}_bn")
        else:
            record(layer, blob)
        if path.endswith(".branch2c"):
            norm = "gn" if isinstance(layer.norm, nn.GroupNorm) else "bn"
            blocks[path.removesuffix(".branch2c")] = (blob, norm)
    for path, (blob, norm) in blocks.items():
        # A stage's last block ends in a blob of its own, `res3_3_sum`; the others write over `res3_1_branch2c_bn`.
        stage, _, number = path.rpartition(".")
        is_last = f"{stage}.{int(number) + 1}" not in blocks
        record(model.get_submodule(path), blob.replace("branch2c", "sum") if is_last else f"{blob}_{norm}")
    if isinstance(model.backbone, VGG16 | VGG_CNN_M_1024):
        for following, pool in vgg_pools(model.backbone).items():
            record_input(model.backbone.get_submodule(following), pool)
    else:
        record_input(model.backbone.body.get_submodule("res2"), "pool1")
    if isinstance(model.backbone, PyramidBackbone):
        for stage, blob in lateral_blobs(model.cfg).items():
            if stage != "res5":
                record_input(model.backbone.fpn.output[stage], f"fpn_inner_{blob}")
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for name, values in parts.items():
            trace[name] = torch.cat(values)


def _groups(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """`[N, C, H, W]` as `[N, G, values of a group]`."""
    return x.reshape(len(x), norm.num_groups, -1)


def _group_mean(norm: nn.GroupNorm) -> Callable[[Tensor], Tensor]:
    return lambda x: _groups(norm, x).mean(dim=2)


def _group_inverse_std(norm: nn.GroupNorm) -> Callable[[Tensor], Tensor]:
    """What Caffe2 keeps under `_std` is the inverse: 1 / sqrt(variance + epsilon)."""
    return lambda x: _groups(norm, x).var(dim=2, correction=0).add(norm.eps).rsqrt()


def _trace_rpn(model: Detector, rpn: RPN, features: Features, im_info: ImInfo, trace: Trace) -> None:
    """RPN outputs, proposals of each level, and the RoIs collected from them."""
    cfg = model.cfg
    outputs = rpn(features)
    proposals = rpn.proposals(outputs, features.strides, 0, im_info, cfg.TEST)
    levels = zip(rpn.levels, features.maps, outputs, proposals, strict=True)
    for level, feature_map, (logits, deltas), part in levels:
        suffix = level_suffix(cfg, level)
        trace[f"conv_rpn{suffix}"] = F.relu(rpn.conv(feature_map))
        trace[f"rpn_cls_logits{suffix}"] = logits
        trace[f"rpn_cls_probs{suffix}"] = logits.sigmoid()
        trace[f"rpn_bbox_pred{suffix}"] = deltas
        trace[f"rpn_rois{suffix}"] = part.rois
        trace[f"rpn_roi_probs{suffix}"] = part.scores[:, None]
    if not cfg.MODEL.RPN_ONLY:
        trace["rois"] = rpn.collected(outputs, features.strides, 0, im_info).rois


def add_pyramid(model: Detector, trace: Trace) -> None:
    """What the pyramid computes without parameters: upsampled maps, each before the sum it goes into, and P6."""
    if not isinstance(model.backbone, PyramidBackbone):
        return
    gn = "_gn" if model.cfg.FPN.USE_GN else ""
    blobs = list(lateral_blobs(model.cfg).values())
    tops = [f"fpn_inner_{blobs[0]}{gn}"] + [f"fpn_inner_{blob}" for blob in blobs[1:-1]]
    for top, blob in zip(tops, blobs[1:], strict=True):
        upsampled = model.backbone.fpn.upsampled(trace[top])
        _insert_before(trace, f"fpn_inner_{blob}", f"fpn_inner_{blob}_topdown", upsampled)
    if model.backbone.fpn.has_subsampled_level:
        p5 = f"fpn_{blobs[0]}{gn}"
        after = next((blob for blob in trace if blob.startswith(("conv_rpn", "rois"))), None)
        _insert_before(trace, after, f"{p5}_subsampled_2x", trace[p5][:, :, ::2, ::2])


def _insert_before(trace: Trace, place: str | None, name: str, value: Tensor) -> None:
    """Add a blob to the trace before another one, or at its end."""
    later = [] if place is None else list(trace.items())[list(trace).index(place) :]
    for blob, _ in later:
        del trace[blob]
    trace[name] = value
    trace.update(later)


def _add_roi_features(
    pooled: Tensor, model: Detector, trace: Trace, prefix: str, roi_blob: str, for_body: bool
) -> None:
    """RoIs and features under Caffe2's level-by-level names, and the order that undoes the levels.

    The network itself never shuffles; Caffe2 concatenates the levels (`_shuffled`) and permutes back
    (Detectron modeling/detector.py:RoIFeatureTransform).

    Args:
        prefix: what the head's blobs begin with.
        for_body: whether the features go into layers of the body, as res5 and VGG's fc6: they are called `pool5` then.
    """
    feature_blob = f"{prefix}{'pool5' if for_body else 'roi_feat'}"
    trace[feature_blob] = pooled
    cfg = model.cfg
    if not cfg.FPN.FPN_ON:
        return
    rois = trace[roi_blob]
    level_of_roi = roi_levels(rois[:, 1:], cfg)
    order = level_of_roi.argsort(stable=True)
    trace[f"{feature_blob}_shuffled"] = pooled[order]
    trace[f"{roi_blob}_idx_restore_int32"] = order.argsort().int()
    levels_used = range(cfg.FPN.ROI_MIN_LEVEL, cfg.FPN.ROI_MAX_LEVEL + 1)
    for level in levels_used:
        trace[f"{roi_blob}_fpn{level}"] = rois[level_of_roi == level]
        trace[f"{feature_blob}_fpn{level}"] = pooled[level_of_roi == level]
    # Concat also writes how many rows each of its inputs had.
    trace[f"_concat_{feature_blob}"] = torch.tensor(
        [int((level_of_roi == level).sum()) for level in levels_used], dtype=torch.int32
    )
