"""`convert --layout`: the files compute in torchvision's networks what ours do; what cannot is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from detectron_gn.port.blobs.classifier import build_classifier
from detectron_gn.port.config.read import bundled_config, dump_config
from detectron_gn.port.runs.load import load_model
from detectron_gn.weights import read_blobs
from tests.helpers.command_line import assert_one_sentence
from tests.helpers.facsimile import (
    BN_50,
    GN_50,
    GN_101,
    NARROW,
    X_101,
    biases,
    body_of,
    classifier,
    config,
    gn_baseline,
    gn_file,
    msra_file,
    parameters,
    pickled,
)

STRIDE_3X3 = ["RESNETS.STRIDE_1X1", "False"]
TRAINERS_MEAN = (103.53, 116.28, 123.675)
COUNTS = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3)}


def bn_file(name, *overrides):
    """An ImageNet file with AffineChannels whose classifier is called as FAIR's trainer calls it."""
    blobs = body_of(parameters(config(name, *overrides)))
    return blobs | biases(blobs) | classifier("pred")


NARROW_GN = "(groups=1, width_per_group=4, norm_layer=lambda channels: "
CLASSIFIERS = {
    "R-50-GN": (lambda: gn_file(GN_50), GN_50, [], f"resnet50{NARROW_GN}"),
    "R-101-GN": (lambda: gn_file(GN_101), GN_101, [], f"resnet101{NARROW_GN}"),
    "R-50, stride in the 3x3": (lambda: bn_file(BN_50), BN_50, STRIDE_3X3, "resnet50(groups=1, width_per_group=4)"),
    "X-101": (lambda: bn_file(X_101), X_101, [], "resnet101(groups=32, width_per_group=4)"),
}


class Resnet:
    """torchvision's ResNet, by its documented arithmetic and from nothing but a `state_dict`."""

    def __init__(self, state, depth, norm_groups, groups, prefix=""):
        self.state, self.depth, self.norm_groups, self.groups, self.prefix = state, depth, norm_groups, groups, prefix
        self.used = set()

    def get(self, name):
        self.used.add(self.prefix + name)
        return self.state[self.prefix + name]

    def conv(self, x, name, stride=1, padding=0, groups=1):
        return F.conv2d(x, self.get(f"{name}.weight"), None, stride, padding, 1, groups)

    def norm(self, x, name):
        weight, bias = self.get(f"{name}.weight"), self.get(f"{name}.bias")
        if self.norm_groups:
            return F.group_norm(x, self.norm_groups, weight, bias, 1e-5)
        assert self.get(f"{name}.num_batches_tracked").dtype == torch.int64
        statistics = (self.get(f"{name}.running_{each}") for each in ("mean", "var"))
        return F.batch_norm(x, *statistics, weight, bias, eps=1e-5)

    def block(self, x, name, stride):
        y = F.relu(self.norm(self.conv(x, f"{name}.conv1"), f"{name}.bn1"))
        y = F.relu(self.norm(self.conv(y, f"{name}.conv2", stride, 1, self.groups), f"{name}.bn2"))
        y = self.norm(self.conv(y, f"{name}.conv3"), f"{name}.bn3")
        if f"{self.prefix}{name}.downsample.0.weight" in self.state:
            x = self.norm(self.conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
        return F.relu(x + y)

    def maps(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv(x, "conv1", 2, 3), "bn1")), 3, 2, 1)
        found = []
        for layer, count in enumerate(COUNTS[self.depth], 1):
            for block in range(count):
                x = self.block(x, f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1)
            found.append(x)
        return found

    def logits(self, x):
        return F.linear(self.maps(x)[-1].mean((2, 3)), self.get("fc.weight"), self.get("fc.bias"))


def pyramid(state, maps, norm_groups):
    """torchvision.ops.FeaturePyramidNetwork, with P6 by pooling or P6 and P7 by convolutions."""

    def layer(x, name, padding):
        y = F.conv2d(x, state[f"fpn.{name}.0.weight"], state.get(f"fpn.{name}.0.bias"), padding=padding)
        if not norm_groups:
            return y
        return F.group_norm(y, norm_groups, state[f"fpn.{name}.1.weight"], state[f"fpn.{name}.1.bias"], 1e-5)

    levels, top = [], None
    for place in reversed(range(len(maps))):
        inner = layer(maps[place], f"inner_blocks.{place}", 0)
        top = inner if top is None else inner + F.interpolate(top, size=inner.shape[-2:], mode="nearest")
        levels.insert(0, layer(top, f"layer_blocks.{place}", 1))
    if "fpn.extra_blocks.p6.weight" not in state:
        return [*levels, F.max_pool2d(levels[-1], 1, 2, 0)]
    above = maps[-1]
    for name in ("p6", "p7"):
        parts = (state[f"fpn.extra_blocks.{name}.{leaf}"] for leaf in ("weight", "bias"))
        levels.append(F.conv2d(above, *parts, stride=2, padding=1))
        above = F.relu(levels[-1])
    return levels


@pytest.fixture(scope="module")
def pixels():
    """`[1, 3, 64, 96]`, BGR in 0..255: each colour at a level of its own, so that no two may be confused."""
    noise = np.random.RandomState(0).uniform(0, 150, (1, 3, 64, 96)) + np.array([0, 50, 100])[:, None, None]
    return torch.from_numpy(noise.astype(np.float32))


def difference(found, ours):
    """The largest difference, as a part of the largest value."""
    return float((found - ours).abs().max() / ours.abs().max())


def as_told(pixels, told):
    mean, std = (torch.tensor(told[name])[:, None, None] for name in ("mean", "std"))
    return (pixels.flip(1) / 255 - mean) / std


@pytest.mark.parametrize("name", [*list(CLASSIFIERS)[:3], pytest.param("X-101", marks=pytest.mark.slow)])
@torch.inference_mode()
def test_a_classifier_gives_its_logits_in_torchvisions_network(name, pixels, run, tmp_path):
    content, base, overrides, network = CLASSIFIERS[name]
    source, out = tmp_path / "R-50-GN.pkl", tmp_path / "out.pth"
    pickled(content)(source)
    options = ["--config", base, "--set", *NARROW, *overrides]
    told_file = tmp_path / "told.json"
    code, printed, _ = run("convert", source, "--out", out, "--layout", "torchvision", *options, "--json", told_file)
    told = json.loads(told_file.read_text())
    assert code == 0 and told["network"].startswith(f"torchvision.models.{network}")
    assert "minus mean (0.485, 0.456, 0.406), divided by std (0.229, 0.224, 0.225); the mean is" in printed
    assert "padding: zeros after that, never before" in printed
    assert "top-1: 76.0 % of ImageNet's validation images" in printed and "(published error 24.0 %)" in printed
    cfg = bundled_config(base, [*NARROW, *overrides])
    ours = build_classifier(read_blobs(source), cfg)(pixels - torch.tensor(TRAINERS_MEAN)[:, None, None])
    state = torch.load(out, weights_only=True)
    depth = "101" if "101" in name else "50"
    theirs = Resnet(state, depth, 4 if "GN" in name else 0, 32 if name == "X-101" else 1)
    found = theirs.logits(as_told(pixels, told))
    # Everything in the file was needed.
    assert theirs.used == set(state) and found.shape == (1, 1000)
    assert difference(found, ours) < 1e-5 and difference(theirs.logits(as_told(pixels.flip(1), told)), ours) > 0.01


@pytest.mark.parametrize(("name", "overrides"), [(GN_50, []), ("retinanet_R-50-FPN_1x", STRIDE_3X3)])
@torch.inference_mode()
def test_a_detectors_body_and_pyramid_give_its_levels_in_torchvisions_networks(name, overrides, pixels, run, tmp_path):
    source, out = tmp_path / "model.pkl", tmp_path / "out.safetensors"
    narrow = config(name, *overrides)
    pickled(lambda: {"blobs": parameters(narrow), "cfg": dump_config(narrow)})(source)
    told_file = tmp_path / "told.json"
    code, printed, _ = run("convert", source, "--out", out, "--layout", "torchvision", "--json", told_file)
    assert code == 0 and "at the right and the bottom to multiples of 32 pixels" in printed and "top-1" not in printed
    told = json.loads(told_file.read_text())
    # PIXEL_MEANS is BGR in 0..255.
    np.testing.assert_allclose(told["mean"], np.array([122.7717, 115.9465, 102.9801]) / 255, rtol=1e-9)
    ours = load_model(source, device="cpu").backbone(pixels - torch.tensor(narrow.PIXEL_MEANS)[:, None, None]).maps
    state = load_file(out)
    has_gn = name == GN_50
    body = Resnet(state, "50", 4 if has_gn else 0, 1, "body.")
    maps = body.maps(as_told(pixels, told))
    found = pyramid(state, maps if has_gn else maps[1:], 4 if has_gn else 0)
    assert len(found) == len(ours) == 5
    assert max(difference(theirs, own) for theirs, own in zip(found, ours, strict=True)) < 1e-4
    assert body.used == {key for key in state if key.startswith("body.")}


def test_timm_gets_the_same_arrays_and_its_own_network(run, tmp_path):
    source = tmp_path / "mine.pkl"
    pickled(lambda: gn_file(GN_50))(source)
    states, networks = [], []
    for layout in ("torchvision", "timm"):
        out = tmp_path / f"{layout}.safetensors"
        options = ["--layout", layout, "--config", GN_50, "--set", *NARROW, "--json", tmp_path / "told.json"]
        code, printed, _ = run("convert", source, "--out", out, *options)
        assert code == 0 and "top-1: no error was published" in printed
        states.append(load_file(out))
        networks.append(json.loads((tmp_path / "told.json").read_text())["network"])
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert networks[1] == (
        "timm.create_model('resnet50', cardinality=1, base_width=4, "
        "norm_layer=lambda channels, **options: torch.nn.GroupNorm(4, channels, eps=1e-05, **options))"
    )


def test_groups_by_their_width_are_told_so(run, tmp_path):
    groups = ["GROUP_NORM.NUM_GROUPS", "-1", "GROUP_NORM.DIM_PER_GP", "4"]
    pickled(lambda: gn_file(GN_50))(tmp_path / "mine.pkl")
    options = ["--layout", "torchvision", "--config", GN_50, "--set", *NARROW, *groups]
    _, printed, _ = run("convert", tmp_path / "mine.pkl", "--out", tmp_path / "o.pth", *options)
    assert "torch.nn.GroupNorm(channels // 4, channels, eps=1e-05)" in printed


def test_equal_sources_give_equal_files_and_one_that_is_there_is_replaced(run, tmp_path):
    pickled(lambda: gn_file(GN_50))(tmp_path / "mine.pkl")
    options = ["--layout", "torchvision", "--config", GN_50, "--set", *NARROW]
    for suffix in (".pth", ".safetensors"):
        files = [tmp_path / f"out{suffix}", tmp_path / f"again{suffix}"]
        files[1].write_text("before")
        for file in files:
            assert run("convert", tmp_path / "mine.pkl", "--out", file, *options)[0] == 0
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_state_dict_of_ours_is_converted_with_its_configuration(run, tmp_path):
    source, saved = tmp_path / "model.pkl", tmp_path / "sd.pth"
    pickled(lambda: {"blobs": gn_baseline(GN_50)})(source)
    options = ["--layout", "torchvision", "--config", GN_50, "--set", *NARROW]
    torch.save(load_model(source, GN_50, NARROW, "cpu").state_dict(), saved)
    for file in (source, saved):
        assert run("convert", file, "--out", file.with_suffix(".safetensors"), *options)[0] == 0
    one, other = load_file(source.with_suffix(".safetensors")), load_file(saved.with_suffix(".safetensors"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def unfolded():
    blobs = bn_file(BN_50)
    scales = [name for name in blobs if name.endswith("_bn_s")]
    return blobs | {f"{name[:-1]}{ending}": blobs[name] for name in scales for ending in ("rm", "riv")}


def changed(**blobs):
    content = gn_file(GN_50)["blobs"] | blobs
    return {name: blob for name, blob in content.items() if blob is not None}


WITH_CONFIG = ["--config", GN_50, "--set", *NARROW]
STRIDES = "strides in the first 1x1 convolution of a stage"
REFUSED = {
    "MSRA's R-50": (lambda: msra_file(BN_50), ["--config", BN_50, "--set", *NARROW], [STRIDES, "--layout detectron"]),
    "a detector on MSRA's R-50": (
        lambda: {"blobs": parameters(config(BN_50)), "cfg": dump_config(config(BN_50))},
        [],
        [STRIDES, "3x3 convolution", "--layout detectron"],
    ),
    "a detector for timm": (
        lambda: {"blobs": gn_baseline(GN_50)}, [*WITH_CONFIG, "--layout", "timm"], ["timm has no feature pyramids"],
    ),
    "C4": (
        lambda: {"blobs": parameters(config("e2e_faster_rcnn_R-50-C4_1x"))},
        ["--config", "e2e_faster_rcnn_R-50-C4_1x", "--set", *NARROW],
        ["is a detector without a feature pyramid", "--layout detectron"],
    ),
    "P6 by convolution, without P7": (
        lambda: {"blobs": parameters(config(GN_50, "FPN.EXTRA_CONV_LEVELS", "True"))},
        [*WITH_CONFIG, "FPN.EXTRA_CONV_LEVELS", "True"],
        ["FPN.EXTRA_CONV_LEVELS and without a level 7"],
    ),
    "torchvision's already": (
        lambda: {"conv1.weight": np.ones((2, 2), np.float32), "layer1.0.conv1.weight": np.ones((2, 2), np.float32)},
        [],
        ["has the parameter names of torchvision's or timm's backbones"],
    ),
    "no classifier": (lambda: changed(pred_w=None, pred_b=None), WITH_CONFIG, ["has no classification head"]),
    "a blob less": (lambda: changed(res4_3_branch2b_w=None), WITH_CONFIG, ["lacks res4_3_branch2b_w"]),
    "a classifier of one dimension": (
        lambda: changed(pred_w=np.ones(9, np.float32)), WITH_CONFIG, ["pred_w is [9] and pred_b [1000]"],
    ),
    "a number that is none": (
        lambda: changed(res2_0_branch2a_gn_s=np.full(4, np.nan, np.float32)), WITH_CONFIG, ["holds NaN or infinity"],
    ),
    "another width": (lambda: gn_file(GN_50), [], ["res2_0_branch2a_w is", "pass --config"]),
    "statistics that are not folded": (unfolded, ["--config", BN_50, "--set", *NARROW, *STRIDE_3X3], ["*_bn_rm"]),
    "--set without --config": (lambda: gn_file(GN_50), ["--set", *NARROW], ["pass --config too"]),
    "a VGG": (lambda: gn_file(GN_50), ["--config", "vgg.yaml"], ["MODEL.CONV_BODY is VGG16.add_VGG16_conv5_body"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_a_sentence_and_nothing_is_written(case, run, tmp_path, monkeypatch):
    content, options, parts = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    Path("vgg.yaml").write_text(
        "MODEL:\n  TYPE: generalized_rcnn\n  CONV_BODY: VGG16.add_VGG16_conv5_body\n  FASTER_RCNN: True\n"
        "FAST_RCNN:\n  ROI_BOX_HEAD: VGG16.add_VGG16_roi_fc_head\n  ROI_XFORM_METHOD: RoIPoolF\n"
    )
    pickled(content)(Path("model.pkl"))
    before = set(tmp_path.iterdir())
    layout = [] if "--layout" in options else ["--layout", "torchvision"]
    code, _, errors = run("convert", "model.pkl", "--out", "o.pth", *layout, *options)
    # Warnings may stand before it.
    assert_one_sentence((code, "", errors[errors.index("detectron-gn: error: ") :]), *parts)
    assert case == "--set without --config" or "model.pkl" in errors
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["o.pkl", "o.h5", "o", "o.pt"])
def test_a_name_that_pytorch_loads_nothing_from_is_refused_before_anything_is_read(name, run, tmp_path):
    result = run("convert", tmp_path / "missing.pkl", "--out", tmp_path / name, "--layout", "timm")
    assert_one_sentence(result, name, "must end in .pth or .safetensors")


@pytest.mark.parametrize("options", [["--config", GN_50], ["--layout", "detectron", "--set", *NARROW]])
def test_a_configuration_is_refused_where_it_changes_nothing(options, run, pickle, tmp_path):
    result = run("convert", pickle, "--out", tmp_path / "o.pth", *options)
    assert_one_sentence(result, "--config and --set change nothing", "--layout torchvision or timm")
    assert not list(tmp_path.iterdir())
