"""The network's first pass over an image of a reference, with the proposals that the reference's run had."""

import torch
from torch import Tensor

from detectron_gn.mrcnn.detectors import Detector, GeneralizedRCNN, ProposalNetwork, RetinaNet
from detectron_gn.mrcnn.inference.dynamic import class_boxes
from detectron_gn.mrcnn.inference.rois import ImageRois, given_rois
from detectron_gn.mrcnn.structures import Detections
from detectron_gn.port.blobs.activations import Trace, trace_boxes, trace_proposals
from detectron_gn.port.blobs.retinanet_activations import trace_retinanet
from detectron_gn.verify.reference.image_dump import ImageReference


def first_pass(model: Detector, reference: ImageReference) -> Trace:
    """The blobs up to the boxes and scores; of a network without a second stage all there are."""
    if isinstance(model, RetinaNet):
        return trace_retinanet(model, reference.image)
    if isinstance(model, ProposalNetwork):
        return trace_proposals(model, reference.image)
    assert isinstance(model, GeneralizedRCNN)
    return trace_boxes(model, reference.image, proposals=reference.proposals)


def detected(model: Detector, reference: ImageReference) -> Detections:
    """What the network finds by itself."""
    return model.detect(reference.image, reference.proposals)


@torch.inference_mode()
def detected_in(model: GeneralizedRCNN, reference: ImageReference, rois: Tensor, data: Tensor) -> Detections:
    """What the second stage finds in `[R, 5]` RoIs.

    Args:
        data: of the first pass.
    """
    scale = float(model.prepare(reference.image).scale)
    of_image = _given(model, reference)._replace(rois=rois)
    return model.detect_in_rois(model.features(data), of_image, reference.image_size, scale)


def returned(model: GeneralizedRCNN, trace: Trace, reference: ImageReference) -> tuple[Tensor, Tensor]:
    """What Detectron returns for each RoI, or each proposal given: boxes `[R, 4K]` in image pixels, scores `[R, K]`."""
    rois = _given(model, reference)._replace(rois=trace["rois"])
    in_image = rois.in_image(float(model.prepare(reference.image).scale))
    boxes = class_boxes(in_image, trace["bbox_pred"], 1.0, reference.image_size, model.cfg)
    return rois.restored(boxes), rois.restored(trace["cls_prob"])


def _given(model: GeneralizedRCNN, reference: ImageReference) -> ImageRois:
    """The RoIs of the proposals that were given; none for a model that makes its own."""
    if reference.proposals is None:
        return ImageRois(torch.zeros((0, 5)))
    scale = float(model.prepare(reference.image).scale)
    return given_rois(torch.from_numpy(reference.proposals).to(model.device), 0, scale, model.cfg.DEDUP_BOXES)
