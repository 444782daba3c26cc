"""Which devices can be computed on."""

import pytest
import torch

from detectron_gn.mrcnn.distributed import usable_device
from detectron_gn.mrcnn.errors import InputError


@pytest.mark.parametrize("device", ["hpu", "foo", "", "cuda:63", "cuda:-1", "meta", "opengl", "privateuseone", "mtia"])
def test_a_device_that_is_not_there_is_told_with_those_that_are(device: str) -> None:
    with pytest.raises(InputError, match=f"^device {device} cannot be used: this machine has cpu.*; pass one of them$"):
        usable_device(device)


def test_a_device_that_is_there_is_taken() -> None:
    assert usable_device("cpu") == torch.device("cpu")
    assert usable_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
