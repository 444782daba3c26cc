"""The ImageNet classifier that a backbone was trained as: to check its published error, not to detect with."""

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from detectron_gn.mrcnn.backbones.resnet import STAGE_CHANNELS, ResNet
from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.image_blob import FloatImage, Image
from detectron_gn.mrcnn.precision import tf32_products

SHORT_SIDE = 256
CROP = 224


class Classifier(nn.Module):
    """A ResNet body, the mean over its last map, and one matrix product to the classes; in float32, without TF32."""

    def __init__(self, cfg: Config, classes: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.body = ResNet(cfg)
        self.pred = nn.Linear(STAGE_CHANNELS[-1], classes)

    def forward(self, data: Tensor) -> Tensor:
        """`[N, 3, 224, 224]` prepared crops to logits `[N, classes]`."""
        with tf32_products(False):
            logits: Tensor = self.pred(self.body(data)[-1].mean(dim=(2, 3)))
        return logits


def center_crop(image: Image, pixel_means: tuple[float, float, float]) -> FloatImage:
    """The crop that is classified: `[224, 224, 3]` float32 BGR with the mean colour removed, not divided by anything.

    The short side becomes 256 pixels, by area as Caffe2's ImageInput operator resizes, the long one in proportion,
    cut to whole pixels; the crop is from the middle.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    size = (width * SHORT_SIDE // short, height * SHORT_SIDE // short)
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    x, y = (size[0] - CROP) // 2, (size[1] - CROP) // 2
    return resized[y : y + CROP, x : x + CROP].astype(np.float32) - np.asarray(pixel_means, dtype=np.float32)


def crop_blob(images: list[Image], pixel_means: tuple[float, float, float]) -> Tensor:
    """Centre crops of images as `[N, 3, 224, 224]` float32, channels-last in memory."""
    return torch.from_numpy(np.stack([center_crop(image, pixel_means) for image in images])).permute(0, 3, 1, 2)
