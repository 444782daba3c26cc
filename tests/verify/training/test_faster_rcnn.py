"""A Faster R-CNN is trained, resumed, written as Detectron's pickle and read back."""

import numpy as np
import pytest

from detectron_gn.port.runs.load import load_model
from detectron_gn.weights import read_blobs, write_blobs
from tests.helpers.small_run import assert_equal_blobs, config, run

pytestmark = pytest.mark.slow

HEADS = [
    "fast_rcnn_heads.add_roi_2mlp_head",
    "fast_rcnn_heads.add_roi_Xconv1fc_head",
    "fast_rcnn_heads.add_roi_Xconv1fc_gn_head",
]


@pytest.mark.parametrize("head", HEADS)
def test_it_trains_and_goes_through_every_format_unchanged(head, tmp_path):
    cfg = config("MODEL.MASK_ON", "False", "FAST_RCNN.ROI_BOX_HEAD", head, "SOLVER.MAX_ITER", "3")
    final = run(tmp_path, cfg)
    recorded = (tmp_path / "json_stats.jsonl").read_text()
    assert "loss_mask" not in recorded and "loss_bbox" in recorded
    weights = read_blobs(final)
    assert not [name for name in weights.blobs if "mask" in name]
    before = final.read_bytes()
    for suffix in (".h5", ".safetensors", ".pth"):
        there, back = tmp_path / f"there{suffix}", tmp_path / "back.pkl"
        write_blobs(there, weights)
        write_blobs(back, read_blobs(there))
        assert back.read_bytes() == before
    model = load_model(final, device="cpu")
    assert model.mask_head is None
    for name, parameter in model.named_parameters():
        assert np.isfinite(parameter.detach().numpy()).all(), name


def test_a_stopped_run_ends_as_one_in_one_go(tmp_path):
    overrides = ("MODEL.MASK_ON", "False")
    run(tmp_path / "whole", config(*overrides))
    run(tmp_path / "stopped", config(*overrides, "SOLVER.MAX_ITER", "4"))
    run(tmp_path / "stopped", config(*overrides), resume=True)
    assert_equal_blobs(tmp_path / "whole" / "model_final.pkl", tmp_path / "stopped" / "model_final.pkl")
