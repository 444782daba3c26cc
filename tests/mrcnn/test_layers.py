"""Layers and their initial values are Caffe2's: GroupNorm, AffineChannel, upsampling, deconvolution."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detectron_gn.mrcnn import layers
from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.heads.mask import MaskHead
from detectron_gn.mrcnn.kernels.group_norm import group_norm_in_place


def with_groups(**keys):
    return dataclasses.replace(Config(), GROUP_NORM=dataclasses.replace(Config().GROUP_NORM, **keys))


def test_group_norm_and_its_gradients_are_caffe2s(ops):
    group = ops["group_norm"]
    norm = layers.group_norm(with_groups(NUM_GROUPS=8), 32)
    norm.weight.data, norm.bias.data = torch.from_numpy(group["gamma"][:]), torch.from_numpy(group["beta"][:])
    x = torch.from_numpy(group["x"][:]).requires_grad_()
    y = norm(x)
    y.backward(torch.from_numpy(group["dy"][:]))
    np.testing.assert_allclose(y.detach().numpy(), group["y"][:], atol=2e-5)
    np.testing.assert_allclose(x.grad.numpy(), group["dx"][:], atol=2e-5)
    np.testing.assert_allclose(norm.weight.grad.numpy(), group["dgamma"][:], atol=2e-4)
    np.testing.assert_allclose(norm.bias.grad.numpy(), group["dbeta"][:], atol=2e-4)


def test_affine_channel_is_caffe2s_and_is_never_trained(ops):
    affine = layers.AffineChannel(32)
    assert not any(parameter.requires_grad for parameter in affine.parameters())
    affine.weight.data = torch.from_numpy(ops["group_norm/gamma"][:])
    affine.bias.data = torch.from_numpy(ops["group_norm/beta"][:])
    y = affine(torch.from_numpy(ops["group_norm/x"][:]))
    np.testing.assert_allclose(y.numpy(), ops["affine_channel/y"][:], atol=1e-6)


def test_upsampling_is_caffe2s(ops):
    y = F.interpolate(torch.from_numpy(ops["upsample_nearest/x"][:]), scale_factor=2.0)
    np.testing.assert_array_equal(y.numpy(), ops["upsample_nearest/y"][:])


def test_deconvolution_takes_caffe2s_weights_as_they_are(ops):
    group = ops["conv_transpose"]
    x, w, b = (torch.from_numpy(group[name][:]) for name in "xwb")
    np.testing.assert_allclose(F.conv_transpose2d(x, w, b, stride=2).numpy(), group["y"][:], atol=1e-5)


def test_groups_come_from_one_of_two_keys():
    assert layers.group_norm(with_groups(NUM_GROUPS=-1, DIM_PER_GP=16), 64).num_groups == 4
    assert layers.group_norm(with_groups(NUM_GROUPS=32), 64).num_groups == 32
    with pytest.raises(InputError, match=r"both set"):
        layers.group_norm(with_groups(NUM_GROUPS=32, DIM_PER_GP=16), 64)
    with pytest.raises(InputError, match=r"NUM_GROUPS is 32, which does not divide the 48 channels"):
        layers.group_norm(with_groups(NUM_GROUPS=32), 48)


@pytest.mark.parametrize(
    ("fill", "shape", "std"),
    [
        (layers.xavier_fill, (64, 32, 3, 3), math.sqrt(1 / (32 * 9))),
        (layers.msra_fill, (64, 32, 3, 3), math.sqrt(2 / (64 * 9))),
        # A deconvolution's weight is (in, out, k, k); Caffe2 still divides by shape[1].
        (layers.msra_fill, (96, 32, 2, 2), math.sqrt(2 / (96 * 4))),
        (layers.msra_fill, (81, 256, 1, 1), math.sqrt(2 / 81)),
        (layers.gauss_fill(0.01), (128, 256), 0.01),
        (layers.zero_fill, (8, 8), 0.0),
    ],
)
def test_fillers_have_caffe2s_spread(fill, shape, std):
    torch.manual_seed(0)
    weight = torch.empty(shape)
    fill(weight)
    assert weight.std().item() == pytest.approx(std, rel=0.02)


def test_xavier_fill_is_uniform_within_its_bound():
    weight = torch.empty(64, 32, 3, 3)
    layers.xavier_fill(weight)
    bound = math.sqrt(3 / (32 * 9))
    assert weight.abs().max().item() <= bound
    assert weight.abs().max().item() > 0.99 * bound


def test_kinds_tell_weights_biases_scales_and_shifts_apart():
    model = nn.Sequential(
        layers.ConvNorm(layers.FilledConv2d(4, 8, 3, bias=False), nn.GroupNorm(2, 8), relu=True),
        layers.ConvNorm(layers.FilledConv2d(8, 8, 1, bias=False), layers.AffineChannel(8), relu=True),
        layers.FilledConv2d(8, 2, 1),
    )
    assert layers.parameter_kinds(model) == {
        "0.conv.weight": "weight",
        "0.norm.weight": "gn_scale",
        "0.norm.bias": "gn_shift",
        "1.conv.weight": "weight",
        "1.norm.weight": "affine",
        "1.norm.bias": "affine",
        "2.weight": "weight",
        "2.bias": "bias",
    }


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_group_norm_without_gradients_is_torchs_and_more_exact(memory_format):
    generator = torch.Generator().manual_seed(0)
    x = 50 + 20 * torch.randn((2, 16, 40, 36), generator=generator)
    norm = layers.group_norm(with_groups(NUM_GROUPS=4), 16)
    norm.weight.data, norm.bias.data = torch.randn(2, 16, generator=generator)
    exact = F.group_norm(x.double(), 4, norm.weight.double(), norm.bias.double(), norm.eps)
    with torch.no_grad():
        ours = norm(x.clone(memory_format=memory_format))
    assert (ours - exact).abs().max() < 2e-5
    np.testing.assert_allclose(ours.numpy(), F.group_norm(x, 4, norm.weight, norm.bias).detach().numpy(), atol=1e-4)


# torch's own operator takes the maps in contiguous memory.
@pytest.mark.parametrize(("memory_format", "precision"), [(torch.channels_last, 1e-6), (torch.contiguous_format, 1e-5)])
def test_group_norm_sums_large_maps_exactly_in_training(memory_format, precision):
    generator = torch.Generator().manual_seed(0)
    x = 1 + torch.randn((2, 16, 200, 304), generator=generator)
    x = x.to(memory_format=memory_format).requires_grad_()
    norm = layers.group_norm(with_groups(NUM_GROUPS=4), 16)
    norm.weight.data, norm.bias.data = torch.randn(2, 16, generator=generator)
    inputs, gradient = (x, norm.weight, norm.bias), torch.randn(x.shape, generator=generator)
    ours = norm(x)
    exact = F.group_norm(x.double(), 4, norm.weight.double(), norm.bias.double(), norm.eps)
    assert (ours - exact).abs().max() < 3e-6
    expected = torch.autograd.grad(exact, inputs, gradient.double())
    for mine, theirs in zip(torch.autograd.grad(ours, inputs, gradient), expected, strict=True):
        assert (mine - theirs).abs().max() < precision * theirs.abs().max()


def test_group_norm_overwrites_its_input_only_without_gradients():
    norm = layers.group_norm(with_groups(NUM_GROUPS=2), 4)
    x = torch.randn(1, 4, 40, 40)
    before = x.clone()
    norm(x)
    assert torch.equal(x, before)
    with torch.no_grad():
        assert norm(x).data_ptr() == x.data_ptr()


def test_the_masks_of_one_class_are_those_of_all_classes_picked():
    cfg = with_groups(NUM_GROUPS=8)
    mask_head = "mask_rcnn_heads.mask_rcnn_fcn_head_v1up4convs_gn"
    mrcnn = dataclasses.replace(cfg.MRCNN, DIM_REDUCED=16, ROI_MASK_HEAD=mask_head)
    model = dataclasses.replace(cfg.MODEL, NUM_CLASSES=81)
    cfg = dataclasses.replace(cfg, FPN=dataclasses.replace(cfg.FPN, DIM=16), MODEL=model, MRCNN=mrcnn)
    head = MaskHead(cfg, 16, None)
    nn.init.normal_(head.mask_fcn_logits.bias)
    features, classes = torch.randn(3, 16, 14, 14), torch.tensor([80, 1, 80])
    parameters = [head.mask_fcn_logits.weight, head.mask_fcn_logits.bias, head.conv5_mask.weight]
    picked, of_classes = head(features)[torch.arange(3), classes], head.of_classes(features, classes)
    torch.testing.assert_close(of_classes, picked)
    gradient = torch.randn_like(picked)
    expected = torch.autograd.grad(picked, parameters, gradient)
    torch.testing.assert_close(torch.autograd.grad(of_classes, parameters, gradient), expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 8e-3)]
)
def test_group_norm_of_a_gpu_is_as_exact_as_its_maps(memory_format, dtype, tolerance):
    torch.manual_seed(0)
    x = (3 * torch.randn(2, 16, 60, 50) + 5).to(dtype).contiguous(memory_format=memory_format)
    weight, bias = torch.rand(16) + 0.5, torch.randn(16)
    exact = F.group_norm(x.double(), 4, weight.double(), bias.double(), 1e-5)
    ours = group_norm_in_place(x, weight, bias, 4, 1e-5)
    assert ours is x and ours.dtype == dtype
    assert float((ours.double() - exact).norm() / exact.norm()) < tolerance
