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
    name: str = "allow_tf32"
    value: bool | str = allowed
    if hasattr(torch.backends.cudnn, "conv"):
        # From torch 2.9 on; a process that uses these switches may not touch the older ones, and the other way it may.
        switches = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
        name, value = "fp32_precision", "tf32" if allowed else "ieee"
    before = [getattr(switch, name) for switch in switches]
    for switch in switches:
        setattr(switch, name, value)
    try:
        yield
    finally:
        for switch, own in zip(switches, before, strict=True):
            setattr(switch, name, own)


def round_products(model: nn.Module, dtype: torch.dtype) -> None:
    """Round the weights of all convolutions and linear layers, for good, so that they compute in `dtype`.

    The parameters of GroupNorm stay in float32.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            module.to(dtype)
