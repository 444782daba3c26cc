"""Which blob each layer of a network writes; one module a component, put together by the components there are."""

from collections.abc import Callable, Iterator

from torch import nn

from detectron_gn.mrcnn.backbones.fpn import FPN
from detectron_gn.mrcnn.backbones.resnet import ResNet
from detectron_gn.mrcnn.backbones.vgg import VGG16, VGG_CNN_M_1024
from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.heads.box import BoxHead
from detectron_gn.mrcnn.heads.keypoint import KeypointHead
from detectron_gn.mrcnn.heads.mask import MaskHead
from detectron_gn.mrcnn.heads.retinanet import RetinaNetHead
from detectron_gn.mrcnn.heads.rpn import RPN
from detectron_gn.port.blobs.names.fpn import fpn_blobs
from detectron_gn.port.blobs.names.heads import box_head_blobs, keypoint_head_blobs, mask_head_blobs
from detectron_gn.port.blobs.names.resnet import resnet_blobs
from detectron_gn.port.blobs.names.retinanet import retinanet_blobs
from detectron_gn.port.blobs.names.rpn import rpn_blobs
from detectron_gn.port.blobs.names.vgg import vgg16_blobs, vgg_cnn_m_blobs

LayerBlobs = Callable[[Config], Iterator[tuple[str, str]]]

# Pairs of a layer's path in its component and the blob that its convolution or matrix product writes. A layer's
# parameter blobs begin with that name; so do the blobs of its activations.
_OF_COMPONENT: dict[type[nn.Module], LayerBlobs] = {
    ResNet: resnet_blobs,
    VGG16: vgg16_blobs,
    VGG_CNN_M_1024: vgg_cnn_m_blobs,
    FPN: fpn_blobs,
    RPN: rpn_blobs,
    BoxHead: box_head_blobs,
    MaskHead: mask_head_blobs,
    KeypointHead: keypoint_head_blobs,
    RetinaNetHead: retinanet_blobs,
}


def layer_blobs(model: nn.Module, cfg: Config) -> Iterator[tuple[str, str]]:
    """Pairs of a layer's path in a network and the blob it writes, in Detectron's order.

    A component yields the names of all layers that it may have; of a network only those count that are there.
    """
    for path, component in model.named_modules():
        if type(component) in _OF_COMPONENT:
            layers = dict(component.named_modules())
            for layer, blob in _OF_COMPONENT[type(component)](cfg):
                if layer not in layers:
                    continue
                yield f"{path}.{layer}" if path else layer, blob
