"""Which configuration counts for a weights file."""

import hashlib
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.config.read import bundled_config
from detectron_gn.port.runs import load
from detectron_gn.port.runs.load import configured_weights
from detectron_gn.weights import WeightsFile, write_blobs
from detectron_gn.weights import catalog as catalog_module
from detectron_gn.weights.catalog import catalog, lookup
from detectron_gn.weights.errors import WeightsError

BARE = WeightsFile({"fc6_b": np.zeros(1, np.float32)}, None, None, "", "pkl")


def test_the_saved_configuration_counts_and_tells_the_old_box_weights(tmp_path: Path) -> None:
    """Without the key the box head was trained with weights of 1 (Detectron utils/net.py)."""
    write_blobs(tmp_path / "m.pkl", replace(BARE, cfg="MODEL:\n  NUM_CLASSES: 7\n"))
    cfg, weights = configured_weights(tmp_path / "m.pkl", overrides=["TEST.NMS", "0.25"])
    assert (cfg.MODEL.NUM_CLASSES, cfg.MODEL.BBOX_REG_WEIGHTS, cfg.TEST.NMS) == (7, (1, 1, 1, 1), 0.25)
    assert list(weights.blobs) == ["fc6_b"]


def test_a_configuration_that_is_given_counts_before_the_saved_one(tmp_path: Path) -> None:
    saved = "MODEL:\n  NUM_CLASSES: 7\n  BBOX_REG_WEIGHTS: [10.0, 10.0, 5.0, 5.0]\n"
    write_blobs(tmp_path / "m.pkl", replace(BARE, cfg=saved))
    (tmp_path / "given.yaml").write_text("MODEL:\n  NUM_CLASSES: 9\n")
    cfg, _ = configured_weights(tmp_path / "m.pkl", tmp_path / "given.yaml", ["TEST.NMS", "0.25"])
    assert (cfg.MODEL.NUM_CLASSES, cfg.MODEL.BBOX_REG_WEIGHTS, cfg.TEST.NMS) == (9, (10, 10, 5, 5), 0.25)
    assert configured_weights(tmp_path / "m.pkl", "e2e_mask_rcnn_R-50-FPN_2x_gn")[0].MODEL.NUM_CLASSES == 81


def test_the_catalogs_configuration_counts_where_the_file_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_blobs(tmp_path / "m.pth", replace(BARE, blobs={"cls_score_b": np.zeros(81, np.float32)}))
    monkeypatch.setattr(load, "resolve", lambda source: tmp_path / "m.pth")
    assert configured_weights("48616724")[0].MODEL.CONV_BODY == "FPN.add_fpn_ResNet101_conv5_body"
    with pytest.raises(InputError, match=r"m\.pth holds no configuration: pass --config"):
        configured_weights(str(tmp_path / "m.pth"))


SAVED = "MODEL: {BBOX_REG_WEIGHTS: [10.0, 10.0, 5.0, 5.0], NUM_CLASSES: 7}\nTEST: {NMS: 0.25}\nOUTPUT_DIR: elsewhere\n"


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("how", ["id", "name", "path in a cache", "path with its colons", "md5"])
def test_the_catalogs_configuration_counts_before_the_saved_one_and_differences_are_told(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    entry = lookup(48616381)
    path = tmp_path / "m.pkl"
    if how.startswith("path"):
        assert entry.path is not None
        path = tmp_path / (entry.path if how == "path in a cache" else unquote(entry.path))
        path.parent.mkdir(parents=True)
    write_blobs(path, replace(BARE, cfg=SAVED))
    if how == "md5":
        digest = hashlib.md5(path.read_bytes()).hexdigest()
        known = replace(entry, md5=digest)
        monkeypatch.setattr(catalog_module, "catalog", lambda: replace(catalog(), entries=(known,)))
        monkeypatch.setattr(catalog_module, "_SMALLEST_FILE", 1)
    monkeypatch.setattr(load, "resolve", lambda source: path)
    source = {"id": "48616381", "name": entry.name}.get(how, path)
    cfg, _ = configured_weights(source, overrides=["TEST.SCORE_THRESH", "0.1"])
    assert cfg == bundled_config(entry.name, ["TEST.SCORE_THRESH", "0.1"])
    (told,) = messages(caplog)
    assert "MODEL.NUM_CLASSES is 7 there, not 81; " in told and "TEST.NMS is 0.25 there, not 0.5; " in told
    assert told.endswith("the catalog's configuration of 48616381 (e2e_mask_rcnn_R-50-FPN_2x_gn) counts")
    assert "OUTPUT_DIR" not in told


@pytest.mark.parametrize(
    "saved", ["a: [", "MODEL: !!python/object/apply:os.system [x]", "XYXY: True", "TEST: {NMS: high}"]
)
def test_a_saved_configuration_that_cannot_be_read_is_a_remark_where_another_counts_and_else_names_the_way_out(
    saved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "m.pkl"
    write_blobs(path, replace(BARE, cfg=saved))
    with pytest.raises(InputError, match="fork" if "XYXY" in saved else "; pass --config with the YAML") as error:
        configured_weights(path)
    assert "remove it" not in str(error.value)
    if saved == "a: [":
        assert configured_weights(path, "e2e_mask_rcnn_R-50-FPN_2x_gn")[0].MODEL.BBOX_REG_WEIGHTS == (10, 10, 5, 5)
    monkeypatch.setattr(load, "resolve", lambda source: path)
    assert configured_weights("48616381")[0] == bundled_config("e2e_mask_rcnn_R-50-FPN_2x_gn")
    assert messages(caplog)[-1].endswith("(e2e_mask_rcnn_R-50-FPN_2x_gn) counts")


def test_box_weights_that_the_saved_configuration_does_not_name_are_ones_whatever_is_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "m.pkl"
    write_blobs(path, replace(BARE, cfg="MODEL:\n  NUM_CLASSES: 81\n"))
    name, way_out = "e2e_mask_rcnn_R-50-FPN_2x", ["MODEL.BBOX_REG_WEIGHTS", "(10., 10., 5., 5.)"]
    assert configured_weights(path, name)[0].MODEL.BBOX_REG_WEIGHTS == (1, 1, 1, 1)
    (told,) = messages(caplog)
    assert f"pass --set {way_out[0]} '{way_out[1]}'" in told
    assert configured_weights(path, name, way_out)[0] == bundled_config(name)
    assert len(messages(caplog)) == 1


@pytest.mark.parametrize(
    ("name", "keys", "told"),
    [
        ("retinanet_R-50-FPN_1x", ["BBOX_AUG", "BBOX_VOTE"], "TEST.BBOX_AUG, TEST.BBOX_VOTE are enabled and have no"),
        ("retinanet_R-50-FPN_1x", ["SOFT_NMS"], None),
        ("rpn_R-50-FPN_1x", ["SOFT_NMS"], "TEST.SOFT_NMS is enabled and has no effect on an RPN"),
        ("e2e_faster_rcnn_R-50-FPN_1x", ["MASK_AUG"], "TEST.MASK_AUG is enabled and has no effect on a Faster R-CNN"),
        ("e2e_faster_rcnn_R-50-FPN_1x", ["KPS_AUG"], "TEST.KPS_AUG is enabled and has no effect on a Faster R-CNN"),
        ("e2e_mask_rcnn_R-50-FPN_1x", ["BBOX_AUG", "MASK_AUG", "BBOX_VOTE", "SOFT_NMS"], None),
    ],
)
def test_what_is_enabled_without_effect_is_told_once(
    name: str, keys: list[str], told: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_blobs(tmp_path / "m.pkl", BARE)
    overrides = [text for key in keys for text in (f"TEST.{key}.ENABLED", "True")]
    configured_weights(tmp_path / "m.pkl", name, overrides)
    found = messages(caplog)
    assert len(found) == (told is not None) and all(message.startswith(told or "") for message in found)


def test_box_weights_are_not_spoken_of_where_nothing_reads_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_blobs(tmp_path / "m.pkl", replace(BARE, cfg="MODEL:\n  NUM_CLASSES: 7\n"))
    for name in ("retinanet_R-50-FPN_1x", "rpn_R-50-FPN_1x"):
        configured_weights(tmp_path / "m.pkl", name)
    assert not messages(caplog)


def test_what_is_no_source_is_told_so() -> None:
    with pytest.raises(WeightsError, match="None names no model: give the path of a file"):
        configured_weights(None)  # type: ignore[arg-type]
