"""The activations of a test run under the names Caffe2 gives them: what a parity trace is made of.

Caffe2 computes in place where it can, so some names hold the last of several values: `conv1_gn` is after its ReLU,
`res2_0_branch2c_gn` after the sum of its block (Detectron modeling/ResNet.py:add_residual_block, inplace_sum).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectron_gn.mrcnn.backbones.resnet import Bottleneck
from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.detectors import Detector, GeneralizedRCNN
from detectron_gn.mrcnn.layers import AffineChannel, ConvNorm
from detectron_gn.mrcnn.ops.proposals import ImInfo, collect_proposals
from detectron_gn.mrcnn.ops.roi_levels import roi_levels
from detectron_gn.mrcnn.structures import Features
from detectron_gn.port.blobs.names import layer_blobs
from detectron_gn.port.blobs.names.fpn import lateral_blobs
from detectron_gn.port.blobs.names.heads import mask_blob_prefix
from detectron_gn.port.blobs.names.resnet import stage_blobs

Trace = dict[str, Tensor]

# What runs once a level, under a name for each: see _trace_rpn, and retinanet_activations.py.
_ON_EVERY_LEVEL = ("rpn.", "head.")


@torch.inference_mode()
def trace_boxes(model: GeneralizedRCNN, image: Image, rois: Tensor | None = None) -> Trace:
    """Every blob of the first pass over one `[H, W, 3]` uint8 BGR image, up to `cls_prob` and `bbox_pred`.

    Args:
        rois: `[R, 5]` to go on with in place of the network's own: the same ones in another order, say.

    Returns:
        Blob name -> tensor of the blob's own shape and order, as Caffe2's `data`, `rois`, ... have them.
    """
    batch = model.network_input([image])
    data, (im_info,) = batch.data, batch.im_info
    trace: Trace = {"data": data, "im_info": torch.tensor([im_info])}
    with model.products(), recorded_layers(model, trace):
        features = model.features(data)
        _trace_rpn(model, features, im_info, trace)
        if rois is not None:
            trace["rois"] = rois
        trace["cls_score"], trace["bbox_pred"] = model.box_head.outputs(features, trace["rois"])
    add_topdown(model, trace)
    _add_roi_features(model.box_head.roi_features(features, trace["rois"]), model.cfg, trace, "roi_feat", "rois")
    trace["cls_prob"] = trace["cls_score"].softmax(dim=1)
    return trace


@torch.inference_mode()
def trace_masks(model: GeneralizedRCNN, image: Image, mask_rois: Tensor) -> Trace:
    """Every blob of the second pass, for `[D, 5]` float32 RoIs in network pixels; none without a mask head."""
    head = model.mask_head
    if head is None:
        return {}
    trace: Trace = {"mask_rois": mask_rois}
    features = model.features(model.network_input([image]).data)
    with model.products(), recorded_layers(model, trace):
        logits = head.outputs_of_all_classes(features, mask_rois)
    roi_features = head.roi_features(features, mask_rois)
    _add_roi_features(roi_features, model.cfg, trace, f"{mask_blob_prefix(model.cfg)}roi_feat", "mask_rois")
    # Those of a fully connected layer are in rows.
    trace["mask_fcn_probs"] = logits.sigmoid().flatten(1) if model.cfg.MRCNN.USE_FC_OUTPUT else logits.sigmoid()
    return trace


@contextmanager
def recorded_layers(model: Detector, trace: Trace) -> Iterator[None]:
    """Record what the layers of the dictionary compute while the context is open.

    Values are copied at once, since the network goes on in place. A layer that runs on the RoIs part by part has its
    parts put together; of several layers that write one blob the last one counts.
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

    for path, blob in layer_blobs(model, model.cfg):
        if path.startswith(_ON_EVERY_LEVEL):
            continue
        layer = model.get_submodule(path)
        if not isinstance(layer, ConvNorm):
            record(layer, blob, F.relu if blob in ("fc6", "fc7", "conv5_mask") else torch.clone)
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
    record_input(model.backbone.body.get_submodule("res2"), "pool1")
    for name, module in model.backbone.body.named_modules():
        if isinstance(module, Bottleneck):
            record(module, _block_output_blob(model, name))
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


def _block_output_blob(model: Detector, path: str) -> str:
    """The blob a block ends in: `res3_3_sum` of a stage's last, `res3_1_branch2c_gn` of the others."""
    stage, block = path.split(".")
    last = stage_blobs(model.cfg)[stage]
    if last == f"{stage}_{block}_sum":
        return last
    return f"{stage}_{block}_branch2c_{'gn' if isinstance(model.backbone.body.conv1.norm, nn.GroupNorm) else 'bn'}"


def _groups(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """`[N, C, H, W]` as `[N, G, values of a group]`."""
    return x.reshape(len(x), norm.num_groups, -1)


def _group_mean(norm: nn.GroupNorm) -> Callable[[Tensor], Tensor]:
    return lambda x: _groups(norm, x).mean(dim=2)


def _group_inverse_std(norm: nn.GroupNorm) -> Callable[[Tensor], Tensor]:
    """What Caffe2 keeps under `_std` is the inverse: 1 / sqrt(variance + epsilon)."""
    return lambda x: _groups(norm, x).var(dim=2, correction=0).add(norm.eps).rsqrt()


def _trace_rpn(model: GeneralizedRCNN, features: Features, im_info: ImInfo, trace: Trace) -> None:
    """RPN outputs, proposals of each level, and the RoIs collected from them."""
    if model.backbone.fpn.has_subsampled_level:
        gn = "_gn" if model.cfg.FPN.USE_GN else ""
        trace[f"fpn_{stage_blobs(model.cfg)['res5']}{gn}_subsampled_2x"] = features.maps[-1]
    outputs = model.rpn(features)
    proposals = model.rpn.proposals(outputs, features.strides, 0, im_info, model.cfg.TEST)
    levels = zip(model.rpn.levels, features.maps, outputs, proposals, strict=True)
    for level, feature_map, (logits, deltas), part in levels:
        trace[f"conv_rpn_fpn{level}"] = F.relu(model.rpn.conv(feature_map))
        trace[f"rpn_cls_logits_fpn{level}"] = logits
        trace[f"rpn_cls_probs_fpn{level}"] = logits.sigmoid()
        trace[f"rpn_bbox_pred_fpn{level}"] = deltas
        trace[f"rpn_rois_fpn{level}"] = part.rois
        trace[f"rpn_roi_probs_fpn{level}"] = part.scores[:, None]
    trace["rois"] = collect_proposals(proposals, model.cfg.TEST.RPN_POST_NMS_TOP_N).rois


def add_topdown(model: Detector, trace: Trace) -> None:
    """The upsampled maps that the pyramid adds to its laterals, each before the sum that it goes into."""
    blobs = list(lateral_blobs(model.cfg).values())
    coarsest = f"fpn_inner_{blobs[0]}" + ("_gn" if model.cfg.FPN.USE_GN else "")
    tops = [coarsest] + [f"fpn_inner_{blob}" for blob in blobs[1:-1]]
    for top, blob in zip(tops, blobs[1:], strict=True):
        upsampled = model.backbone.fpn.upsampled(trace[top])
        _insert_before(trace, f"fpn_inner_{blob}", f"fpn_inner_{blob}_topdown", upsampled)


def _insert_before(trace: Trace, place: str, name: str, value: Tensor) -> None:
    """Add a blob to the trace before another one."""
    later = list(trace.items())[list(trace).index(place) :]
    for blob, _ in later:
        del trace[blob]
    trace[name] = value
    trace.update(later)


def _add_roi_features(
    pooled: Tensor, cfg: Config, trace: Trace, feature_blob: str, roi_blob: str
) -> None:
    """RoIs and features under Caffe2's level-by-level names, and the order that undoes the levels.

    The network itself never shuffles; Caffe2 concatenates the levels (`_shuffled`) and permutes back
    (Detectron modeling/detector.py:RoIFeatureTransform).
    """
    rois = trace[roi_blob]
    level_of_roi = roi_levels(rois[:, 1:], cfg)
    order = level_of_roi.argsort(stable=True)
    trace[feature_blob] = pooled
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
