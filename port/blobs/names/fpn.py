"""Blobs of a feature pyramid; names as in Detectron modeling/FPN.py:add_fpn."""

from collections.abc import Iterator

from detectron_gn.mrcnn.config import Config, pyramid_levels
from detectron_gn.port.blobs.names.resnet import stage_blobs


def fpn_blobs(cfg: Config) -> Iterator[tuple[str, str]]:
    """Layers of the pyramid and the blobs they write."""
    stages = lateral_blobs(cfg)
    for stage_name, blob in stages.items():
        yield f"inner.{stage_name}", f"fpn_inner_{blob}" + ("" if stage_name == "res5" else "_lateral")
    for stage_name, blob in stages.items():
        yield f"output.{stage_name}", f"fpn_{blob}"
    if cfg.FPN.EXTRA_CONV_LEVELS:
        for level in pyramid_levels(cfg):
            if level > 5:
                yield f"extra.P{level}", f"fpn_{level}"


def lateral_blobs(cfg: Config) -> dict[str, str]:
    """The blob of each stage that the pyramid has a level of, coarsest first; RetinaNet's has none of res2."""
    finest = pyramid_levels(cfg).start
    return {stage: blob for stage, blob in stage_blobs(cfg).items() if int(stage.removeprefix("res")) >= finest}
