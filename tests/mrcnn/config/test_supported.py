"""Which configuration keys are supported, which are inert, and which are refused."""

import ast
import functools
from pathlib import Path

import pytest

from detectron_gn.mrcnn.config import INERT, LIMITED, Config, flatten, key_use, unsupported_values, with_values

ROOT = Path(__file__).parents[3]
ROOMS = ("mrcnn", "port", "verify")
CONFIG, CAFFE2 = ROOT / "mrcnn" / "config", ROOT / "verify" / "reference" / "dump_blobs.py"
DEFAULTS = flatten(Config())


@functools.cache
def attributes_outside_the_config() -> set[str]:
    """Every name that the code reads as an attribute, as `NMS` in `cfg.TEST.NMS`; dump_blobs.py runs in Detectron."""
    left_out = {CONFIG, CAFFE2}
    files = [p for room in ROOMS for p in (ROOT / room).rglob("*.py") if not left_out & {p, *p.parents}]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in [*files, ROOT / "detectron_gn" / "__init__.py"]]
    return {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_every_row_is_of_a_key_that_exists():
    sections = {key.rpartition(".")[0] for key in DEFAULTS}
    for row in [*INERT, *LIMITED]:
        assert row in DEFAULTS or (row.endswith(".*") and row.removesuffix(".*") in sections), row
    assert not INERT.keys() & LIMITED.keys()


def test_a_row_is_of_a_key_or_of_a_whole_section():
    assert key_use("DATA_LOADER.NUM_THREADS") == "inert"
    assert key_use("TEST.KPS_AUG.SCALES") == "supported"
    assert key_use("RETINANET.NUM_CONVS") == key_use("RETINANET.LOSS_GAMMA") == key_use("RPN.STRIDE") == "supported"
    assert key_use("RFCN.PS_GRID_SIZE") == "unsupported"
    assert key_use("KRCNN.LOSS_WEIGHT") == key_use("TRAIN.CROWD_FILTER_THRESH") == "supported"


def test_what_the_command_line_says_and_what_caffe2_needs_is_inert():
    told = ("OUTPUT_DIR", "DOWNLOAD_CACHE", "TEST.WEIGHTS", "TRAIN.DATASETS", "TEST.DATASETS", "USE_NCCL", "MATLAB")
    sections = ("DATA_LOADER.", "VIS", "EXPECTED_RESULTS", "MEMONGER", "CLUSTER.", "MODEL.EXECUTION_TYPE")
    of_sections = [key for key in DEFAULTS if key.startswith(sections)]
    assert len(of_sections) > len(sections)
    assert {key_use(key) for key in (*told, *of_sections)} == {"inert"}


@pytest.mark.parametrize(
    "key",
    [
        "TEST.SOFT_NMS.ENABLED", "TEST.BBOX_VOTE.ENABLED", "RESNETS.NUM_GROUPS", "RESNETS.WIDTH_PER_GROUP",
        "MODEL.CONV_BODY", "SOLVER.LR_POLICY", "TRAIN.FREEZE_AT", "GROUP_NORM.DIM_PER_GP", "PIXEL_MEANS",
    ],
)
def test_a_key_is_served(key):
    assert key_use(key) == "supported"


# What these say is settled by check_config and the functions of mrcnn.config, which stand where the code would.
SETTLED_BY_THE_CONFIG = {
    "MODEL.TYPE", "MODEL.CONV_BODY", "MODEL.MASK_ON", "FPN.FPN_ON", "FPN.MULTILEVEL_ROIS", "FPN.MULTILEVEL_RPN",
    "FAST_RCNN.ROI_BOX_HEAD", "FAST_RCNN.ROI_XFORM_METHOD", "MRCNN.ROI_MASK_HEAD", "MRCNN.ROI_XFORM_METHOD",
    "KRCNN.ROI_KEYPOINTS_HEAD", "RESNETS.STEM_FUNC", "RESNETS.TRANS_FUNC", "RESNETS.SHORTCUT_FUNC",
    "TRAIN.FREEZE_CONV_BODY",
}


@pytest.mark.parametrize("key", [key for key in DEFAULTS if key_use(key) == "supported"])
def test_a_served_key_is_read_by_the_code(key):
    if key not in SETTLED_BY_THE_CONFIG:
        assert key.rpartition(".")[2] in attributes_outside_the_config(), f"nobody reads {key}"


@pytest.mark.parametrize("key", [key for key in DEFAULTS if key_use(key) == "unsupported"])
def test_an_unsupported_key_is_refused_by_name_at_another_value(key):
    default = DEFAULTS[key]
    other = {bool: not default, str: "other", int: 12345, float: 0.123}[type(default)]
    (found,) = unsupported_values(with_values(Config(), {key: other}))
    refused, sentence = found.key, str(found)
    assert refused == key
    assert sentence.startswith(f"{key} is {other!r}, which is not supported here (")
    assert sentence.endswith(f": set it to {default}")


@pytest.mark.parametrize("key", [key for key in LIMITED if LIMITED[key].values])
def test_a_limited_key_takes_its_values_and_no_other(key):
    for value in LIMITED[key].values:
        assert not list(unsupported_values(with_values(Config(), {key: value})))
    (found,) = unsupported_values(with_values(Config(), {key: "other"}))
    refused, sentence = found.key, str(found)
    assert refused == key
    assert all(value in sentence for value in LIMITED[key].advised or LIMITED[key].values)


def test_defaults_and_inert_keys_are_never_refused():
    assert not list(unsupported_values(Config()))
    anything = {key: "anything" for key in DEFAULTS if key_use(key) == "inert"}
    assert not list(unsupported_values(with_values(Config(), anything)))
