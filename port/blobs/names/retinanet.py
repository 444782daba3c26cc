"""Blobs of RetinaNet's head; names as in Detectron modeling/retinanet_heads.py:add_fpn_retinanet_outputs."""

from collections.abc import Iterator

from detectron_gn.mrcnn.config import Config


def retinanet_blobs(cfg: Config) -> Iterator[tuple[str, str]]:
    """Layers of the head and the blobs they write.

    All levels share the parameters of the finest, which carry its name.
    """
    for layer, blob in retinanet_layers(cfg):
        yield layer, f"{blob}_fpn{cfg.FPN.RPN_MIN_LEVEL}"


def retinanet_layers(cfg: Config) -> Iterator[tuple[str, str]]:
    """Layers of the head and what the blobs they write are called on every level, before `_fpn3`, `_fpn4`, ..."""
    towers = ("cls",) if cfg.RETINANET.SHARE_CLS_BBOX_TOWER else ("cls", "bbox")
    for tower in ("cls", "bbox"):
        if tower in towers:
            for index in range(cfg.RETINANET.NUM_CONVS):
                yield f"{tower}_convs.{index}", f"retnet_{tower}_conv_n{index}"
        yield f"{tower}_pred", f"retnet_{tower}_pred"
