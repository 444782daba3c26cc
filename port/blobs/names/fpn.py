"""Blobs of a feature pyramid; names as in Detectron modeling/FPN.py:add_fpn."""

from collections.abc import Iterator

from detectron_gn.mrcnn.config import Config
from detectron_gn.port.blobs.names.resnet import stage_blobs


def fpn_blobs(cfg: Config) -> Iterator[tuple[str, str]]:
    """Layers of the pyramid and the blobs they write."""
    stages = stage_blobs(cfg)
    for stage_name, blob in stages.items():
        yield f"inner.{stage_name}", f"fpn_inner_{blob}" + ("" if stage_name == "res5" else "_lateral")
    for stage_name, blob in stages.items():
        yield f"output.{stage_name}", f"fpn_{blob}"
