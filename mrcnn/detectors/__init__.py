"""Whole networks, put together from a backbone and heads, and which one a configuration asks for."""

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.detectors.detector import Boxes, Detector
from detectron_gn.mrcnn.detectors.generalized_rcnn import GeneralizedRCNN
from detectron_gn.mrcnn.detectors.proposal_network import ProposalNetwork
from detectron_gn.mrcnn.detectors.retinanet import RetinaNet

__all__ = ["Boxes", "Detector", "GeneralizedRCNN", "ProposalNetwork", "RetinaNet", "build_detector"]


def build_detector(cfg: Config) -> Detector:
    """The network of a configuration, filled as Caffe2 fills it; raises what `Detector` raises."""
    if cfg.RETINANET.RETINANET_ON:
        return RetinaNet(cfg)
    return ProposalNetwork(cfg) if cfg.MODEL.RPN_ONLY else GeneralizedRCNN(cfg)
