"""Blobs of the RPN; names as in Detectron modeling/FPN.py:add_fpn_rpn_outputs."""

from collections.abc import Iterator

from detectron_gn.mrcnn.config import Config


def rpn_blobs(cfg: Config) -> Iterator[tuple[str, str]]:
    """Layers of the RPN and the blobs they write.

    All levels share the parameters of the finest, which carry its name.
    """
    finest = cfg.FPN.RPN_MIN_LEVEL
    yield "conv", f"conv_rpn_fpn{finest}"
    yield "cls_logits", f"rpn_cls_logits_fpn{finest}"
    yield "bbox_pred", f"rpn_bbox_pred_fpn{finest}"
