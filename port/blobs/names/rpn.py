"""Blobs of the RPN; names as in Detectron modeling/FPN.py:add_fpn_rpn_outputs, rpn_heads.py."""

from collections.abc import Iterator

from detectron_gn.mrcnn.config import Config


def rpn_blobs(cfg: Config) -> Iterator[tuple[str, str]]:
    """Layers of the RPN and the blobs they write.

    All levels share the parameters of the finest, which carry its name.
    """
    suffix = level_suffix(cfg, cfg.FPN.RPN_MIN_LEVEL)
    yield "conv", f"conv_rpn{suffix}"
    yield "cls_logits", f"rpn_cls_logits{suffix}"
    yield "bbox_pred", f"rpn_bbox_pred{suffix}"


def level_suffix(cfg: Config, level: int) -> str:
    """What the names of a level's blobs end in; nothing where there is only one."""
    return f"_fpn{level}" if cfg.FPN.FPN_ON else ""
