"""From a model id, a URL or a file to a configured model; answers to Detectron tools/infer_simple.py:main."""

from collections.abc import Sequence
from pathlib import Path

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.detectors import GeneralizedRCNN
from detectron_gn.mrcnn.distributed import usable_device
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.precision import Precision
from detectron_gn.port.blobs.convert import build_model
from detectron_gn.port.config.read import bundled_config, bundled_names, parse_config, read_config
from detectron_gn.weights import WeightsFile, read_blobs
from detectron_gn.weights.catalog import lookup
from detectron_gn.weights.download.cache import resolve
from detectron_gn.weights.errors import UnknownModel


def load_model(
    source: str | Path,
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    precision: Precision = "fp32",
) -> GeneralizedRCNN:
    """A model ready to detect.

    Args:
        source, config, overrides: see `configured_weights`.
        device: as torch names it; "auto" is the first GPU, or the CPU where there is none.
        precision: of convolutions and matrix products.

    Raises InputError or WeightsError with one sentence, also for a device that this machine does not have.
    """
    place = usable_device(device)
    model = build_model(*configured_weights(source, config, overrides)).to(place)
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
    weights = read_blobs(resolve(source))
    return given or _own_config(str(source), weights, overrides), weights


def find_config(config: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a YAML file, or of a name in `yaml_configs/`."""
    return read_config(config, overrides) if Path(config).exists() else bundled_config(str(config), overrides)


def names_config(source: str) -> bool:
    """Whether SOURCE is a configuration: a YAML, or a name in `yaml_configs/` that no published weights file has."""
    if source.endswith((".yaml", ".yml")):
        return True
    known = [name.removesuffix(".yaml") for name in bundled_names()]
    if Path(source).exists() or not any(source in (name, name.rpartition("/")[2]) for name in known):
        return False
    try:
        return lookup(source).path is None
    except UnknownModel:
        return True


def _own_config(source: str, weights: WeightsFile, overrides: Sequence[str]) -> Config:
    """The configuration inside a weights file, or else that of its catalog entry."""
    if weights.cfg is not None:
        return parse_config(weights.cfg, f"the configuration in {source}", overrides, saved_in_weights=True)
    try:
        name = lookup(source).config
    except UnknownModel:
        name = None
    if name is None:
        raise InputError(f"{source} holds no configuration: pass --config with the YAML it was trained with")
    return bundled_config(name, overrides)
