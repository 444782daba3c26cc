"""The YAML loader: the tags Detectron wrote become data, and no other text does more than raise InputError."""

import base64
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectron_gn.mrcnn.config import flatten
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.config.read import bundled_config, parse_config
from detectron_gn.port.config.yaml_loader import (
    MAX_CONFIG_CHARACTERS,
    MAX_CONFIG_DEPTH,
    MAX_CONFIG_VALUES,
    Unreadable,
    load_yaml,
    yaml_nodes,
)

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests" / "data"
ATTR_DICT = "!!python/object/new:detectron.utils.collections.AttrDict"
F8 = "!!python/object/apply:numpy.dtype {args: [f8, 0, 1], state: !!python/tuple [3, <, null, null, null, -1, -1, 0]}"
BIG_ENDIAN = F8.replace("<", "'>'")
SCALAR = "!!python/object/apply:numpy.core.multiarray.scalar"
ARRAY = "!!python/object/apply:numpy.core.multiarray._reconstruct"
ONE_AND_TWO = base64.b64encode(b"\0\0\0\0\0\0\xf0?\0\0\0\0\0\0\0@").decode()


def value_of(text):
    return load_yaml(f"a: {text}", "x.yaml").values["a"]


def error_of(text):
    with pytest.raises(InputError) as error:
        load_yaml(text, "x.yaml")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    return str(error.value)


def test_the_configuration_that_python_2_saved_with_a_bn_baseline():
    """Detectron's own `yaml.dump(cfg)` under Python 2.7 and PyYAML 3.12, under the old module name."""
    text = (DATA / "saved_by_python2.yaml").read_text()
    cfg = parse_config(text, "model_final.pkl", saved_in_weights=True)
    overrides = ["PIXEL_MEANS", "[0, 2, 122.7717]"]
    overrides += ["EXPECTED_RESULTS", "[['coco_2014_minival', 'box', 'AP', 0.386]]"]
    assert cfg == bundled_config("12_2017_baselines/e2e_mask_rcnn_R-50-FPN_2x", overrides)


def test_the_configuration_that_python_3_saved_with_a_gn_model():
    """Detectron's own `yaml.dump(cfg)` under Python 3.7 and PyYAML 5.4."""
    text = (DATA / "saved_by_python3.yaml").read_text()
    cfg = parse_config(text, "model_final.pkl", saved_in_weights=True)
    assert cfg == bundled_config("04_2018_gn_baselines/e2e_mask_rcnn_R-50-FPN_2x_gn")
    assert len(flatten(cfg)) == 229


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (f"{ATTR_DICT} {{dictitems: {{b: 1}}, state: {{__immutable__: true}}}}", {"b": 1}),
        (f"{ATTR_DICT} {{dictitems: {{b: 1}}}}", {"b": 1}),
        ("!!python/object/new:utils.collections.AttrDict {dictitems: {}}", {}),
        ("!!python/tuple [1, !!python/tuple []]", (1, ())),
        ("!!python/unicode 'text'", "text"),
        ("!!python/str '7'", "7"),
        ("!!python/long '7'", 7),
        ("!!binary eHl6", b"xyz"),
        (f"{SCALAR} [{F8}, !!binary qeISGmmKEEA=]", 4.135166556742356),
        (f"{SCALAR.replace('core', '_core')} [{F8}, !!binary qeISGmmKEEA=]", 4.135166556742356),
        # Python 2 writes bytes that happen to be ASCII as text: this is 2.0.
        (f'{SCALAR} [{F8}, "\\0\\0\\0\\0\\0\\0\\0@"]', 2.0),
        (f"{SCALAR} [{F8.replace('f8', 'i8')}, !!binary BwAAAAAAAAA=]", 7),
        (f"{SCALAR} [{BIG_ENDIAN}, !!binary QAAAAAAAAAA=]", 2.0),
        (
            f"{ARRAY} {{args: [!!python/name:numpy.ndarray '', !!python/tuple [0], b], "
            f"state: !!python/tuple [1, !!python/tuple [2, 1], {F8}, false, !!binary {ONE_AND_TWO}]}}",
            [[1.0], [2.0]],
        ),
    ],
)
def test_a_tag_that_detectron_wrote_becomes_data(text, value):
    assert value_of(text) == value
    assert type(value_of(text)) is type(value)


def test_keys_have_their_lines_in_plain_yaml_and_in_attr_dicts():
    plain = "NUM_GPUS: 1\nTEST:\n  NMS: 0.5\n  SOFT_NMS: {SIGMA: 1.0}\n"
    lines = {"NUM_GPUS": 1, "TEST": 2, "TEST.NMS": 3, "TEST.SOFT_NMS": 4, "TEST.SOFT_NMS.SIGMA": 4}
    assert load_yaml(plain, "x").lines == lines
    nested = f"{ATTR_DICT}\ndictitems:\n  TEST: {ATTR_DICT}\n    dictitems:\n      NMS: 0.5\nstate: {{}}\n"
    assert load_yaml(nested, "x").lines == {"TEST": 3, "TEST.NMS": 5}


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system",
        "!!python/object/apply:subprocess.check_output",
        "!!python/object/new:os.system",
        "!!python/object/new:type",
        "!!python/object:os.system",
        "!!python/module:os",
        "!!python/name:os.system",
        "!!python/name:numpy.matrix",
        "!!python/object/apply:numpy.core.multiarray.fromfile",
        "!!python/complex",
        "!local",
        "!<tag:example.com,2018:thing>",
    ],
)
@pytest.mark.parametrize("content", ["['touch run']", "{args: ['touch run']}", "'touch run'"])
def test_another_tag_is_refused_by_name_and_line(tag, content):
    error = error_of(f"NUM_GPUS: 1\nOUTPUT_DIR: {tag} {content}\n")
    assert error.startswith("x.yaml, line 2: the tag ")
    assert error.endswith("is none that Detectron writes (nothing was run for it): remove it")


@pytest.mark.parametrize("module", ["detectron.lib.utils.collections", "core.collections", "evil", ""])
def test_an_attr_dict_of_any_module_is_data(module):
    name = f"{module}.AttrDict".removeprefix(".")
    assert value_of(f"!!python/object/new:{name} {{dictitems: {{b: 1}}}}") == {"b": 1}
    assert value_of(f"!!python/object:{name} {{}}") == {}
    assert value_of(f"!!python/object:{name} {{__immutable__: true}}") == {}
    for content in ("['touch run']", "{args: ['touch run']}", "'touch run'"):
        sentence = "an AttrDict must have dictitems, perhaps a state, and nothing else"
        assert sentence in error_of(f"a: !!python/object/new:{name} {content}")


def test_a_lenient_reading_gives_values_of_unknown_tags_as_unreadable():
    document = load_yaml("a: !!python/object/apply:os.system ['touch run']\nb: [!x 1, 2]\n", "x.yaml", lenient=True)
    assert document.values == {"a": Unreadable("!!python/object/apply:os.system"), "b": [Unreadable("!x"), 2]}


def test_a_tag_is_refused_in_places_that_are_not_read():
    evil = "!!python/object/apply:os.system ['touch run']"
    assert "the tag" in error_of(f"{ATTR_DICT} {{dictitems: {{}}, state: {evil}}}")
    assert "the tag" in error_of(f"a: {ARRAY} {{args: {evil}, state: []}}")
    assert "the tag" in error_of(f"{evil}: 1")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "x.yaml: it is empty, but a configuration is a mapping, such as NUM_GPUS: 8"),
        ("[1]", "x.yaml: it is a list, but a configuration is a mapping"),
        ("words", "x.yaml: it is the value 'words', but a configuration is a mapping"),
        ("!!set {a}", "x.yaml: it is a set, but a configuration is a mapping"),
        ("a: 1\n\tb: 2", "x.yaml, line 2: "),
        ("a:\n\tb: 2", "x.yaml, line 2: a tab stands where YAML takes only spaces: indent with spaces"),
        ("a: [1", "x.yaml, line 1: it is not valid YAML"),
        ("a: 'x", "x.yaml, line 1: it is not valid YAML"),
        ("a: *b", "x.yaml, line 1: it is not valid YAML (found undefined alias 'b'): mend it there"),
        ("a: 1\n---\na: 2", "x.yaml, line 2: it is not valid YAML (but found another document)"),
        ("%YAML 3.0\n---\na: 1", "x.yaml, line 1: it is not valid YAML"),
        ("a: \0", "x.yaml: it is not YAML text (unacceptable character #x0000"),
        ("a: 1\na: 1", "x.yaml, line 2: the key a is given a second time, after line 1: remove one of them"),
        ("a: 1\n'a': 1", "x.yaml, line 2: the key a is given a second time"),
        ("{a: {b: 1, b: 2}}", "x.yaml, line 1: the key b is given a second time"),
        (f"{ATTR_DICT}\ndictitems:\n  a: 1\n  a: 2\n", "x.yaml, line 4: the key a is given a second time"),
        ("a.b: 1", "x.yaml, line 1: the key 'a.b' is no name: write keys below their section"),
        ('"a\\nb": 1', "x.yaml, line 1: the key 'a\\nb' is no name"),
        ("a" * 101 + ": 1", "x.yaml, line 1: the key 'aaaaaaa"),
        ("ON: 1", "x.yaml, line 1: the key 'ON' is no text to YAML (ON, OFF, YES and NO are truth values): "),
        ("7: 1", "x.yaml, line 1: the key '7' is no text to YAML"),
        ("? [a]\n: 1", "x.yaml, line 1: the key of several values is no text to YAML"),
        ("a: !!int ''", "x.yaml, line 1: '' is not what its type says: write it in quotes if it is text"),
        ("a: !!float x", "x.yaml, line 1: 'x' is not what its type says"),
        ("a: !!bool x", "x.yaml, line 1: 'x' is not what its type says"),
        ("a: !!timestamp x", "x.yaml, line 1: 'x' is not what its type says"),
        ("a: 2018-13-45", "x.yaml, line 1: '2018-13-45' is not what its type says"),
        ("a: !!python/long x", "x.yaml, line 1: 'x' is not what its type says"),
        ("a: " + "9" * 5000, "x.yaml, line 1: '99999999"),
        ("a: !!binary abc", "x.yaml, line 1: failed to decode base64"),
        ("a: !!python/tuple {b: 1}", "x.yaml, line 1: expected a sequence node, but found mapping"),
        ("a: !!python/str [1]", "x.yaml, line 1: expected a scalar node, but found sequence"),
        ("a: !!map [1]", "x.yaml, line 1: expected a mapping node, but found sequence"),
        (f"a: {ATTR_DICT} []", "x.yaml, line 1: an AttrDict must have dictitems, perhaps a state, and nothing else"),
        (f"a: {ATTR_DICT} {{state: {{}}}}", "x.yaml, line 1: an AttrDict must have dictitems"),
        (f"a: {ATTR_DICT} {{dictitems: [1]}}", "x.yaml, line 1: an AttrDict must have dictitems"),
        (f"a: {ATTR_DICT} {{dictitems: {{}}, args: [1]}}", "x.yaml, line 1: an AttrDict must have dictitems"),
        (f"a: {F8.replace('f8', 'O8')}", "x.yaml, line 1: a numpy dtype must be one of b1, i1"),
        (f"a: {F8.replace('f8', 'f16')}", "x.yaml, line 1: a numpy dtype must be one of"),
        (f"a: {F8.replace('<', 'x')}", "x.yaml, line 1: a numpy dtype must be one of"),
        ("a: !!python/object/apply:numpy.dtype {args: {a: 1}, state: 3}", "x.yaml, line 1: a numpy dtype must be"),
        ("a: !!python/object/apply:numpy.dtype [f8]", "x.yaml, line 1: a numpy dtype must be"),
        (f"a: {SCALAR} [{F8}, !!binary eHl6]", "x.yaml, line 1: the dtype, shape and bytes of a numpy value do"),
        (f"a: {SCALAR} [{F8}, 8]", "x.yaml, line 1: the dtype, shape and bytes"),
        (f"a: {SCALAR} [f8, '12345678']", "x.yaml, line 1: a numpy scalar must have a dtype and its bytes"),
        (f"a: {SCALAR} {{a: 1}}", "x.yaml, line 1: expected a sequence node"),
        (f"a: {ARRAY} {{state: [1, [1], {F8}, true, '12345678']}}", "x.yaml, line 1: a numpy array must have the"),
        (f"a: {ARRAY} {{state: [1, [2], {F8}, false, '12345678']}}", "x.yaml, line 1: the dtype, shape and bytes"),
        (f"a: {ARRAY} {{state: [1, [-1, -1], {F8}, false, '12345678']}}", "x.yaml, line 1: the dtype, shape and bytes"),
        (f"a: {ARRAY} {{state: [1, [1.0], {F8}, false, '12345678']}}", "x.yaml, line 1: the dtype, shape and bytes"),
        (f"a: {ARRAY} {{state: [1, [{'1, ' * 99}1], {F8}, false, '12345678']}}", "x.yaml, line 1: of several values"),
        (f"a: {ARRAY} 7", "x.yaml, line 1: a numpy array must have the state"),
    ],
)
def test_what_is_no_configuration_is_refused_with_its_line(text, error):
    assert error_of(text).startswith(error)


def test_a_long_text_is_refused_before_it_is_parsed():
    assert error_of("a" * (MAX_CONFIG_CHARACTERS + 1)).startswith("x.yaml: it has more than 100000 characters, too")


BOMBS = {
    "lists": "\n".join(["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20)]),
    "merges": "\n".join(
        ["a0: &a0 {k: 1}"] + [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 9)]
    ),
    "many aliases": "a: &a [" + "1, " * 2000 + "]\nb: [" + "*a, " * 2000 + "]\n",
}


@pytest.mark.parametrize(
    "text",
    [
        f"TRAIN:\n  SCALES: [{','.join(['1'] * 49_000)}]",
        "TRAIN:\n  SCALES:\n" + "  - 1\n" * 16_000,
        "".join(f"K{number}: 1\n" for number in range(10_500)),
        f"a: &a [1, 1]\nb: [{','.join(['*a'] * 30_000)}]",
    ],
    ids=["a list in a line", "a list in lines", "keys", "aliases"],
)
def test_more_values_than_any_configuration_has_are_refused_while_they_are_counted(text, monkeypatch):
    monkeypatch.setattr("detectron_gn.port.config.yaml_loader.MAX_CONFIG_VALUES", 2_000)
    started = time.perf_counter()
    assert "it has more than 2000 values: write fewer" in error_of(text)
    with pytest.raises(InputError, match="it has more than 2000 values: write fewer"):
        yaml_nodes(text, "x.yaml")
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_an_alias_bomb_is_refused_at_once(bomb):
    start = time.monotonic()
    assert f"it has more than {MAX_CONFIG_VALUES} values" in error_of(bomb)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "&a {b: *a}", "a: &a {<<: *a}"])
def test_an_alias_to_itself_is_refused(text):
    assert error_of(text).startswith("x.yaml, line 1: it is nested too deeply, or in itself")


@pytest.mark.parametrize("text", ["[" * 5000, "a: " + "[" * 5000, "a: " + "{b: " * 5000, "- " * 5000])
def test_a_deep_text_is_refused_whatever_its_depth(text):
    assert "nested too deeply" in error_of(text)


def test_the_depth_of_a_configuration_is_well_within_the_limit():
    deep = "a: " + "[" * (MAX_CONFIG_DEPTH - 1) + "]" * (MAX_CONFIG_DEPTH - 1)
    assert value_of(deep[3:])
    assert "nested too deeply" in error_of(deep.replace("[", "[[", 1).replace("]", "]]", 1))


# Python 2's dump cut into lines, so that fuzzing meets every construct; joined again with random damage.
LINES = (DATA / "saved_by_python2.yaml").read_text().splitlines()
PIECES = st.sampled_from(
    [*LINES[:60], "<<: *id001", "? ", ": ", "- ", "&id001 ", "*id001", "[", "]", "{", "}", "!!python/tuple ", "\t"]
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(PIECES, max_size=12), st.integers(0, len(LINES)), st.text(max_size=5))
def test_a_damaged_text_is_read_or_refused_and_nothing_else(pieces, at, noise):
    text = "\n".join([*LINES[:at], noise, *pieces, *LINES[at:]])
    for damaged in (text, "\n".join(pieces), noise + " ".join(pieces)):
        try:
            parse_config(damaged, "x.yaml", saved_in_weights=True)
        except InputError as error:
            assert str(error)


def test_reading_a_hostile_text_runs_opens_and_imports_nothing():
    code = """
import sys
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.config.read import parse_config
seen = []
sys.addaudithook(lambda event, _: seen.append(event))
for text in sys.argv[1:]:
    try:
        parse_config(text, "x.yaml", ["MODEL.BBOX_REG_WEIGHTS", "(1., 1., 1., 1.)"], saved_in_weights=True)
    except InputError:
        pass
    else:
        sys.exit(f"accepted {text}")
print(sorted({event for event in seen if event.split(".")[0] in
              ("open", "import", "exec", "os", "subprocess", "socket", "shutil", "ctypes", "marshal", "pickle")}))
"""
    calls = ["os.system ['touch run']", "builtins.exec ['open(1)']", "numpy.fromfile [x]", "builtins.open [x, w]"]
    texts = [f"RNG_SEED: !!python/object/{how}:{call}" for how in ("apply", "new") for call in calls]
    texts += ["RNG_SEED: !!python/module:zipapp", "RNG_SEED: !!python/name:zipapp.main"]
    texts += ["MODEL: {CONV_BODY: zipapp.main}", "NUM_GPUS: __import__('zipapp')"]
    texts += ["SOLVER: {LR_POLICY: [\"__import__('zipapp')\"]}"]
    result = subprocess.run([sys.executable, "-c", code, *texts], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "[]", "")
