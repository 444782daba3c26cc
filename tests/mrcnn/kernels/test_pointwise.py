"""1x1 convolutions as matrix products give torch's values and gradients."""

import pytest
import torch
import torch.nn.functional as F

from detectron_gn.mrcnn.kernels.pointwise import pointwise_conv
from detectron_gn.mrcnn.layers import FilledConv2d


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("dim_in", "dim_out"), [(3, 70), (70, 3), (96, 130)])
def test_a_product_of_rows_is_a_convolution(dim_in, dim_out, stride, with_bias, memory_format):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((2, dim_in, 7, 10), generator=generator, dtype=torch.float64).to(memory_format=memory_format)
    weight = torch.randn((dim_out, dim_in, 1, 1), generator=generator, dtype=torch.float64)
    inputs = [x.requires_grad_(), weight.to(memory_format=memory_format).requires_grad_()]
    bias = torch.randn(dim_out, generator=generator, dtype=torch.float64).requires_grad_() if with_bias else None
    inputs += [bias] if with_bias else []
    ours = pointwise_conv(inputs[0], inputs[1], bias, stride)
    torchs = F.conv2d(inputs[0], inputs[1], bias, stride)
    torch.testing.assert_close(ours, torchs)
    gradient = torch.randn(torchs.shape, generator=generator, dtype=torch.float64)
    ours = torch.autograd.grad(ours, inputs, gradient)
    torchs = torch.autograd.grad(torchs, inputs, gradient)
    torch.testing.assert_close(ours, torchs)
    assert ours[1].stride() == inputs[1].stride()


def test_frozen_weights_get_no_gradient():
    weight = torch.ones((4, 3, 1, 1))
    x = torch.ones((1, 3, 2, 2), requires_grad=True)
    pointwise_conv(x, weight, None, 1).sum().backward()
    assert x.grad is not None and weight.grad is None


def test_training_and_detecting_give_the_same_convolution():
    torch.manual_seed(0)
    conv = FilledConv2d(16, 24, 1, stride=2)
    x = torch.randn((2, 16, 9, 8))
    trained = conv(x)
    with torch.no_grad():
        torch.testing.assert_close(trained, conv(x))
