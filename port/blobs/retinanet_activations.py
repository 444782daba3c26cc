"""The activations of a RetinaNet's test run under the names Caffe2 gives them: see activations.py."""

import torch
import torch.nn.functional as F

from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.detectors import RetinaNet
from detectron_gn.port.blobs.activations import Trace, add_pyramid, recorded_layers
from detectron_gn.port.blobs.names.retinanet import retinanet_layers


@torch.inference_mode()
def trace_retinanet(model: RetinaNet, image: Image) -> Trace:
    """Every blob of the network over one `[H, W, 3]` uint8 BGR image.

    Returns:
        Blob name -> tensor of the blob's own shape and order, as Caffe2 has them.
    """
    batch = model.network_input([image])
    trace: Trace = {"data": batch.data, "im_info": torch.tensor(batch.im_info)}
    with model.products(), recorded_layers(model, trace):
        features = model.features(batch.data)
    add_pyramid(model, trace)
    for name in list(model.backbone.fpn.extra)[:-1]:
        blob = f"fpn_{name.removeprefix('P')}"
        trace[f"{blob}_relu"] = F.relu(trace[blob])
    with model.products():
        for level, feature_map in zip(model.levels, features.maps, strict=True):
            x = feature_map
            for layer, blob in retinanet_layers(model.cfg):
                if layer == "bbox_convs.0":
                    x = feature_map
                value = model.head.get_submodule(layer)(x)
                trace[f"{blob}_fpn{level}"] = value
                if layer == "cls_pred":
                    trace[f"retnet_cls_prob_fpn{level}"] = model.head.probabilities(value)
                else:
                    x = value
    return trace
