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

from detectron_gn.mrcnn.backbones.fpn import roi_levels
from detectron_gn.mrcnn.backbones.resnet import Bottleneck
from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.detectors.generalized_rcnn import MaskRCNN
from detectron_gn.mrcnn.layers import AffineChannel, ConvNorm
from detectron_gn.mrcnn.ops.proposals import ImInfo, collect_proposals
from detectron_gn.mrcnn.ops.roi_align import pyramid_roi_align
from detectron_gn.port.blobs.table import layer_blobs, mask_blob_prefix, stage_blobs

Trace = dict[str, Tensor]


@torch.inference_mode()
def trace_boxes(model: MaskRCNN, image: Image, rois: Tensor | None = None) -> Trace:
    """Every blob of the first pass over one `[H, W, 3]` uint8 BGR image, up to `cls_prob` and `bbox_pred`.

    Args:
        rois: `[R, 5]` to go on with in place of the network's own: the same ones in another order, say.

    Returns:
        Blob name -> tensor of the blob's own shape and order, as Caffe2's `data`, `rois`, ... have them.
    """
    data, (im_info,), _ = model.network_input([image])
    trace: Trace = {"data": data, "im_info": torch.tensor([im_info])}
    with _recorded_layers(model, trace):
        stages = model.backbone(data)
        levels = model.fpn(stages)
        _trace_rpn(model, levels, im_info, trace)
        if rois is not None:
            trace["rois"] = rois
        trace["cls_score"], trace["bbox_pred"] = model.box_outputs(levels, trace["rois"])
    _add_topdown(model, trace)
    _add_roi_features(model, levels, trace, "roi_feat", "rois", model.cfg.FAST_RCNN)
    trace["cls_prob"] = trace["cls_score"].softmax(dim=1)
    return trace


@torch.inference_mode()
def trace_masks(model: MaskRCNN, image: Image, mask_rois: Tensor) -> Trace:
    """Every blob of the second pass, for `[D, 5]` float32 RoIs in network pixels."""
    trace: Trace = {"mask_rois": mask_rois}
    levels = model.features(model.network_input([image]).data)
    with _recorded_layers(model, trace):
        trace["mask_fcn_logits"] = model.mask_outputs_of_all_classes(levels, mask_rois)
    _add_roi_features(model, levels, trace, f"{mask_blob_prefix(model.cfg)}roi_feat", "mask_rois", model.cfg.MRCNN)
    trace["mask_fcn_probs"] = trace["mask_fcn_logits"].sigmoid()
    return trace


@contextmanager
def _recorded_layers(model: MaskRCNN, trace: Trace) -> Iterator[None]:
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

    for path, blob in layer_blobs(model.cfg):
        if path.startswith("rpn."):
            continue  # it runs once a level: see _trace_rpn
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
    record_input(model.backbone.get_submodule("res2"), "pool1")
    for name, module in model.backbone.named_modules():
        if isinstance(module, Bottleneck):
            record(module, _block_output_blob(model, name))
    for stage, blob in stage_blobs(model.cfg).items():
        if stage != "res5":
            record_input(model.fpn.output[stage], f"fpn_inner_{blob}")
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for name, values in parts.items():
            trace[name] = torch.cat(values)


def _block_output_blob(model: MaskRCNN, path: str) -> str:
    """The blob a block ends in: `res3_3_sum` of a stage's last, `res3_1_branch2c_gn` of the others."""
    stage, block = path.split(".")
    last = stage_blobs(model.cfg)[stage]
    if last == f"{stage}_{block}_sum":
        return last
    return f"{stage}_{block}_branch2c_{'gn' if isinstance(model.backbone.conv1.norm, nn.GroupNorm) else 'bn'}"


def _groups(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """`[N, C, H, W]` as `[N, G, values of a group]`."""
    return x.reshape(len(x), norm.num_groups, -1)


def _group_mean(norm: nn.GroupNorm) -> Callable[[Tensor], Tensor]:
    return lambda x: _groups(norm, x).mean(dim=2)


def _group_inverse_std(norm: nn.GroupNorm) -> Callable[[Tensor], Tensor]:
    """What Caffe2 keeps under `_std` is the inverse: 1 / sqrt(variance + epsilon)."""
    return lambda x: _groups(norm, x).var(dim=2, correction=0).add(norm.eps).rsqrt()


def _trace_rpn(model: MaskRCNN, levels: list[Tensor], im_info: ImInfo, trace: Trace) -> None:
    """RPN outputs, proposals of each level, and the RoIs collected from them."""
    gn = "_gn" if model.cfg.FPN.USE_GN else ""
    trace[f"fpn_{stage_blobs(model.cfg)['res5']}{gn}_subsampled_2x"] = levels[-1]
    outputs = model.rpn(levels)
    proposals = model.image_proposals(outputs, 0, im_info, model.cfg.TEST)
    first = model.cfg.FPN.RPN_MIN_LEVEL
    for level, (features, (logits, deltas), part) in enumerate(zip(levels, outputs, proposals, strict=True), first):
        trace[f"conv_rpn_fpn{level}"] = F.relu(model.rpn.conv(features))
        trace[f"rpn_cls_logits_fpn{level}"] = logits
        trace[f"rpn_cls_probs_fpn{level}"] = logits.sigmoid()
        trace[f"rpn_bbox_pred_fpn{level}"] = deltas
        trace[f"rpn_rois_fpn{level}"] = part.rois
        trace[f"rpn_roi_probs_fpn{level}"] = part.scores[:, None]
    trace["rois"] = collect_proposals(proposals, model.cfg.TEST.RPN_POST_NMS_TOP_N).rois


def _add_topdown(model: MaskRCNN, trace: Trace) -> None:
    """The upsampled maps that the pyramid adds to its laterals, each before the sum that it goes into."""
    blobs = list(stage_blobs(model.cfg).values())
    coarsest = f"fpn_inner_{blobs[0]}" + ("_gn" if model.cfg.FPN.USE_GN else "")
    tops = [coarsest] + [f"fpn_inner_{blob}" for blob in blobs[1:-1]]
    for top, blob in zip(tops, blobs[1:], strict=True):
        _insert_before(trace, f"fpn_inner_{blob}", f"fpn_inner_{blob}_topdown", model.fpn.upsampled(trace[top]))


def _insert_before(trace: Trace, place: str, name: str, value: Tensor) -> None:
    """Add a blob to the trace before another one."""
    later = list(trace.items())[list(trace).index(place) :]
    for blob, _ in later:
        del trace[blob]
    trace[name] = value
    trace.update(later)


def _add_roi_features(
    model: MaskRCNN, levels: list[Tensor], trace: Trace, feature_blob: str, roi_blob: str, pooling: Any
) -> None:
    """RoIs and features under Caffe2's level-by-level names, and the order that undoes the levels.

    The network itself never shuffles; Caffe2 concatenates the levels (`_shuffled`) and permutes back
    (Detectron modeling/detector.py:RoIFeatureTransform).
    """
    rois = trace[roi_blob]
    pooled = pyramid_roi_align(levels, rois, model.cfg, pooling.ROI_XFORM_RESOLUTION, pooling.ROI_XFORM_SAMPLING_RATIO)
    level_of_roi = roi_levels(rois[:, 1:], model.cfg)
    order = level_of_roi.argsort(stable=True)
    trace[feature_blob] = pooled
    trace[f"{feature_blob}_shuffled"] = pooled[order]
    trace[f"{roi_blob}_idx_restore_int32"] = order.argsort().int()
    levels_used = range(model.cfg.FPN.ROI_MIN_LEVEL, model.cfg.FPN.ROI_MAX_LEVEL + 1)
    for level in levels_used:
        trace[f"{roi_blob}_fpn{level}"] = rois[level_of_roi == level]
        trace[f"{feature_blob}_fpn{level}"] = pooled[level_of_roi == level]
    # Concat also writes how many rows each of its inputs had.
    trace[f"_concat_{feature_blob}"] = torch.tensor(
        [int((level_of_roi == level).sum()) for level in levels_used], dtype=torch.int32
    )
