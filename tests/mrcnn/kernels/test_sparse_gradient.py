"""The gradient of a convolution that is needed at few positions is the whole gradient."""

import pytest
import torch
import torch.nn.functional as F

from detectron_gn.mrcnn.kernels.sparse_gradient import sparse_gradient_conv


def random(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("positions", [[], [(0, 0, 0)], [(0, 0, 6), (1, 4, 0), (1, 4, 6), (1, 2, 3), (1, 2, 4)], "all"])
def test_the_gradient_of_few_positions_is_that_of_a_convolution(positions, memory_format):
    x = random(2, 3, 5, 7, seed=0).contiguous(memory_format=memory_format).requires_grad_()
    inputs = [x, random(4, 3, 3, 3, seed=1).requires_grad_(), random(4, seed=2).requires_grad_()]
    ours, torchs = sparse_gradient_conv(*inputs), F.conv2d(*inputs, padding=1)
    torch.testing.assert_close(ours, torchs)
    gradient = random(*torchs.shape, seed=3)
    if positions != "all":
        given = torch.zeros(2, 1, 5, 7)
        for image, y, x_ in positions:
            given[image, 0, y, x_] = 1
        gradient = gradient * given
    for got, expected in zip(*(torch.autograd.grad(out, inputs, gradient) for out in (ours, torchs)), strict=True):
        torch.testing.assert_close(got, expected)


def test_frozen_maps_get_no_gradient():
    x, weight, bias = random(1, 3, 8, 8, seed=0), random(4, 3, 3, 3, seed=1).requires_grad_(), random(4, seed=2)
    sparse_gradient_conv(x, weight, bias)[0, 0, 4, 4].backward()
    assert x.grad is None and torch.allclose(weight.grad[0], x[0, :, 3:6, 3:6])
