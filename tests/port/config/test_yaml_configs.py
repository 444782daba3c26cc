"""Detectron's published configurations, key by key: as Detectron merges them (tests/data/configs.json), and ours."""

import json
import lzma
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from detectron_gn.mrcnn.config import check_config, flatten, refuse_training
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.config.read import bundled_config, bundled_names, parse_config, read_config

DATA = Path(__file__).parents[2] / "data"
REFERENCE = json.loads((DATA / "configs.json").read_text())
ROOT = Path(__file__).parents[3]
GN, BN = "04_2018_gn_baselines", "12_2017_baselines"


def detectron_values(name):
    """All 229 values that Detectron has after it merged a YAML file."""

    def tuples(value):
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    values = {key: tuples(value) for key, value in {**REFERENCE["defaults"], **REFERENCE["configs"][name]}.items()}
    ((values["PIXEL_MEANS"],),) = values["PIXEL_MEANS"]
    return values


def as_yaml(differences):
    """A YAML file of the keys that differ from the defaults; the two that Detectron infers are left to infer."""
    sections: dict = {}
    for key, value in differences.items():
        if key not in ("RPN.RPN_ON", "TEST.PRECOMPUTED_PROPOSALS"):
            *path, name = key.split(".")
            section = sections
            for part in path:
                section = section.setdefault(part, {})
            section[name] = value
    return yaml.safe_dump(sections)


@pytest.fixture
def any_value(monkeypatch):
    """Configurations of models that are not supported can be read, too."""
    monkeypatch.setattr("detectron_gn.port.config.read.unsupported_values", lambda cfg: [])


@pytest.mark.usefixtures("any_value")
@pytest.mark.parametrize("name", REFERENCE["configs"])
def test_the_229_values_of_a_published_yaml_are_detectrons(name):
    cfg = parse_config(as_yaml(REFERENCE["configs"][name]), name)
    values = detectron_values(name)
    assert len(values) == 229
    assert flatten(cfg) == values


@pytest.mark.usefixtures("any_value")
@pytest.mark.parametrize("name", REFERENCE["configs"])
def test_our_yaml_of_the_same_name_gives_the_same_229_values(name):
    assert flatten(bundled_config(name)) == detectron_values(name)
    assert bundled_config(name) == read_config(ROOT / "yaml_configs" / name)


def test_detectrons_87_configurations_are_all_there():
    assert len(REFERENCE["configs"]) == 87
    assert set(REFERENCE["configs"]) <= set(bundled_names())


@pytest.mark.parametrize("name", bundled_names())
def test_a_bundled_configuration_can_be_built_and_trained(name):
    check_config(bundled_config(name))
    refuse_training(bundled_config(name))


@pytest.mark.parametrize("name", bundled_names())
def test_a_bundled_configuration_opens_with_one_line_on_the_model(name):
    first, second = (ROOT / "yaml_configs" / name).read_text().splitlines()[:2]
    assert first.startswith("# ") and re.search(r"(FPN|C4) with", first) and first.endswith(".")
    assert second == "MODEL:"


def difference(name, other):
    ours, theirs = flatten(bundled_config(name)), flatten(bundled_config(other))
    return {key: value for key, value in ours.items() if value != theirs[key]}


@pytest.mark.parametrize("depth", [50, 101])
def test_the_struck_out_generation_differs_in_freeze_at_alone(depth):
    scratch = f"{GN}/scratch_e2e_mask_rcnn_R-{depth}-FPN_3x_gn"
    assert difference(f"{scratch}_freeze2", scratch) == {"TRAIN.FREEZE_AT": 2}
    assert difference(scratch, f"{scratch}_freeze2") == {"TRAIN.FREEZE_AT": 0}


def test_the_4conv1fc_baselines_differ_from_bn_in_the_box_head_and_the_schedule():
    head = {"FAST_RCNN.ROI_BOX_HEAD": "fast_rcnn_heads.add_roi_Xconv1fc_head"}
    baseline = f"{BN}/e2e_mask_rcnn_R-50-FPN_2x"
    assert difference(f"{GN}/e2e_mask_rcnn_R-50-FPN_2x_bn_4conv1fc", baseline) == head
    longer = {"SOLVER.STEPS": (0, 210000, 250000), "SOLVER.MAX_ITER": 270000}
    assert difference(f"{GN}/e2e_mask_rcnn_R-50-FPN_3x_bn_4conv1fc", baseline) == {**head, **longer}


def test_the_demo_configuration_is_the_one_inside_the_demo_model(demo_model):
    # The text from the first AttrDict tag to the state of the same AttrDict, found without unpickling anything.
    content = lzma.decompress((demo_model / "model_final.pkl.xz").read_bytes())
    start = content.index(b"!!python/object/new:utils.collections.AttrDict")
    end = content.index(b"state:\n  !!python/unicode '__immutable__': true\n", start)
    saved = parse_config(content[start:end].decode(), "demo", ["ROOT_DIR", "."], saved_in_weights=True)
    assert saved == bundled_config("e2e_mask_rcnn_R-50-FPN_shapes_gn")


@pytest.mark.parametrize(
    "name",
    [
        f"{GN}/e2e_mask_rcnn_R-101-FPN_2x_gn.yaml",
        f"{GN}/e2e_mask_rcnn_R-101-FPN_2x_gn",
        "e2e_mask_rcnn_R-101-FPN_2x_gn.yaml",
        "e2e_mask_rcnn_R-101-FPN_2x_gn",
        f"yaml_configs/{GN}/e2e_mask_rcnn_R-101-FPN_2x_gn.yaml",
    ],
)
def test_a_bundled_configuration_is_found_by_path_and_by_stem(name):
    assert bundled_config(name).MODEL.CONV_BODY == "FPN.add_fpn_ResNet101_conv5_body"
    assert bundled_config(name, ["NUM_GPUS", "2"]).NUM_GPUS == 2


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("", "`detectron-gn models` lists"),
        ("12_2017_baselines/e2e_mask_rcnn_R-50-FPN_2x_gn.yaml", f"it is {GN}/e2e_mask_rcnn_R-50-FPN_2x_gn.yaml there"),
        ("D/retinanet_R-50-FPN_1x.yaml", "there, and --config retinanet_R-50-FPN_1x is enough"),
        ("48616381", "the model of that name has --config e2e_mask_rcnn_R-50-FPN_2x_gn"),
        ("e2e_mask_rcnn_R-50-FPN", "did you mean e2e_mask_rcnn_R-50-FPN_"),
        ("e2e_faster_rcnn_R50-FPN_1x.yml", "did you mean e2e_faster_rcnn_R-50-FPN_1x or"),
        ("../setup.py", "`detectron-gn models` lists"),
        (f"{GN}/../__init__.py", "`detectron-gn models` lists"),
        ("a/x.yaml", "`detectron-gn models` lists"),
    ],
)
def test_another_name_is_refused_with_the_nearest_names(name, hint):
    with pytest.raises(InputError, match="none of the configurations of yaml_configs/") as error:
        bundled_config(name)
    assert hint in str(error.value) and len(str(error.value)) < 250


def test_of_two_configurations_with_one_stem_the_baseline_counts():
    stems = Counter(Path(name).stem for name in bundled_names())
    shared = {stem for stem, count in stems.items() if count > 1}
    assert shared == {"e2e_mask_rcnn_R-50-FPN_2x", "keypoint_rcnn_R-50-FPN_1x"}
    assert bundled_config("e2e_mask_rcnn_R-50-FPN_2x") == bundled_config(f"{BN}/e2e_mask_rcnn_R-50-FPN_2x")
