"""YAML for people: it reads back as the configuration, is plain, and says what it is told to."""

import pytest
import yaml

from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.training.schedule import scaled_schedule
from detectron_gn.port.config.read import bundled_config, bundled_names, named_keys, parse_config
from detectron_gn.port.config.readable_yaml import readable_config


@pytest.mark.parametrize("name", bundled_names())
def test_it_reads_back_as_the_configuration(name):
    cfg = scaled_schedule(bundled_config(name), 1)
    text = readable_config(cfg)
    assert "!!" not in text
    assert parse_config(text, "text") == cfg
    # Detectron reads its YAML files with a plain loader.
    assert yaml.safe_load(text)["MODEL"]["CONV_BODY"] == cfg.MODEL.CONV_BODY


def test_small_and_odd_values_keep_their_types():
    values = {
        "SOLVER.BASE_LR": 1e-05,
        "SOLVER.LRS": (1.0, 2e-7),
        "OUTPUT_DIR": "yes: no # 'x'",
        "TRAIN.WEIGHTS": "1e5",
        "PIXEL_MEANS": (1.0, 2.0, 3.5),
    }
    cfg = with_values(Config(), values)
    assert parse_config(readable_config(cfg), "text") == cfg


def test_comments_stand_behind_their_keys_and_the_heading_above(tmp_path):
    cfg = with_values(Config(), {"NUM_GPUS": 4, "SOLVER.BASE_LR": 0.01})
    text = readable_config(cfg, ["by hand"], {"SOLVER.BASE_LR": "was 0.02", "SOLVER.GAMMA": "as ever"})
    assert text == (
        "# by hand\nNUM_GPUS: 4\nSOLVER:\n  BASE_LR: 0.01  # was 0.02\n  GAMMA: 0.1  # as ever\n"
    )
    path = tmp_path / "by_hand.yaml"
    path.write_text(text)
    assert named_keys(path) == {"NUM_GPUS", "SOLVER.BASE_LR", "SOLVER.GAMMA"}
