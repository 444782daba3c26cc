"""What training holds for every family holds for RetinaNet, for RPNs by themselves and for class-agnostic boxes."""

import json
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from detectron_gn import main
from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.data.minibatch import minibatches, sampling_seed
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.training.network import TrainingNetwork
from detectron_gn.mrcnn.training.outputs import losses_of
from detectron_gn.mrcnn.training.samplers import RandomSampler
from detectron_gn.mrcnn.training.solver import MomentumSGD
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import dump_config
from detectron_gn.port.runs.load import load_model
from detectron_gn.port.warm_start import start_from
from detectron_gn.verify.training.metrics import RunFigures
from detectron_gn.weights import read_blobs, write_blobs
from tests.helpers.dense_run import FAMILIES, dense_config
from tests.helpers.recipe import recipe_weights
from tests.helpers.small_run import COMMAND, DATA, arguments, assert_equal_blobs, dataset, environment, run

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ONE_STEP = ("SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "[0]")
CLASSES = ("__background__", "circle", "square", "triangle", "star")


def config_file(folder, *overrides):
    path = folder / "config.yaml"
    path.write_text(dump_config(dense_config(*overrides)))
    return path


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory):
    """A run of six iterations of each family, in one go; made when it is asked for."""
    made = {}

    def whole(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            run(made[name], dense_config(name), detectron_checkpoints=True)
        return made[name]

    return whole


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_it_trains_and_goes_through_every_format_unchanged_with_its_momentum(name, whole_runs, tmp_path):
    final = whole_runs(name) / "model_final.pkl"
    weights, trained = read_blobs(final), len(BlobTable.from_config(dense_config(name)).rows)
    momenta = [blob for blob in weights.blobs if blob.endswith("_momentum")]
    assert len(momenta) == trained and len(weights.blobs) == 2 * trained
    before = final.read_bytes()
    for suffix in (".h5", ".safetensors", ".pth"):
        there, back = tmp_path / f"there{suffix}", tmp_path / "back.pkl"
        write_blobs(there, weights)
        write_blobs(back, read_blobs(there))
        assert back.read_bytes() == before
    model = load_model(final, device="cpu")
    assert all(np.isfinite(parameter.detach().numpy()).all() for parameter in model.parameters())
    assert (whole_runs(name) / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_stopped_run_ends_as_one_in_one_go(name, whole_runs, tmp_path):
    run(tmp_path, dense_config(name, "SOLVER.MAX_ITER", "4"))
    run(tmp_path, dense_config(name), resume=True)
    assert_equal_blobs(whole_runs(name) / "model_final.pkl", tmp_path / "model_final.pkl")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["retinanet", "rpn_c4"])
def test_detectrons_checkpoint_goes_on_with_its_momentum(name, whole_runs, tmp_path):
    weights = read_blobs(whole_runs(name) / "model_iter3.pkl")
    lines = []
    run(tmp_path, dense_config(name), weights=weights, lines=lines)
    count = len(BlobTable.from_config(dense_config(name)).rows)
    text = " ".join(" ".join(lines).split())
    assert "at iteration 4" in text
    assert f"{count} blobs (arrays of weights) are copied, {count} of them with their momentum" in text
    # The learning rate does not change at iteration 4.
    assert_equal_blobs(whole_runs(name) / "model_final.pkl", tmp_path / "model_final.pkl")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["retinanet", "rpn"])
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(name, whole_runs, tmp_path):
    command = [*COMMAND, *arguments(tmp_path / "run", config_file(tmp_path, name)), "--resume"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    for line in process.stdout:
        if line.startswith("checkpoint:"):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (tmp_path / "run" / "model_iter1.pth").exists() and not (tmp_path / "run" / "model_final.pth").exists()
    subprocess.run(command, check=True, env=environment(), stdout=subprocess.DEVNULL)
    assert_equal_blobs(tmp_path / "run" / "model_final.pth", whole_runs(name) / "model_final.pth")


def outputs_of(cfg, number):
    """The outputs of a minibatch in training, and the network."""
    torch.manual_seed(cfg.RNG_SEED)
    model = build_detector(cfg).to(memory_format=torch.channels_last)
    (minibatch,) = minibatches(training_roidb([dataset()], cfg), cfg, cfg.RNG_SEED, [number], workers=0)
    sampler = RandomSampler(cfg, model.device, sampling_seed(cfg.RNG_SEED, number))
    return TrainingNetwork(model)(minibatch, sampler), model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer", "blob"),
    [("retinanet", "head.bbox_pred", "retnet_bbox_pred_fpn3_w"), ("rpn_c4", "rpn.bbox_pred", "rpn_bbox_pred_w")],
)
def test_virtual_gpus_are_normalised_by_themselves(name, layer, blob, tmp_path):
    """Two virtual GPUs take the mean of two minibatches' gradients, each divided by its own objects or anchors."""
    base = (*ONE_STEP, "SOLVER.WEIGHT_DECAY", "0.0")
    run(tmp_path, dense_config(name, "NUM_GPUS", "2", *base))
    gradients, counted = [], []
    for number in range(2):
        outputs, model = outputs_of(dense_config(name, *base), number)
        sum(losses_of(outputs).values()).backward()
        gradients.append(model.get_submodule(layer).weight.grad)
        counted.append(float(outputs.get("retnet_fg_num", 0)))
    expected = 0.01 * (gradients[0] + gradients[1]) / 2
    together = read_blobs(tmp_path / "model_final.pth").blobs
    np.testing.assert_allclose(together[f"{blob}_momentum"], expected.numpy(), rtol=1e-4, atol=1e-8)
    if name == "retinanet":
        assert counted[0] != counted[1]
        (line,) = RunFigures(tmp_path).lines()
        assert line["retnet_fg_num"] == sum(counted) / 2  # a metric is averaged, and no part of the loss
        assert line["loss"] == pytest.approx(sum(v for k, v in line.items() if k.startswith(("fl_", "retnet_loss"))))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "processes"), [("retinanet", 2), ("retinanet", 3), ("rpn", 2)])
def test_several_processes_take_the_step_of_one(name, processes, tmp_path):
    """A RetinaNet's losses are divided by the objects of each GPU's own minibatch, whoever computes it."""
    overrides = ("NUM_GPUS", str(processes), *ONE_STEP)
    run(tmp_path / "alone", dense_config(name, *overrides))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [*torchrun, *COMMAND[1:], *arguments(tmp_path / "shared", config_file(tmp_path, name, *overrides))]
    subprocess.run(command, check=True, env=environment(), stdout=subprocess.DEVNULL, timeout=300)
    alone, shared = (read_blobs(tmp_path / run / "model_final.pth").blobs for run in ("alone", "shared"))
    for blob, values in alone.items():
        assert np.linalg.norm(shared[blob] - values) <= 1e-6 * np.linalg.norm(values) + 1e-10, blob
    first, second = (RunFigures(tmp_path / run).lines()[0] for run in ("alone", "shared"))
    timed = {"time", "eta", "mem"}
    assert {k: v for k, v in second.items() if k not in timed} == pytest.approx(
        {k: v for k, v in first.items() if k not in timed}, rel=1e-5, abs=1e-8
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_bf16_comes_near_and_keeps_float32_parameters(name, tmp_path):
    losses = []
    for precision in ("fp32", "bf16"):
        run(tmp_path / precision, dense_config(name, *ONE_STEP), precision=precision)
        losses.append(RunFigures(tmp_path / precision).lines()[0]["loss"])
    blobs = read_blobs(tmp_path / "bf16" / "model_final.pkl").blobs
    assert {blob.dtype for blob in blobs.values()} == {np.dtype(np.float32)}
    assert losses[1] != losses[0] and losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("retinanet", "box"), ("rpn", "proposal"), ("rpn_c4", "proposal")])
def test_checkpoints_are_evaluated_by_what_the_family_finds(name, kind, tmp_path, capsys):
    out, document = tmp_path / "run", tmp_path / "train.json"
    options = ("SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "[0]", "TRAIN.SNAPSHOT_ITERS", "1")
    command = ["train", *arguments(out, config_file(tmp_path, name, *options))]
    annotations = DATA / "train_images.json"
    assert main([*command, "--eval-annotations", str(annotations), "--json", str(document)]) == 0
    content = json.loads(document.read_text())["ap"]["train_images"]
    measure = {"box": "AP", "proposal": "AR@1000"}[kind]
    assert list(content) == [kind] and measure in content[kind]
    figures = RunFigures(out).evaluations()
    assert list(figures) == [0, 1] and figures[1] == {kind: content[kind][measure]}
    assert (out / "eval_iter1" / ("bbox.json" if kind == "box" else "rpn_proposals.pkl")).exists()
    assert ("AP50" if kind == "box" else "1000 proposals") in capsys.readouterr().out
    # As `test` scores the final model.
    data = ["--annotations", str(annotations), "--images", str(DATA / "train_images")]
    assert main(["test", str(out / "model_final.pkl"), *data, "--out", str(tmp_path / "tested")]) == 0
    tested = json.loads((tmp_path / "tested" / "ap.json").read_text())
    assert tested["train_images"][kind] == content[kind]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_data_set_of_boxes_alone_is_trained_on(name, tmp_path):
    document = json.loads((DATA / "train_images.json").read_text())
    for annotation in document["annotations"]:
        del annotation["segmentation"]
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    boxes = read_dataset(tmp_path / "boxes.json", DATA / "train_images")
    cfg = dense_config(name, *ONE_STEP)
    run(tmp_path / "boxes", cfg, data=boxes)
    run(tmp_path / "outlines", cfg)
    assert_equal_blobs(tmp_path / "boxes" / "model_final.pkl", tmp_path / "outlines" / "model_final.pkl")


OF_CLASSES = {
    "sigmoid": ("RETINANET.SOFTMAX", "False"),
    "softmax": ("RETINANET.SOFTMAX", "True"),
    "specific": ("RETINANET.CLASS_SPECIFIC_BBOX", "True"),
}


@pytest.mark.parametrize("kind", OF_CLASSES)
def test_a_retinanet_is_finetuned_to_other_classes_by_name(kind):
    """Every anchor keeps the rows of the classes that both have, in their new places."""
    old, new = CLASSES, ("__background__", "star", "hexagon", "circle")
    weights = recipe_weights(BlobTable.from_config(dense_config("retinanet", *OF_CLASSES[kind])), 1)
    cfg = dense_config("retinanet", *OF_CLASSES[kind], "MODEL.NUM_CLASSES", "4")
    torch.manual_seed(0)
    model = build_detector(cfg)
    fresh = {name: parameter.detach().clone().numpy() for name, parameter in model.named_parameters()}
    point = start_from(model, MomentumSGD.from_config(model, cfg), weights, new, old)
    # Only a softmax has rows of the background.
    shared = ("star", "circle")
    of_scores = ("__background__", *shared) if kind == "softmax" else shared
    expected = {f"retnet_cls_pred_fpn3_{end}": of_scores for end in "wb"}
    if kind == "specific":
        expected |= {f"retnet_bbox_pred_fpn3_{end}": shared for end in "wb"}
    assert point.partly_copied == expected
    rows, blobs = ", ".join(of_scores).replace("__background__", "the background"), ", ".join(expected)
    assert point.report()[1] == f"partly copied, the rows of {rows}; the others begin at random: {blobs}"
    skipped = 0 if kind == "softmax" else 1
    ours = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    layers = [("head.cls_pred", "retnet_cls_pred_fpn3", skipped)]
    layers += [("head.bbox_pred", "retnet_bbox_pred_fpn3", 1)] if kind == "specific" else []
    for layer, blob, without in layers:
        for part, ending in (("weight", "w"), ("bias", "b")):
            here = ours[f"{layer}.{part}"].reshape(9, 4 - without, -1)
            first = fresh[f"{layer}.{part}"].reshape(9, 4 - without, -1)
            there = weights.blobs[f"{blob}_{ending}"].reshape(9, 5 - without, -1)
            for place, name in enumerate(new[without:]):
                expected = there[:, old.index(name) - without] if name in old else first[:, place]
                np.testing.assert_array_equal(here[:, place], expected)


def test_of_classes_of_unknown_names_a_retinanet_has_no_row_to_take():
    """It has none of the background; whose blobs then are initialised is said, and what names the classes."""
    weights = recipe_weights(BlobTable.from_config(dense_config("retinanet")), 1)
    cfg = dense_config("retinanet", "MODEL.NUM_CLASSES", "4")
    model = build_detector(cfg)
    point = start_from(model, MomentumSGD.from_config(model, cfg), weights, ("__background__", "a", "b", "c"))
    assert point.partly_copied == {} and point.initialised == ("retnet_cls_pred_fpn3_w", "retnet_cls_pred_fpn3_b")
    assert point.copied == len(weights.blobs) - 2 and point.iteration is None
    assert point.report()[1:] == [
        "the classes of the file are not known: --weights-classes names them and keeps equal ones",
        "initialised as Detectron does: retnet_cls_pred_fpn3_w, retnet_cls_pred_fpn3_b",
    ]


def test_the_same_classes_in_another_order_keep_their_momentum():
    cfg = dense_config("retinanet")
    weights = recipe_weights(BlobTable.from_config(cfg), 1)
    momenta = {f"{name}_momentum": blob for name, blob in weights.blobs.items()}
    weights = replace(weights, blobs={**weights.blobs, **momenta})
    model = build_detector(cfg)
    solver = MomentumSGD.from_config(model, cfg)
    point = start_from(model, solver, weights, (CLASSES[0], *CLASSES[:0:-1]), CLASSES)
    assert point.reordered and not point.partly_copied and point.momenta == len(momenta)
    bias = model.head.cls_pred.bias
    there = weights.blobs["retnet_cls_pred_fpn3_b"].reshape(9, 4)[:, ::-1]
    np.testing.assert_array_equal(bias.detach().numpy().reshape(9, 4), there)
    np.testing.assert_array_equal(solver.momentum_of(bias).numpy().reshape(9, 4), there)


def test_a_retinanet_of_other_anchors_is_not_taken_for_one_of_other_classes():
    weights = recipe_weights(BlobTable.from_config(dense_config("retinanet", "RETINANET.SCALES_PER_OCTAVE", "2")), 1)
    cfg = dense_config("retinanet")
    model = build_detector(cfg)
    with pytest.raises(InputError, match="only the number of classes may differ"):
        start_from(model, MomentumSGD.from_config(model, cfg), weights, CLASSES)
