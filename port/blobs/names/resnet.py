"""Blobs of a ResNet body; names as in Detectron modeling/ResNet.py."""

from collections.abc import Iterator

from detectron_gn.mrcnn.backbones.resnet import BLOCK_COUNTS
from detectron_gn.mrcnn.config import Config, backbone_depth


def resnet_blobs(cfg: Config) -> Iterator[tuple[str, str]]:
    """Layers of the body and the blobs they write."""
    yield "conv1", "conv1"
    for stage, count in enumerate(BLOCK_COUNTS[backbone_depth(cfg)], 2):
        yield from block_blobs(f"res{stage}", count)


def block_blobs(stage: str, count: int, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Layers of a stage of residual blocks and the blobs they write, which begin with a prefix where a head has it."""
    for block in range(count):
        branches = ("branch2a", "branch2b", "branch2c") + (("branch1",) if block == 0 else ())
        for branch in branches:
            yield f"{stage}.{block}.{branch}", f"{prefix}{stage}_{block}_{branch}"


def stage_blobs(cfg: Config) -> dict[str, str]:
    """The blob each stage ends in, for example `{"res5": "res5_2_sum", ...}`, coarsest first.

    Detectron modeling/FPN.py:fpn_level_info_ResNet50_conv5 and its siblings.
    """
    counts = BLOCK_COUNTS[backbone_depth(cfg)]
    return {f"res{stage}": f"res{stage}_{counts[stage - 2] - 1}_sum" for stage in (5, 4, 3, 2)}
