"""From a model id, a URL or a file to a configured model; answers to Detectron tools/infer_simple.py:main."""

import logging
from collections.abc import Sequence
from pathlib import Path

from detectron_gn.mrcnn.config import Config, has_box_head, idle_remarks, with_values
from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.distributed import usable_device
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.precision import Precision
from detectron_gn.port.blobs.convert import build_model, check_is_detector
from detectron_gn.port.blobs.layouts import is_own_state_dict, with_blob_names
from detectron_gn.port.blobs.match import match_blobs
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.classes import categories_of
from detectron_gn.port.config.read import (
    WrongOverride,
    bundled_config,
    bundled_names,
    lacks_box_weights,
    named_keys,
    parse_config,
    read_config,
    told_old_box_weights,
)
from detectron_gn.port.config.saved import BOX_WEIGHTS, OLD_BOX_WEIGHTS, UnsupportedModel, differences
from detectron_gn.weights import WeightsFile, read_blobs
from detectron_gn.weights.catalog import CatalogEntry, entry_of_file, lookup
from detectron_gn.weights.download.cache import resolve
from detectron_gn.weights.errors import UnknownModel

logger = logging.getLogger(__name__)


def load_model(
    source: str | Path,
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    precision: Precision = "fp32",
    *,
    keep_unused: bool = False,
    classes: Sequence[str] | None = None,
) -> Detector:
    """A model ready to detect.

    Args:
        source, config, overrides: see `configured_weights`.
        device: as torch names it; "auto" is the first GPU, or the CPU where there is none.
        precision: of convolutions and matrix products.
        keep_unused: see `build_model`.
        classes: names of classes 1, 2, ... instead of those that `known_categories` finds.

    Raises InputError or WeightsError with one sentence, also for a device that this machine does not have.
    """
    place = usable_device(device)
    cfg, weights = configured_weights(source, config, overrides)
    model = build_model(cfg, weights, keep_unused=keep_unused).to(place)
    model.categories = categories_of(cfg, weights, source, classes)
    model.use_precision(precision)
    return model


def configured_weights(
    source: str | Path, config: str | Path | None = None, overrides: Sequence[str] = ()
) -> tuple[Config, WeightsFile]:
    """A weights file and the configuration that counts for it.

    Args:
        source: a model id of the catalog, its URL, or a file.
        config: a Detectron YAML file, or a name in `yaml_configs/`. Where it is left out the configuration inside the
            weights file counts, or else the catalog's.
        overrides: `["TEST.NMS", "0.3", ...]`, as on Detectron's command line.
    """
    # First what is quick to refuse, then the download.
    given = None if config is None else find_config(config, overrides)
    path = resolve(source)
    weights = read_blobs(path)
    return config_for(source, path, weights, given, overrides), weights


def config_for(
    source: str | Path, path: Path, weights: WeightsFile, given: Config | None, overrides: Sequence[str] = ()
) -> Config:
    """The configuration that counts for weights that are read already.

    Args:
        path: the file that `source` is.
        given: the user's, with `overrides` in it; None for the weights' own.
    """
    if given is None:
        cfg = _own_config(str(source), path, weights, overrides)
    else:
        cfg = with_saved_box_weights(given, weights, overrides)
    for remark in idle_remarks(cfg):
        logger.warning("%s", remark)
    return cfg


def classifier_config(config: str | Path | None, overrides: Sequence[str] = ()) -> Config | None:
    """The configuration that a user gives for an ImageNet file, of a detector with its body; None where none is given.

    Raises InputError for overrides without it: such a file has no configuration of its own that they could change.
    """
    if config is None and overrides:
        raise InputError("--set overrides keys of --config: pass --config too, with a detector that has this body")
    return None if config is None else find_config(config, overrides)


def unused_blobs(source: str, path: Path, weights: WeightsFile) -> tuple[str, ...] | None:
    """The blobs that the network of a file does not use; None where its configuration does not say which it is."""
    try:
        table = BlobTable.from_config(_own_config(source, path, weights, ()))
        leftovers = match_blobs(table, with_blob_names(table, weights)).leftovers
    except InputError:
        return None
    return leftovers.preserved + leftovers.trained


def with_saved_box_weights(cfg: Config, weights: WeightsFile, overrides: Sequence[str] = ()) -> Config:
    """A configuration that was given for weights, with the one thing that the weights' own counts for before it.

    Where it does not name MODEL.BBOX_REG_WEIGHTS, the network was trained with (1, 1, 1, 1), whatever is given; only
    `overrides` count more (Detectron utils/net.py:configure_bbox_reg_weights). A network without a box head does not
    read it. Raises InputError for a fork's model.
    """
    if weights.cfg is None:
        return cfg
    source = f"the configuration in {weights.source}"
    try:
        is_old = lacks_box_weights(weights.cfg, source)
    except UnsupportedModel:
        raise
    except InputError as error:
        logger.warning("%s; the configuration that was given counts", error)
        return cfg
    if is_old and has_box_head(cfg) and BOX_WEIGHTS not in overrides[::2]:
        logger.warning("%s", told_old_box_weights(source))
        return with_values(cfg, {BOX_WEIGHTS: OLD_BOX_WEIGHTS})
    return cfg


def find_config(config: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a YAML file, or of a name in `yaml_configs/`."""
    return read_config(config, overrides) if Path(config).exists() else bundled_config(str(config), overrides)


def own_keys(config: str | Path | None, overrides: Sequence[str] = ()) -> frozenset[str]:
    """The keys that a person sets: those of a YAML file of their own, and `overrides`.

    What a configuration of `yaml_configs/` or one inside weights says is nobody's own.
    """
    named = named_keys(config) if config is not None and Path(config).exists() else frozenset()
    return named.union(overrides[::2])


def names_config(source: str) -> bool:
    """Whether SOURCE is a configuration: a YAML, or a name in `yaml_configs/`, with or without its folder."""
    if source.endswith((".yaml", ".yml")):
        return True
    known = [name.removesuffix(".yaml") for name in bundled_names()]
    return not Path(source).exists() and any(source in (name, name.rpartition("/")[2]) for name in known)


def _own_config(source: str, path: Path, weights: WeightsFile, overrides: Sequence[str]) -> Config:
    """The configuration of the weights' catalog entry, or else the one inside them."""
    entry = _entry(source, path)
    if entry is not None and entry.config is not None:
        cfg = bundled_config(entry.config, overrides)
        _tell_differences(bundled_config(entry.config), entry.title, weights)
        return cfg
    if weights.cfg is not None:
        try:
            return parse_config(weights.cfg, f"the configuration in {source}", overrides, saved_in_weights=True)
        except (UnsupportedModel, WrongOverride):
            raise
        except InputError as error:
            raise InputError(f"{error}; pass --config with the YAML that the model was trained with") from error
    if is_own_state_dict(weights.blobs):
        raise InputError(
            f"{source} is a state_dict of this project's, which says nothing of its configuration: pass --config with "
            "the YAML it was trained with"
        )
    check_is_detector(weights)
    raise InputError(f"{source} holds no configuration: pass --config with the YAML it was trained with")


def _entry(source: str, path: Path) -> CatalogEntry | None:
    try:
        return lookup(source)
    except UnknownModel:
        return entry_of_file(path)


def _tell_differences(cfg: Config, title: str, weights: WeightsFile) -> None:
    """A warning about what the configuration inside a published model says otherwise than the catalog's."""
    if weights.cfg is None:
        return
    source = f"the configuration in {weights.source}"
    try:
        saved = parse_config(weights.cfg, source, saved_in_weights=True)
    except InputError as error:
        logger.warning("%s; the catalog's configuration of %s counts", error, title)
        return
    others = list(differences(cfg, saved))
    if others:
        logger.warning("%s: %s; the catalog's configuration of %s counts", source, "; ".join(others), title)
