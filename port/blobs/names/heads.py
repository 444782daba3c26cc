"""Blobs of the box and mask heads; names as in Detectron modeling/fast_rcnn_heads.py and mask_rcnn_heads.py."""

from collections.abc import Iterator

from detectron_gn.mrcnn.config import Config, box_head_kind, mask_head_kind
from detectron_gn.mrcnn.heads.mask import NUM_CONVS


def box_head_blobs(cfg: Config) -> Iterator[tuple[str, str]]:
    """Layers of the box head and the blobs they write."""
    two_layers = box_head_kind(cfg) == "2mlp"
    for index in range(0 if two_layers else cfg.FAST_RCNN.NUM_STACKED_CONVS):
        yield f"convs.{index}", f"head_conv{index + 1}"
    for layer in ("fc6", *(("fc7",) if two_layers else ()), "cls_score", "bbox_pred"):
        yield layer, layer


def mask_head_blobs(cfg: Config) -> Iterator[tuple[str, str]]:
    """Layers of the mask head and the blobs they write."""
    for index in range(NUM_CONVS):
        yield f"convs.{index}", f"{mask_blob_prefix(cfg)}fcn{index + 1}"
    upsampled = ("mask_fcn_logits_up",) if cfg.MRCNN.UPSAMPLE_RATIO > 1 and not cfg.MRCNN.USE_FC_OUTPUT else ()
    for layer in ("conv5_mask", "mask_fcn_logits", *upsampled):
        yield layer, layer


def mask_blob_prefix(cfg: Config) -> str:
    """What the mask head's blobs begin with: `_mask_` with GroupNorm, `_[mask]_` without."""
    return "_mask_" if mask_head_kind(cfg) == "v1up4convs_gn" else "_[mask]_"
