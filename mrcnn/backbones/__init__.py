"""The bodies of the networks: images to feature maps."""

from detectron_gn.mrcnn.backbones.c4 import C4Backbone
from detectron_gn.mrcnn.backbones.fpn import PyramidBackbone
from detectron_gn.mrcnn.backbones.vgg import VGG16, VGG_CNN_M_1024
from detectron_gn.mrcnn.config import Config, body

Backbone = PyramidBackbone | C4Backbone | VGG16 | VGG_CNN_M_1024

__all__ = ["Backbone", "build_backbone"]


def build_backbone(cfg: Config) -> Backbone:
    """What `cfg.MODEL.CONV_BODY` names: images to `Features`, whose maps have `dim` channels."""
    kind, name, _ = body(cfg)
    if kind == "FPN":
        return PyramidBackbone(cfg)
    if kind == "C4":
        return C4Backbone(cfg)
    return VGG16() if name == "VGG16" else VGG_CNN_M_1024()
