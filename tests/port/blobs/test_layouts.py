"""Files with PyTorch's parameter names: a `state_dict` of ours is read, other projects' are named."""

import pickle as pickles
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.blobs.convert import build_model
from detectron_gn.port.blobs.summary import describe
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config
from detectron_gn.port.runs.convert import convert_format
from detectron_gn.port.runs.load import load_model
from detectron_gn.weights import read_blobs
from detectron_gn.weights.errors import FileError
from tests.helpers.recipe import recipe_weights

NARROW = ["RESNETS.WIDTH_PER_GROUP", "2", "FPN.DIM", "8", "FAST_RCNN.MLP_HEAD_DIM", "8", "MRCNN.DIM_REDUCED", "8"]
NARROW += ["MODEL.NUM_CLASSES", "5"]
NAME = "e2e_mask_rcnn_R-50-FPN_2x"
CFG = bundled_config(NAME, NARROW)
TABLE = BlobTable.from_config(CFG)

# Names that each project's own code gives its parameters.
OTHERS = {
    "torchvision's detectors": [
        "backbone.body.layer1.0.conv1.weight", "backbone.fpn.inner_blocks.0.0.weight",
        "roi_heads.box_predictor.cls_score.weight",
    ],
    "Detectron.pytorch": ["Conv_Body.conv_body.res1.conv1.weight", "Box_Head.fc1.weight", "RPN.FPN_RPN_conv.weight"],
    "maskrcnn-benchmark": ["module.backbone.body.stem.conv1.weight", "module.rpn.head.conv.weight"],
    "detectron2": ["backbone.bottom_up.stem.conv1.weight", "roi_heads.box_predictor.cls_score.weight"],
    "mmdetection": ["backbone.layer1.0.conv1.weight", "neck.lateral_convs.0.conv.weight", "rpn_head.rpn_conv.weight"],
    "detectron2's backbones": ["stem.conv1.weight", "res2.0.conv1.norm.weight", "res2.0.shortcut.weight"],
    "torchvision's or timm's backbones": ["conv1.weight", "layer1.0.conv1.weight", "fc.weight"],
}  # fmt: skip
WRAPPED = {
    "bare": lambda tensors: tensors,
    "with its optimizer": lambda tensors: {"model": tensors, "optimizer": {"state": {}}, "step": 9, "iteration": 4},
    "as model_state_dict": lambda tensors: {"epoch": 3, "model_state_dict": tensors, "optimizer": {"state": {}}},
    "under a name of its own": lambda tensors: {"net": tensors, "loss": 0.5},
    "as state_dict": lambda tensors: {"state_dict": OrderedDict(tensors), "meta": {"epoch": 3}},
}


@pytest.mark.parametrize("wrapping", WRAPPED)
@pytest.mark.parametrize("project", OTHERS)
def test_other_projects_checkpoints_are_named_with_the_way_out(project, wrapping, tmp_path):
    tensors = {name: torch.ones(2, 2) for name in OTHERS[project]}
    torch.save(WRAPPED[wrapping](tensors), tmp_path / "model.pth")
    for config in (None, NAME):
        with pytest.raises(InputError, match=f"has the parameter names of {project}: give (the Detectron|Detectron's)"):
            load_model(tmp_path / "model.pth", config)
    assert f"\n  parameter names: those of {project}\n" in str(describe(tmp_path / "model.pth"))


def test_a_conversion_that_keeps_other_projects_names_says_so(tmp_path, caplog):
    torch.save({name: torch.ones(2, 2) for name in OTHERS["detectron2"]}, tmp_path / "model.pth")
    convert_format(str(tmp_path / "model.pth"), tmp_path / "model.safetensors")
    assert "has the parameter names of detectron2, which are written as they are; no network" in caplog.text


@pytest.mark.parametrize("author", ["Detectron2 Model Zoo", "torchvision"])
def test_a_detectron2_pickle_is_named_too(author, tmp_path):
    arrays = {name: np.ones((2, 2), np.float32) for name in OTHERS["detectron2"]}
    content = {"model": arrays, "__author__": author, "matching_heuristics": True}
    (tmp_path / "model.pkl").write_bytes(pickles.dumps(content))
    with pytest.raises(InputError, match="has the parameter names of detectron2"):
        load_model(tmp_path / "model.pkl")


@pytest.mark.parametrize("wrapping", WRAPPED)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "model._orig_mod."])
def test_our_own_state_dict_is_read_with_its_configuration(prefix, wrapping, tmp_path):
    model = build_model(CFG, recipe_weights(TABLE, 0))
    state = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
    torch.save(WRAPPED[wrapping](state), tmp_path / "sd.pth")
    with pytest.raises(InputError, match="is a state_dict of this project's.*pass --config"):
        load_model(tmp_path / "sd.pth")
    again = load_model(tmp_path / "sd.pth", NAME, NARROW)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_state_dict_with_a_compiled_part_is_read(tmp_path):
    model = build_model(CFG, recipe_weights(TABLE, 0))
    state = {name.replace("backbone.", "backbone._orig_mod."): value for name, value in model.state_dict().items()}
    torch.save(state, tmp_path / "sd.pth")
    again = load_model(tmp_path / "sd.pth", NAME, NARROW).state_dict()
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())


def test_names_that_would_become_one_are_left_as_they_are(tmp_path):
    name = "backbone.body.conv1.conv.weight"
    torch.save({name: torch.ones(2), f"_orig_mod.{name}": torch.zeros(2)}, tmp_path / "sd.pth")
    with pytest.raises(InputError, match=f"it has _orig_mod.{name}"):
        load_model(tmp_path / "sd.pth", NAME, NARROW)


def test_arrays_under_two_names_are_not_chosen_from(tmp_path):
    torch.save({"generator": {"a": torch.ones(2)}, "critic": {"a": torch.ones(2)}}, tmp_path / "two.pth")
    with pytest.raises(FileError, match="holds arrays under 'generator' and 'critic': save those of the model alone"):
        load_model(tmp_path / "two.pth", NAME)


def test_of_a_model_that_was_saved_whole_the_state_dict_is_asked_for_and_works(tmp_path):
    model, path = build_model(CFG, recipe_weights(TABLE, 0)), tmp_path / "whole.pth"
    torch.save(model, path)
    with pytest.raises(FileError, match="asks for the Python object .*save the state_dict: ") as error:
        load_model(path, NAME, NARROW)
    advice = str(error.value).partition("save the state_dict: ")[2].partition(" (at")[0]
    eval(advice, {"torch": torch, "model": model, "FILE": path})
    assert load_model(path, NAME, NARROW)


def test_a_state_dict_of_another_network_of_ours_is_refused(tmp_path):
    torch.save(build_model(CFG, recipe_weights(TABLE, 0)).state_dict(), tmp_path / "sd.pth")
    with pytest.raises(InputError, match="state_dict of another network of this project .*pass --config"):
        load_model(tmp_path / "sd.pth", "e2e_faster_rcnn_R-50-FPN_2x", NARROW)


@pytest.mark.parametrize("names", [["weight"], ["a.b.c"], ["encoder.layer.0.weight"]])
def test_unknown_names_are_told(names, tmp_path):
    torch.save({name: torch.ones(2) for name in names}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=f"has none of the blobs of a detector \\(it has {names[0]}\\)"):
        load_model(tmp_path / "x.pth", NAME)


def test_a_classification_trainers_checkpoint_is_told_by_its_running_statistics():
    body = {row.blob: np.ones(row.shape, np.float32) for row in TABLE.rows if row.blob.startswith(("conv1", "res"))}
    scales = [name for name in body if name.endswith("_bn_s")]
    statistics = {name[:-1] + ending: body[name] for name in scales for ending in ("rm", "riv")}
    weights = replace(recipe_weights(TABLE, 0), blobs={**body, **statistics})
    with pytest.raises(InputError, match="is a checkpoint of a classification trainer: .* give the converted file"):
        build_model(CFG, weights)


def test_an_imagenet_backbone_is_told_with_and_without_a_configuration(tmp_path):
    body = {row.blob: np.ones(row.shape, np.float32) for row in TABLE.rows if row.blob.startswith(("conv1", "res"))}
    (tmp_path / "R-50.pkl").write_bytes(pickles.dumps({**body, "fc1000_w": np.ones((9, 4), np.float32)}, 2))
    for config in (None, NAME):
        with pytest.raises(InputError, match=r"is an ImageNet backbone \(R-50, BN\*\).*`train --weights`"):
            load_model(tmp_path / "R-50.pkl", config)
    assert len(read_blobs(tmp_path / "R-50.pkl").blobs) == len(body) + 1
