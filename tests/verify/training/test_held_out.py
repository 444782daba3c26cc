"""Losses on evaluation data: of every image once, the same for each time, and without a trace in the training."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.config import with_values
from detectron_gn.mrcnn.data.minibatch import load_minibatch, sampling_seed
from detectron_gn.mrcnn.data.read_image import AS_IMREAD
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.mrcnn.distributed import ALONE
from detectron_gn.mrcnn.training.outputs import losses_of
from detectron_gn.mrcnn.training.samplers import RandomSampler
from detectron_gn.verify.training.course import forward_context
from detectron_gn.verify.training.evaluated import train_and_evaluate
from detectron_gn.verify.training.evaluation_data import EvaluationData
from detectron_gn.verify.training.held_out import HeldOutLosses
from detectron_gn.verify.training.metrics import RunFigures
from detectron_gn.verify.training.run_options import RunOptions
from tests.helpers.dense_run import dense_config
from tests.helpers.roi_run import roi_config, roi_data
from tests.helpers.small_run import DATA, assert_equal_blobs, config, dataset

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

VAL = EvaluationData(DATA / "train_images.json", DATA / "train_images")
NOTHING = RunOptions(Path())


def losses(cfg, data=VAL, category_ids=None, model=None):
    torch.manual_seed(1)
    model = model or build_detector(cfg)
    ids = dataset().category_ids if category_ids is None else category_ids
    return HeldOutLosses(cfg, data, ids).of(model, ALONE, AS_IMREAD, forward_context(NOTHING, ALONE))


def test_they_are_the_mean_over_the_images_at_the_longest_scale_without_mirrored_copies():
    cfg = config("NUM_GPUS", "2")
    torch.manual_seed(1)
    model = build_detector(cfg)
    expected: dict[str, float] = {}
    roidb = training_roidb([dataset()], with_values(cfg, {"TRAIN.USE_FLIPPED": False}))
    assert len(roidb) == 12
    for place, entry in enumerate(roidb):
        minibatch = load_minibatch([entry], [80], cfg, place)
        sampler = RandomSampler(cfg, model.device, sampling_seed(cfg.RNG_SEED, place))
        for name, loss in losses_of(model.losses(minibatch, sampler)).items():
            # The head's own loss is for two minibatches an iteration.
            expected[name] = expected.get(name, 0.0) + 2 * float(loss) / 12
    found = losses(cfg, model=model)
    assert found.pop("loss") == pytest.approx(sum(expected.values()))
    assert found == pytest.approx(expected)
    assert found == {name: value for name, value in losses(cfg).items() if name != "loss"}


def test_categories_in_another_order_are_the_same_classes(tmp_path):
    content = json.loads(VAL.annotations.read_text())
    ids = [category["id"] for category in content["categories"]]
    content["categories"].reverse()
    (tmp_path / "val.json").write_text(json.dumps(content))
    turned = replace(VAL, annotations=tmp_path / "val.json")
    assert losses(config(), turned, ids) == losses(config())
    assert losses(config(), turned, ids[::-1]) != losses(config())


@pytest.mark.parametrize("name", ["retinanet", "rpn", "rpn_c4", "faster_agnostic"])
def test_dense_families_have_them(name):
    found = losses(dense_config(name))
    assert all(np.isfinite(value) for value in found.values()) and found["loss"] > 0


@pytest.mark.parametrize("name", ["keypoint", "mask_c4", "fast"])
def test_families_on_rois_have_them(name):
    data, proposals = roi_data(name)
    val = EvaluationData(data.annotation_file, data.image_dir, *proposals)
    found = losses(roi_config(name), val, data.category_ids)
    assert all(np.isfinite(value) for value in found.values()) and found["loss"] > 0


@pytest.mark.slow
def test_a_run_keeps_them_for_each_set_and_trains_as_without_them(tmp_path):
    cfg = config("SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "[0]", "TEST.RPN_POST_NMS_TOP_N", "5")
    sets = [replace(VAL, given_name="day"), replace(VAL, given_name="night")]
    lines = []
    for out, evaluations, eval_loss in (("plain", [], False), ("watched", sets, True)):
        options = RunOptions(tmp_path / out, workers=0, eval_loss=eval_loss)
        trained = train_and_evaluate(cfg, [dataset()], None, ALONE, options, evaluations, lines.append)
    assert_equal_blobs(tmp_path / "plain" / "model_final.pth", tmp_path / "watched" / "model_final.pth")
    folder = tmp_path / "watched" / "eval_iter1"
    kept = json.loads((folder / "losses.json").read_text())
    assert list(kept) == ["day", "night"] and kept["day"] == kept["night"]
    assert RunFigures(tmp_path / "watched").held_out_losses() == {1: dict.fromkeys(kept, kept["day"]["loss"])}
    assert list(json.loads((folder / "ap.json").read_text())) == ["day", "night"] == list(trained.ap)
    for name in ("day", "night"):
        assert {path.name for path in (folder / name).iterdir()} == {"ap.json", "bbox.json", "segm.json"}
    assert "on day:" in lines and any(line.startswith("on night: loss ") for line in lines)
    assert (tmp_path / "watched" / "curves.png").exists()
