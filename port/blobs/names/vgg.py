"""Blobs of the VGG bodies; names as in Detectron modeling/VGG16.py and VGG_CNN_M_1024.py."""

from collections.abc import Iterator

from detectron_gn.mrcnn.backbones.vgg import VGG16, VGG16_STAGES, VGG_CNN_M_1024
from detectron_gn.mrcnn.config import Config


def vgg16_blobs(_cfg: Config) -> Iterator[tuple[str, str]]:
    """Layers of VGG16 and the blobs they write."""
    for number, (_, count) in enumerate(VGG16_STAGES, 1):
        for place in range(1, count + 1):
            yield f"conv{number}_{place}", f"conv{number}_{place}"


def vgg_cnn_m_blobs(_cfg: Config) -> Iterator[tuple[str, str]]:
    """Layers of VGG_CNN_M_1024 and the blobs they write."""
    for number in range(1, 6):
        yield f"conv{number}", f"conv{number}"
        yield f"norm{number}", f"norm{number}"


def vgg_pools(body: VGG16 | VGG_CNN_M_1024) -> dict[str, str]:
    """The blob of maxima that goes into a convolution, by the convolution's path."""
    if isinstance(body, VGG16):
        return {f"conv{number}_1": f"pool{number - 1}" for number in range(2, len(VGG16_STAGES) + 1)}
    return {"conv2": "pool1", "conv3": "pool2"}
