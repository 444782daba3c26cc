"""The conversion of a weights file, under Detectron's names: those of a `state_dict` of this project are translated."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.wording import listed
from detectron_gn.port.blobs.family import MOMENTUM
from detectron_gn.port.blobs.layouts import is_own_state_dict, layout_of, with_blob_names
from detectron_gn.port.blobs.match import match_blobs
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.yaml_dumper import dump_config
from detectron_gn.port.runs.load import config_for, find_config
from detectron_gn.weights.convert import Conversion, convert
from detectron_gn.weights.download.cache import resolve
from detectron_gn.weights.weights_file import WeightsFile

logger = logging.getLogger(__name__)


def convert_format(
    source: str, out: Path, config: str | None = None, overrides: Sequence[str] = (), *, strip: bool = False
) -> Conversion:
    """Write the blobs of SOURCE in the format of `out`.

    Args:
        strip: leave momentum out, and with it the iteration: no training goes on from there.
        config, overrides: of a `state_dict` of this project, which says nothing of its network. The blobs are written
            in Detectron's order, beside that configuration.

    Raises InputError or WeightsError, with nothing written, also where such a file lacks a parameter, and for a
    configuration that would change nothing. A warning says where the names are another project's.
    """
    given = None if config is None else find_config(config, overrides)
    path = resolve(source)

    def named(weights: WeightsFile) -> WeightsFile:
        if is_own_state_dict(weights.blobs):
            return _as_blobs(weights, config_for(source, path, weights, given, overrides))
        if config is not None or overrides:
            raise InputError(
                "--config and --set change nothing in a conversion that keeps Detectron's blobs: leave them out, or "
                "pass --layout torchvision or timm"
            )
        layout = layout_of(weights.blobs)
        if layout is not None:
            logger.warning(
                "%s has the parameter names of %s, which are written as they are; no network here takes them: %s",
                source,
                layout.project,
                layout.way_out,
            )
        return weights

    return convert(path, out, lambda weights: without_momentum(named(weights)) if strip else named(weights))


def without_momentum(weights: WeightsFile) -> WeightsFile:
    """The weights without the momentum of a training run, which is half of such a file and which nothing detects with.

    A run may start from them, at iteration 0, but none can go on.
    """
    kept = {name: blob for name, blob in weights.blobs.items() if not name.endswith(MOMENTUM)}
    return replace(weights, blobs=kept, iteration=None)


def _as_blobs(weights: WeightsFile, cfg: Config) -> WeightsFile:
    """A `state_dict` of a configuration's network as the file that Detectron would have written."""
    table = BlobTable.from_config(cfg)
    weights = with_blob_names(table, weights)
    match = match_blobs(table, weights)
    if match.missing:
        raise InputError(
            f"{weights.source} lacks {listed([row.parameter for row in match.missing])}, which the configuration "
            "needs: the file is damaged, or pass --config with the YAML it was trained with"
        )
    blobs = {row.blob: match.filled[row.parameter] for row in table.rows}
    return replace(weights, blobs=blobs, cfg=dump_config(cfg))
