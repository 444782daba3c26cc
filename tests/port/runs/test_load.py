"""Which configuration counts for a weights file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.runs import load
from detectron_gn.port.runs.load import configured_weights
from detectron_gn.weights import WeightsFile, write_blobs

BARE = WeightsFile({"fc6_b": np.zeros(1, np.float32)}, None, None, "", "pkl")


def test_the_saved_configuration_counts_and_tells_the_old_box_weights(tmp_path: Path) -> None:
    """Without the key the box head was trained with weights of 1 (Detectron utils/net.py)."""
    write_blobs(tmp_path / "m.pkl", replace(BARE, cfg="MODEL:\n  NUM_CLASSES: 7\n"))
    cfg, weights = configured_weights(tmp_path / "m.pkl", overrides=["TEST.NMS", "0.25"])
    assert (cfg.MODEL.NUM_CLASSES, cfg.MODEL.BBOX_REG_WEIGHTS, cfg.TEST.NMS) == (7, (1, 1, 1, 1), 0.25)
    assert list(weights.blobs) == ["fc6_b"]


def test_a_configuration_that_is_given_counts_before_the_saved_one(tmp_path: Path) -> None:
    write_blobs(tmp_path / "m.pkl", replace(BARE, cfg="MODEL:\n  NUM_CLASSES: 7\n"))
    (tmp_path / "given.yaml").write_text("MODEL:\n  NUM_CLASSES: 9\n")
    cfg, _ = configured_weights(tmp_path / "m.pkl", tmp_path / "given.yaml", ["TEST.NMS", "0.25"])
    assert (cfg.MODEL.NUM_CLASSES, cfg.MODEL.BBOX_REG_WEIGHTS, cfg.TEST.NMS) == (9, (10, 10, 5, 5), 0.25)
    assert configured_weights(tmp_path / "m.pkl", "e2e_mask_rcnn_R-50-FPN_2x_gn")[0].MODEL.NUM_CLASSES == 81


def test_the_catalogs_configuration_counts_where_the_file_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_blobs(tmp_path / "m.pth", BARE)
    monkeypatch.setattr(load, "resolve", lambda source: tmp_path / "m.pth")
    assert configured_weights("48616724")[0].MODEL.CONV_BODY == "FPN.add_fpn_ResNet101_conv5_body"
    for source in ("47261647", str(tmp_path / "m.pth")):
        with pytest.raises(InputError, match=f"{source} holds no configuration: pass --config"):
            configured_weights(source)
