"""Which blob each layer of a network writes; one module a component, put together by the components there are."""

from collections.abc import Callable, Iterator

from torch import nn

from detectron_gn.mrcnn.backbones.fpn import FPN
from detectron_gn.mrcnn.backbones.resnet import ResNet
from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.heads.box import BoxHead
from detectron_gn.mrcnn.heads.mask import MaskHead
from detectron_gn.mrcnn.heads.retinanet import RetinaNetHead
from detectron_gn.mrcnn.heads.rpn import RPN
from detectron_gn.port.blobs.names.fpn import fpn_blobs
from detectron_gn.port.blobs.names.heads import box_head_blobs, mask_head_blobs
from detectron_gn.port.blobs.names.resnet import resnet_blobs
from detectron_gn.port.blobs.names.retinanet import retinanet_blobs
from detectron_gn.port.blobs.names.rpn import rpn_blobs

LayerBlobs = Callable[[Config], Iterator[tuple[str, str]]]

# Pairs of a layer's path in its component and the blob that its convolution or matrix product writes. A layer's
# parameter blobs begin with that name; so do the blobs of its activations.
_OF_COMPONENT: dict[type[nn.Module], LayerBlobs] = {
    ResNet: resnet_blobs,
    FPN: fpn_blobs,
    RPN: rpn_blobs,
    BoxHead: box_head_blobs,
    MaskHead: mask_head_blobs,
    RetinaNetHead: retinanet_blobs,
}


def layer_blobs(model: nn.Module, cfg: Config) -> Iterator[tuple[str, str]]:
    """Pairs of a layer's path in a network and the blob it writes, in Detectron's order."""
    for path, component in model.named_modules():
        if type(component) in _OF_COMPONENT:
            for layer, blob in _OF_COMPONENT[type(component)](cfg):
                yield f"{path}.{layer}" if path else layer, blob
