"""Reading Detectron's YAML: its keys, its rules for types, old names, errors that name file, line and key."""

import logging

import pytest

from detectron_gn.mrcnn.config import Config, flatten, with_values
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.config.read import dump_config, merge_overrides, parse_config, read_config
from detectron_gn.port.config.yaml_loader import MAX_CONFIG_CHARACTERS


def error_of(function, *arguments, **keywords):
    with pytest.raises(InputError) as error:
        function(*arguments, **keywords)
    assert "\n" not in str(error.value)
    return str(error.value)


def changes(cfg):
    """The keys whose values are not Detectron's defaults."""
    defaults = flatten(Config())
    return {key: value for key, value in flatten(cfg).items() if value != defaults[key]}


def test_keys_that_are_not_given_keep_detectrons_defaults():
    assert changes(parse_config("TEST:\n  NMS: 0.5\nNUM_GPUS: 8\n", "a.yaml")) == {"TEST.NMS": 0.5, "NUM_GPUS": 8}


def test_sections_within_sections_are_read():
    text = "TEST:\n  SOFT_NMS:\n    ENABLED: True\n  BBOX_VOTE: {VOTE_TH: 0.9}\n"
    assert changes(parse_config(text, "a.yaml")) == {"TEST.SOFT_NMS.ENABLED": True, "TEST.BBOX_VOTE.VOTE_TH": 0.9}


@pytest.mark.parametrize(
    ("text", "has_rpn", "from_files"),
    [
        ("NUM_GPUS: 1", False, True),
        ("MODEL: {FASTER_RCNN: True}", True, False),
        ("RPN: {RPN_ON: True}", True, False),
        ("MODEL: {FASTER_RCNN: True}\nTEST: {PRECOMPUTED_PROPOSALS: True}", True, False),
    ],
)
def test_rpn_and_proposal_files_are_inferred(text, has_rpn, from_files):
    # Detectron core/config.py:assert_and_infer_cfg
    cfg = parse_config(text, "a.yaml")
    assert (cfg.RPN.RPN_ON, cfg.TEST.PRECOMPUTED_PROPOSALS) == (has_rpn, from_files)


def test_overrides_come_after_the_file_and_are_decoded_as_on_detectrons_command_line():
    overrides = ["TEST.NMS", "0.4", "TRAIN.SCALES", "(640, 800)", "OUTPUT_DIR", "out/run 1", "TEST.BBOX_REG", "False"]
    cfg = parse_config("TEST:\n  NMS: 0.5\n", "a.yaml", overrides)
    assert changes(cfg) == {
        "TEST.NMS": 0.4,
        "TRAIN.SCALES": (640, 800),
        "OUTPUT_DIR": "out/run 1",
        "TEST.BBOX_REG": False,
    }
    assert merge_overrides(parse_config("TEST:\n  NMS: 0.5\n", "a.yaml"), overrides) == cfg
    assert merge_overrides(cfg, []) == cfg


def test_overrides_are_inferred_from():
    assert merge_overrides(Config(), ["MODEL.FASTER_RCNN", "True"]).RPN.RPN_ON


def test_the_last_of_two_overrides_counts():
    assert merge_overrides(Config(), ["NUM_GPUS", "2", "NUM_GPUS", "4"]).NUM_GPUS == 4


def test_an_override_can_take_the_place_of_a_value_that_is_not_served():
    text = "TRAIN:\n  COPY_WEIGHTS: True\n"
    assert error_of(parse_config, text, "a.yaml").startswith("a.yaml, line 2: TRAIN.COPY_WEIGHTS is True")
    assert not changes(parse_config(text, "a.yaml", ["TRAIN.COPY_WEIGHTS", "False"]))
    repeated = error_of(parse_config, text, "a.yaml", ["TRAIN.COPY_WEIGHTS", "True"])
    assert repeated.startswith("TRAIN.COPY_WEIGHTS is True, which is not supported here")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("TEST:\n  NMSS: 0.3", "line 2: TEST.NMSS is no key of Detectron's: did you mean TEST.NMS?"),
        ("TRIAN:\n  NMS: 0.3", "line 1: TRIAN is no key of Detectron's: did you mean TRAIN?"),
        ("FREEZE_AT: 0", "line 1: FREEZE_AT is no key of Detectron's: did you mean TRAIN.FREEZE_AT?"),
        ("MODEL:\n  FREEZE_AT: 0", "line 2: MODEL.FREEZE_AT is no key of Detectron's: did you mean TRAIN.FREEZE_AT?"),
        ("TEST: {BBOX_VOTE: {VOTE: 1}}", "line 1: TEST.BBOX_VOTE.VOTE is no key of Detectron's: did you mean"),
        ("test:\n  NMS: 0.3", "line 1: test is no key of Detectron's: did you mean TEST?"),
        ("XYZZY: 0", "line 1: XYZZY is no key of Detectron's: remove it"),
        ("TEST: 0.3", "line 1: TEST is a section, not a key: give its keys, such as TEST.WEIGHTS"),
        ("TEST:", "line 1: TEST is a section, not a key"),
        ("TEST:\n  BBOX_AUG: True", "line 2: TEST.BBOX_AUG is a section, not a key: give its keys, such as"),
        ("NUM_GPUS: {A: 1}", "line 1: NUM_GPUS is {'A': 1}, but it must be a whole number, such as 1"),
        ("TEST.NMS: 0.3", "line 1: the key 'TEST.NMS' is no name: write keys below their section"),
        ("NUM_GPUS: 8\nNUM_GPUS: 4", "line 2: the key NUM_GPUS is given a second time, after line 1"),
        ("TEST:\n  NMS: 0.3\nNUM_GPUS: 1\nTEST: {}", "line 4: the key TEST is given a second time, after line 1"),
        ("RPN:\n  ON: True", "line 2: the key 'ON' is no text to YAML"),
        ("MODEL:\n  TYPE: rfcn", "line 2: MODEL.TYPE is 'rfcn', which is not supported here (R-FCN is not"),
        ("RFCN:\n  PS_GRID_SIZE: 7", "line 2: RFCN.PS_GRID_SIZE is 7, which is not supported here (R-FCN is not"),
    ],
)
def test_a_key_at_fault_is_refused_with_its_line_and_the_way_out(text, error):
    assert error_of(parse_config, text, "a.yaml").startswith(f"a.yaml, {error}")


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        (["TEST.NMS"], "TEST.NMS has no value: give KEY VALUE pairs, such as TEST.NMS 0.3"),
        (["TEST.NMS", "0.3", "NUM_GPUS"], "NUM_GPUS has no value"),
        (["TEST.NMSS", "0.3"], "TEST.NMSS is no key of Detectron's: did you mean TEST.NMS?"),
        (["TEST", "{'NMS': 0.3}"], "TEST is a section, not a key: give its keys, such as TEST.WEIGHTS"),
        (["TEST.SCALES", "(600,)"], "TEST.SCALES is now called TEST.SCALE: give it under that name as a single number"),
        (["TEST.NMS", "abc"], "TEST.NMS is 'abc', but it must be a number, such as 0.3"),
        (["RESNETS.RES5_DILATION", "2"], "RESNETS.RES5_DILATION is 2, which is not supported here (a pyramid"),
    ],
)
def test_an_override_at_fault_is_refused_by_key(overrides, error):
    assert error_of(merge_overrides, Config(), overrides).startswith(error)
    assert error_of(parse_config, "NUM_GPUS: 1", "a.yaml", overrides).startswith(error)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("MODEL.PS_GRID_SIZE", "RFCN.PS_GRID_SIZE"),
        ("MODEL.ROI_HEAD", "FAST_RCNN.ROI_BOX_HEAD"),
        ("MRCNN.MASK_HEAD_NAME", "MRCNN.ROI_MASK_HEAD"),
        ("TRAIN.DATASET", "TRAIN.DATASETS"),
        ("TRAIN.PROPOSAL_FILE", "TRAIN.PROPOSAL_FILES"),
        ("TEST.SCALES", "TEST.SCALE"),
        ("TEST.DATASET", "TEST.DATASETS"),
        ("TEST.PROPOSAL_FILE", "TEST.PROPOSAL_FILES"),
    ],
)
def test_a_renamed_key_is_refused_with_its_new_name(old, new):
    section, name = old.split(".")
    error = error_of(parse_config, f"{section}:\n  {name}: 1", "a.yaml")
    assert error.startswith(f"a.yaml, line 2: {old} is now called {new}: give it under that name")
    assert new in flatten(Config())


@pytest.mark.parametrize(
    "key",
    [
        "FINAL_MSG", "MODEL.DILATION", "ROOT_GPU_ID", "RPN.ON", "TRAIN.BBOX_NORMALIZE_TARGETS_PRECOMPUTED",
        "TRAIN.DROPOUT", "USE_GPU_NMS", "TEST.NUM_TEST_IMAGES",
    ],
)
def test_a_dropped_key_is_ignored_with_a_warning(key, caplog):
    section, _, name = key.rpartition(".")
    text = f"{section}: {{'{name}': 1}}" if section else f"{name}: 1"
    with caplog.at_level(logging.WARNING):
        assert parse_config(text, "a.yaml") == Config()
        assert merge_overrides(Config(), [key, "1"]) == Config()
    assert [record.getMessage() for record in caplog.records] == [
        f"{key} is no longer a key of Detectron's and is ignored"
    ] * 2


def attr_dict(*lines):
    """A configuration as Detectron saves it with weights, of one section."""
    tag = "!!python/object/new:utils.collections.AttrDict"
    body = "".join(f"    {line}\n" for line in lines)
    return f"{tag}\ndictitems:\n  TEST: {tag}\n    dictitems:\n" + body.replace("    ", "      ")


def test_saved_in_weights_old_names_are_followed_with_their_old_kinds_of_value():
    text = "TEST: {SCALES: [800], DATASET: a:b}\nTRAIN: {PROPOSAL_FILE: 'https://x/a.pkl:https://x/b.pkl'}\n"
    text += "MODEL: {ROI_HEAD: head_builder.add_roi_2mlp_head, BBOX_REG_WEIGHTS: [10.0, 10.0, 5.0, 5.0]}\n"
    assert changes(parse_config(text, "w.pkl", saved_in_weights=True)) == {
        "TEST.SCALE": 800,
        "TEST.DATASETS": ("a", "b"),
        "TRAIN.PROPOSAL_FILES": ("https://x/a.pkl", "https://x/b.pkl"),
        "FAST_RCNN.ROI_BOX_HEAD": "head_builder.add_roi_2mlp_head",
    }


def test_saved_in_weights_missing_box_weights_are_ones_and_a_warning_says_so(caplog):
    # Detectron utils/net.py:configure_bbox_reg_weights; in a YAML file the default counts.
    text = attr_dict("SCALE: 800")
    with caplog.at_level(logging.WARNING):
        parse_config(text, "w.pkl", saved_in_weights=True)
    (record,) = caplog.records
    assert "w.pkl does not name MODEL.BBOX_REG_WEIGHTS" in record.getMessage()
    assert "pass --set MODEL.BBOX_REG_WEIGHTS '(10., 10., 5., 5.)'" in record.getMessage()
    assert parse_config(text, "w.pkl", saved_in_weights=True).MODEL.BBOX_REG_WEIGHTS == (1.0, 1.0, 1.0, 1.0)
    assert parse_config(text, "a.yaml").MODEL.BBOX_REG_WEIGHTS == (10.0, 10.0, 5.0, 5.0)
    cfg = parse_config(text, "w.pkl", ["MODEL.BBOX_REG_WEIGHTS", "(10.0, 10.0, 5.0, 5.0)"], saved_in_weights=True)
    assert cfg.MODEL.BBOX_REG_WEIGHTS == (10.0, 10.0, 5.0, 5.0)


@pytest.mark.parametrize(
    "text", ["MODEL: {RPN_ONLY: True}", "MODEL: {TYPE: retinanet}\nRETINANET: {RETINANET_ON: True}"]
)
def test_saved_in_weights_missing_box_weights_are_not_spoken_of_where_nothing_reads_them(text, caplog):
    with caplog.at_level(logging.WARNING):
        cfg = parse_config(text, "w.pkl", saved_in_weights=True)
    assert not caplog.records and cfg.MODEL.BBOX_REG_WEIGHTS == Config().MODEL.BBOX_REG_WEIGHTS


def test_saved_in_weights_a_missing_freeze_at_is_two():
    assert parse_config(attr_dict("SCALE: 800"), "w.pkl", saved_in_weights=True).TRAIN.FREEZE_AT == 2


def test_saved_in_weights_unknown_keys_are_named_and_ignored(caplog):
    with caplog.at_level(logging.WARNING):
        text = attr_dict("SCALE: 800", "XYZZY: 3", "ODD: !!python/object/apply:os.system [x]")
        cfg = parse_config(text, "w.pkl", ["MODEL.BBOX_REG_WEIGHTS", "(1., 1., 1., 1.)"], saved_in_weights=True)
    assert cfg.TEST.SCALE == 800
    assert [record.getMessage() for record in caplog.records] == [
        "TEST.XYZZY, saved with the weights, is no key of Detectron's and is ignored",
        "TEST.ODD, saved with the weights, is no key of Detectron's (it has the tag !!python/object/apply:os.system) "
        "and is ignored",
    ]
    assert "did you mean" in error_of(parse_config, attr_dict("SCALEE: 800"), "a.yaml")


def test_saved_in_weights_the_idle_section_of_r_fcn_may_have_had_other_defaults():
    assert parse_config("RFCN: {PS_GRID_SIZE: 7}", "w.pkl", saved_in_weights=True).RFCN == Config().RFCN


def test_saved_in_weights_the_keypoint_section_counts():
    text = "MODEL: {KEYPOINTS_ON: True}\nKRCNN: {NUM_KEYPOINTS: 17, UP_SCALE: 2}"
    assert parse_config(text, "w.pkl", saved_in_weights=True).KRCNN.UP_SCALE == 2


def test_saved_in_weights_wrong_types_and_unsupported_values_are_refused():
    assert "TEST.SCALE is 'x'" in error_of(parse_config, attr_dict("SCALE: x"), "w.pkl", saved_in_weights=True)
    assert "COPY_WEIGHTS" in error_of(parse_config, "TRAIN: {COPY_WEIGHTS: True}", "w", saved_in_weights=True)


@pytest.mark.parametrize(
    "line", ["EPS: 1", "EPS: [a]", "VIS: 3", "MEMONGER: !!python/object/apply:f []", "ROOT_DIR: 2.5"]
)
def test_saved_in_weights_a_key_without_effect_may_hold_anything(line):
    parse_config(line, "w.pkl", saved_in_weights=True)


@pytest.mark.parametrize(
    ("text", "fork"),
    [
        ("XYXY: True", "KL-Loss"),
        ("PRED_STD: 'True'", "KL-Loss"),
        ("MODEL: {CASCADE_ON: True}", "Cascade R-CNN"),
        ("FAST_RCNN: {CASCADE_ON: 1}", "Cascade R-CNN"),
        ("MODEL: {BODY_UV_ON: True}", "DensePose"),
    ],
)
def test_saved_in_weights_the_switch_of_a_fork_is_refused_by_name_where_it_is_on(text, fork):
    error = error_of(parse_config, text, "w.pkl", saved_in_weights=True)
    assert error.startswith("w.pkl, line 1: ") and f"the model is of {fork}, a fork of Detectron" in error
    off = text.replace("True", "False").replace("1", "0")
    parse_config(off, "w.pkl", saved_in_weights=True)


def test_saved_in_weights_the_way_out_of_a_value_that_is_not_supported_does_not_make_another_network():
    error = error_of(parse_config, "RESNETS: {RES5_DILATION: 2}", "w.pkl", saved_in_weights=True)
    assert error.endswith("the model was trained so: only Detectron runs it")
    error = error_of(parse_config, "TEST: {SOFT_NMS: {METHOD: cubic}}", "w.pkl", saved_in_weights=True)
    assert "pass --set TEST.SOFT_NMS.METHOD linear or gaussian or hard" in error


def test_a_file_is_read_whatever_its_byte_order_mark(tmp_path):
    path = tmp_path / "a.yaml"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes("OUTPUT_DIR: ausgänge\r\n".encode(encoding))
        assert changes(read_config(path)) == {"OUTPUT_DIR": "ausgänge"}
        assert read_config(str(path), ["NUM_GPUS", "3"]).NUM_GPUS == 3


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "{path}: it is empty, but a configuration is a mapping, such as NUM_GPUS: 8"),
        (b"# nothing\n", "{path}: it is empty"),
        (b"\x80\x02}q\x00.", "{path}: it is not text: give a Detectron YAML file"),
        (b"<!DOCTYPE html>\n<html>", "{path}: it is the value '<!DOCTYPE html> <html>', but a configuration is"),
        (b"NUM_GPUS: 1\0", "{path}: it is not YAML text (unacceptable character #x0000"),
        (b"#" * 500_000, "{path}: it is too large for a configuration: give a Detectron YAML file"),
        (b"#" * (MAX_CONFIG_CHARACTERS + 1), "{path}: it has more than 100000 characters, too many for a config"),
        (b"NUM_GPUS: 1\nTEST:\n\tNMS: 0.3", "{path}, line 3: a tab stands where YAML takes only spaces"),
        (b"TEST:\n  NMSS: 1", "{path}, line 2: TEST.NMSS is no key"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_by_name(tmp_path, content, error):
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    assert error_of(read_config, path).startswith(error.format(path=path))


def test_a_file_that_cannot_be_opened_is_refused_by_name(tmp_path):
    missing = tmp_path / "missing.yaml"
    assert error_of(read_config, missing) == (
        f"{missing}: it cannot be read (No such file or directory): give a Detectron YAML file"
    )
    assert error_of(read_config, tmp_path).startswith(f"{tmp_path}: it cannot be read (Is a directory)")


def test_anchors_aliases_and_merge_keys_are_yaml_too():
    text = "TRAIN: &all\n  MAX_SIZE: 1333\nTEST:\n  <<: *all\n  NMS: 0.5\n"
    assert changes(parse_config(text, "a.yaml")) == {"TRAIN.MAX_SIZE": 1333, "TEST.MAX_SIZE": 1333, "TEST.NMS": 0.5}
    merged = error_of(parse_config, "TRAIN: &all {FREEZE_AT: 0}\nTEST: {<<: *all}\n", "a.yaml")
    assert merged == "a.yaml, line 1: TEST.FREEZE_AT is no key of Detectron's: did you mean TRAIN.FREEZE_AT?"


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"PIXEL_MEANS": (1.5, 0.0, 2.0), "SOLVER.LRS": (0.1, 0.01), "SOLVER.STEPS": (0, 5), "RPN.SIZES": ()},
        {"EXPECTED_RESULTS": (("coco", "box", "AP", 0.386), ("coco", "mask", "AP", (0.3, 0.1)))},
        {"OUTPUT_DIR": "a: b # ausgänge 'x'\n", "TRAIN.WEIGHTS": "", "ROOT_DIR": "None", "MATLAB": "0.10x"},
        {"TEST.NMS": 1e-14, "SOLVER.WARM_UP_FACTOR": 1 / 3, "TEST.SCORE_THRESH": 1e22},
    ],
)
@pytest.mark.parametrize("saved_in_weights", [False, True])
def test_a_dumped_configuration_is_read_back_as_it_was(values, saved_in_weights):
    cfg = with_values(Config(), values)
    assert parse_config(dump_config(cfg), "dump", saved_in_weights=saved_in_weights) == cfg
