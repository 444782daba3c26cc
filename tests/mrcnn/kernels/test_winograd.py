"""3x3 convolutions by Winograd's algorithm give torch's values and gradients, nearly as exactly."""

import pytest
import torch
import torch.nn.functional as F

from detectron_gn.mrcnn.kernels.winograd import winograd_conv
from detectron_gn.mrcnn.layers import FilledConv2d


def random(*shape, seed=0, memory_format=torch.channels_last):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.contiguous(memory_format=memory_format)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("with_bias", [False, True])
# Heights that fill tiles and bands and that do not; several images that share a band, and one cut into several bands.
@pytest.mark.parametrize("shape", [(3, 5, 7, 9), (2, 6, 16, 4), (2, 4, 17, 5), (1, 3, 37, 6), (300, 4, 14, 14)])
def test_winograd_is_a_convolution(shape, with_bias, memory_format):
    x = random(*shape, memory_format=memory_format).requires_grad_()
    weight = random(8, shape[1], 3, 3, seed=1, memory_format=memory_format).requires_grad_()
    inputs = [x, weight] + ([random(8, seed=2, memory_format=torch.contiguous_format).requires_grad_()] * with_bias)
    ours, torchs = winograd_conv(x, weight, inputs[2] if with_bias else None), F.conv2d(*inputs, padding=1)
    torch.testing.assert_close(ours, torchs, rtol=0, atol=3e-5)
    gradient = random(*torchs.shape, seed=3)
    for got, expected in zip(*(torch.autograd.grad(out, inputs, gradient) for out in (ours, torchs)), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


def test_winograd_is_nearly_as_exact_as_plain_summation():
    # The textbook's points 0, 1, -1, 2, -2 give 1.3e-6; plain summation 6e-7.
    x, weight = random(4, 256, 16, 16).relu(), random(256, 256, 3, 3, seed=1)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    error = (winograd_conv(x, weight, None) - exact).norm() / exact.norm()
    assert error < 1e-6


# Large enough for the weight's gradient to be made by the algorithm too: one map, RoIs, and rows that fill no tile.
@pytest.mark.parametrize("shape", [(1, 192, 80, 80), (40, 192, 14, 14), (1, 192, 79, 85)])
def test_the_gradient_of_a_weight_is_nearly_as_exact_as_plain_summation(shape):
    x, weight = random(*shape).relu(), random(24, 192, 3, 3, seed=1).requires_grad_()
    made = winograd_conv(x, weight, None)
    gradient = random(*made.shape, seed=2)
    (found,) = torch.autograd.grad(made, weight, gradient)
    wide = weight.detach().double().requires_grad_()
    (exact,) = torch.autograd.grad(F.conv2d(x.double(), wide, padding=1), wide, gradient.double())
    assert (found - exact).norm() / exact.norm() < 1e-6


def test_frozen_weights_get_no_gradient():
    x, weight = random(1, 3, 8, 8).requires_grad_(), random(4, 3, 3, 3)
    winograd_conv(x, weight, None).sum().backward()
    assert x.grad is not None and weight.grad is None


@pytest.mark.parametrize(
    ("settings", "uses"),
    [({}, True), ({"kernel": 1}, False), ({"stride": 2}, False), ({"dilation": 2}, False), ({"groups": 2}, False)],
)
def test_layers_use_winograd_for_wide_plain_convolutions_of_large_maps_only(monkeypatch, settings, uses):
    used = []
    counted = lambda *args: used.append(args) or winograd_conv(*args)  # noqa: E731
    monkeypatch.setattr("detectron_gn.mrcnn.kernels.winograd_conv", counted)
    x = random(1, 192, 80, 80)
    with torch.no_grad():
        conv = FilledConv2d(192, 192, **{"kernel": 3} | settings)
        torch.testing.assert_close(conv(x), torch.nn.Conv2d.forward(conv, x), rtol=0, atol=1e-4)
        assert bool(used) == uses
        FilledConv2d(192, 192, 3)(x[:, :, :30, :30])
        FilledConv2d(192, 192, 3)(random(64, 192, 7, 7))
        FilledConv2d(192, 32, 3)(x)
    assert len(used) == uses
