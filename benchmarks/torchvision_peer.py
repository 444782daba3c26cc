"""torchvision's Mask R-CNN, the nearest peer with compiled operators, to be measured beside ours.

torchvision is not a dependency: the module imports without it, `available` tells whether it is there. Its ResNet-50 has
frozen batch normalisation and its box head two fully connected layers, so it is the lighter network: 250 billion
multiplications at 800 x 1216, where R-50 GN has 363.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.image_blob import Image

HOW_TO_GET = "torchvision is not importable, so there is nothing to compare with: install the build of this torch"


def available() -> bool:
    """Whether torchvision and its operators can be imported here."""
    try:
        importlib.import_module("torchvision.models.detection")
    except (ImportError, RuntimeError):
        return False
    return True


def network(cfg: Config, device: str) -> Any:
    """A Mask R-CNN R-50-FPN with the configuration's sizes, numbers of proposals and detections, randomly filled."""
    torch.manual_seed(0)
    detection = importlib.import_module("torchvision.models.detection")
    # As `maskrcnn_resnet50_fpn` is built for its published weights; without them its batch normalisation is not frozen.
    backbone = detection.backbone_utils.resnet_fpn_backbone(backbone_name="resnet50", weights=None)
    model = detection.MaskRCNN(
        backbone,
        num_classes=cfg.MODEL.NUM_CLASSES,
        min_size=cfg.TEST.SCALE,
        max_size=cfg.TEST.MAX_SIZE,
        rpn_pre_nms_top_n_test=cfg.TEST.RPN_PRE_NMS_TOP_N,
        rpn_post_nms_top_n_test=cfg.TEST.RPN_POST_NMS_TOP_N,
        rpn_nms_thresh=cfg.TEST.RPN_NMS_THRESH,
        box_score_thresh=cfg.TEST.SCORE_THRESH,
        box_nms_thresh=cfg.TEST.NMS,
        box_detections_per_img=cfg.TEST.DETECTIONS_PER_IM,
    )
    return model.eval().to(device).to(memory_format=torch.channels_last)


def spread_scores(model: Any, detect: Callable[[], int], wanted: int) -> None:
    """Raise the weights of the class scores until `detect` finds as many objects as the configuration allows."""
    while detect() < wanted:
        with torch.no_grad():
            model.roi_heads.box_predictor.cls_score.weight.mul_(2)


def as_tensor(image: Image, device: str) -> Tensor:
    """An image as the model takes it: `[3, H, W]` RGB from 0 to 1, on its device."""
    return torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1).float().div(255).to(device)


def inference(model: Any, images: Sequence[Tensor], dtype: torch.dtype | None) -> Callable[[], int]:
    """A function that detects, masks pasted on the device, and gives the number of detections of the first image.

    A `dtype` of 16 bits is torch's autocast, as torchvision's own scripts have it: it rounds the weights in every call.
    """
    device = images[0].device.type

    @torch.inference_mode()
    def detect() -> int:
        with torch.autocast(device, dtype or torch.bfloat16, enabled=dtype is not None):
            found = model(list(images))
        return len(found[0]["scores"].cpu())

    return detect
