"""What training holds for every family holds for keypoint heads, C4 models with masks, and models on proposals."""

import json
import signal
import subprocess
import sys

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
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import dump_config
from detectron_gn.port.keypoint_rows import fit_keypoints
from detectron_gn.port.runs.load import load_model
from detectron_gn.verify.training.fingerprint import data_fingerprint
from detectron_gn.verify.training.metrics import RunFigures
from detectron_gn.weights import read_blobs, write_blobs
from tests.helpers.command_line import assert_one_sentence
from tests.helpers.roi_run import FAMILIES, PROPOSALS, roi_arguments, roi_config, roi_data, roi_run
from tests.helpers.small_run import COMMAND, DATA, assert_equal_blobs, environment
from tests.helpers.small_run import run as run_small

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

ONE_STEP = ("SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "[0]")
# Whose gradient each family is looked at by.
LAYERS = {
    "keypoint": ("keypoint_head.score", "kps_score_lowres_w"),
    "mask_c4": ("box_head.res5.0.branch2a.conv", "res5_0_branch2a_w"),
    "fast": ("box_head.cls_score", "cls_score_w"),
}


def config_file(folder, name, *overrides):
    path = folder / "config.yaml"
    path.write_text(dump_config(roi_config(name, *overrides)))
    return path


def trained_blobs(name):
    return [row.blob for row in BlobTable.from_config(roi_config(name)).rows if row.blob not in FIXED]


# The interpolating kernel of a keypoint head, which Detectron holds among the parameters and never trains.
FIXED = ("kps_score_w", "kps_score_b")


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory):
    """A run of six iterations of each family, in one go; made when it is asked for."""
    made = {}

    def whole(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            roi_run(name, made[name], detectron_checkpoints=True)
        return made[name]

    return whole


@pytest.mark.parametrize("name", FAMILIES)
def test_it_trains_and_goes_through_every_format_unchanged_with_its_momentum(name, whole_runs, tmp_path):
    final = whole_runs(name) / "model_final.pkl"
    weights = read_blobs(final)
    momenta = {blob.removesuffix("_momentum") for blob in weights.blobs if blob.endswith("_momentum")}
    assert momenta == set(trained_blobs(name)) and weights.blobs.keys() >= momenta
    before = final.read_bytes()
    for suffix in (".h5", ".safetensors", ".pth"):
        there, back = tmp_path / f"there{suffix}", tmp_path / "back.pkl"
        write_blobs(there, weights)
        write_blobs(back, read_blobs(there))
        assert back.read_bytes() == before
    model = load_model(final, device="cpu")
    assert all(np.isfinite(parameter.detach().numpy()).all() for parameter in model.parameters())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_stopped_run_ends_as_one_in_one_go(name, whole_runs, tmp_path):
    roi_run(name, tmp_path, "SOLVER.MAX_ITER", "4")
    roi_run(name, tmp_path, resume=True)
    assert_equal_blobs(whole_runs(name) / "model_final.pkl", tmp_path / "model_final.pkl")


@pytest.mark.parametrize("name", FAMILIES)
def test_detectrons_checkpoint_goes_on_with_its_momentum(name, whole_runs, tmp_path):
    weights, lines, count = read_blobs(whole_runs(name) / "model_iter3.pkl"), [], len(trained_blobs(name))
    roi_run(name, tmp_path, weights=weights, lines=lines)
    text = " ".join(" ".join(lines).split())
    assert "at iteration 4" in text and f"{count} of them with their momentum" in text
    assert_equal_blobs(whole_runs(name) / "model_final.pkl", tmp_path / "model_final.pkl")


@pytest.mark.parametrize("name", ["keypoint", "fast"])
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(name, whole_runs, tmp_path):
    command = [*COMMAND, *roi_arguments(name, tmp_path / "run", config_file(tmp_path, name)), "--resume"]
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


def gradient_of(name, cfg, number):
    """The gradient of a layer in the n-th minibatch."""
    torch.manual_seed(cfg.RNG_SEED)
    model = build_detector(cfg).to(memory_format=torch.channels_last)
    dataset, proposals = roi_data(name)
    (minibatch,) = minibatches(training_roidb([dataset], cfg, proposals), cfg, cfg.RNG_SEED, [number], workers=0)
    sampler = RandomSampler(cfg, model.device, sampling_seed(cfg.RNG_SEED, number))
    sum(losses_of(TrainingNetwork(model)(minibatch, sampler)).values()).backward()
    return model.get_submodule(LAYERS[name][0]).weight.grad


@pytest.mark.parametrize("name", FAMILIES)
def test_virtual_gpus_are_normalised_by_themselves(name, tmp_path):
    """Two virtual GPUs take the mean of two minibatches' gradients, each divided by its own RoIs or keypoints."""
    base = (*ONE_STEP, "SOLVER.WEIGHT_DECAY", "0.0")
    roi_run(name, tmp_path, "NUM_GPUS", "2", *base)
    expected = 0.01 * sum(gradient_of(name, roi_config(name, *base), number) for number in range(2)) / 2
    momentum = read_blobs(tmp_path / "model_final.pth").blobs[f"{LAYERS[name][1]}_momentum"]
    np.testing.assert_allclose(momentum, expected.numpy(), rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["keypoint", "fast"])
def test_two_processes_take_the_step_of_one(name, tmp_path):
    """Also where a level of the pyramid has no RoI in one of them, or no keypoint is visible."""
    overrides = ("NUM_GPUS", "2", *ONE_STEP)
    roi_run(name, tmp_path / "alone", *overrides)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    given = roi_arguments(name, tmp_path / "shared", config_file(tmp_path, name, *overrides))
    command = [*torchrun, *COMMAND[1:], *given]
    subprocess.run(command, check=True, env=environment(), stdout=subprocess.DEVNULL, timeout=300)
    alone, shared = (read_blobs(tmp_path / each / "model_final.pth").blobs for each in ("alone", "shared"))
    for blob, values in alone.items():
        assert np.linalg.norm(shared[blob] - values) <= 1e-6 * np.linalg.norm(values) + 1e-10, blob


@pytest.mark.parametrize("name", FAMILIES)
def test_bf16_comes_near_and_keeps_float32_parameters(name, tmp_path):
    losses = []
    for precision in ("fp32", "bf16"):
        roi_run(name, tmp_path / precision, *ONE_STEP, precision=precision)
        losses.append(RunFigures(tmp_path / precision).lines()[0]["loss"])
    blobs = read_blobs(tmp_path / "bf16" / "model_final.pkl").blobs
    assert {blob.dtype for blob in blobs.values()} == {np.dtype(np.float32)}
    assert losses[1] != losses[0] and losses[1] == pytest.approx(losses[0], rel=0.05)


EVALUATED = {"keypoint": ["box", "keypoint"], "mask_c4": ["box", "mask"], "fast": ["box"]}


@pytest.mark.parametrize("name", FAMILIES)
def test_checkpoints_are_evaluated_by_what_the_family_finds(name, tmp_path, capsys):
    out, document = tmp_path / "run", tmp_path / "train.json"
    options = (
        "SOLVER.MAX_ITER 2 SOLVER.STEPS [0] TRAIN.SNAPSHOT_ITERS 1 TEST.SCORE_THRESH 0.0 TEST.DETECTIONS_PER_IM 5 "
        "TEST.RPN_POST_NMS_TOP_N 20"
    ).split()
    command = ["train", *roi_arguments(name, out, config_file(tmp_path, name, *options)), "--json", str(document)]
    annotations = DATA / FAMILIES[name].annotations
    proposals = ["--eval-proposals", str(PROPOSALS)] if FAMILIES[name].proposed else []
    assert main([*command, "--eval-annotations", str(annotations), *proposals]) == 0
    content = json.loads(document.read_text())["ap"][annotations.stem]
    assert list(content) == EVALUATED[name]
    figures = RunFigures(out).evaluations()
    assert list(figures) == [0, 1] and figures[1] == {kind: content[kind]["AP"] for kind in content}
    capsys.readouterr()
    # As `test` scores the final model.
    data = ["--annotations", str(annotations), "--images", str(DATA / "train_images")]
    given = ["--proposals", str(PROPOSALS)] if FAMILIES[name].proposed else []
    assert main(["test", str(out / "model_final.pkl"), *data, *given, "--out", str(tmp_path / "tested")]) == 0
    assert json.loads((tmp_path / "tested" / "ap.json").read_text())[annotations.stem] == content


def test_a_data_set_of_people_without_outlines_trains_the_same_keypoints(tmp_path):
    document = json.loads((DATA / FAMILIES["keypoint"].annotations).read_text())
    for annotation in document["annotations"]:
        if not annotation["iscrowd"]:
            del annotation["segmentation"]
    (tmp_path / "people.json").write_text(json.dumps(document))
    people = read_dataset(tmp_path / "people.json", DATA / "train_images")
    run_small(tmp_path / "bare", roi_config("keypoint", *ONE_STEP), data=people)
    roi_run("keypoint", tmp_path / "outlined", *ONE_STEP)
    assert_equal_blobs(tmp_path / "bare" / "model_final.pkl", tmp_path / "outlined" / "model_final.pkl")


def test_a_run_does_not_go_on_with_other_keypoints_or_proposals(tmp_path):
    for name, change in (("keypoint", _moved_keypoint), ("fast", _moved_proposal)):
        out, (dataset, proposals) = tmp_path / name, roi_data(name)
        roi_run(name, out, *ONE_STEP)
        change(dataset, proposals)
        with pytest.raises(InputError, match="the annotations, images or proposals are not those"):
            run_small(out, roi_config(name, *ONE_STEP), data=dataset, proposals=proposals, resume=True)


def _moved_keypoint(dataset, _):
    values = dataset.instances.columns.keypoints.values.values
    values[3 * int(np.argmax(values[2::3] > 0))] += 1


def _moved_proposal(_, proposals):
    proposals[0].boxes[0][0] += 1


def test_proposals_that_are_missing_or_too_many_are_one_sentence(run, tmp_path):
    given = roi_arguments("fast", tmp_path / "run", config_file(tmp_path, "fast"))
    without = [argument for argument in given if argument not in ("--proposals", str(PROPOSALS))]
    assert_one_sentence(run("train", *without), "takes its proposals from files", "give --proposals")
    more = [*given, "--proposals", str(PROPOSALS)]
    assert_one_sentence(run("train", *more), "there are 2 for 1", "as often as --annotations")
    evaluated = [*given, "--eval-annotations", str(DATA / "train_images.json")]
    assert_one_sentence(run("train", *evaluated), "give --eval-proposals")
    mask = roi_arguments("mask_c4", tmp_path / "run", config_file(tmp_path, "mask_c4"))
    assert_one_sentence(run("train", *mask, "--proposals", PROPOSALS), "makes its own", "leave --proposals out")
    evaluated = [*mask, "--eval-annotations", DATA / "train_images.json", "--eval-proposals", PROPOSALS]
    assert_one_sentence(run("train", *evaluated), "leave --eval-proposals out")
    assert not (tmp_path / "run").exists()


def test_the_configuration_may_name_the_proposals(tmp_path):
    named = ("TRAIN.PROPOSAL_FILES", f"('{PROPOSALS}',)", *ONE_STEP)
    given = roi_arguments("fast", tmp_path / "run", config_file(tmp_path, "fast", *named))
    assert main(["train", *(argument for argument in given if argument not in ("--proposals", str(PROPOSALS)))]) == 0
    roi_run("fast", tmp_path / "given", *ONE_STEP)
    assert_equal_blobs(tmp_path / "run" / "model_final.pkl", tmp_path / "given" / "model_final.pkl")


CORNERS = ["left_eye", "tail", "right_eye"]


@pytest.fixture(scope="module")
def corners(tmp_path_factory):
    """The data set with three keypoints, two of them of a person's names."""
    document = json.loads((DATA / FAMILIES["keypoint"].annotations).read_text())
    document["categories"][0]["keypoints"] = CORNERS
    for annotation in document["annotations"]:
        annotation["keypoints"] = annotation["keypoints"][:9]
        annotation["num_keypoints"] = sum(mark > 0 for mark in annotation["keypoints"][2::3])
    path = tmp_path_factory.mktemp("corners") / "corners.json"
    path.write_text(json.dumps(document))
    return path


def test_a_keypoint_model_is_finetuned_to_another_number_of_keypoints(whole_runs, corners, tmp_path, run):
    weights, out, lines = read_blobs(whole_runs("keypoint") / "model_final.pkl"), tmp_path / "run", []
    cfg = roi_config("keypoint", "KRCNN.NUM_KEYPOINTS", "3", "SOLVER.MAX_ITER", "2", "TEST.SCORE_THRESH", "0.0")
    dataset = read_dataset(corners, DATA / "train_images")
    run_small(out, cfg, weights, lines, data=dataset)
    text = " ".join(" ".join(lines).split())
    assert "the file has 17 keypoints; partly copied, the rows of left_eye, right_eye" in text
    assert read_blobs(out / "model_final.pkl").blobs["kps_score_lowres_w"].shape[1] == 3
    images = DATA / "train_images"
    code, _, _ = run("detect", out / "model_final.pkl", next(images.iterdir()), "--out", tmp_path / "found")
    rows = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert code == 0 and rows and {len(row["keypoints"]) for row in rows} == {9}
    code, told, _ = run(
        "test", out / "model_final.pkl", "--annotations", corners, "--images", images, "--out", tmp_path / "t"
    )
    assert code == 0 and "keypoints have no AP: KRCNN.NUM_KEYPOINTS is 3" in told
    (ap,) = json.loads((tmp_path / "t" / "ap.json").read_text()).values()
    assert set(ap) == {"box"}
    # What was trained goes on, keypoint by keypoint.
    lines = []
    run_small(tmp_path / "on", cfg, read_blobs(out / "model_final.pkl"), lines, data=dataset)
    assert not any("keypoints" in line for line in lines)


def test_names_of_other_keypoints_travel_with_the_model_and_put_its_rows_in_order(corners, tmp_path, run):
    cfg = roi_config("keypoint", "KRCNN.NUM_KEYPOINTS", "3", "SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "[0]",
                     "TEST.SCORE_THRESH", "0.0")  # fmt: skip
    run_small(tmp_path / "run", cfg, data=read_dataset(corners, DATA / "train_images"))
    weights = read_blobs(tmp_path / "run" / "model_final.pkl")
    assert weights.categories[0].keypoints == tuple(CORNERS)
    document = json.loads(corners.read_text())
    document["categories"][0]["keypoints"] = [CORNERS[place] for place in (2, 0, 1)]
    (tmp_path / "others.json").write_text(json.dumps(document))
    model = build_detector(cfg)
    fitted, rows = fit_keypoints(model, BlobTable.from_model(model), weights, [CORNERS[place] for place in (2, 0, 1)])
    for blob in ("kps_score_lowres_w", "kps_score_lowres_b"):
        axis = weights.blobs[blob].ndim > 1
        np.testing.assert_array_equal(fitted.blobs[blob], np.take(weights.blobs[blob], [2, 0, 1], axis=int(axis)))
    assert rows.is_reordered and "in another order" in rows.report()
    assert fit_keypoints(model, BlobTable.from_model(model), weights, CORNERS)[1] is None
    code, told, _ = run(
        "test", tmp_path / "run" / "model_final.pkl", "--annotations", tmp_path / "others.json",
        "--images", DATA / "train_images", "--out", tmp_path / "t",
    )  # fmt: skip
    assert code == 0 and f"the model's keypoints are {', '.join(CORNERS)}, in this order in keypoints.json" in told


def test_the_fingerprint_sees_which_keypoints_change_places(corners, tmp_path):
    cfg, document = roi_config("keypoint", "KRCNN.NUM_KEYPOINTS", "3"), json.loads(corners.read_text())
    document["categories"][0]["keypoints"] = [CORNERS[place] for place in (1, 0, 2)]
    (tmp_path / "others.json").write_text(json.dumps(document))
    datasets = [read_dataset(path, DATA / "train_images") for path in (corners, tmp_path / "others.json")]
    first, second = (data_fingerprint(training_roidb([dataset], cfg)) for dataset in datasets)
    assert first != second


@pytest.mark.parametrize("name", FAMILIES)
def test_activations_that_are_computed_again_are_the_same(name, tmp_path):
    roi_run(name, tmp_path / "kept", *ONE_STEP)
    roi_run(name, tmp_path / "again", *ONE_STEP, recompute=True)
    assert_equal_blobs(tmp_path / "kept" / "model_final.pkl", tmp_path / "again" / "model_final.pkl")


VGG16 = (
    "MODEL.CONV_BODY VGG16.add_VGG16_conv5_body FAST_RCNN.ROI_BOX_HEAD VGG16.add_VGG16_roi_fc_head "
    "FAST_RCNN.ROI_XFORM_METHOD RoIPoolF MODEL.NUM_CLASSES 5"
).split()


def test_a_vgg_is_not_trained_which_is_one_sentence(run, tmp_path):
    data = ["--annotations", DATA / "train_images.json", "--images", DATA / "train_images"]
    answer = run("train", "--config", "e2e_faster_rcnn_R-50-C4_1x", "--set", *VGG16, *data, "--out", tmp_path / "run")
    assert_one_sentence(answer, "MODEL.CONV_BODY is VGG16.add_VGG16_conv5_body", "cannot be trained here", "`test`")
    assert not (tmp_path / "run").exists()
