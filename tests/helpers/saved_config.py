"""Configurations as Detectron of several times saved them inside weights: the same values, other keys and YAML.

What is known of each comes from Detectron's history: AttrDict had no state before April 2018, defaults were byte
strings, and tuples that one constant stands for are aliases of each other.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import yaml

from detectron_gn.mrcnn.config import Config, flatten
from tests.helpers.python2_pickle import Unicode

Values = dict[str, Any]

_PYTHON = "tag:yaml.org,2002:python/"
_ANCHOR_RATIOS = (0.5, 1, 2)

# Keys and sections that Detectron got after January 2018.
_NOT_YET_IN_JANUARY = (
    "GROUP_NORM", "TRAIN.FREEZE_AT", "TRAIN.COPY_WEIGHTS", "TRAIN.GENERATE_PROPOSALS_ON_GPU",
    "TEST.GENERATE_PROPOSALS_ON_GPU", "FPN.USE_GN", "SOLVER.WEIGHT_DECAY_GN", "RESNETS.STEM_FUNC",
    "RESNETS.SHORTCUT_FUNC", "TEST.SCALE", "TEST.DATASETS", "TEST.PROPOSAL_FILES",
)  # fmt: skip


class AttrDict(dict[str, Any]):
    """Becomes an AttrDict of the dumper's module, with the dumper's state."""


def april_2018(cfg: Config) -> Values:
    """Nested values of a GN run: all keys but those that came later, defaults as unicode."""
    values = nested(cfg, text=Unicode)
    for key in ("TRAIN.FREEZE_AT", "TRAIN.COPY_WEIGHTS"):
        _drop(values, key)
    return values


def january_2018(cfg: Config) -> Values:
    """Nested values of a BN* baseline: byte strings, TEST.SCALES and the keys of then."""
    values = nested(cfg)
    scale = values["TEST"]["SCALE"]
    for key in _NOT_YET_IN_JANUARY:
        _drop(values, key)
    values["TEST"] |= {"SCALES": (scale,), "DATASET": "", "PROPOSAL_FILE": "", "NUM_TEST_IMAGES": 5000}
    return values


def autumn_2017(cfg: Config) -> Values:
    """Nested values with the names of before the release."""
    values = january_2018(cfg)
    values["TRAIN"]["DATASET"] = "coco_2014_train:coco_2014_valminusminival"
    values["MODEL"]["ROI_HEAD"] = values["FAST_RCNN"].pop("ROI_BOX_HEAD")
    values["MRCNN"]["MASK_HEAD_NAME"] = "mask_rcnn_heads.ResNet_mask_rcnn_fcn_head_v1up4convs"
    values["RPN"]["ON"] = values["RPN"].pop("RPN_ON")
    values["FPN"]["INPLACE_LATERAL"] = False
    values["TEST"] |= {"SVM": False, "ENSEMBLE": AttrDict(ENABLED=False)}
    for key in ("MRCNN.ROI_MASK_HEAD", "TRAIN.DATASETS"):
        _drop(values, key)
    return values


def nested(cfg: Config, text: Callable[[str], str] = str) -> Values:
    """All values by section, equal anchor ratios being one object."""
    values = AttrDict()
    for key, value in flatten(cfg).items():
        *sections, name = key.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, AttrDict())
        place[name] = text(value) if isinstance(value, str) else _as_detectron_holds(key, value)
    return values


def _as_detectron_holds(key: str, value: Any) -> Any:
    if key == "BBOX_XFORM_CLIP":
        return np.float64(value)
    if key == "PIXEL_MEANS":
        return np.array([[value]])
    if key in ("SOLVER.STEPS", "SOLVER.LRS", "EXPECTED_RESULTS"):
        return list(value)
    return _ANCHOR_RATIOS if value == _ANCHOR_RATIOS else value


def dumped(
    values: Mapping[str, Any],
    *,
    module: str = "utils.collections",
    state: Mapping[Any, Any] | None = None,
    block: bool = False,
) -> str:
    """YAML as PyYAML under Python 2 dumps it.

    Args:
        module: that of the AttrDict.
        state: of each AttrDict; None for none.
        block: whether every value has a line of its own, as from PyYAML 5.1 on.
    """

    class Dumper(yaml.SafeDumper):
        """One time's tags."""

    def attr_dict(dumper: Dumper, items: AttrDict) -> yaml.Node:
        parts = ({"dictitems": dict(items)} if items else {}) | ({"state": dict(state)} if state else {})
        tag = "object/new" if parts else "object"
        return dumper.represent_mapping(f"{_PYTHON}{tag}:{module}.AttrDict", parts)

    def unicode(dumper: Dumper, value: Unicode) -> yaml.Node:
        return dumper.represent_scalar(f"{_PYTHON}unicode", str(value), style="'")

    def of_several(dumper: Dumper, value: tuple[Any, ...]) -> yaml.Node:
        return dumper.represent_sequence(f"{_PYTHON}tuple", value)

    def scalar(dumper: Dumper, value: np.float64) -> yaml.Node:
        return dumper.represent_sequence(f"{_PYTHON}object/apply:numpy.core.multiarray.scalar", [_F8, value.tobytes()])

    def array(dumper: Dumper, value: np.ndarray) -> yaml.Node:
        parts = {"args": [np.ndarray, (0,), "b"], "state": (1, value.shape, _F8, False, value.tobytes())}
        return dumper.represent_mapping(f"{_PYTHON}object/apply:numpy.core.multiarray._reconstruct", parts)

    def dtype(dumper: Dumper, value: object) -> yaml.Node:
        parts = {"args": ["f8", 0, 1], "state": (3, "<", None, None, None, -1, -1, 0)}
        return dumper.represent_mapping(f"{_PYTHON}object/apply:numpy.dtype", parts)

    def name(dumper: Dumper, value: type) -> yaml.Node:
        return dumper.represent_scalar(f"{_PYTHON}name:numpy.ndarray", "")

    for kind, represent in {
        AttrDict: attr_dict, Unicode: unicode, tuple: of_several, np.float64: scalar, np.ndarray: array,
        type(_F8): dtype, type: name,
    }.items():  # fmt: skip
        Dumper.add_representer(kind, represent)
    return yaml.dump(values, Dumper=Dumper, default_flow_style=False if block else None)


STATE_2018 = {Unicode("__immutable__"): True}

# One object, so that it is dumped once and an alias from then on.
_F8 = np.dtype("<f8")


def _drop(values: Values, key: str) -> None:
    *sections, name = key.split(".")
    for section in sections:
        values = values[section]
    values.pop(name, None)
