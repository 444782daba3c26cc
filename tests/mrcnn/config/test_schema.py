"""The keys and defaults of `Config` against those of Detectron (tests/data/configs.json)."""

import dataclasses
import json
from pathlib import Path

import pytest

from detectron_gn.mrcnn.config import Config, flatten, with_values

DETECTRON_DEFAULTS = json.loads((Path(__file__).parents[2] / "data" / "configs.json").read_text())["defaults"]


def test_the_229_keys_are_detectrons():
    assert len(DETECTRON_DEFAULTS) == 229
    assert flatten(Config()).keys() == DETECTRON_DEFAULTS.keys()


@pytest.mark.parametrize("key", DETECTRON_DEFAULTS)
def test_a_default_is_detectrons_in_value_and_type(key):
    ours, theirs = flatten(Config())[key], DETECTRON_DEFAULTS[key]
    if key == "PIXEL_MEANS":  # a [1, 1, 3] array to Detectron
        theirs = theirs[0][0]
    if isinstance(theirs, list):
        assert list(ours) == theirs
        assert [type(element) for element in ours] == [type(element) for element in theirs]
    else:
        assert (ours, type(ours)) == (theirs, type(theirs))


def test_a_config_cannot_be_changed_in_place_and_can_be_a_dictionary_key():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().TEST.NMS = 0.5
    assert {Config(): 1}[Config()] == 1


def test_values_under_full_keys_change_a_copy():
    cfg = with_values(Config(), {"TEST.BBOX_VOTE.VOTE_TH": 0.7, "NUM_GPUS": 8})
    assert (cfg.TEST.BBOX_VOTE.VOTE_TH, cfg.NUM_GPUS) == (0.7, 8)
    assert (Config().TEST.BBOX_VOTE.VOTE_TH, Config().NUM_GPUS) == (0.8, 1)
    changed = {key for key, value in flatten(cfg).items() if value != flatten(Config())[key]}
    assert changed == {"TEST.BBOX_VOTE.VOTE_TH", "NUM_GPUS"}
    with pytest.raises(KeyError, match=r"TEST\.NMSS"):
        with_values(Config(), {"TEST.NMSS": 0.3})
