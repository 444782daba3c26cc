"""Replays of training runs of the real Detectron; tests/helpers/caffe2_rounding.py says what is equal and why."""

import shutil

import h5py
import numpy as np
import pytest
import torch

from detectron_gn import main
from detectron_gn.mrcnn.backbones import resnet
from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.training.network import TrainingNetwork
from detectron_gn.mrcnn.training.solver import MomentumSGD
from detectron_gn.port.blobs.convert import build_model
from detectron_gn.port.blobs.match import match_blobs
from detectron_gn.port.blobs.solver_state import load_momentum
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config
from detectron_gn.verify.parity import training
from detectron_gn.verify.parity.training import compare_final, replay
from detectron_gn.verify.parity.training_check import check_training, training_tables
from detectron_gn.verify.reference.training_trace import open_trace
from detectron_gn.weights import read_blobs, write_blobs
from tests.helpers.caffe2_rounding import CaffeRounding, max_pool_with_winners
from tests.helpers.recipe import recipe_weights, zoo_weights

NARROW = (
    "MODEL.NUM_CLASSES 5 FPN.DIM 32 TRAIN.SCALES (160,) TRAIN.MAX_SIZE 256 FAST_RCNN.MLP_HEAD_DIM 64 NUM_GPUS 1 "
    "MRCNN.DIM_REDUCED 32 RESNETS.WIDTH_PER_GROUP 8 GROUP_NORM.NUM_GROUPS 8 FAST_RCNN.CONV_HEAD_DIM 32 "
    "FPN.ROI_CANONICAL_SCALE 60 TRAIN.RPN_POST_NMS_TOP_N 200 TRAIN.RPN_PRE_NMS_TOP_N 100 SOLVER.BASE_LR 0.005 "
    "SOLVER.WARM_UP_ITERS 4 "
)
EVERYTHING = "TRAIN.USE_FLIPPED False TRAIN.RPN_BATCH_SIZE_PER_IM 1000000 TRAIN.BATCH_SIZE_PER_IM 100000 "
OPTIONS = {
    "exhaustive": NARROW + EVERYTHING,
    "sampled": NARROW + "TRAIN.RPN_BATCH_SIZE_PER_IM 64 TRAIN.BATCH_SIZE_PER_IM 48",
    "resume": EVERYTHING
    + "MODEL.NUM_CLASSES 5 FPN.DIM 32 TRAIN.SCALES (160,) TRAIN.MAX_SIZE 256 FAST_RCNN.MLP_HEAD_DIM 64 NUM_GPUS 1 "
    "MRCNN.DIM_REDUCED 32 RESNETS.WIDTH_PER_GROUP 8 GROUP_NORM.NUM_GROUPS 8 FAST_RCNN.CONV_HEAD_DIM 32 "
    "TRAIN.RPN_POST_NMS_TOP_N 200 TRAIN.RPN_PRE_NMS_TOP_N 100 SOLVER.BASE_LR 0.002 SOLVER.WARM_UP_ITERS 0 "
    "SOLVER.STEPS (0,3) SOLVER.MAX_ITER 6",
}

# What lies below the ReLUs that rounding decides in the traces; the pyramid, the RPN and the box head do not.
BACKBONE = ("conv1_", "res2_", "res3_", "res4_", "res5_")


def config(name):
    return bundled_config("scratch_e2e_mask_rcnn_R-50-FPN_3x_gn", OPTIONS[name].split())


@pytest.fixture
def caffe_choices(monkeypatch):
    """Make every forward pass of the replay take the choices of its iteration's group."""

    def force(reference):
        forward, minibatch_of = TrainingNetwork.forward, training.reference_minibatch
        groups = []

        def remember(iteration, entries, cfg, reading):
            groups.append(reference[f"iter{iteration.number}"])
            return minibatch_of(iteration, entries, cfg, reading)

        def forced(network, minibatch, sampler):
            monkeypatch.setattr(resnet, "max_pool", max_pool_with_winners(groups[-1]))
            with CaffeRounding(groups[-1]) as rounding:
                outputs = forward(network, minibatch, sampler)
            assert rounding.seen > 8_000_000
            return outputs

        monkeypatch.setattr(training, "reference_minibatch", remember)
        monkeypatch.setattr(TrainingNetwork, "forward", forced)

    return force


def started(name, cfg, weights):
    model = build_model(cfg, weights)
    solver = MomentumSGD.from_config(model, cfg)
    momenta = load_momentum(model, solver, match_blobs(BlobTable.from_model(model), weights))
    return model, solver, momenta


@pytest.mark.slow
@pytest.mark.parametrize(("name", "iterations"), [("exhaustive", 4), ("sampled", 2)])
def test_losses_updates_and_parameters_are_caffe2s_where_rounding_chooses_alike(
    name, iterations, data, caffe_choices
):
    cfg = config(name)
    weights = recipe_weights(BlobTable.from_config(cfg), 10)
    model, solver, _ = started(name, cfg, weights)
    roidb = training_roidb([read_dataset(data / "train_images.json", data / "train_images")], cfg)
    path = data / f"train_gn_{name}.h5"
    with open_trace(path) as trace, h5py.File(path) as choices:
        caffe_choices(choices)
        replayed = list(replay(model, solver, roidb, trace))
        final = compare_final(model, solver, weights.blobs, trace)
    assert len(replayed) == iterations
    for iteration in replayed:
        assert iteration.lr == iteration.reference_lr
        assert len(iteration.losses) == 13
        assert max(map(iteration.loss_error, iteration.losses)) < 1e-4
        assert len(iteration.update_errors) == 223
        assert max(iteration.update_errors.values()) < 1e-3
        if name == "exhaustive":
            # The 200th and the 201st proposal of iteration 1 have the same float32 score.
            assert iteration.samples.different_rois <= (1 if iteration.iteration == 1 else 0)
            assert iteration.samples.different_masks == 0
            assert iteration.samples.box_target_error < 2e-3
    if name == "exhaustive":
        first = replayed[0].samples
        assert (first.anchors, first.different_anchors) == (8254, 0)
    assert len(final.errors) == len(final.momentum_errors) == 223
    assert max(final.errors.values()) < 0.01
    assert max(final.momentum_errors.values()) < 1e-3


@pytest.mark.slow
def test_a_run_of_detectron_goes_on_with_its_momentum_across_a_change_of_learning_rate(shared):
    cfg = config("resume")
    weights = read_blobs(shared / "parity" / "demo" / "model_iter2399.pkl")
    model, solver, momenta = started("resume", cfg, weights)
    assert momenta == 223
    demo = shared / "parity" / "demo"
    roidb = training_roidb([read_dataset(demo / "instances_train.json", demo / "train")], cfg)
    with open_trace(shared / "parity" / "train_gn_resume.h5") as trace:
        replayed = list(replay(model, solver, roidb, trace))
        final = compare_final(model, solver, weights.blobs, trace)
    assert [np.float32(i.lr) for i in replayed] == [np.float32(r) for r in [0.002] * 3 + [0.0002] * 3]
    for iteration in replayed:
        assert max(map(iteration.loss_error, iteration.losses)) < 1e-4
        samples = iteration.samples
        assert samples.different_anchors == samples.different_rois == samples.different_masks == 0
        # One ReLU of the backbone that rounding decides moves what lies below it, and another one on another processor
        # (docs/training_traces.md); Caffe2 run again differs by as much. What lies above agrees.
        over = {blob: error for blob, error in iteration.update_errors.items() if error > 1e-3}
        assert all(blob.startswith(BACKBONE) for blob in over) and max(over.values(), default=0) < 0.02
        assert sorted(iteration.update_errors.values())[111] < 1e-3
    assert max(final.momentum_errors.values()) < 0.005
    # Only GroupNorm's scales and shifts, which hardly move in six steps, end more than 1 % of their way apart.
    over = {blob: error for blob, error in final.errors.items() if error > 0.01}
    assert all(blob.endswith(("_gn_s", "_gn_b")) and blob.startswith(BACKBONE) for blob in over)
    assert max(over.values(), default=0) < 0.05 and len(over) < 25


def test_a_run_of_a_faster_rcnn_on_an_affine_body_is_caffe2s(shared, monkeypatch):
    """Without a mask head; frozen parameters, whose final values the trace leaves out, are not compared."""
    path, demo = shared / "parity" / "zoo" / "train_faster_fpn.h5", shared / "parity" / "demo"
    with h5py.File(path) as file:
        options = [*str(file.attrs["opts"]).split(), "MODEL.MASK_ON", "False", "NUM_GPUS", "1"]
        cfg = bundled_config("e2e_mask_rcnn_R-50-FPN_2x", options)
        weights = zoo_weights(BlobTable.from_config(cfg), file)
    # 12000 anchors of an image may be sampled, and there are fewer that are neither ignored nor outside of it.

    dataset = read_dataset(demo / "instances_train.json", demo / "train")
    parity = check_training(cfg, weights, dataset, path, replicas=0)
    assert (parity.losses.count, parity.updates.count, parity.parameters.count) == (4 * 12, 4 * 72, 72)
    assert parity.losses.within == 48 and parity.updates.within == 288 and parity.parameters.within == 72
    assert parity.different_samples == 0 and parity.holds


@pytest.mark.slow
def test_the_whole_exhaustive_trace_is_the_same_run_but_for_rounding(shared):
    """All six iterations, without the recorded decisions: what random weights leave to be held (see the docs)."""
    cfg = config("exhaustive")
    weights = recipe_weights(BlobTable.from_config(cfg), 10)
    demo = shared / "parity" / "demo"
    dataset = read_dataset(demo / "instances_train.json", demo / "train")
    parity = check_training(cfg, weights, dataset, shared / "parity" / "train_gn_exhaustive.h5", replicas=2)
    assert parity.holds and len(parity.iterations) == 6
    assert (parity.losses.count, parity.updates.count, parity.parameters.count) == (6 * 13, 6 * 223, 223)
    for iteration in parity.iterations:
        assert np.float32(iteration.lr) == np.float32(iteration.reference_lr)
        # As many RoIs are trained on and as many masks but for one or two, although their boxes drift apart.
        assert iteration.samples.rois == iteration.samples.reference_rois
        assert sum(iteration.losses.values()) == pytest.approx(sum(iteration.reference_losses.values()), rel=0.25)
    first, second = parity.iterations[:2]
    assert (first.samples.anchors, first.samples.different_anchors, first.samples.different_rois) == (8254, 0, 0)
    assert first.samples.different_masks == second.samples.different_masks == 0
    assert max(map(first.loss_error, first.losses)) < 1e-4 and max(map(second.loss_error, second.losses)) < 1e-3
    assert max(first.update_errors.values()) < 0.02 and max(second.update_errors.values()) < 0.2
    over = {blob for blob, error in first.update_errors.items() if error > 1e-3}
    assert all(blob.startswith((*BACKBONE, "_mask_fcn")) for blob in over)


def test_images_of_another_data_set_are_named(data, tmp_path):
    cfg = config("exhaustive")
    model, solver, _ = started("exhaustive", cfg, recipe_weights(BlobTable.from_config(cfg), 10))
    with (
        open_trace(data / "train_gn_exhaustive.h5") as trace,
        pytest.raises(InputError, match="was trained on 000000200000.png, which is not among the training images"),
    ):
        next(replay(model, solver, [], trace))


def test_a_wrong_gradient_shows(data, caffe_choices, monkeypatch):
    """The replay must not be blind: torch's own gradient of the max pooling is found at the first iteration."""
    cfg = config("exhaustive")
    weights = recipe_weights(BlobTable.from_config(cfg), 10)
    model, solver, _ = started("exhaustive", cfg, weights)
    roidb = training_roidb([read_dataset(data / "train_images.json", data / "train_images")], cfg)

    def torch_pool(x):
        return torch.nn.functional.max_pool2d(x, 3, 2, 1)

    monkeypatch.setattr(resnet, "max_pool", torch_pool)
    with open_trace(data / "train_gn_exhaustive.h5") as trace:
        first = next(replay(model, solver, roidb, trace))
    assert first.update_errors["conv1_w"] > 0.5
    assert first.update_errors["fc6_w"] < 1e-3


def test_a_loss_where_the_reference_has_none_is_infinitely_apart():
    parity = training.IterationParity(0, 0.1, 0.1, {"a": 1.0, "b": 5e-7}, {"a": 0.0, "b": 0.0}, {}, {}, None)
    assert (parity.loss_error("a"), parity.loss_error("b")) == (float("inf"), 0.0)


@pytest.mark.filterwarnings("error")
def test_what_cannot_be_set_in_relation_is_infinitely_apart():
    one, none = np.ones(3), np.zeros(3)
    assert training.share_apart(one, none, none) == training.share_apart(one, one * np.nan, one) == float("inf")
    assert training.share_apart(one, one * 1e300, one) == training.share_apart(one, one, one * np.inf) == float("inf")
    assert training.share_apart(none, none, none) == training.share_apart(none[:0], none[:0], none[:0]) == 0
    assert training.share_apart(one, 3 * one, 4 * one) == 0.5


@pytest.fixture
def one_iteration(data, tmp_path):
    """A copy of the first iteration of the sampled trace, that may be written to."""
    path = tmp_path / "trace.h5"
    shutil.copyfile(data / "train_gn_sampled.h5", path)
    path.chmod(0o644)
    with h5py.File(path, "r+") as trace:
        del trace["iter1"]
    return path


@pytest.mark.slow
@pytest.mark.parametrize("value", [0, np.nan, np.inf])
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.filterwarnings("error")
def test_updates_that_have_no_scale_are_beyond_and_excuse_no_others(one_iteration, data, value):
    with h5py.File(one_iteration, "r+") as trace:
        names = sorted(name for name in trace["iter0"] if name.endswith("_grad"))[::3]
        for name in names:
            attributes, values = dict(trace["iter0"][name].attrs), trace["iter0"][name][:]
            del trace["iter0"][name]
            trace["iter0"][name] = np.full(values.shape, value, np.float64)
            trace["iter0"][name].attrs.update(attributes)
    cfg = config("sampled")
    weights = recipe_weights(BlobTable.from_config(cfg), 10)
    dataset = read_dataset(data / "train_images.json", data / "train_images")
    parity = check_training(cfg, weights, dataset, one_iteration, replicas=1, say=lambda line: None)
    assert set(parity.updates.over) == {f"{name.removesuffix('_grad')} of iteration 0" for name in names}
    assert set(parity.updates.over.values()) == {float("inf")}
    assert not parity.holds
    table = training_tables(parity)
    assert "inf" in table and max(map(len, table.splitlines())) <= 80


@pytest.fixture
def verify_training(tmp_path, data, capsys):
    """Runs `verify training` on a trace: the exit code, and what it prints of an error."""
    cfg = config("sampled")
    write_blobs(tmp_path / "model.pkl", recipe_weights(BlobTable.from_config(cfg), 10))

    def run(trace):
        images = ["--annotations", str(data / "train_images.json"), "--images", str(data / "train_images")]
        model = ["--config", "scratch_e2e_mask_rcnn_R-50-FPN_3x_gn", "--set", *OPTIONS["sampled"].split()]
        source = [str(tmp_path / "model.pkl"), "--reference", str(trace), "--replicas", "0"]
        return main(["verify", "training", *source, *images, *model]), capsys.readouterr().err

    return run


def test_a_trace_without_attributes_is_bad_input(one_iteration, verify_training):
    with h5py.File(one_iteration, "r+") as trace:
        for name in list(trace["iter0"].attrs):
            del trace["iter0"].attrs[name]
    code, printed = verify_training(one_iteration)
    assert code == 2
    assert f"{one_iteration}: iter0: attribute images is missing: record the run again" in printed
    assert "Traceback" not in printed and len(printed.splitlines()) == 1


def test_a_trace_of_which_nothing_can_be_compared_is_bad_input(one_iteration, verify_training):
    with h5py.File(one_iteration, "r+") as trace:
        for name in [name for name in trace["iter0"] if name.endswith("_grad")]:
            del trace["iter0"][name]
    code, printed = verify_training(one_iteration)
    assert code == 2 and "there is nothing to compare" in printed
    with h5py.File(one_iteration, "r+") as trace:
        del trace["iter0"]
    code, printed = verify_training(one_iteration)
    assert code == 2 and "holds no training iteration: give a training trace of Detectron" in printed
