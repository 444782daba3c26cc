"""A configuration that asks for the whole memory or for hours is refused before anything is built of it."""

import re
import time

import pytest

from detectron_gn.mrcnn.config import Config, check_config, flatten, key_use, unsupported_values, with_values
from detectron_gn.mrcnn.config.bounds import LARGEST, LONGEST, bound_fault
from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.config.read import bundled_config, bundled_names, parse_config

DEFAULTS = flatten(Config())
GN = bundled_config("e2e_mask_rcnn_R-50-FPN_2x_gn")


def test_every_bound_is_of_a_key_that_exists():
    assert LARGEST.keys() | LONGEST.keys() <= DEFAULTS.keys()
    assert all(isinstance(DEFAULTS[key], tuple) for key in LONGEST)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("FAST_RCNN.NUM_STACKED_CONVS", 10**6),
        ("FAST_RCNN.ROI_XFORM_SAMPLING_RATIO", 3000),
        ("MRCNN.ROI_XFORM_SAMPLING_RATIO", 3000),
        ("TEST.SCALE", 40_000),
        ("TEST.MAX_SIZE", 40_000),
        ("TRAIN.SCALES", (800, 40_000)),
        ("TRAIN.MAX_SIZE", 2**62),
        ("FPN.COARSEST_STRIDE", 32 * 10**6),
        ("FPN.DIM", 2**40),
        ("MODEL.NUM_CLASSES", 10**9),
        ("RESNETS.WIDTH_PER_GROUP", 2**40),
        ("MRCNN.DIM_REDUCED", 2**40),
        ("NUM_GPUS", 10**9),
        ("SOLVER.MAX_ITER", 2**62),
        ("SOLVER.WEIGHT_DECAY", 1e300),
        ("TRAIN.RPN_BATCH_SIZE_PER_IM", 2**62),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_at_once_by_key_with_the_bound(key, value):
    started = time.perf_counter()
    with pytest.raises(InputError) as error:
        build_detector(with_values(GN, {key: value}))
    assert time.perf_counter() - started < 1
    largest = max(value) if isinstance(value, tuple) else value
    assert str(error.value) == f"{key} is {largest}, more than can be meant: set it to {LARGEST[key]} or less"


@pytest.mark.parametrize("key", [key for key in LARGEST if key_use(key) == "supported"])
def test_the_bound_itself_is_taken_and_one_more_is_not(key):
    most = LARGEST[key]
    is_list = isinstance(DEFAULTS[key], tuple)
    assert bound_fault(key, (1, most) if is_list else most) is None
    one_more = type(DEFAULTS[key])(most + 1) if not is_list else (1, most + 1)
    faults = {each.key: str(each) for each in unsupported_values(with_values(Config(), {key: one_more}))}
    assert f"set it to {most} or less" in faults[key]


@pytest.mark.parametrize("key", [key for key in LONGEST if key_use(key) == "supported"])
def test_a_list_that_cannot_be_meant_is_refused_by_its_length(key):
    assert bound_fault(key, (0.5,) * LONGEST[key]) is None
    with pytest.raises(InputError, match=f"^{key} has 5000 elements, more than can be meant: set it to 64 or fewer$"):
        check_config(with_values(GN, {key: (0.5,) * 5000}))


@pytest.mark.parametrize(
    ("values", "first"),
    [
        ({"FPN.DIM": 4096, "FAST_RCNN.ROI_XFORM_RESOLUTION": 28, "FAST_RCNN.MLP_HEAD_DIM": 4096}, "FPN.DIM"),
        ({"FPN.DIM": 256, "FAST_RCNN.ROI_XFORM_RESOLUTION": 64, "FAST_RCNN.MLP_HEAD_DIM": 8192}, "FPN.DIM"),
        ({"RESNETS.NUM_GROUPS": 1024, "RESNETS.WIDTH_PER_GROUP": 64}, "RESNETS.NUM_GROUPS"),
    ],
)
def test_values_that_are_too_large_only_together_are_refused_together(values, first):
    assert not [fault for key, value in values.items() if (fault := bound_fault(key, value))]
    with pytest.raises(InputError) as error:
        check_config(with_values(GN, values))
    assert all(f"{key} is {value}" in str(error.value) for key, value in values.items())
    told = re.fullmatch(rf"{first} is .*, more than can be meant: set it to (\d+) or less", str(error.value))
    check_config(with_values(GN, values | {first: int(told[1]) // 32 * 32}))


def test_a_key_without_effect_may_hold_anything():
    cfg = with_values(GN, {"DATA_LOADER.NUM_THREADS": 2**60, "TEST.PROPOSAL_LIMIT": 2**60, "RPN.STRIDE": 2**60})
    check_config(cfg)


def test_every_configuration_of_detectron_is_far_within_the_bounds():
    for name in bundled_names():
        try:
            values = flatten(bundled_config(name))
        except InputError as error:
            assert "more than can be meant" not in str(error)
            continue
        for key, most in LARGEST.items():
            value = values[key]
            largest = max(value, default=0) if isinstance(value, tuple) else value
            assert largest * 2 <= most, (name, key)


def test_the_reader_names_the_line_of_a_value_that_cannot_be_meant():
    text = "TEST:\n  NMS: 0.5\n  SCALE: 40000\n"
    with pytest.raises(InputError) as error:
        parse_config(text, "model.yaml")
    assert str(error.value).startswith("model.yaml, line 3: TEST.SCALE is 40000, more than can be meant: set it to ")
    assert parse_config(text, "model.yaml", ["TEST.SCALE", "800"]).TEST.SCALE == 800
