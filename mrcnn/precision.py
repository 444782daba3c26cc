"""Computing in fewer bits than float32, by option: docs/precision.md says what that changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
ROUNDED: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def tf32_products(allowed: bool) -> Iterator[None]:
    """Let GPUs take products of float32 from 10 bits of mantissa, or not, while the context is open.

    The switches are the process's (torch has TF32 on in convolutions by default), so they are put back afterwards.
    Threads that compute at the same time must want the same.
    """
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = allowed
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def round_products(model: nn.Module, dtype: torch.dtype) -> None:
    """Round the weights of all convolutions and linear layers, for good, so that they compute in `dtype`.

    The parameters of GroupNorm stay in float32.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            module.to(dtype)
