"""How a value takes its key's type, as Detectron core/config.py decodes and coerces."""

import datetime
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from detectron_gn.mrcnn.config import flatten
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.config.read import parse_config
from detectron_gn.port.config.values import MAX_VALUE_CHARACTERS, coerce, decode

INTS, FLOATS, TEXTS = tuple[int, ...], tuple[float, ...], tuple[str, ...]
MEANS = tuple[float, float, float]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("(800,)", (800,)),
        ("[0, 60000]", [0, 60000]),
        ("0.3", 0.3),
        ("1e-4", 1e-4),
        ("True", True),
        ("true", "true"),
        ("None", None),
        ("'quoted'", "quoted"),
        ("plain words", "plain words"),
        ("a/path:b", "a/path:b"),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
        ("{[]: 1}", "{[]: 1}"),
        ("1if 2", "1if 2"),
        (r"'\d'", r"\d"),
        ("(" * 5000, "(" * 5000),
        ("-" * 5000 + "1", "-" * 5000 + "1"),
        (b"caf\xc3\xa9", "café"),
        (7, 7),
        (None, None),
    ],
)
def test_text_that_reads_as_a_literal_is_decoded(text, value):
    with warnings.catch_warnings():
        # Python warns of text that is almost Python, and would print that.
        warnings.simplefilter("error")
        assert decode("KEY", text) == value


@pytest.mark.parametrize(
    ("value", "kind", "result"),
    [
        (True, bool, True),
        ("False", bool, False),
        (3, int, 3),
        ("3", int, 3),
        (0.5, float, 0.5),
        ("1e-4", float, 1e-4),
        ("words", str, "words"),
        ("'words'", str, "words"),
        (5, str, "5"),
        (0.5, str, "0.5"),
        (True, str, "True"),
        (datetime.date(2018, 4, 16), str, "2018-04-16"),
        ("(1, 2)", str, "(1, 2)"),
        ("None", str, "None"),
        (b"bytes", str, "bytes"),
        ([800], INTS, (800,)),
        ("(640, 800)", INTS, (640, 800)),
        ((), INTS, ()),
        ([0.5, 1, 2], FLOATS, (0.5, 1, 2)),
        (["a", "b"], TEXTS, ("a", "b")),
        ([1, 2.5, 3], MEANS, (1, 2.5, 3)),
        ([["a", [1]], []], tuple[Any, ...], (("a", (1,)), ())),
    ],
)
def test_a_value_that_fits_takes_its_keys_type(value, kind, result):
    coerced = coerce("KEY", value, kind, None)
    assert coerced == result
    assert type(coerced) is type(result)


@pytest.mark.parametrize("value", [[[[1, 2, 3.5]]], [1, 2, 3.5], ((1.0, 2.0, 3.5),), "[1, 2, 3.5]"])
def test_pixel_means_take_any_nesting_and_become_floats(value):
    means = coerce("PIXEL_MEANS", value, MEANS, None)
    assert means == (1.0, 2.0, 3.5)
    assert [type(mean) for mean in means] == [float] * 3


@pytest.mark.parametrize(
    ("value", "kind", "default", "error"),
    [
        (1, bool, True, "KEY is 1, but it must be True or False, such as True"),
        ("true", bool, True, "KEY is 'true', but it must be True or False, such as True"),
        (True, int, 2, "KEY is True, but it must be a whole number, such as 2"),
        (2.0, int, 2, "KEY is 2.0, but it must be a whole number, such as 2"),
        (None, int, 2, "KEY is empty, but it must be a whole number, such as 2"),
        (2**63, int, 2, "KEY is 9223372036854775808, but it must be a whole number, such as 2"),
        pytest.param(16**6000, int, 2, "KEY is too large, but it must be a whole number, such as 2", id="large"),
        (1, float, 0.3, "KEY is the whole number 1, but Detectron takes only floats: write 1.0"),
        ("1", float, 0.3, "KEY is the whole number 1, but Detectron takes only floats: write 1.0"),
        ("x", float, 0.3, "KEY is 'x', but it must be a number, such as 0.3"),
        (float("nan"), float, 0.3, "KEY is nan, but it must be a number, such as 0.3"),
        ("1e999", float, 0.3, "KEY is inf, but it must be a number, such as 0.3"),
        (None, str, "a", "KEY is empty, but it must be text, such as 'a'"),
        ([1], str, "a", "KEY is [1], but it must be text, such as 'a'"),
        ({"a": 1}, str, "a", "KEY is {'a': 1}, but it must be text, such as 'a'"),
        pytest.param(16**6000, str, "a", "KEY is too large, but it must be text, such as 'a'", id="large for text"),
        (b"\xff", str, "a", "KEY holds bytes that are not UTF-8 text: write it as text"),
        ("x" * (MAX_VALUE_CHARACTERS + 1), str, "a", "KEY has 20001 characters: give at most 20000"),
        (800, INTS, (600,), "KEY is 800, but it must be a list: write [800]"),
        ("(800)", INTS, (600,), "KEY is 800, but it must be a list: write [800]"),
        ("coco", TEXTS, (), "KEY is 'coco', but it must be a list: write ['coco']"),
        (0.5, INTS, (600,), "KEY is 0.5, but it must be a list of whole numbers, such as [600]"),
        ([800.0], INTS, (600,), "KEY is [800.0], but it must be a list of whole numbers, such as [600]"),
        (["800"], INTS, (), "KEY is ['800'], but it must be a list of whole numbers, such as [0]"),
        ([True], INTS, (600,), "KEY is [True], but it must be a list of whole numbers, such as [600]"),
        ([1.0, float("inf")], FLOATS, (), "KEY is [1.0, inf], but it must be a list of numbers, such as [1.0]"),
        ([1], TEXTS, (), "KEY is [1], but it must be a list of texts, such as ['name']"),
        ([1.0, 2.0], MEANS, (1.0, 2.0, 3.0), "KEY is [1.0, 2.0], but it must be a list of 3 numbers, such as [1.0, 2."),
        ("abc", tuple[Any, ...], (), "KEY is 'abc', but it must be a list of values, such as [0]"),
        ([list(range(100))], INTS, (600,), "KEY is [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17,"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_what_to_write(value, kind, default, error):
    with pytest.raises(InputError) as raised:
        coerce("KEY", value, kind, default)
    assert str(raised.value).startswith(error)
    assert len(str(raised.value)) < 200


# What Detectron made of 43 YAML values under 12 keys, at least one of every type.
COERCION = json.loads((Path(__file__).parents[2] / "data" / "coercion.json").read_text())


def only_we_refuse(key, value):
    """Values that Detectron takes without a look: anything as text, anything in a list, any count of means."""
    if key == "OUTPUT_DIR":
        return not isinstance(value, (str, int, float, datetime.date))
    decoded = decode(key, value)
    elements = decoded if isinstance(decoded, (tuple, list)) else ()
    if key in ("TRAIN.SCALES", "SOLVER.STEPS"):
        return any(type(element) is not int for element in elements)
    if key == "TRAIN.DATASETS":
        return any(type(element) is not str for element in elements)
    if key in ("MODEL.BBOX_REG_WEIGHTS", "PIXEL_MEANS"):
        return len(elements) != {"MODEL.BBOX_REG_WEIGHTS": 4, "PIXEL_MEANS": 3}[key]
    return key != "EXPECTED_RESULTS" and any(type(element) not in (int, float) for element in elements)


def yaml_of(key, value):
    *sections, name = key.split(".")
    head = "".join(f"{'  ' * depth}{section}:\n" for depth, section in enumerate(sections))
    return f"{head}{'  ' * len(sections)}{name}: {value}\n"


@pytest.mark.parametrize("key", COERCION)
def test_a_value_becomes_what_detectron_makes_of_it(key):
    for yaml_value, detectrons in COERCION[key].items():
        text = yaml_of(key, yaml_value)
        if detectrons == "refused" or only_we_refuse(key, yaml.load(yaml_value, Loader=yaml.FullLoader)):
            with pytest.raises(InputError, match=rf"^a.yaml, line \d: {key} is "):
                parse_config(text, "a.yaml")
        else:
            ours = json.loads(json.dumps(flatten(parse_config(text, "a.yaml"))[key]))
            assert (ours, type(ours)) == (detectrons["value"], type(detectrons["value"])), text
