"""Blobs of the box, mask and keypoint heads; names as in Detectron modeling/*_rcnn_heads.py, ResNet.py, VGG*.py."""

from collections.abc import Iterator

from detectron_gn.mrcnn.config import Config, box_head_kind, mask_head_kind
from detectron_gn.mrcnn.heads.mask import NUM_CONVS
from detectron_gn.port.blobs.names.resnet import block_blobs


def box_head_blobs(cfg: Config) -> Iterator[tuple[str, str]]:
    """Layers of the box head and the blobs they write."""
    kind = box_head_kind(cfg)
    if kind in ("Xconv1fc", "Xconv1fc_gn"):
        for index in range(cfg.FAST_RCNN.NUM_STACKED_CONVS):
            yield f"convs.{index}", f"head_conv{index + 1}"
    yield from block_blobs("res5", 3)
    for layer in ("fc6", "fc7", "cls_score", "bbox_pred"):
        yield layer, layer


def mask_head_blobs(cfg: Config) -> Iterator[tuple[str, str]]:
    """Layers of the mask head and the blobs they write."""
    for index in range(NUM_CONVS.get(mask_head_kind(cfg), 0)):
        yield f"convs.{index}", f"{mask_blob_prefix(cfg)}fcn{index + 1}"
    yield from block_blobs("res5", 3, mask_blob_prefix(cfg))
    upsampled = ("mask_fcn_logits_up",) if cfg.MRCNN.UPSAMPLE_RATIO > 1 and not cfg.MRCNN.USE_FC_OUTPUT else ()
    for layer in ("conv5_mask", "mask_fcn_logits", *upsampled):
        yield layer, layer


def mask_blob_prefix(cfg: Config) -> str:
    """What the mask head's blobs begin with: `_mask_` with GroupNorm, `_[mask]_` without."""
    return "_mask_" if mask_head_kind(cfg) == "v1up4convs_gn" else "_[mask]_"


# What the blobs of the keypoint head that Detectron may fill from others begin with.
KEYPOINT_PREFIX = "_[pose]_"


def keypoint_head_blobs(cfg: Config) -> Iterator[tuple[str, str]]:
    """Layers of the keypoint head and the blobs they write."""
    yield from block_blobs("res5", 3, KEYPOINT_PREFIX)
    for index in range(cfg.KRCNN.NUM_STACKED_CONVS):
        yield f"convs.{index}", f"conv_fcn{index + 1}"
    yield "kps_deconv", "kps_deconv"
    yield "score", "kps_score_lowres" if cfg.KRCNN.UP_SCALE > 1 else "kps_score"
    yield "upsample", "kps_score"
