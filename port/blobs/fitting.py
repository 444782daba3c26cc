"""Which configuration a weights file fits, for the sentences that refuse another one: what they name works."""

from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.blobs.family import family_of
from detectron_gn.port.blobs.match import BlobMatch, match_blobs
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config, parse_config
from detectron_gn.weights.weights_file import WeightsFile


def fitting_config(weights: WeightsFile) -> str | None:
    """What to pass as --config: a name in `yaml_configs/`, and the number of classes where it is another.

    None unless that configuration has a place for every trained blob of the file, and the file a blob of the right
    shape for every place: a configuration that has just been refused is not named.
    """
    family = family_of(weights.blobs)
    if family.config_name is None:
        return None
    cfg = bundled_config(family.config_name)
    match = _match(cfg, weights, family.classes)
    if match is None or match.missing or match.leftovers.trained:
        return None
    if family.classes in (None, cfg.MODEL.NUM_CLASSES):
        return family.config_name
    return f"{family.config_name} --set MODEL.NUM_CLASSES {family.classes}"


def way_out(weights: WeightsFile, override: str | None = None) -> str:
    """The end of a sentence about a configuration that is not the file's: which one to pass instead.

    Args:
        override: what makes the refused configuration the file's.
    """
    if _own_config_fits(weights):
        return "leave out --config, and any --set that changes the network, as the file holds its own configuration"
    if override is not None:
        return f"pass {override} or the YAML it was trained with"
    fitting = fitting_config(weights)
    return f"pass --config {'with' if fitting is None else f'{fitting}, or'} the YAML it was trained with"


def _own_config_fits(weights: WeightsFile) -> bool:
    """Whether the configuration inside the file is of its network, so that another one was given for nothing."""
    if weights.cfg is None:
        return False
    try:
        cfg = parse_config(weights.cfg, f"the configuration in {weights.source}", saved_in_weights=True)
    except InputError:
        return False
    match = _match(cfg, weights, None)
    return match is not None and not match.missing and not match.leftovers.trained


def lacks_nothing(cfg: Config, weights: WeightsFile, classes: int | None) -> bool:
    """Whether a file has every blob of a configuration, of its shape, once it has so many classes."""
    match = _match(cfg, weights, classes)
    return match is not None and not match.missing


def _match(cfg: Config, weights: WeightsFile, classes: int | None) -> BlobMatch | None:
    """The match with a configuration of so many classes; None where it has no network, or blobs of another shape."""
    if classes is not None and classes < 2:  # the background and a class
        return None
    try:
        if classes is not None:
            cfg = with_values(cfg, {"MODEL.NUM_CLASSES": classes})
        return match_blobs(BlobTable.from_config(cfg), weights)
    except InputError:
        return None
