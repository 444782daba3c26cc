"""Max pooling gives its gradient to every position that ties for the maximum, as Caffe2's."""

import pytest
import torch
import torch.nn.functional as F

from detectron_gn.mrcnn.ops.max_pool import max_pool


def gradient(pool, x, seed=1):
    x = x.clone().requires_grad_()
    y = pool(x)
    y.backward(torch.rand(y.shape, generator=torch.Generator().manual_seed(seed)))
    return x.grad


@pytest.mark.parametrize("size", [(12, 16), (11, 7), (5, 6), (1, 1), (2, 3)])
def test_without_ties_the_gradient_is_torchs(size):
    x = torch.rand((2, 3, *size), generator=torch.Generator().manual_seed(0))
    ours = gradient(max_pool, x)
    theirs = gradient(lambda x: F.max_pool2d(x, 3, 2, 1), x)
    torch.testing.assert_close(ours, theirs)


def test_every_position_that_holds_the_maximum_gets_the_whole_gradient():
    """Caffe2's: on a flat 3 x 3 map each of the four windows gives its gradient to all of its positions."""
    x = torch.ones((1, 1, 3, 3), requires_grad=True)
    y = max_pool(x)
    y.backward(torch.tensor([[[[1.0, 10.0], [100.0, 1000.0]]]]))
    assert x.grad[0, 0].tolist() == [[1, 11, 10], [101, 1111, 1010], [100, 1100, 1000]]


def test_the_values_are_torchs_with_and_without_gradient():
    x = torch.rand((1, 2, 9, 10))
    assert torch.equal(max_pool(x), F.max_pool2d(x, 3, 2, 1))
    assert torch.equal(max_pool(x.requires_grad_()), F.max_pool2d(x, 3, 2, 1))


def test_channels_last_memory_stays_so():
    x = torch.rand((2, 8, 16, 16)).to(memory_format=torch.channels_last).requires_grad_()
    y = max_pool(x)
    y.sum().backward()
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert x.grad.is_contiguous(memory_format=torch.channels_last)
